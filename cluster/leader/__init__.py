"""The work that only the leader of a term does, and the election of the leader.

`elector` holds the term. `leader` runs the steps in a sequential loop while the term is trusted; alerts and pruning have
loops of their own. A step does one bounded piece of work, returns what it did, and may be repeated from its start. Steps
never import each other; they share a frozen `LeaderContext`.

Never here: requests to targets (`worker/`), decisions that need no I/O (`core/`).
"""
