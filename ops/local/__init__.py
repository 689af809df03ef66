"""Clusters on one machine (`make run`, `make cluster`), the receiver, and the setup of docker-compose.yml. Not for production."""
