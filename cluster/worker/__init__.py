"""The worker of one node: it claims batches, sends their executions and records the results.

One way through: `claiming` leases a batch (`claim`), `dispatch` has its requests made ready (`prepare`) and sends them when
they are due (`run_queue`), as far as their hosts (`host_queues`, `circuit_breakers`, `slots`) and limits (`limit_queues`,
`rate_limiter`) let it. `results` has their results written (`record`), with the after-effects (`effects`); `release` puts
executions that cannot be sent soon back into the database; `lease_keeper` renews the leases meanwhile. `worker` puts the parts
together. Two tables describe the life of an execution: `held_batch` and, finer, `execution_states`.

Never here: rules that need no I/O (`cluster.core`), queries (`cluster.store`), work that only the leader does.
"""
