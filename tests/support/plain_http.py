"""HTTP calls to processes on loopback. `httpx.get` reads all certificates each time, which takes 40 ms of CPU."""

from __future__ import annotations

import httpx

# A connection for each call: one that is kept may be that of a process that was killed meanwhile.
_client = httpx.Client(verify=False, limits=httpx.Limits(max_keepalive_connections=0), timeout=5.0)

delete = _client.delete
get = _client.get
patch = _client.patch
post = _client.post
put = _client.put
request = _client.request
