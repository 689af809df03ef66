"""The engine: elect, materialise, claim, send, record. See `cluster/README.md` for the protocols."""
