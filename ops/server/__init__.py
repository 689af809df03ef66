"""`horae serve`: checks at start, gunicorn, one node per worker process, metrics of all workers, traces."""
