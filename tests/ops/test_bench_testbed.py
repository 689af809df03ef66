"""The environment of benchmarks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import psutil

from tests.support.mongo import needs_mongod
from tests.support.waiting import wait_until

CODE = """
import time
from ops.bench.testbed import open_testbed
with open_testbed() as testbed:
    print(testbed.mongod, testbed.target.process.pid, flush=True)
    time.sleep(600)
"""


@needs_mongod
def test_an_interrupted_benchmark_leaves_no_process() -> None:
    """After SIGTERM, which ends Python without `finally` by default."""
    bench = subprocess.Popen([sys.executable, "-c", CODE], stdout=subprocess.PIPE, start_new_session=True)
    assert bench.stdout is not None
    family = [psutil.Process(int(pid)) for pid in bench.stdout.readline().split()]
    assert len(family) == 2
    os.kill(bench.pid, signal.SIGTERM)
    assert bench.wait(20) == 128 + signal.SIGTERM
    wait_until(lambda: not [p for p in family if p.is_running()], 10, "the end of mongod and target")
