"""The rules as pure functions and values: no I/O, no clock, no randomness, no logging.

Instants are `int` milliseconds since 1970 UTC, durations say their unit in their name.
"""
