"""Protections of the engine, taken out one by one: the named test must fail."""
