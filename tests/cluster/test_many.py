"""Many tiny points in jobs of ten, with nothing lost. MIRRORSYM_MANY_POINTS says how many (2000: an hour or two)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from runs import PROFILE, Run, log_of, make_cluster_project
from slurm import jobs

from reproduction.pipeline.config import load
from reproduction.pipeline.layout import Layout
from reproduction.pipeline.points import Point, points_of
from reproduction.pipeline.run import run_point

POINTS = int(os.environ.get("MIRRORSYM_MANY_POINTS", "20"))
PACKED = 10


def sweep(points: int) -> dict[str, Any]:
    """Return a configuration of so many points, each a fraction of a second."""
    experiment = {
        "module": "stationary_conditions",
        "settings": {"steps": 5},
        "seeds": points,
        "sweep": [{"landscape": ["rescaling"]}],
        "resources": {"mem_mb": 700, "runtime": 2},
    }
    return {"experiments": {"tiny": experiment}, "figures": {}}


def packed(points: int) -> tuple[str, ...]:
    """Return the options that pack so many points into a job."""
    return (*PROFILE, "--groups", "train_tiny=tiny", "--group-components", f"tiny={points}")


@pytest.mark.timeout(7200)
def test_nothing_is_lost(slurm: object, tmp_path: Path) -> None:
    project = make_cluster_project(tmp_path / "project")
    project.configure(sweep(POINTS))
    run = Run(project, *packed(PACKED))
    assert run.wait(7000) == 0, run.text()[-3000:]
    result = project.result("tiny")
    assert result.sizes["seed"] == POINTS
    assert not result.status.any()
    for seed in (0, POINTS // 2, POINTS - 1):
        (path,) = project.folder.glob(f"results/points/tiny/*/*seed~{seed}.nc")
        made = xr.open_dataset(path).load()
        again = run_point(Point.from_json(made.attrs["point"]), Layout(tmp_path))
        xr.testing.assert_identical(made.drop_attrs(), again.drop_attrs())
        np.testing.assert_array_equal(result.distance.sel(seed=[seed]), made.distance)
    submitted = [job for job in jobs() if job["Comment"].endswith("tiny_train_tiny")]
    assert len(submitted) == -(-POINTS // PACKED)
    assert {job["State"] for job in submitted} == {"COMPLETED"}


@pytest.mark.timeout(1200)
def test_a_failing_point_costs_those_packed_with_it_nothing(slurm: object, tmp_path: Path) -> None:
    project = make_cluster_project(tmp_path / "project")
    project.configure(sweep(3))
    first = points_of(load(project.folder / "config", {}), "tiny")[0]
    obstacle = project.folder / "results" / "checkpoints" / first.name.with_suffix("")
    obstacle.parent.mkdir(parents=True)
    obstacle.write_text("no folder")
    failing = Run(project, *packed(3), "--retries", "0")
    assert failing.wait() == 1
    sentences = [line for line in failing.text().splitlines() if line.startswith("mirrorsym: train_tiny failed")]
    assert len(sentences) == 1, failing.text()[-3000:]
    assert f"{obstacle.relative_to(project.folder)}" in sentences[0]

    obstacle.unlink()
    again = Run(project, *packed(3))
    assert again.wait() == 0, again.text()[-3000:]
    assert not project.result("tiny").status.any()
    taken = ["another job of this point has finished it" in log_of(project, "tiny", seed) for seed in range(3)]
    assert taken == [False, True, True]
