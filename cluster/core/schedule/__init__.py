"""When a job is due: cron syntax, occurrences, descriptions and the load forecast.

No job, no execution and no clock here. `cluster.core.verify` must not import this package, because it checks it.
"""
