"""Deliberately broken builds: a run under the checker catches each, and clears the real build in the same run.

`make chaos BROKEN=no-token`, or `BROKEN=all`. Each run hurts the cluster at the one point where the protection that
was taken out is needed, so that it takes less than a minute and not luck. `hook/broken.json` says what is changed.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from tests.chaos.broken_builds import BUILDS, CHOSEN, Ground, lonely_primary, wrong_clocks
from tests.chaos.checker import check, figures
from tests.chaos.hooks import FAKETIME
from tests.chaos.observe import now_ms
from tests.support.mongo import ReplicaSet

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(300)]


@pytest.mark.parametrize("build", ["the real build", "the broken one"])
@pytest.mark.parametrize("name", sorted(BUILDS))
def test_the_checker_tells_a_broken_build_from_the_real_one(
    name: str, build: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """The same run is clean with the protection and breaks the rule that stands for it without."""
    if not CHOSEN & {name, "all"}:
        pytest.skip("choose with BROKEN")
    scenario, rule = BUILDS[name]
    if scenario is wrong_clocks and not FAKETIME.exists():
        pytest.skip("libfaketime is not installed (Debian: apt-get install faketime)")
    mongo = ReplicaSet(tmp_path) if scenario is lonely_primary else None
    uri = mongo.uri if mongo else request.getfixturevalue("mongodb_uri")
    ground = None
    try:
        broken = build == "the broken one"
        ground = Ground(tmp_path, uri, f"broken-{os.getpid()}-{now_ms()}", name if broken else "")
        run = scenario(ground, mongo)
        found = check(run)
        kinds = {v.rule: sum(w.rule == v.rule for w in found) for v in found}
        print(json.dumps({"run": name, "of": build, **figures(run), "violations": kinds}), flush=True)
        assert rule in kinds if broken else not found, found[:20]
    finally:
        if ground is not None:
            ground.close()
        if mongo is not None:
            mongo.stop()
