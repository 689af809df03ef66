"""Settings from the environment, logging, gunicorn, sample data."""
