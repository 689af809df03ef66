"""The `horae` command, the server process, the embedded MongoDB and the benchmarks. No rule of scheduling is here."""
