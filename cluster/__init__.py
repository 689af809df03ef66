"""The engine. Every node runs all of it; one node at a time leads.

The flow, as values: job -> execution -> batch -> claim -> attempt -> record.

    leader/     what only the leader of a term does: settle, materialise, catch up, replay, sweep, alert; the election
    worker/     what every node does: claim a batch, prepare, send, record, release
    usecases/   what the API and the commands ask for: change jobs, explain, verify
    core/       rules as values, without I/O
    store/      MongoDB: a module per collection, a function per query
    outbound/   HTTP and mail
    node.py     one node: boot, heartbeat, readiness, shutdown

A *term* is one leadership, by number. Only the node that holds the lease document may lead, and only while it trusts its
term; every write of a leader names the term, so that a stale leader moves nothing. A *lease* on a batch makes one node
its owner; every later write names the lease's token.

Invariants (`cluster/README.md` has them in full, with their tests):

1. No occurrence is lost.        4. Duplicates only by need.
2. At least once.                5. Lateness is bounded.
3. One owner.                    6. Nothing is silent.
"""
