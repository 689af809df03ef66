"""`horae verify`: recomputes what each job owed and compares it with the records. Values in, findings out.

It checks the engine, so it must not share the engine's code: it never imports `cluster.core.schedule` or the store.
`oracle` computes occurrences, `expected` the rules of one job, `records` what one record may say; `judge` compares.
"""
