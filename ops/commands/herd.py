"""`horae herd`: how many jobs are due per second and minute over the next hour or day, and what spreading would do."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from cluster.core.schedule.forecast import bars, forecast
from cluster.store import nodes
from cluster.store.queries import schedule_load
from ops.commands.status import read_database
from ops.support.output import print_json, print_table, rfc3339

if TYPE_CHECKING:
    from cluster.core.schedule.forecast import Forecast, JobGroup
    from cluster.store.mongo.client import Database

SPREADS = (10, 60, 300)
WORST = 5
COMPUTE_SECONDS = 20.0


@click.command("herd")
@click.option("--day", is_flag=True, help="The next day instead of the next hour.")
@click.option("--json", "form", is_flag=True, help="Print JSON.")
def herd_command(day: bool, form: bool) -> None:  # noqa: FBT001 - click passes options by name
    """A picture of how many jobs are due per second and minute, the worst seconds, and what spreadSeconds would do."""

    async def read(db: Database) -> tuple[list[JobGroup], int]:
        _, now = await nodes.nodes_and_clock(db)
        return await schedule_load.jobs_by_schedule(db), now

    found, now = read_database(read)
    seconds = 86_400 if day else 3600
    until = time.monotonic() + COMPUTE_SECONDS
    seen = forecast(found, now - now % 1000 + 1000, seconds, lambda: time.monotonic() < until)
    jobs = sum(h.jobs for h in found)
    if form:
        print_json(
            {
                "from": rfc3339(seen.from_ms),
                "seconds": seconds,
                "jobs": jobs,
                "distinctSchedules": len({h.key for h in found}),
                "sends": round(sum(seen.per_second)),
                "worst": [{"at": rfc3339(at), "sends": n} for at, n in seen.busiest(WORST)],
                "perMinute": [round(n, 1) for n in seen.buckets(60)],
                "worstSecondIfSpread": {str(s): round(seen.busiest_if_spread(s), 1) for s in SPREADS},
                "jobsLeftOut": seen.jobs_not_counted,
            }
        )
    else:
        _picture(seen, jobs, len({h.key for h in found}), day=day)


def _picture(seen: Forecast, jobs: int, distinct: int, *, day: bool) -> None:
    total = sum(seen.per_second)
    click.echo(
        f"{jobs} active job(s) on {distinct} distinct schedule(s): {total:.0f} sends in the next {'day' if day else 'hour'}."
    )
    if seen.jobs_not_counted:
        click.echo(
            f"{seen.jobs_not_counted} of the jobs are not counted: there was no time for all schedules.", err=True
        )
    if total <= 0:
        return
    rows = seen.buckets(900 if day else 60)
    name = "quarter of an hour" if day else "minute"
    click.echo(f"\nper {name}, from {rfc3339(seen.from_ms)}; the highest is {max(rows):.0f}")
    click.echo(bars(rows))
    folded = [0.0] * 60
    for i, n in enumerate(seen.per_second):
        folded[(seen.from_ms // 1000 + i) % 60] += n
    click.echo("\nby second of the minute, 0 to 59, all together")
    click.echo(f"{bars(folded)}\n")
    worst = seen.busiest(WORST)
    print_table("the worst seconds", ["at", "sends"], [(rfc3339(at), round(n)) for at, n in worst])
    print_table(
        "the worst second if every job had",
        ["spreadSeconds", "sends"],
        [("as it is", round(worst[0][1])), *((str(s), round(seen.busiest_if_spread(s), 1)) for s in SPREADS)],
    )
