"""Where a sweep stands, on made-up folders: each state by the files that a real run leaves."""

from __future__ import annotations

import base64
import fcntl
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import netCDF4
import numpy as np
import pytest
from click.testing import CliRunner

from reproduction.cli.user import cli
from reproduction.pipeline import watch
from reproduction.pipeline.config import load
from reproduction.pipeline.layout import Layout
from reproduction.pipeline.points import Point, points_of
from reproduction.pipeline.status import Status, is_held, status_of, table

CONFIG = Path(__file__).parents[2] / "config"
SEEDS = {"scale": "tiny", "experiments": {"sparsity": {"seeds": 6}}}
RUNS = 12


class Sweep:
    """A project's folder with the points of one experiment."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = load(CONFIG, SEEDS)
        self.points = points_of(self.config, "sparsity")

    def file(self, kind: str, point: Point, suffix: str) -> Path:
        path = self.folder / "results" / kind / point.name.with_suffix(suffix)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def finish(self, point: Point, diverged: int = 0) -> Path:
        path = self.file("points", point, ".nc")
        write_status(path, diverged)
        return path

    def log(self, point: Point, text: str) -> None:
        self.file("logs/points", point, ".log").write_text(text)

    def mark(self, point: Point, age: float = 0.0) -> None:
        """Leave Snakemake's mark of an unfinished output."""
        name = base64.urlsafe_b64encode(f"results/points/{point.name}".encode()).decode()
        cut = [name[i : i + 100] for i in range(0, len(name), 100)]
        path = self.folder.joinpath(".snakemake/incomplete", *(f"@{part}" for part in cut[:-1]), cut[-1])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
        os.utime(path, (path.stat().st_mtime - age,) * 2)

    def status(self) -> Status:
        return status_of(self.config, Layout(self.folder), ["sparsity"])[0]

    def counts(self) -> dict[str, int]:
        return {state: count for state, count in self.status().counts.items() if count}


def write_status(path: Path, diverged: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with netCDF4.Dataset(path, "w") as file:
        file.createDimension("run", RUNS)
        file.createVariable("status", "i1", ("run",))[:] = np.arange(RUNS) < diverged


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    return Sweep(tmp_path)


@pytest.fixture
def running(sweep: Sweep) -> Iterator[None]:
    """Hold the folder as a run does."""
    path = sweep.folder / "results" / ".lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def test_an_empty_folder_waits(sweep: Sweep) -> None:
    assert sweep.counts() == {"waiting": 6}


@pytest.mark.usefixtures("running")
@pytest.mark.parametrize("why", ["stopped as asked", "stopped before the job's time is over"])
def test_each_state_is_told_from_the_others(sweep: Sweep, why: str) -> None:
    sweep.finish(sweep.points[0], diverged=3)
    sweep.finish(sweep.points[1], diverged=0)
    sweep.log(sweep.points[1], "a warning\n")
    sweep.log(sweep.points[2], "sparsity:  10%|# | 1/10 [00:01<00:09]\rmirrorsym: the disk is full\n")
    sweep.mark(sweep.points[3])
    sweep.log(sweep.points[3], "")
    checkpoint = sweep.file("checkpoints", sweep.points[4], "") / "00000001.pt"
    checkpoint.parent.mkdir()
    checkpoint.write_bytes(b"")
    (checkpoint.parent / "lease").write_bytes(b"")
    sweep.log(sweep.points[4], f"mirrorsym: {why}; the checkpoint is 00000001.pt\n")
    found = sweep.status()
    assert found.counts == {"done": 2, "running": 1, "checkpoint": 1, "failed": 1, "waiting": 1}
    assert found.diverged == 3
    assert found.going == [f"results/points/{sweep.points[3].name}"]
    (failure,) = found.failures
    assert failure.said == "the disk is full"
    assert failure.output == f"results/points/{sweep.points[2].name}"
    assert (sweep.folder / failure.log).is_file()


def test_marks_of_a_killed_run_are_no_running_jobs_and_no_failures(sweep: Sweep) -> None:
    sweep.mark(sweep.points[0])
    sweep.log(sweep.points[0], "sparsity:  10%|# | 1/10 [00:01<00:09, 3.00it/s]")
    assert sweep.counts() == {"waiting": 6}


@pytest.mark.usefixtures("running")
def test_marks_that_are_older_than_the_run_are_not_its_jobs(sweep: Sweep) -> None:
    sweep.mark(sweep.points[0], age=100)
    sweep.mark(sweep.points[1])
    assert sweep.counts() == {"running": 1, "waiting": 5}


def test_a_training_by_hand_runs_while_it_holds_its_lease(sweep: Sweep) -> None:
    lease = sweep.file("checkpoints", sweep.points[0], "") / "lease"
    lease.parent.mkdir()
    (lease.parent / "00000007.pt").write_bytes(b"")
    with open(lease, "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert sweep.counts() == {"running": 1, "waiting": 5}
    assert sweep.counts() == {"checkpoint": 1, "waiting": 5}


def test_asking_takes_no_lock(sweep: Sweep) -> None:
    lease = sweep.file("checkpoints", sweep.points[0], "") / "lease"
    lease.parent.mkdir()
    with open(lease, "w") as held:
        sweep.counts()
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_result_that_was_removed_by_hand_waits_and_has_not_failed(sweep: Sweep) -> None:
    sweep.log(sweep.points[0], "a warning\n")
    benchmark = sweep.file("benchmarks/points", sweep.points[0], ".tsv")
    benchmark.write_text("s\n1\n")
    later = benchmark.stat().st_mtime + 10
    os.utime(benchmark, (later, later))
    assert sweep.counts() == {"waiting": 6}
    os.utime(sweep.file("logs/points", sweep.points[0], ".log"), (later + 10, later + 10))
    assert sweep.counts() == {"failed": 1, "waiting": 5}


def test_diverged_runs_come_from_the_collected_file_only_while_it_is_newer(sweep: Sweep) -> None:
    files = [sweep.finish(point, diverged=1) for point in sweep.points]
    collected = sweep.folder / "results" / "tiny" / "sparsity.nc"
    write_status(collected, 7)
    newer = max(file.stat().st_mtime for file in files) + 5
    os.utime(collected, (newer, newer))
    assert sweep.status().diverged == 7
    os.utime(files[0], (newer + 5, newer + 5))
    assert sweep.status().diverged == 6


def test_a_damaged_point_does_not_stop_the_others(sweep: Sweep) -> None:
    sweep.finish(sweep.points[0], diverged=2)
    sweep.finish(sweep.points[1]).write_bytes(b"no netCDF")
    assert (sweep.counts(), sweep.status().diverged) == ({"done": 2, "waiting": 4}, 2)


def test_the_exit_code_says_whether_something_failed(sweep: Sweep) -> None:
    (sweep.folder / "config").symlink_to(CONFIG)
    arguments = ["status", "sparsity", "--scale", "tiny", "--directory", str(sweep.folder)]
    assert CliRunner().invoke(cli, arguments).exit_code == 0
    point = points_of(load(CONFIG, {"scale": "tiny"}), "sparsity")[0]
    sweep.log(point, "mirrorsym: the disk is full\n")
    done = CliRunner().invoke(cli, arguments)
    assert done.exit_code == 1
    assert f"failed: results/points/{point.name}: the disk is full" in done.output


def test_figures_and_collections_have_states_too(sweep: Sweep) -> None:
    (sweep.folder / "results/logs/tiny").mkdir(parents=True)
    (sweep.folder / "results/logs/tiny/fig3_left.log").write_text("cell 3 failed: KeyError: 'sparsity'\n")
    found = {status.name: status for status in status_of(sweep.config, Layout(sweep.folder), ["sparsity"])}
    assert found["collect"].points == found["collect"].counts["waiting"] == 1
    assert found["figures"].points == found["figures"].counts["failed"] == 1
    assert found["figures"].failures[0].said == "cell 3 failed: KeyError: 'sparsity'"


def test_the_table_has_a_line_for_each_part_and_their_sum(sweep: Sweep) -> None:
    sweep.finish(sweep.points[0], diverged=3)
    first, second = sweep.status(), Status("figures", 2)
    second.counts["waiting"] = 2
    head, *lines, note = table([first, second])
    assert note.startswith("diverged runs: ")
    assert head.split() == ["jobs", "done", "running", "checkpoint", "failed", "waiting", "diverged", "runs"]
    assert [line.split() for line in lines] == [
        ["sparsity", "6", "1", "0", "0", "0", "5", "3"],
        ["figures", "2", "0", "0", "0", "0", "2", "0"],
        ["all", "8", "1", "0", "0", "0", "7", "3"],
    ]


@pytest.mark.parametrize(
    ("counts", "seconds", "says"),
    [
        ({"done": 5, "running": 2, "waiting": 3}, 600.0, "5 of 10 jobs done, 2 running, about 5 min left"),
        ({"done": 5, "running": 1, "failed": 4}, 60.0, "5 of 10 jobs done, 1 running, 4 failed, about 60 s left"),
        ({"done": 5, "running": 2, "waiting": 3}, 0.0, "5 of 10 jobs done, 2 running"),
        ({"done": 10}, 600.0, "10 of 10 jobs done, 0 running"),
    ],
)
def test_the_time_left_is_shared_by_what_runs(counts: dict[str, int], seconds: float, says: str) -> None:
    parts = [Status("sparsity", 4), Status("figures", 6)]
    for place, (state, count) in enumerate(counts.items()):
        parts[place % 2].counts[state] += count
    assert watch.progress(parts, seconds) == says


@pytest.mark.parametrize("terminal", [False, True])
def test_it_watches_until_the_run_ends(sweep: Sweep, terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a pipe a line is added where something changed; in a terminal the table is drawn anew."""
    monkeypatch.setattr(watch, "forecast", lambda *_, **__: SimpleNamespace(total=lambda field: 60.0))
    lock = sweep.folder / "results" / ".lock"
    lock.parent.mkdir(parents=True)
    held = open(lock, "a")  # noqa: SIM115 (closed when the run ends)
    said: list[str] = []
    looks: list[float] = []
    fcntl.flock(held, fcntl.LOCK_EX)

    def wait(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) == 2:
            sweep.finish(sweep.points[0])
        if len(looks) == 3:
            held.close()

    found = watch.watch(sweep.config, Layout(sweep.folder), ["sparsity"], said.append, terminal, wait)
    assert len(looks) == 3
    assert found[0].counts["done"] == 1
    lines = [text.removeprefix(watch.CLEAR).splitlines()[0] for text in said]
    jobs = sum(part.points for part in found)
    none, one = (f"{done} of {jobs} jobs done, 0 running" for done in (0, 1))
    assert lines == ([none, none, one, one] if terminal else [none, one])
    assert all(text.startswith(watch.CLEAR) == terminal for text in said)


def test_without_a_table_of_locks_the_runs_process_tells(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on macOS."""
    monkeypatch.setattr("reproduction.pipeline.status._locked_files", lambda: None)
    lock = sweep.folder / "results" / ".lock"
    lock.parent.mkdir(parents=True)
    ended = subprocess.Popen(["true"])
    ended.wait()
    for text, held in ((str(os.getpid()), True), (str(ended.pid), False), ("", False)):
        lock.write_text(text)
        assert is_held(lock) == held
    assert not is_held(lock.with_name("missing"))
