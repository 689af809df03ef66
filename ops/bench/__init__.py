"""Benchmarks: `horae bench` and the scripts beside it. No node imports them."""
