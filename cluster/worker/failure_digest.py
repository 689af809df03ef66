"""A digest of failures: the log has a broken target once per interval, instead of a line per attempt."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from urllib.parse import urlsplit

MAX_HOSTS = 200
OTHERS = "others"
"""Hosts beyond `MOST_HOSTS` within one interval are counted together under this name."""


@dataclass(slots=True)
class FailingHost:
    """The failed attempts at one host: how many, of which kinds, and the execution that failed last."""

    host: str
    attempts: int = 0
    results: Counter[str] = field(default_factory=Counter)
    execution: str = ""

    def add(self, result: str, execution: str) -> None:
        """One more failed attempt."""
        self.attempts += 1
        self.results[result] += 1
        self.execution = execution


class FailureDigest:
    """Failures since it was last taken. Bounded: it holds counts, never requests."""

    def __init__(self) -> None:
        self._hosts: dict[str, FailingHost] = {}

    def add(self, url: str, result: str, execution: str) -> None:
        """One failed attempt. Of the URL only host and port are kept: the rest may hold secrets."""
        host = urlsplit(url).netloc.rpartition("@")[2]
        if host not in self._hosts and len(self._hosts) >= MAX_HOSTS:
            host = OTHERS
        self._hosts.setdefault(host, FailingHost(host)).add(result, execution)

    def take(self) -> list[FailingHost]:
        """All hosts that failed, the worst first; counting starts at zero."""
        taken, self._hosts = self._hosts, {}
        return sorted(taken.values(), key=lambda f: -f.attempts)
