"""What a process costs, measured from outside."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from benchmarks.process import run_measured

COMPUTES = """
import os, sys, time
held = bytes(range(256)) * 2**19
while time.process_time() < 0.3: pass
time.sleep(0.2)
print(os.getcwd(), os.environ["NAME"], flush=True)
sys.exit("it ends badly")
"""


def test_the_cost_of_a_process_is_what_it_computed_held_and_took(tmp_path: Path) -> None:
    environment = {**os.environ, "NAME": "value"}
    ended = run_measured([sys.executable, "-c", COMPUTES], tmp_path, environment)
    assert ended.code == 1
    assert ended.said.splitlines() == [f"{tmp_path} value", "it ends badly"]
    assert 0.3 <= ended.cpu_seconds <= ended.seconds - 0.1
    assert ended.peak_mb >= 128
