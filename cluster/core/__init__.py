"""The rules, as pure functions and values: no I/O, no clock, no randomness, no logging.

Instants are `int` milliseconds since 1970 UTC. A duration names its unit. Imports point inwards: `verify`, `documents`
and `explain` use `job`, `job` uses `execution`, and `execution` uses `schedule` and `limits`.
"""
