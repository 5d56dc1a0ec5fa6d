"""Many tiny points in jobs of ten, with nothing lost. MIRRORSYM_MANY_POINTS says how many (2000: most of an hour)."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from project import make_project
from runs import PROFILE, Run
from slurm import jobs

from mirrorsym.points import Point
from mirrorsym.runner import run_point

POINTS = int(os.environ.get("MIRRORSYM_MANY_POINTS", "60"))
PACKED = 10


@pytest.mark.timeout(7200)
def test_nothing_is_lost(slurm: object, tmp_path: Path) -> None:
    project = make_project(tmp_path / "project")
    experiment = {
        "module": "stationary_conditions",
        "settings": {"steps": 5},
        "seeds": POINTS,
        "sweep": [{"landscape": ["rescaling"]}],
        "resources": {"mem_mb": 700, "runtime": 2},
    }
    project.configure({"experiments": {"tiny": experiment}, "figures": {}})
    packed = ("--groups", "train_tiny=tiny", "--group-components", f"tiny={PACKED}")
    run = Run(project, *PROFILE, *packed)
    assert run.wait(7000) == 0, run.text()[-3000:]
    result = project.result("tiny")
    assert result.sizes["seed"] == POINTS
    assert not result.status.any()
    for seed in (0, POINTS // 2, POINTS - 1):
        (path,) = project.folder.glob(f"results/points/tiny/*/*seed~{seed}.nc")
        made = xr.open_dataset(path).load()
        again = run_point(Point.from_json(made.attrs["point"]), tmp_path, tmp_path)
        xr.testing.assert_identical(made.drop_attrs(), again.drop_attrs())
        np.testing.assert_array_equal(result.distance.sel(seed=[seed]), made.distance)
    submitted = [job for job in jobs() if job["Comment"].endswith("tiny_train_tiny")]
    assert len(submitted) == -(-POINTS // PACKED)
    assert {job["State"] for job in submitted} == {"COMPLETED"}
