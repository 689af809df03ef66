"""Other schedulers, measured beside Horae in one run on one machine: `make bench-peers`."""
