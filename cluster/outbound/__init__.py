"""HTTP out: the only place that names httpx or aiohttp."""
