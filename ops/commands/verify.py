"""`horae verify`: the auditor's command. What it finds is in `cluster.usecases.verify`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from cluster.core.ids import JOB_ID
from cluster.core.verify.findings import KINDS, NOTES
from cluster.store.queries import verify_records
from cluster.usecases.verify import Scope, VerifyReport, describe_counts, verify
from config.settings import load_settings
from ops.commands.explain import parse_moment
from ops.commands.status import read_database
from ops.support.output import print_json, print_table, rfc3339

if TYPE_CHECKING:
    from cluster.core.verify.findings import VerifyCounts
    from cluster.store.mongo.client import Database

DAY_MS = 86_400_000
SHOWN = 20


@click.command("verify")
@click.option("--since", default="1h", show_default=True, metavar="TIME", help="Occurrences due from then on.")
@click.option("--until", metavar="TIME", help="Occurrences due up to then (now).")
@click.option("--job", "job_id", metavar="ID", help="This job alone.")
@click.option("--late", default=60.0, show_default=True, metavar="SECONDS", help="What is later than this is late.")
@click.option("--json", "form", is_flag=True, help="Print JSON.")
def verify_command(since: str, until: str | None, job_id: str | None, late: float, form: bool) -> None:  # noqa: FBT001
    """Recompute all that was owed, and compare it with every record there is. Exit 1 on a finding.

    If nothing is found, each occurrence that the jobs in the database owed within the range is on record (as whatever it
    ended: look at the counts), within a missed range, or still owed by a batch and not late; and no record contradicts
    another. That does not prove that a target acted, nor that nothing was removed together with its job:
    ops/decisions/0013-verify.md lists what cannot be seen.

    TIME is such as 2026-12-01T10:00:00Z, 2026-12-01 10:00 or 10:00 (UTC), or 10m: so long ago. Changes nothing, and
    asks one page at a time, so it may run beside a working cluster.

    \b
    missing        owed by the schedule, and there is no record of it
    unexpected     sent, and no schedule the job had then is due at that instant
    early, late    sent before its send time; sent, or still owed, later than --late after it
    duplicate      sent twice, and no lost lease explains it (redelivered, no finding: one does)
    orphan         still owed, and no batch lists it, so nobody will send it
    contradiction  a record that cannot be true, or a document that cannot be read
    """  # noqa: D301 - click looks for the character itself
    parse_moment(since, DAY_MS)  # a wrong one is told before anything is asked
    parse_moment(until or "1s", DAY_MS)
    if late <= 0:
        raise click.BadParameter("must be more than 0", param_hint="--late")
    if job_id is not None and not JOB_ID.match(job_id):
        raise click.BadParameter(f"'{job_id}' is no job id", param_hint="--job")
    settings = load_settings()

    async def run(db: Database) -> VerifyReport | None:
        now = await verify_records.now_ms(db)
        up_to = None if until is None else parse_moment(until, now)
        days, timings = settings.retention_days, settings.timings
        scope = Scope(parse_moment(since, now), up_to, job_id, late, days, timings=timings)
        if scope.until_ms is not None and scope.until_ms < scope.since_ms:
            raise click.BadParameter("lies before --since", param_hint="--until")
        if job_id is not None and not (await verify_records.jobs_to_verify(db, [job_id]))[0]:
            return None
        return await verify(db, scope, None if form or not sys.stderr.isatty() else _progress)

    report = read_database(run)
    if report is None:
        click.echo(f"horae: there is no job '{job_id}', and no trace of one", err=True)
        sys.exit(2)
    if form:
        print_json(report_json(report))
    else:
        _print(report)
    sys.exit(0 if report.clean else 1)


def _progress(tally: VerifyCounts) -> None:
    click.echo(f"\r{tally.jobs} jobs, {tally.executions} executions", nl=False, err=True)


def report_json(report: VerifyReport) -> dict[str, Any]:
    """The report as JSON has it."""
    t = report.tally
    return {
        "clean": report.clean,
        "since": rfc3339(report.since_ms),
        "until": rfc3339(report.until_ms),
        "jobs": t.jobs,
        "occurrences": t.occurrences,
        "executions": t.executions,
        "recordedAsMissed": t.missed,
        "waiting": t.waiting,
        "longestLateMs": t.longest_late_ms,
        "counts": t.findings,
        "ended": t.ended,
        "findings": [
            {"kind": f.kind, "jobId": f.job_id, "executionId": f.execution, "text": f.text} for f in report.findings
        ],
        "seconds": round(report.seconds, 2),
    }


def _print(report: VerifyReport) -> None:
    t = report.tally
    click.echo(
        f"{t.jobs} jobs, {t.occurrences} occurrences due from {rfc3339(report.since_ms)} to {rfc3339(report.until_ms)}, "
        f"{t.executions} executions, looked at in {report.seconds:.1f} s."
    )
    click.echo(
        f"{t.missed} are recorded as missed, {t.waiting} wait to be written down; "
        f"the longest delay was {t.longest_late_ms / 1000:.1f} s."
    )
    click.echo(f"How they ended: {', '.join(f'{n} {state}' for state, n in t.ended.items())}.")
    for kind in KINDS:
        some = [f for f in report.findings if f.kind == kind]
        if some:
            more = f", the first {min(SHOWN, len(some))}" if t.findings[kind] > SHOWN else ""
            print_table(
                f"{kind}: {t.findings[kind]}{more}",
                ["execution", "what"],
                [(f.execution, f.text) for f in some[:SHOWN]],
            )
    bad = describe_counts((k for k in KINDS if k not in NOTES), t)
    click.secho(f"FOUND: {bad}." if bad else "Nothing is missing, nothing is there that should not be.", bold=True)
