"""MongoDB. Nothing outside this package names pymongo or bson, and nothing in it decides: rules are in `cluster.core`.

- One file per collection, one named function per query. A collection with several very different readers has one file for
  each: `jobs` (as defined), `engine_jobs` (as sent and scheduled), `alert_jobs`; `history`, `alert_results`, `replayable`.
- `enqueue` is the protocol that writes what is owed. `queries` read several collections, `maintenance` is for operators,
  `mongo` is the driver: clients, errors, documents to values, encryption, schema.
- A write changes one document atomically, or many documents one by one in one command. There are no transactions. A write
  that finishes work or changes ownership filters on the batch and token, term or `rev` that were read.
"""
