"""Faults of one machine: each ends in the bits of an undisturbed run, or in one clear sentence."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import xarray as xr
from project import Project, small_disk
from runs import Run, checkpoints, process_of, until
from slurm import Unavailable, install


def faketime() -> Path:
    """Return the library that fakes a process's clock; install it where it is missing, or skip."""
    if not (found := sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))):
        try:
            install(["faketime"])
        except Unavailable as reason:
            pytest.skip(str(reason))
        found = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    return found[0]


def path_without_slurm(folder: Path) -> str:
    """Return a PATH without ``scontrol``, which the plugin starts at its import and waits for by the faked clock."""
    folder.mkdir()
    for program in Path("/usr/bin").iterdir():
        if program.name != "scontrol":
            (folder / program.name).symlink_to(program)
    return f"{Path(sys.executable).parent}:{folder}"


def assert_same(project: Project, calm: Project) -> None:
    xr.testing.assert_identical(project.result("faulty").drop_attrs(), calm.result("faulty").drop_attrs())
    results = project.folder / "results"
    assert not list(results.rglob(".*.tmp"))
    assert not list(results.rglob("*.pt"))


def one_sentence(done: subprocess.CompletedProcess[str], sentence: str) -> None:
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert sentence in done.stderr, done.stderr[-2000:]


@pytest.fixture
def small_results(project: Project) -> Iterator[Path]:
    """A file system of 12 MB at results/."""
    with small_disk(project.folder / "results", 12) as mounted:
        yield mounted


def fill(folder: Path, leave: int) -> Path:
    filler = folder / "filler"
    filler.write_bytes(b"0" * (shutil.disk_usage(folder).free - leave))
    return filler


@pytest.mark.timeout(900)
@pytest.mark.parametrize(("at", "kilobytes"), [("a checkpoint", 300), ("the result", 200)])
def test_a_full_disk(project: Project, calm: Project, small_results: Path, at: str, kilobytes: int) -> None:
    cache = {"MIRRORSYM_CACHE": str(project.folder / ".cache")}
    if at == "the result":  # no checkpoint is due in so short a run
        config = project.folder / "config" / "config.yaml"
        config.write_text(config.read_text().replace("checkpoint_minutes: 0.002", "checkpoint_minutes: 60"))
    project.snakemake("-n", **cache)
    filler = fill(small_results, kilobytes * 1000)
    done = project.snakemake(check=False, **cache)
    one_sentence(done, "the disk is full")
    assert (".pt could not be written" if at == "a checkpoint" else ".nc could not be written") in done.stderr
    filler.unlink()
    project.snakemake(**cache)
    assert_same(project, calm)


@pytest.mark.timeout(900)
def test_a_results_folder_that_cannot_be_written(project: Project, calm: Project) -> None:
    results = project.folder / "results"
    results.mkdir()
    mounted = subprocess.run(["mount", "--bind", str(results), str(results)], capture_output=True)
    if mounted.returncode:
        pytest.skip("this machine does not let the test mount a folder")
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", str(results)], check=True)
        one_sentence(project.snakemake(check=False), "cannot be written (Read-only file system")
    finally:
        subprocess.run(["umount", "-l", str(results)], check=True)
    project.snakemake()
    assert_same(project, calm)


NO_LOCKS = "#include <errno.h>\nint flock(int file, int operation) { errno = ENOLCK; return -1; }\n"


@pytest.mark.timeout(900)
def test_a_disk_without_locks(project: Project, calm: Project, tmp_path: Path) -> None:
    """A run is refused in one sentence, and what is there can be read."""
    if shutil.which("cc") is None:
        pytest.skip("needs a C compiler")
    (tmp_path / "no_locks.c").write_text(NO_LOCKS)
    library = str(tmp_path / "no_locks.so")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, str(tmp_path / "no_locks.c")], check=True)
    one_sentence(project.snakemake(check=False, LD_PRELOAD=library), "lies on a file system without file locks")
    assert not list((project.folder / "results").rglob("*.nc"))
    read = "import reproduction.pipeline.store as store, sys; store.read(store.Path(sys.argv[1]))"
    point = next((calm.folder / "results" / "points").rglob("*.nc"))
    environment = calm.environment({"LD_PRELOAD": library})
    subprocess.run([sys.executable, "-c", read, str(point)], env=environment, check=True)


@pytest.mark.timeout(900)
def test_a_job_killed_with_a_corrupt_checkpoint(project: Project, calm: Project) -> None:
    run = Run(project, "--retries", "1")
    until("two checkpoints", lambda: len(checkpoints(project, "faulty", 0)) == 2)
    process = process_of(project, "faulty", 0)
    assert process is not None
    process.kill()
    newest = checkpoints(project, "faulty", 0)[-1]
    newest.write_bytes(b"\0" * newest.stat().st_size)
    assert run.wait() == 0, run.text()[-2000:]
    assert_same(project, calm)


@pytest.mark.timeout(900)
def test_a_truncated_point(project: Project, calm: Project) -> None:
    shutil.copytree(calm.folder / "results", project.folder / "results", dirs_exist_ok=True)
    shutil.copytree(calm.folder / ".snakemake", project.folder / ".snakemake", dirs_exist_ok=True)
    (point,) = (project.folder / "results/points").rglob("*.nc")
    point.write_bytes(point.read_bytes()[: point.stat().st_size // 2])
    done = project.snakemake(check=False)
    one_sentence(done, "is damaged; delete it and run the same command again")
    point.unlink()
    project.snakemake()
    assert_same(project, calm)


@pytest.mark.timeout(900)
def test_two_workflows_in_one_folder(project: Project, calm: Project) -> None:
    first = Run(project, "--retries", "0")
    until("the first one's checkpoint", lambda: checkpoints(project, "faulty", 0))
    os.kill(first.process.pid, signal.SIGSTOP)
    one_sentence(project.snakemake(check=False), "is going on in this folder")
    os.kill(first.process.pid, signal.SIGCONT)
    assert first.wait() == 0, first.text()[-2000:]
    assert_same(project, calm)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("jump", ["-3d", "+3d"])
def test_a_clock_that_jumps(project: Project, calm: Project, tmp_path: Path, jump: str) -> None:
    """The wall clock jumps by three days while the training runs.

    Where it jumped back, Snakemake says that the result is older than its code and removes it; with the clock set right
    the same command goes on. Results with times of the past are no reason to train again.
    """
    clock = tmp_path / "clock"
    clock.write_text("+0\n")
    fake = {
        "LD_PRELOAD": str(faketime()),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "NO_FAKE_STAT": "1",
        "PATH": path_without_slurm(tmp_path / "bin"),
    }
    run = Run(project, "--retries", "0", **fake)
    until("a checkpoint", lambda: checkpoints(project, "faulty", 0))
    clock.write_text(f"{jump}\n")
    if run.wait():
        assert jump.startswith("-")
        assert "has older modification time" in run.text(), run.text()[-2000:]
        project.snakemake()
    assert_same(project, calm)
    assert project.planned() == {}
    for path in (project.folder / "results/points").rglob("*.nc"):
        os.utime(path, (time.time() - 3 * 86400,) * 2)
    assert "train_faulty" not in project.planned()
