"""Who may send now: circuit breakers of hosts, slots of hosts on one node, and permits under shared limits.

Rules only: the worker keeps the counts, and `cluster.store` keeps what nodes share.
"""
