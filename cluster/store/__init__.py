"""MongoDB: the only place that names pymongo or bson. One file per collection, one named function per query.

Every write is a single-document atomic write, or many of them in one command; no transactions (`cluster/README.md`, "Documents").
"""
