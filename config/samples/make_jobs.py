"""Writes `jobs.ndjson`: 200 jobs of an imaginary small company, all with the local receiver as their target.

.venv/bin/python config/samples/make_jobs.py > config/samples/jobs.ndjson
"""

from __future__ import annotations

import sys
from typing import Any

import orjson

BASE = "http://127.0.0.1:5001"
CITIES = [
    ("berlin", "Europe/Berlin"),
    ("london", "Europe/London"),
    ("new-york", "America/New_York"),
    ("chicago", "America/Chicago"),
    ("los-angeles", "America/Los_Angeles"),
    ("sao-paulo", "America/Sao_Paulo"),
    ("mumbai", "Asia/Kolkata"),
    ("singapore", "Asia/Singapore"),
    ("tokyo", "Asia/Tokyo"),
    ("sydney", "Australia/Sydney"),
]
SHOPS = [f"shop-{n:02}" for n in range(1, 21)]
QUICK = {"maxAttempts": 4, "initialDelaySeconds": 1, "multiplier": 2, "maxDelaySeconds": 10, "jitter": 0.2}

jobs: list[dict[str, Any]] = []


def job(job_id: str, name: str, schedule: str, path: str, *tags: str, host: str = BASE, **more: Any) -> None:
    """Add one job."""
    jobs.append(
        {
            "jobId": job_id,
            "name": name,
            "schedule": schedule,
            "api": f"{host}{path}",
            "type": "ATLEAST_ONCE",
            "tags": list(tags),
            **more,
        }
    )


# Every few seconds, so that the demo is busy.
for i, shop in enumerate(SHOPS):
    job(f"stock-{shop}", f"Sync stock of {shop}", f"*/{2 + i % 4} * * * * *", f"/ok/stock/{shop}", "sync", "stock",
        body={"shop": shop})  # fmt: skip
for shop in SHOPS:
    job(f"orders-{shop}", f"Fetch new orders of {shop}", "@every 5s", f"/ok/orders/{shop}", "sync", "orders",
        timeoutSeconds=5)  # fmt: skip
for n in range(1, 11):
    job(
        f"heartbeat-{n:02}",
        f"Heartbeat of worker {n}",
        "* * * * * *",
        f"/ok/heartbeat/{n}",
        "monitoring",
        catchUp="none",
    )
# About every minute.
for i, shop in enumerate(SHOPS):
    job(f"prices-{shop}", f"Push prices to {shop}", f"{i * 3} * * * * *", f"/ok/prices/{shop}", "sync", "prices")
for i in range(10):
    job(f"queue-{i}", f"Check mail queue {i}", f"{i} */2 * * * *", f"/ok/queue/{i}", "mail", catchUp="latest")
# Business hours, in the time zones of the customers.
for city, zone in CITIES:
    job(f"standup-{city}", f"Stand-up reminder, {city}", "0 55 8 * * MON-FRI", f"/ok/reminder/standup/{city}", "reminder",
        timezone=zone, body={"text": "Stand-up in five minutes"})  # fmt: skip
    job(f"support-{city}", f"Open support tickets, {city}", "0 */10 9-17 * * MON-FRI", f"/ok/support/{city}", "support",
        timezone=zone)  # fmt: skip
    job(f"report-{city}", f"Daily sales report, {city}", "31 10-15 18 * * MON-FRI", f"/ok/report/daily/{city}", "report",
        timezone=zone, spreadSeconds=30)  # fmt: skip
    job(f"cleanup-{city}", f"Nightly clean-up, {city}", "0 30 2 * * *", f"/ok/cleanup/{city}", "cleanup", timezone=zone,
        catchUp="latest", timeoutSeconds=60)  # fmt: skip
# Billing: weekly, at the end of the month, on the first working days.
for shop in SHOPS:
    job(f"invoice-{shop}", f"Monthly invoice of {shop}", "0 0 6 L * *", f"/ok/invoice/{shop}", "billing", "invoice",
        timezone="Europe/Berlin", retry={**QUICK, "maxAttempts": 8}, body={"shop": shop, "currency": "EUR"})  # fmt: skip
for i, city in enumerate(c for c, _ in CITIES):
    job(f"payroll-{city}", f"Payroll run, {city}", f"0 {i * 5} 7 25W * *", f"/ok/payroll/{city}", "billing", "payroll")
job("dunning", "Send dunning letters", "0 0 10 * * TUE#1", "/ok/dunning", "billing")
job("vat-report", "Quarterly VAT report", "0 0 8 10 1,4,7,10 *", "/ok/vat", "billing", "report")
job("books-close", "Close the books", "0 0 3 1 * *", "/ok/books", "billing", startAt="2026-12-01T00:00:00Z")
job("audit-friday", "Audit on the last Friday", "0 0 16 * * L5", "/ok/audit", "report")
job("backup-weekly", "Weekly full backup", "@weekly", "/ok/backup/full", "cleanup")
job("backup-daily", "Daily backup", "@daily", "/ok/backup/daily", "cleanup")
# One-off and seasonal jobs.
for n in range(1, 11):
    job(
        f"launch-mail-{n:02}",
        f"Launch mail to group {n}",
        f"@at 2031-05-0{1 + n % 9}T{8 + n % 8:02}:00:00Z",
        f"/ok/launch/{n}",
        "mail",
    )
for n in range(1, 2):
    job(f"season-{n}", f"Seasonal campaign {n}", "0 0 9 * * *", f"/ok/season/{n}", "mail",
        startAt=f"2031-0{n}-01T00:00:00Z", endAt=f"2031-0{n}-15T00:00:00Z", timezone="Europe/Paris")  # fmt: skip
# Failing and slow targets.
for n in range(1, 9):
    job(f"flaky-{n}", f"Flaky partner {n}: fails first, then answers", f"{n}/10 * * * * *", f"/fail/{1 + n % 3}/partner-{n}",
        "partner", "flaky", retry=QUICK)  # fmt: skip
for n in range(1, 7):
    job(f"slow-{n}", f"Slow partner {n}", "@every 10s", f"/slow/{300 * n}/partner-{n}", "partner", "slow",
        overlap="skip" if n > 3 else "allow")  # fmt: skip
for n, code in enumerate((500, 503, 404, 410), 1):
    job(f"broken-{n}", f"Broken partner {n}: always {code}", "*/30 * * * * *", f"/status/{code}/partner-{n}", "partner",
        "broken", retry={**QUICK, "maxAttempts": 3, "maxDelaySeconds": 3})  # fmt: skip
job("hanging", "A partner that never answers", "0 * * * * *", "/hang/partner", "partner", "broken", timeoutSeconds=3,
    retry={**QUICK, "maxAttempts": 2})  # fmt: skip
job("resetting", "A partner that cuts the connection", "30 * * * * *", "/reset/partner", "partner", "broken",
    retry={**QUICK, "maxAttempts": 2})  # fmt: skip
# Trouble worth looking at: a host of its own that is down, so that its circuit breaker opens, and many jobs on
# second 0. What is older than `maxAgeSeconds` is given up when the host is tried again.
for n in range(1, 5):
    job(f"outage-{n}", f"Warehouse {n}: its host is down", f"*/{1 + n % 2} * * * * *", f"/status/503/warehouse-{n}", "warehouse",
        "broken", host="http://localhost:5001", retry={**QUICK, "maxAttempts": 3, "maxAgeSeconds": 20})  # fmt: skip
for n in range(1, 10):
    job(
        f"newsletter-{n}",
        f"Newsletter {n}, with all others at second 0",
        "0 * * * * *",
        f"/ok/newsletter/{n}",
        "mail",
        "herd",
    )

if __name__ == "__main__":
    sys.stdout.write("".join(orjson.dumps(j).decode() + "\n" for j in jobs))
