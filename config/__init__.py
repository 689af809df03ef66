"""Settings from the environment, logging, options of gunicorn, and files for operators. Nothing here runs by itself."""
