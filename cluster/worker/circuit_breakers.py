"""The circuit breakers as one node knows them: the attempts it made itself, and what all nodes share through MongoDB.

Sending asks a dict and nothing else. The database is written to when a breaker changes and read once a second; a
breaker that this node opens holds here at once, and on the other nodes within a second.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

import structlog

from cluster.core.limits.circuit_breaker import (
    MAX_FAILED_JOBS,
    MIN_ATTEMPTS,
    PROBE_HOLD_MS,
    Admission,
    AttemptWindow,
    Breaker,
    is_host_failure,
    open_duration_ms,
    with_failed_job,
)
from cluster.store import breakers, deferred_batches

if TYPE_CHECKING:
    from cluster.clock import Clock
    from cluster.store.mongo.client import Database

log = structlog.get_logger()

PROBE_MARGIN_MS = 5_000
MAX_WINDOWS = 4096
MAX_PROBES = 16
"""Probes of one host that this node may have in flight: those that hang must not use up its slots."""


class CircuitBreakers:
    """The breakers of one node."""

    def __init__(self, db: Database, clock: Clock, node: str) -> None:
        self._db = db
        self._clock = clock
        self._node = node
        self._windows: dict[str, AttemptWindow] = {}
        self._open: dict[str, Breaker] = {}
        self._acquiring: set[str] = set()
        self._in_flight: Counter[str] = Counter()
        """By host, the probes of this node that have not ended."""
        self._unshared: set[str] = set()
        """Hosts whose breakers this node opened and has not written yet."""
        self._read_at = float("-inf")

    @property
    def age(self) -> float:
        """Seconds since the breakers of all nodes were read."""
        return self._clock.monotonic() - self._read_at

    @property
    def any_open(self) -> bool:
        """Whether any breaker is not closed, as far as this node knows."""
        return bool(self._open)

    def admission(self, host: str) -> Admission:
        """Whether one more request may be sent to this host."""
        if not self._open:
            return Admission.ALLOW
        breaker = self._open.get(host)
        if breaker is None:
            return Admission.ALLOW
        return Admission.HOLD if host in self._acquiring else breaker.admission(self._clock.now_ms())

    def hosts_blocked(self) -> list[str]:
        """Hosts to which nothing may be sent now."""
        return [host for host in self._open if self.admission(host) is Admission.HOLD]

    def open_until_ms(self, host: str) -> int | None:
        """Until when a host is held back; None if it is not."""
        breaker = self._open.get(host)
        return None if breaker is None else breaker.until_ms

    def failed_jobs(self, host: str) -> tuple[str, ...]:
        """The jobs that should not be its next probe, the one that failed last at the end."""
        breaker = self._open.get(host)
        return () if breaker is None else breaker.failed_jobs

    def waits_for_others(self, host: str) -> bool:
        """Whether the job that failed last may not be the probe yet, so that another job can be."""
        breaker = self._open.get(host)
        return breaker is not None and breaker.waits_for_others(self._clock.now_ms())

    def record_attempt(self, host: str, job_id: str, status: int | None, error: str | None) -> None:
        """An attempt of this job ended. Opens the breaker here if too many failed; `synchronise` shares it."""
        if host in self._open:
            return
        failed = is_host_failure(status, error)
        window = self._windows.get(host)
        if window is None:
            if not failed:
                return  # a host that never fails costs nothing
            if len(self._windows) >= MAX_WINDOWS:
                self._expire_windows()
            window = self._windows[host] = AttemptWindow()
        now = self._clock.monotonic()
        window.add(now, job_id, failed=failed)
        if not window.failed:
            del self._windows[host]
        elif failed and window.should_open():
            failing = window.failing_jobs()
            why = (
                f"{window.failed} of {window.total} attempts failed, the last one: {error or status}; "
                f"{len(failing)} of {window.jobs} jobs fail"
            )
            at = self._clock.now_ms()
            self._open[host] = Breaker(
                host=host,
                half_open=False,
                until_ms=at + open_duration_ms(1, len(failing)),
                opens=1,
                rev=1,
                opened_ms=at,
                why=why,
                node=self._node,
                failed_jobs=with_failed_job(tuple(failing[-MAX_FAILED_JOBS:]), job_id),
            )
            self._unshared.add(host)
            del self._windows[host]

    def _expire_windows(self) -> None:
        now = self._clock.monotonic()
        for window in self._windows.values():
            window.expire(now)
        self._windows = {h: w for h, w in self._windows.items() if w.total >= MIN_ATTEMPTS // 2}

    async def synchronise(self) -> set[str]:
        """Share the breakers that were opened here, learn those of other nodes. Returns the hosts that were closed meanwhile."""
        began, unshared, before = self._clock.monotonic(), set(self._unshared), set(self._open)
        for host in unshared:
            if await breakers.trip(self._db, self._open[host]):
                log.warning("breaker_opened", host=host, why=self._open[host].why)
            self._unshared.discard(host)
        now_open = {b.host: b for b in await breakers.list_all(self._db)}
        for host, breaker in self._open.items():  # opened or changed here during the read
            stored = now_open.get(host)
            newer = stored is not None and stored.opened_ms == breaker.opened_ms and stored.rev < breaker.rev
            if host in self._unshared or newer:
                now_open[host] = breaker
        self._open, self._read_at = now_open, max(began, self._read_at)
        for host in now_open:
            self._windows.pop(host, None)
        return before - now_open.keys()

    async def acquire_probe(self, host: str, job_id: str, timeout_seconds: float) -> Breaker | None:
        """Ask to send the one request that finds out whether the host is back. None: not now, or not this node."""
        seen = self._open.get(host)
        if seen is None or host in self._acquiring or host in self._unshared or self._in_flight[host] >= MAX_PROBES:
            return None
        self._acquiring.add(host)
        try:
            hold_ms = min(int(timeout_seconds * 1000) + PROBE_MARGIN_MS, PROBE_HOLD_MS)
            half_open = replace(
                seen,
                half_open=True,
                until_ms=self._clock.now_ms() + hold_ms,
                node=self._node,
                failed_jobs=with_failed_job(seen.failed_jobs, job_id),  # until it has an answer
            )
            won = await breakers.replace_if_unchanged(self._db, seen, half_open)
        finally:
            self._acquiring.discard(host)
        if won is not None:
            self._open[host] = won
            self._in_flight[host] += 1
            log.info("breaker_probed", host=host, job=job_id)
        return won

    async def finish_probe(self, won: Breaker, status: int | None, error: str | None) -> bool:
        """The probe that was `won` has ended: close the breaker, or leave it open for longer. True if it is closed now.

        Another probe may have been won meanwhile, if this one took long. Then a failure of this one says nothing new.
        """
        host = won.host
        self._probe_ended(host)
        if not is_host_failure(status, error):
            if await breakers.close_answered(self._db, won):
                log.info("breaker_closed", host=host, opens=won.opens)
                await deferred_batches.release_host(self._db, host)
            known = self._open.get(host)
            if known is not None and known.opened_ms == won.opened_ms:
                del self._open[host]
            return host not in self._open
        opens = won.opens + 1
        until = self._clock.now_ms() + open_duration_ms(opens, len(won.failed_jobs))
        changed = await breakers.replace_if_unchanged(
            self._db, won, replace(won, half_open=False, until_ms=until, opens=opens)
        )
        if changed is not None:
            self._open[host] = changed
            log.info("breaker_stays_open", host=host, opens=opens, why=error or str(status))
        return False

    async def abandon_probe(self, won: Breaker) -> None:
        """The probe was not sent after all: any node may send one, and its job has not failed."""
        self._probe_ended(won.host)
        changed = await breakers.replace_if_unchanged(
            self._db,
            won,
            replace(won, half_open=False, until_ms=self._clock.now_ms(), failed_jobs=won.failed_jobs[:-1]),
        )
        if changed is not None:
            self._open[won.host] = changed

    def _probe_ended(self, host: str) -> None:
        self._in_flight[host] -= 1
        if self._in_flight[host] <= 0:
            del self._in_flight[host]
