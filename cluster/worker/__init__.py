"""The worker of one node: it claims batches, sends their executions and records what came of them.

One way through: `claiming` leases a batch (`claim`), `dispatch` has its requests made ready (`prepare`) and sends them when
they are due (`run_queue`), as far as their hosts (`host_queues`, `circuit_breakers`, `slots`) and limits (`limit_queues`,
`rate_limiter`) let it. `results` records what came of them (`record`) with what follows from it (`effects`); `release` puts
back into the database what cannot be sent soon; `lease_keeper` renews the leases meanwhile. `worker` puts the parts
together. The life of an execution is told by two tables: `held_batch` and, finer, `execution_states`.

What never lives here: rules that need no I/O (`cluster.core`), queries (`cluster.store`), anything that only a leader does.
"""
