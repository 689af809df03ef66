"""Executions, batches and attempts as values: how they are planned, what an attempt's answer means, how they are traced.

No database, no HTTP and no clock here: the store, the worker and the leader act on these values.
"""
