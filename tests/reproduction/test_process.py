"""What a process costs, measured from outside; a process ends with the one that started it, on any system."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.process import run_measured
from reproduction.pipeline.process import PARENT_VARIABLE, write_benchmark

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


CHILD = """
import sys, time
sys.platform = {platform!r}
from reproduction.pipeline.process import end_with_parent
end_with_parent()
print("started", flush=True)
time.sleep(60)
"""
PARENT = """
import subprocess, sys
subprocess.Popen([sys.executable, "-c", sys.argv[1]])
sys.stdin.read()
"""


@pytest.mark.parametrize("platform", ["linux", "darwin"])
def test_a_job_ends_with_a_run_that_is_killed(platform: str) -> None:
    """Where the kernel does not see to it, the job does."""
    kept = {name: value for name, value in os.environ.items() if name != PARENT_VARIABLE}
    command = [sys.executable, "-c", PARENT, CHILD.format(platform=platform)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, env=kept, **pipes) as parent:  # type: ignore[call-overload]
        assert parent.stdout.readline() == b"started\n"
        parent.kill()
        assert parent.stdout.read() == b""  # the end, once the child too has closed it


@pytest.mark.parametrize("platform", ["linux", "darwin"])
def test_what_a_job_took_is_written_on_any_system(
    platform: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`mirrorsym status` knows by this file that a job succeeded."""
    monkeypatch.setattr(sys, "platform", platform)
    write_benchmark(tmp_path / "job.tsv")
    names, values = ((tmp_path / "job.tsv").read_text().splitlines()[row].split("\t") for row in range(2))
    assert names == ["s", "max_rss", "cpu_time"]
    assert all(float(value) >= 0 for value in values)
