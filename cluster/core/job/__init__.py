"""A job as a value, and what each request makes of it.

No JSON here: `cluster.core.documents` reads and writes that. No database: `cluster.store.jobs` stores the values.
"""
