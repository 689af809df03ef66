"""`horae herd`: how many jobs are due per second over the next hour or day, and the effect of `spreadSeconds`."""

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
@click.option("--day", is_flag=True, help="Look at the next day instead of the next hour.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def herd_command(day: bool, as_json: bool) -> None:  # noqa: FBT001 - click passes options by name
    """Show how many jobs are due at the same time: a chart, the worst seconds, and the effect of spreadSeconds."""

    async def read(db: Database) -> tuple[list[JobGroup], int]:
        _, now = await nodes.nodes_and_clock(db)
        return await schedule_load.jobs_by_schedule(db), now

    groups, now = read_database(read)
    seconds = 86_400 if day else 3600
    until = time.monotonic() + COMPUTE_SECONDS
    load = forecast(groups, now - now % 1000 + 1000, seconds, lambda: time.monotonic() < until)
    jobs = sum(h.jobs for h in groups)
    if as_json:
        print_json(
            {
                "from": rfc3339(load.from_ms),
                "seconds": seconds,
                "jobs": jobs,
                "distinctSchedules": len({h.key for h in groups}),
                "sends": round(sum(load.per_second)),
                "worst": [{"at": rfc3339(at), "sends": n} for at, n in load.busiest(WORST)],
                "perMinute": [round(n, 1) for n in load.buckets(60)],
                "worstSecondIfSpread": {str(s): round(load.busiest_if_spread(s), 1) for s in SPREADS},
                "jobsLeftOut": load.jobs_not_counted,
            }
        )
    else:
        _print(load, jobs, len({h.key for h in groups}), day=day)


def _print(load: Forecast, jobs: int, distinct: int, *, day: bool) -> None:
    total = sum(load.per_second)
    click.echo(
        f"{jobs} active job(s) on {distinct} distinct schedule(s): {total:.0f} sends in the next {'day' if day else 'hour'}."
    )
    if load.jobs_not_counted:
        click.echo(
            f"{load.jobs_not_counted} job(s) are not counted: all schedules would take more than {COMPUTE_SECONDS:.0f} s.",
            err=True,
        )
    if total <= 0:
        return
    rows = load.buckets(900 if day else 60)
    name = "quarter of an hour" if day else "minute"
    click.echo(f"\nper {name}, from {rfc3339(load.from_ms)}; the highest is {max(rows):.0f}")
    click.echo(bars(rows))
    by_second = [0.0] * 60
    for i, n in enumerate(load.per_second):
        by_second[(load.from_ms // 1000 + i) % 60] += n
    click.echo("\nby second of the minute, 0 to 59, summed over all minutes")
    click.echo(f"{bars(by_second)}\n")
    worst = load.busiest(WORST)
    print_table("the worst seconds", ["at", "sends"], [(rfc3339(at), round(n)) for at, n in worst])
    print_table(
        "the worst second if all jobs had spreadSeconds",
        ["spreadSeconds", "sends"],
        [("as now", round(worst[0][1])), *((str(s), round(load.busiest_if_spread(s), 1)) for s in SPREADS)],
    )
