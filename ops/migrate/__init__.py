"""Moving in: definitions of other schedulers (crontab, Kubernetes, EventBridge) become jobs. Nothing is read or sent here."""
