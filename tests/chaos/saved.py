"""Runs on disk: written, read, checked again and drawn. `python -m tests.chaos.saved RUN.json`."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

from tests.chaos.checker import check, figures
from tests.chaos.evidence import Bounds, Call, Fault, Leader, Recorded, Run, Seen, Target, Trigger

WIDTH, HEIGHT = 1600, 420


def save(run: Run, file: Path) -> None:
    """Write a run as JSON."""
    file.write_text(json.dumps(asdict(run)))


def load(file: Path) -> Run:
    """Read a run that `save` wrote."""
    d = json.loads(file.read_text())
    return Run(
        tuple(Target(**t) for t in d["targets"]),
        tuple(Seen(**s) for s in d["seen"]),
        tuple(Recorded(**{**r, "attempts": tuple((n, k, s) for n, k, s in r["attempts"])}) for r in d["recorded"]),
        tuple(Fault(**{**f, "explains": tuple(f["explains"])}) for f in d["faults"]),
        tuple(Leader(**x) for x in d["leaders"]),
        tuple(d["owed"]),
        Bounds(**d["bounds"]),
        tuple(Call(**c) for c in d["calls"]),
        tuple(Trigger(**t) for t in d["triggers"]),
        tuple(d["verified"]),
    )


def timeline(run: Run) -> str:
    """An SVG: what was due and what came in each second, the longest lateness, the faults and the terms."""
    at = [*(t.due_ms for t in run.targets), *(s.at_ms for s in run.seen)]
    low, high = min(at), max(at) + 1
    due, came, late = [dict[int, int]() for _ in range(3)]
    when = {t.execution: t.due_ms for t in run.targets}
    for t in run.targets:
        if t.duty == "must":
            due[t.due_ms // 1000] = due.get(t.due_ms // 1000, 0) + 1
    for s in run.seen:
        came[s.at_ms // 1000] = came.get(s.at_ms // 1000, 0) + 1
        if s.attempt == 1 and s.execution in when:
            second = when[s.execution] // 1000
            late[second] = max(late.get(second, 0), s.at_ms - when[s.execution])

    def x(ms: int) -> float:
        return round((ms - low) / (high - low) * WIDTH, 1)

    def line(values: dict[int, int], base: int, colour: str) -> str:
        top = max([1, *values.values()])
        points = " ".join(f"{x(k * 1000)},{base - v / top * 100:.0f}" for k, v in sorted(values.items()))
        return f'<polyline points="{points}" fill="none" stroke="{colour}"/>'

    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" font-family="sans-serif">']
    for f in run.faults:
        width = max(1.0, x(f.end_ms) - x(f.start_ms))
        parts.append(
            f'<rect x="{x(f.start_ms)}" width="{width}" height="{HEIGHT}" fill="#f002"><title>{f.kind}</title></rect>'
        )
    terms = {seen.term: seen.at_ms for seen in reversed(run.leaders)}
    parts += [f'<text x="{x(ms)}" y="410" font-size="10">term {term}</text>' for term, ms in sorted(terms.items())]
    parts += [line(due, 120, "#888"), line(came, 240, "#06c"), line(late, 370, "#c40")]
    parts += [
        f'<text x="4" y="{y}" font-size="11">{text}</text>'
        for y, text in (
            (14, "due in each second"),
            (134, f"arrivals in each second (most: {max([0, *came.values()])})"),
            (264, f"longest lateness of what was due then (most: {max([0, *late.values()])} ms)"),
        )
    ]
    return "\n".join([*parts, "</svg>"])


def main() -> int:
    """Check a saved run again: its figures and every violation. Exit status 1 if there is one."""
    run = load(Path(sys.argv[1]))
    found = check(run)
    print(json.dumps(figures(run), indent=2))
    for v in found:
        print(f"{v.rule}: {v.what}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
