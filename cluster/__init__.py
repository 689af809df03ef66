"""The engine. Every node runs all of it; one node at a time leads.

The flow, as values:

    API -> job -> materialise -> batch -> claim -> dispatch -> record
           leader/ ------------------->   worker/ ---------------->

A request changes a *job*, in one document. The leader materialises its occurrences as *executions*, in *batches*, 15 s
before they are due. Any node claims a batch, sends its executions when they are due, and records what came of them.

    leader/       the steps of the leader: settle, materialise, catch up, replay, sweep, alert; the election
    worker/       the work of every node: claim a batch, prepare, send, record, release
    usecases/     what the API and the commands ask for: change jobs, trigger, replay, import, explain, verify
    core/         rules as values, without I/O
    store/        MongoDB: a module per collection, a function per query
    outbound/     HTTP and mail
    node.py       one node: boot, readiness, shutdown
    heartbeat.py  shows that the node is alive, reads the database's clock, watches the other nodes
    stats_rollup.py, metrics.py   what a node counted: per minute in the database; as readings for `/metrics`
    loops.py, clock.py            loops that no error ends; the only source of time

A *term* is one leadership, by number. Only the node that holds the lease document may lead, and only while it trusts its
term: until the start of its last successful renewal + lease - margin, on its own monotonic clock. A node takes over when
the holder resigned, or was silent for a lease. Every write of a leader that moves a schedule names the term, so that a
stale leader moves nothing. A *lease* on a batch makes one node its owner; every later write names the lease's token.

Invariants (`cluster/README.md` has them in full, with their tests):

1. No occurrence is lost.        4. Duplicates only by need.
2. At least once.                5. Lateness is bounded.
3. One owner.                    6. Nothing is silent.
"""
