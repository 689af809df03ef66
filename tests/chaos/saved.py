"""Runs on disk: written, read, checked again and drawn. `python -m tests.chaos.saved RUN.json`."""

from __future__ import annotations

import json
import sys
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.chaos.calls import owed
from tests.chaos.checker import check, figures
from tests.chaos.evidence import Bounds, Call, Fault, Leader, Posted, Recorded, Run, Seen, Target, Trigger

if TYPE_CHECKING:
    from tests.chaos.checker import Violation

WIDTH, HEIGHT, LEFT = 1600, 400, 130
ROW, LANE = 72, 84
GROUPS = (("nodes", 262, "#b33"), ("members", 284, "#383"), ("network", 306, "#36a"), ("target", 328, "#a60"))
TERMS = 350


def save(run: Run, file: Path) -> list[Violation]:
    """Write a run as JSON, with its figures and what is wrong with it, which is returned."""
    found = check(run)
    verdict = {"figures": figures(run), "violations": [asdict(v) for v in found]}
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps({"verdict": verdict, **asdict(run)}))
    return found


def load(file: Path) -> Run:
    """Read a run that `save` wrote."""
    d = json.loads(file.read_text())
    return Run(
        tuple(Target(**{**t, "waits": tuple((low, high) for low, high in t.get("waits", ()))}) for t in d["targets"]),
        tuple(Seen(**s) for s in d["seen"]),
        _records(d["recorded"]),
        tuple(Fault(**{**f, "explains": tuple(f["explains"])}) for f in d["faults"]),
        tuple(Leader(**x) for x in d["leaders"]),
        tuple(d["owed"]),
        Bounds(**d["bounds"]),
        tuple(Call(**c) for c in d["calls"]),
        tuple(Trigger(**t) for t in d["triggers"]),
        tuple(d["verified"]),
        # A run that was saved before these were known has none of them.
        span=(d["span"][0], d["span"][1]) if "span" in d else (0, 0),
        steady=d.get("steady", 0),
        earlier=_records(d.get("earlier", [])),
        posted=tuple(Posted(**p) for p in d.get("posted", ())),
        chained=tuple((job, after) for job, after in d.get("chained", ())),
        excused=tuple(d.get("excused", ())),
        policies=tuple((job, policy) for job, policy in d.get("policies", ())),
    )


def _records(found: list[dict[str, Any]]) -> tuple[Recorded, ...]:
    return tuple(Recorded(**{**r, "attempts": tuple((n, k, s) for n, k, s in r["attempts"])}) for r in found)


def timeline(run: Run) -> str:
    """An SVG: occurrences due and arrivals in each second, the longest lateness, the faults and the terms."""
    at = [*(t.due_ms for t in run.targets), *(s.at_ms for s in run.seen)]
    low, high = min(at) // 1000, max(at) // 1000 + 1
    due = Counter(t.due_ms // 1000 for t in run.targets if t.duty == "must")
    came = Counter(s.at_ms // 1000 for s in run.seen)
    when = {t.execution: t.due_ms for t in run.targets}
    first: dict[str, int] = {}
    for s in run.seen:
        if s.execution in when:
            first[s.execution] = min(s.at_ms, first.get(s.execution, s.at_ms))
    late: Counter[int] = Counter()
    for execution, ms in first.items():
        second = when[execution] // 1000
        late[second] = max(late[second], ms - when[execution])

    def x(second: float) -> float:
        return round(LEFT + (second - low) / (high - low) * (WIDTH - LEFT), 1)

    def row(values: Counter[int], top: int, text: str, colour: str, unit: str) -> list[str]:
        most = max([1, *values.values()])
        points = " ".join(f"{x(k)},{top + ROW - values[k] / most * ROW:.0f}" for k in range(low, high + 1))
        area = f"{x(low)},{top + ROW} {points} {x(high)},{top + ROW}"
        return [
            f'<polygon points="{area}" fill="{colour}" fill-opacity=".25" stroke="{colour}" stroke-width=".7"/>',
            *_label(top, text, f"most: {most:,} {unit}"),
        ]

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="11">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
    ]
    for minute in range(0, (high - low) // 60 + 1, max(1, (high - low) // 900)):
        at_x = x(low + minute * 60)
        parts.append(f'<path d="M{at_x} 0V{HEIGHT - 16}" stroke="#ddd" stroke-width=".5"/>')
        parts.append(f'<text x="{at_x}" y="{HEIGHT - 4}" fill="#666">{minute} min</text>')
    parts += row(due, 6, "had to come", "#777", "a second")
    parts += row(came, 6 + LANE, "came", "#06c", "a second")
    parts += row(late, 6 + 2 * LANE, "latest", "#c40", "ms")
    for name, top, colour in GROUPS:
        parts += _label(top - 4, name, "")
        for f in (f for f in run.faults if f.group == name):
            width = max(1.5, round((f.end_ms - f.start_ms) / 1000 / (high - low) * (WIDTH - LEFT), 1))
            title = f"{f.kind}, {(f.end_ms - f.start_ms) / 1000:.1f} s"
            parts.append(
                f'<rect x="{x(f.start_ms / 1000)}" y="{top}" width="{width}" height="12" fill="{colour}">'
                f"<title>{title}</title></rect>"
            )
    parts += _label(TERMS - 4, "terms", f"{len({seen.term for seen in run.leaders})} of them")
    terms = {seen.term: seen.at_ms / 1000 for seen in reversed(run.leaders)}
    parts += [f'<path d="M{x(ms)} {TERMS}v12" stroke="#111"><title>{term}</title></path>' for term, ms in terms.items()]
    return "\n".join([*parts, "</svg>"])


def _label(top: int, text: str, more: str) -> list[str]:
    return [
        f'<text x="4" y="{top + 14}" font-weight="bold">{text}</text>',
        f'<text x="4" y="{top + 28}" fill="#666">{more}</text>',
    ]


def main(arguments: list[str]) -> int:
    """Check a saved run again: its figures and every violation. Exit status 1 if there is one.

    What was owed is worked out again from its calls; if that, or a rule, is another by now, so may be the verdict.
    """
    file = Path(arguments[0])
    run = load(file)
    found = check(replace(run, targets=owed(run)) if run.span[1] else run)
    print(json.dumps(figures(run), indent=2))
    for v in found:
        print(f"{v.rule}: {v.what}")
    then = json.loads(file.read_text()).get("verdict", {}).get("violations")
    if then is not None and then != [asdict(v) for v in found]:
        print(f"the saved verdict was another: {len(then)} violations, now {len(found)}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
