"""Kill the run at any moment and type the same command again: it goes on, to the bits of an undisturbed run.

MIRRORSYM_KILLS says how many random moments there are besides the three chosen ones.
"""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import xarray as xr
from project import SMALL, Project, make_project

CONFIG: dict[str, Any] = {
    **SMALL,
    "checkpoint_minutes": 0.004,
    "experiments": {
        **SMALL["experiments"],
        "homogeneity": {
            "settings": {
                "dataset": "digits",
                "width": 8,
                "stem_stride": 2,
                "epochs": 3,
                "crop_padding": 1,
                "schedule": "cosine",
            },
            "seeds": 1,
            "sweep": [{"weight_decay": [0.001]}],
        },
    },
}
PLACES = ["write:.nc.tmp", "rename:.nc", "write:.pt.tmp"]
MOMENTS = int(os.environ.get("MIRRORSYM_KILLS", "1"))

# Python imports sitecustomize from PYTHONPATH, so each job of the copy has this. It ends the whole run, once, in the
# middle of what KILL_AT names; the job itself dies with its parent, which is part of what is tested.
KILLER = """
import os, signal, time

what, _, suffix = os.environ.get("KILL_AT", "").partition(":")
original = {"write": os.fsync, "rename": os.replace}

def kill():
    try:
        os.close(os.open(os.environ["KILL_ONCE"], os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return
    os.kill(int(open("results/.lock").read()), signal.SIGKILL)
    time.sleep(20)

def fsync(descriptor):
    name = os.readlink(f"/proc/self/fd/{descriptor}")
    if what == "write" and name.endswith(suffix):
        os.ftruncate(descriptor, os.fstat(descriptor).st_size // 2)
        kill()
    original["write"](descriptor)

def replace(source, target, **keywords):
    if what == "rename" and str(target).endswith(suffix):
        kill()
    original["rename"](source, target, **keywords)

os.fsync, os.replace = fsync, replace
"""


def still_running(folder: Path) -> list[psutil.Process]:
    """Return the processes that work in a folder."""
    found = []
    for process in psutil.process_iter():
        try:
            if Path(process.cwd()).is_relative_to(folder) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


def wait_until_nothing_runs(folder: Path) -> None:
    deadline = time.monotonic() + 10
    while still_running(folder):
        assert time.monotonic() < deadline, f"still running: {still_running(folder)}"
        time.sleep(0.05)


def numbers(project: Project) -> list[xr.Dataset]:
    return [project.result(name).drop_attrs() for name in CONFIG["experiments"]]


@pytest.mark.timeout(1800)
def test_killed_at_any_moment_the_same_command_goes_on(tmp_path: Path) -> None:
    calm = make_project(tmp_path / "calm")
    calm.configure(CONFIG)
    start = time.monotonic()
    calm.snakemake()
    duration = time.monotonic() - start
    expected = numbers(calm)

    project = make_project(tmp_path / "killed")
    project.configure(CONFIG)
    (project.folder / "src" / "sitecustomize.py").write_text(KILLER)
    moments = random.Random(0)
    kills = 0
    for place in PLACES:
        run = project.start(KILL_AT=place, KILL_ONCE=str(tmp_path / f"killed at {place}"))
        assert run.wait(timeout=600) == -signal.SIGKILL, f"{place} was never reached"
        kills += 1
        wait_until_nothing_runs(project.folder)
    while kills < len(PLACES) + MOMENTS:
        run = project.start()
        time.sleep(moments.uniform(0.3, 1.1) * duration * moments.choice([0.2, 0.5, 1]))
        if run.poll() is None:
            os.kill(run.pid, signal.SIGKILL)
            run.wait()
            kills += 1
            wait_until_nothing_runs(project.folder)
        else:
            assert run.returncode == 0
            compare(project, expected)
            project.remove_results()
    project.snakemake()
    compare(project, expected)


def compare(project: Project, expected: list[xr.Dataset]) -> None:
    for found, wanted in zip(numbers(project), expected, strict=True):
        xr.testing.assert_identical(found, wanted)
    assert not list((project.folder / "results").rglob(".*.tmp"))
    assert not list((project.folder / "results").rglob("*.pt"))
