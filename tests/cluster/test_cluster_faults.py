"""Faults of a cluster while trainings run: each goes on from its checkpoint and ends with an undisturbed run's bits."""

from __future__ import annotations

import re
import signal
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path

import psutil
import pytest
import xarray as xr
from project import Project, make_project
from runs import PROFILE, TRAINING, Run, checkpoints, log_of, make_cluster_project, process_of, silent_sacct, until
from slurm import Slurm, jobs, node_state

SEEDS = range(2)
PACKED = (*PROFILE, "--groups", "train_faulty=faulty", "--group-components", "faulty=2")
"""Both trainings are one job, one after the other."""
CONFIG = {
    "checkpoint_minutes": 0.03,
    "experiments": {"faulty": {**TRAINING, "seeds": 2, "resources": {"mem_mb": 1500, "runtime": 10, "gpu": 0}}},
    "figures": {},
}


@pytest.fixture(scope="module")
def expected(slurm: Slurm, tmp_path_factory: pytest.TempPathFactory) -> xr.Dataset:
    """The result of an undisturbed run, without a cluster."""
    project = make_project(tmp_path_factory.mktemp("calm") / "project")
    project.configure(CONFIG)
    project.snakemake()
    return project.result("faulty").drop_attrs()


def start(tmp_path: Path, **changes: object) -> tuple[Project, Run]:
    """Start a project whose trainings have changed resources."""
    project = make_cluster_project(tmp_path / "project")
    experiment = {**CONFIG["experiments"]["faulty"]}
    experiment["resources"] = {**experiment["resources"], **changes}
    project.configure({**CONFIG, "experiments": {"faulty": experiment}})
    return project, Run(project)


def trainings(project: Project) -> list[psutil.Process | None]:
    return [process_of(project, "faulty", seed) for seed in SEEDS]


def suspend(project: Project, seed: int) -> psutil.Process:
    """Suspend a training, so that it is not over before its fault. SLURM wakes what it preempts or cancels."""
    process = process_of(project, "faulty", seed)
    assert process is not None
    process.suspend()
    return process


def suspended(project: Project, count: int = 1) -> list[psutil.Process]:
    """Suspend each training once it has so many checkpoints, else one may be over before the other has begun."""
    found: dict[int, psutil.Process] = {}

    def suspend_those_under_way() -> bool:
        for seed in SEEDS:
            if seed not in found and len(checkpoints(project, "faulty", seed)) >= count:
                found[seed] = suspend(project, seed)
        return len(found) == len(SEEDS)

    until("checkpoints", suspend_those_under_way)
    return [found[seed] for seed in SEEDS]


def in_order(project: Project) -> tuple[int, int] | None:
    """The seed whose training is over and the one that follows it in their job, once that has begun.

    Either may be the first: Snakemake keeps the points of a group in a set.
    """
    folders = [next(project.folder.glob(f"results/checkpoints/faulty/*/*seed~{seed}"), None) for seed in SEEDS]
    over = [folder is not None and (folder / "result.nc").exists() for folder in folders]
    if sum(over) != 1 or None in folders:
        return None
    return over.index(True), over.index(False)


def finish(run: Run, expected: xr.Dataset, resumed: Iterable[int] = (), taken: Iterable[int] = ()) -> None:
    """Wait for the run's end: the bits of an undisturbed one, no checkpoint and no half-written file left.

    Args:
        run: what to wait for.
        expected: the dataset of the undisturbed run.
        resumed: seeds whose last job went on from a checkpoint.
        taken: seeds whose last job found the result of another one.
    """
    assert run.wait(800) == 0, run.text()[-3000:]
    xr.testing.assert_identical(run.project.result("faulty").drop_attrs(), expected)
    left = [path for path in (run.project.folder / "results/checkpoints").rglob("*") if path.is_file()]
    assert not left
    assert not list((run.project.folder / "results").rglob(".*.tmp"))
    for seed in resumed:
        assert re.search(r"checkpoint .*pt is loaded", log_of(run.project, "faulty", seed))
    for seed in taken:
        assert "another job of this point has finished it" in log_of(run.project, "faulty", seed)


@pytest.mark.smoke
@pytest.mark.timeout(1200)
def test_preempted_by_a_higher_partition(expected: xr.Dataset, tmp_path: Path) -> None:
    """The first training is over, and the second writes its only checkpoint when it is told to."""
    project = make_cluster_project(tmp_path / "project")
    project.configure({**CONFIG, "checkpoint_minutes": 60})
    run = Run(project, *PACKED)
    first, second = until("the second training", lambda: in_order(project))
    time.sleep(2)
    suspend(project, second)
    urgent = ["sbatch", "--partition=urgent", "--ntasks=4", "--mem=100", "--output=/dev/null", "--wrap=sleep 3"]
    subprocess.run(urgent, check=True, capture_output=True)
    until("preemption", lambda: not any(trainings(project)))
    assert len(checkpoints(project, "faulty", second)) == 1
    finish(run, expected, resumed=[second], taken=[first])
    assert "Trying to restart" not in run.text()  # it was SLURM that started it again, and nobody else
    assert run.text().count("has been submitted with SLURM jobid") == 1


@pytest.mark.timeout(1200)
def test_one_is_killed_with_a_corrupt_checkpoint_and_one_is_cancelled(expected: xr.Dataset, tmp_path: Path) -> None:
    project, run = start(tmp_path)
    killed, _ = suspended(project, 2)
    killed.kill()
    newest = checkpoints(project, "faulty", 0)[-1]
    newest.write_bytes(newest.read_bytes()[:1000])
    queue = subprocess.run(["squeue", "-h", "-o", "%i %k"], capture_output=True, text=True).stdout.splitlines()
    (job,) = [line.split()[0] for line in queue if line.endswith("train_faulty_wildcards_0.001_1")]
    subprocess.run(["scancel", job], check=True)
    until("the retry of the killed one", lambda: "the one before it is used" in log_of(project, "faulty", 0))
    finish(run, expected, resumed=SEEDS)
    assert run.text().count("Trying to restart") == 2


@pytest.mark.parametrize(
    "silent",
    [pytest.param(False, id="sacct answers", marks=pytest.mark.smoke), pytest.param(True, id="sacct is silent")],
)
@pytest.mark.timeout(1200)
def test_ctrl_c_and_the_same_command(expected: xr.Dataset, tmp_path: Path, silent: bool) -> None:
    """All jobs are cancelled, also those whose state is being asked for; SLURM wakes them before it ends them."""
    flag, environment = silent_sacct(tmp_path)
    project = make_cluster_project(tmp_path / "project")
    project.configure(CONFIG)
    if not silent:
        flag.unlink()
    run = Run(project, **environment)
    suspended(project)
    run.send(signal.SIGINT)
    assert run.wait() != 0
    until("cancelled jobs", lambda: not any(trainings(project)))
    assert all(checkpoints(project, "faulty", seed) for seed in SEEDS)
    finish(Run(project), expected, resumed=SEEDS)


@pytest.mark.timeout(1200)
def test_the_submitting_process_is_killed_and_its_jobs_run_on(expected: xr.Dataset, tmp_path: Path) -> None:
    project, run = start(tmp_path)
    first = suspended(project)
    run.end()
    again = Run(project)
    until("jobs that wait", lambda: all("is leased" in log_of(project, "faulty", seed) for seed in SEEDS))
    for process in first:
        process.resume()
    finish(again, expected, taken=SEEDS)


@pytest.mark.timeout(1200)
def test_walltime(expected: xr.Dataset, tmp_path: Path) -> None:
    """One training is held up until it has to stop by itself, one until SLURM ends it."""
    project, run = start(tmp_path, runtime=1)
    slow, _ = suspended(project)
    until("the end of its time", lambda: time.time() > slow.create_time() + 41, 150)
    slow.resume()
    until("its last words", lambda: "before the job's time is over" in run.text())
    finish(run, expected, resumed=SEEDS)
    assert "'TIMEOUT'" in run.text()


@pytest.mark.timeout(1200)
def test_too_little_memory_at_first(expected: xr.Dataset, tmp_path: Path) -> None:
    _, run = start(tmp_path, mem_mb=350)
    finish(run, expected)
    assert run.text().count("Trying to restart") >= 2
    wanted = {
        job["ReqTRES"].split("mem=")[1].split(",")[0]
        for job in jobs()
        if job["Comment"].startswith("rule_train_faulty")
    }
    assert {"350M", "700M"} <= wanted


@pytest.mark.timeout(1200)
def test_the_node_is_lost(slurm: Slurm, expected: xr.Dataset, tmp_path: Path) -> None:
    project = make_cluster_project(tmp_path / "project")
    project.configure(CONFIG)
    run = Run(project, *PACKED)
    first, second = until("the second training", lambda: in_order(project))
    until("its checkpoint", lambda: checkpoints(project, "faulty", second))
    suspend(project, second)
    slurm.kill_node()
    until("the loss", lambda: node_state() == "down")
    slurm.start_node()
    slurm.wait_for_node()
    finish(run, expected, resumed=[second], taken=[first])
    assert run.text().count("has been submitted with SLURM jobid") == 1
