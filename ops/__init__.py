"""The command line and everything around the nodes: wiring, embedded MongoDB, tables, benches."""
