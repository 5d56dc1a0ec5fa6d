"""Faults of a cluster while trainings run: each goes on from its checkpoint and ends with an undisturbed run's bits."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from project import Project, make_project
from runs import TRAINING, Run, checkpoints, log_of, process_of, until
from slurm import Slurm, jobs, node_state

SEEDS = 2
CONFIG = {
    "checkpoint_minutes": 0.03,
    "experiments": {
        "faulty": {**TRAINING, "seeds": SEEDS, "resources": {"mem_mb": 1500, "runtime": 10, "gpu": 0}},
    },
    "figures": {},
}


@pytest.fixture(scope="module")
def expected(slurm: Slurm, tmp_path_factory: pytest.TempPathFactory) -> xr.Dataset:
    """The result of an undisturbed run, without a cluster."""
    project = make_project(tmp_path_factory.mktemp("calm") / "project")
    project.configure(CONFIG)
    project.snakemake()
    return project.result("faulty").drop_attrs()


def fresh(tmp_path: Path) -> Project:
    project = make_project(tmp_path / "project")
    project.configure(CONFIG)
    return project


def all_have_checkpoints(project: Project) -> bool:
    return all(checkpoints(project, "faulty", seed) for seed in range(SEEDS))


def latest(project: Project) -> dict[str, str]:
    """The jobs of the newest run."""
    return {job["JobID"]: job["State"] for job in jobs() if "faulty" in job["Comment"]}


@pytest.mark.timeout(600)
def test_preempted_killed_cancelled_and_corrupted(expected: xr.Dataset, tmp_path: Path) -> None:
    project = fresh(tmp_path)
    run = Run(project)
    until("checkpoints", lambda: all_have_checkpoints(project))

    urgent = ["sbatch", "--partition=urgent", "--ntasks=4", "--mem=100", "--output=/dev/null", "--wrap=sleep 3"]
    subprocess.run(urgent, check=True, capture_output=True)
    until("preemption", lambda: not any(process_of(project, "faulty", seed) for seed in range(SEEDS)))
    before = [checkpoints(project, "faulty", seed)[-1] for seed in range(SEEDS)]
    until("requeued jobs", lambda: all(process_of(project, "faulty", seed) for seed in range(SEEDS)))
    started = [job["State"] for job in jobs() if "faulty" in job["Comment"]]
    assert len(started) > SEEDS and {"PREEMPTED", "REQUEUED"} & set(started), started
    until("progress", lambda: all(checkpoints(project, "faulty", s)[-1:] != before[s : s + 1] for s in range(SEEDS)))

    killed = process_of(project, "faulty", 0)
    assert killed is not None
    killed.kill()
    newest = checkpoints(project, "faulty", 0)[-1]
    newest.write_bytes(newest.read_bytes()[:1000])
    running = subprocess.run(["squeue", "-h", "-o", "%i %k"], capture_output=True, text=True).stdout.splitlines()
    cancelled = next(line.split()[0] for line in running if "faulty" in line and process_of(project, "faulty", 1))
    subprocess.run(["scancel", cancelled], check=True)

    assert run.wait(400) == 0, run.text()[-3000:]
    xr.testing.assert_identical(project.result("faulty").drop_attrs(), expected)
    assert "the one before it is used" in log_of(project, "faulty", 0)
