"""`horae verify`: prints the report of `cluster.usecases.verify`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from cluster.core.ids import JOB_ID
from cluster.core.verify.findings import KINDS, NOTES, describe_counts
from cluster.store.queries import verify_records
from cluster.usecases.verify import Scope, VerifyReport, verify
from config.settings import load_settings
from ops.commands.completion import complete_jobs
from ops.commands.explain import parse_moment
from ops.commands.status import read_database
from ops.support.output import print_json, print_table, rfc3339

if TYPE_CHECKING:
    from cluster.core.verify.findings import VerifyCounts
    from cluster.store.mongo.client import Database

DAY_MS = 86_400_000
SHOWN = 20


@click.command("verify")
@click.option(
    "--since", default="1h", show_default=True, metavar="TIME", help="Check occurrences due at or after this time."
)
@click.option("--until", metavar="TIME", help="Check occurrences due up to this time. [default: now]")
@click.option("--job", "job_id", metavar="ID", shell_complete=complete_jobs, help="Check only this job.")
@click.option(
    "--late",
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="An execution sent later than this is reported as late.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def verify_command(since: str, until: str | None, job_id: str | None, late: float, as_json: bool) -> None:  # noqa: FBT001
    """Recompute which executions the schedules required, and compare them with all records. Exit status 1 on a finding.

    If nothing is found, each occurrence that the jobs in the database required in the time range is on record (with any
    result: see the counts), or in a missed range, or listed by a batch and not late; and no record contradicts another.
    This does not prove that a target acted on its request, nor that no record was removed together with its job.
    ops/decisions/0013-verify.md lists what verify cannot detect.

    TIME is a time such as 2026-12-01T10:00:00Z, 2026-12-01 10:00 or 10:00 (UTC), or 10m (10 minutes ago). The command
    changes nothing and reads one page at a time, so it can run beside a working cluster.

    \b
    missing        required by the schedule, but there is no record of it
    unexpected     sent, but no schedule of the job at that time was due then
    early, late    sent before its send time; sent, or still unsent, more than --late after it
    duplicate      sent twice, and no lost lease explains it (redelivered, no finding: one does)
    orphan         not finished, and no batch lists it, so it will not be sent
    contradiction  a record that cannot be true, or a document that cannot be read
    """  # noqa: D301 - click looks for the character itself
    parse_moment(since, DAY_MS)  # refuse invalid times before connecting
    parse_moment(until or "1s", DAY_MS)
    if late <= 0:
        raise click.BadParameter("must be greater than 0", param_hint="--late")
    if job_id is not None and not JOB_ID.match(job_id):
        raise click.BadParameter(f"'{job_id}' is not a job id", param_hint="--job")
    settings = load_settings()

    async def run(db: Database) -> VerifyReport | None:
        now = await verify_records.now_ms(db)
        up_to = None if until is None else parse_moment(until, now)
        days, timings = settings.retention_days, settings.timings
        scope = Scope(parse_moment(since, now), up_to, job_id, late, days, timings=timings)
        if scope.until_ms is not None and scope.until_ms < scope.since_ms:
            raise click.BadParameter("must not be before --since", param_hint="--until")
        if job_id is not None and not (await verify_records.jobs_to_verify(db, [job_id]))[0]:
            return None
        return await verify(db, scope, None if as_json or not sys.stderr.isatty() else _progress)

    report = read_database(run)
    if report is None:
        click.echo(f"horae: there is no job '{job_id}', and no record of one", err=True)
        sys.exit(2)
    if as_json:
        print_json(report_json(report))
    else:
        _print(report)
    sys.exit(0 if report.clean else 1)


def _progress(counts: VerifyCounts) -> None:
    click.echo(f"\r{counts.jobs} jobs, {counts.executions} executions", nl=False, err=True)


def report_json(report: VerifyReport) -> dict[str, Any]:
    """The report as `--json` prints it."""
    t = report.counts
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
        "clockDoubts": [
            {"since": rfc3339(since), "until": rfc3339(until), "byMs": by_ms} for since, until, by_ms in report.doubts
        ],
        "findings": [
            {"kind": f.kind, "jobId": f.job_id, "executionId": f.execution, "text": f.text} for f in report.findings
        ],
        "seconds": round(report.seconds, 2),
    }


def _print(report: VerifyReport) -> None:
    t = report.counts
    click.echo(
        f"{t.jobs} jobs, {t.occurrences} occurrences due from {rfc3339(report.since_ms)} to {rfc3339(report.until_ms)}, "
        f"{t.executions} executions, checked in {report.seconds:.1f} s."
    )
    click.echo(
        f"{t.missed} are recorded as missed, {t.waiting} are still to be written; "
        f"the longest delay was {t.longest_late_ms / 1000:.1f} s."
    )
    click.echo(f"Results: {', '.join(f'{n} {state}' for state, n in t.ended.items())}.")
    for since, until, by_ms in report.doubts:
        click.echo(
            f"The clock of MongoDB's primary was in doubt from {rfc3339(since)} to {rfc3339(until)}: "
            f"most hosts contradicted it by {by_ms / 1000:+.1f} s."
        )
    for kind in KINDS:
        of_kind = [f for f in report.findings if f.kind == kind]
        if of_kind:
            more = f", the first {min(SHOWN, len(of_kind))}" if t.findings[kind] > SHOWN else ""
            print_table(
                f"{kind}: {t.findings[kind]}{more}",
                ["execution", "what"],
                [(f.execution, f.text) for f in of_kind[:SHOWN]],
            )
    summary = describe_counts((k for k in KINDS if k not in NOTES), t)
    click.secho(
        f"FOUND: {summary}." if summary else "No findings: nothing is missing, and nothing is unexpected.", bold=True
    )
