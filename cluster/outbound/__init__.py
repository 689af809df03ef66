"""Requests and mail to targets. Nothing outside this package opens a connection to a target or names httpx.

Whatever happens to a request, its result is a value (`sender.Reply`). The package knows no database and no schedule; who
may be sent to is decided by `core.targets` and enforced by `address_guard`.
"""
