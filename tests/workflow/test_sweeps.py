"""A sweep can grow and shrink, code goes stale and comments do not, results travel."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from project import SMALL, Project, make_project

MODULE = "src/reproduction/experiments/sparsity.py"
KERNEL = "src/reproduction/kernels/sparsity.py"


def small(**changes: Any) -> dict[str, Any]:
    config: dict[str, Any] = copy.deepcopy(SMALL)
    config["experiments"]["sparsity"] |= changes
    return config


def sweep(*learning_rates: list[float | int | str], noise_std: float | int = 1) -> list[dict[str, Any]]:
    return [
        {"parameterization": ["rescaled"], "noise_std": [noise_std], "learning_rate": values}
        for values in learning_rates
    ]


@pytest.fixture
def project(finished: Project, tmp_path: Path) -> Project:
    """A copy of the finished project for a test of its own; nothing is left to do in it."""
    return finished.copy(tmp_path / "project")


def test_the_first_run_makes_the_result_and_the_second_does_nothing(finished: Project, tmp_path: Path) -> None:
    assert make_project(tmp_path / "fresh").planned() == {"train_sparsity": 2, "collect_sparsity": 1}
    result = finished.result("sparsity")
    assert result.sizes["seed"] == 2
    assert result.learning_rate.values.tolist() == [0.001, 0.008]
    assert np.isfinite(result.weight).all()
    assert result.attrs["Conventions"] == "CF-1.10"
    assert result.attrs["scale"] == "quick"
    assert all(variable.attrs["units"] and variable.attrs["long_name"] for variable in result.variables.values())
    assert finished.planned() == {}


def test_a_seed_more_trains_that_seed_and_one_less_trains_nothing(project: Project) -> None:
    project.configure(small(seeds=3))
    assert project.planned() == {"train_sparsity": 1, "collect_sparsity": 1}
    project.configure(small(seeds=[1]))
    assert project.planned() == {"collect_sparsity": 1}
    project.configure(SMALL)
    assert project.planned() == {}


def test_a_value_is_the_same_point_however_it_is_written(project: Project) -> None:
    project.configure(small(sweep=sweep(["8e-3", 0.0010, 0.008], noise_std=1.0)))
    assert "train_sparsity" not in project.planned()


def test_scales_share_points(project: Project) -> None:
    assert project.planned("--config", "scale=laptop") == {"collect_sparsity": 1}


def test_a_job_of_a_cluster_reads_the_rules_of_points_alone(project: Project) -> None:
    """Each job starts Snakemake twice or more, and needs no claims, notebooks or report."""
    listed = project.snakemake("--list-rules", "--mode", "remote").stdout.split()
    assert sorted(listed) == sorted(f"train_{name}" for name in SMALL["experiments"])


def test_numbers_do_not_depend_on_how_the_sweep_is_cut_into_jobs(project: Project) -> None:
    whole = project.result("sparsity")
    project.configure(small(sweep=sweep([0.008], [0.001])))
    assert project.planned() == {"train_sparsity": 4, "collect_sparsity": 1}
    project.snakemake("--scheduler", "greedy")
    xr.testing.assert_identical(project.result("sparsity").drop_attrs(), whole.drop_attrs())


def test_words_make_nothing_stale(project: Project) -> None:
    for file in (project.folder / MODULE, project.folder / KERNEL):
        file.write_text(f"# a comment\n{file.read_text()}\n'Words.'\n".replace('description="', 'description="More: '))
    assert project.planned() == {}


def test_a_change_that_computes_makes_its_experiment_stale_and_a_reverted_one_does_not(project: Project) -> None:
    file = project.folder / KERNEL
    before = file.read_text()
    file.write_text(f"{before}\nCHANGED = 1\n")
    planned = project.snakemake("-n").stdout
    assert project.planned() == {"train_sparsity": 2, "collect_sparsity": 1}
    assert "results/fingerprints/reproduction.experiments.sparsity." in planned
    file.write_text(before)
    assert project.planned() == {}


def test_a_change_reverted_after_a_run_is_run_again(project: Project) -> None:
    file = project.folder / KERNEL
    before = file.read_text()
    file.write_text(f"{before}\nRUN_WITH = 1\n")
    project.snakemake()
    file.write_text(before)
    assert project.planned() == {"train_sparsity": 2, "collect_sparsity": 1}
    project.snakemake()
    assert project.planned() == {}


def test_a_figure_depends_on_what_makes_it_and_on_the_theory_that_its_notebook_imports(project: Project) -> None:
    project.configure({**SMALL, "figures": {"fig1": {}}})
    project.snakemake()
    assert project.planned() == {}
    for name, stale in {
        "mirrorsym/mirrors.py": {"fig1": 1},
        "reproduction/pipeline/execute.py": {"fig1": 1},
        "reproduction/pipeline/collect.py": {"collect_sparsity": 1},
        "reproduction/cli/jobs.py": {},
    }.items():
        file = project.folder / "src" / name
        before = file.read_text()
        file.write_text(f"{before}\nCHANGED = 1\n")
        assert project.planned() == stale
        file.write_text(before)


def test_a_project_that_was_moved_has_nothing_to_do(project: Project) -> None:
    moved = Project(project.folder.rename(project.folder.with_name("moved")))
    assert moved.planned() == {}


def test_an_accepted_change_keeps_the_results(project: Project) -> None:
    file = project.folder / KERNEL
    before = file.read_text()
    file.write_text(f"{before}\nRENAMED = 1\n")
    assert project.planned() != {}
    project.mirrorsym("accept", "sparsity")
    assert project.planned() == {}
    file.write_text(f"{before}\nRENAMED = 2\n")
    assert project.planned() != {}


def test_results_made_under_a_modules_former_name_are_accepted(tmp_path: Path) -> None:
    older = make_project(tmp_path / "older")
    assert older.planned() == {"train_sparsity": 2, "collect_sparsity": 1}
    (today,) = (older.folder / "results/fingerprints").glob("reproduction.experiments.sparsity.*.txt")
    today.rename(today.with_name(today.name.replace("reproduction", "mirrorsym", 1)))
    older.snakemake()
    assert not today.exists()  # the results were made from the file of the former name
    kernel = older.folder / KERNEL
    kernel.write_text(f"{kernel.read_text()}\nMOVED = 1\n")
    assert older.planned() == {"train_sparsity": 2, "collect_sparsity": 1}
    older.mirrorsym("accept", "--all")
    assert older.planned() == {}


def test_points_travel_by_import(project: Project, tmp_path: Path) -> None:
    elsewhere = make_project(tmp_path / "elsewhere")
    points = sorted((project.folder / "results/points").rglob("*2x*.nc"))
    elsewhere.mirrorsym("import", *map(str, points))
    assert elsewhere.planned() == {"collect_sparsity": 1}
    elsewhere.snakemake()
    xr.testing.assert_identical(elsewhere.result("sparsity").drop_attrs(), project.result("sparsity").drop_attrs())
    kernel = elsewhere.folder / KERNEL
    before = kernel.read_text()
    kernel.write_text(f"{before}\nCHANGED = 1\n")
    assert elsewhere.planned() == {"train_sparsity": 2, "collect_sparsity": 1}
    kernel.write_text(before)
    assert elsewhere.planned() == {}
    kernel.write_text(f"{before}\nCHANGED = 1\n")
    refused = elsewhere.mirrorsym("import", str(points[0]), check=False)
    assert refused.returncode == 1
    assert "other code" in refused.stderr
    elsewhere.mirrorsym("import", "--accept", *map(str, points))
    assert elsewhere.planned() == {"collect_sparsity": 1}
    elsewhere.snakemake()
    collected = elsewhere.result("sparsity")
    xr.testing.assert_identical(collected.drop_attrs(), project.result("sparsity").drop_attrs())
    older, newer = (sources.result("sparsity").attrs["fingerprint"] for sources in (project, elsewhere))
    assert older != newer
    assert f"({older[:12]}), taken in as that of" in collected.attrs["accepted"]
    assert "accepted" not in project.result("sparsity").attrs
    kernel.write_text(before)
    said = elsewhere.mirrorsym("status", check=False).stdout
    assert "2 imported points of sparsity are of other code than today's" in said
    assert "are of other code than today's" in elsewhere.snakemake("-n").stderr


def test_a_point_by_hand_has_the_pipelines_numbers(project: Project, tmp_path: Path) -> None:
    out = tmp_path / "by-hand.nc"
    done = project.mirrorsym("run", "sparsity", "--set", "learning_rate=0.008", "--set", "seed=1", "--out", str(out))
    assert "learning_rate = 0.008" in done.stdout
    with xr.open_dataset(out) as point:
        expected = project.result("sparsity").sel(learning_rate=[0.008], seed=[1])
        xr.testing.assert_identical(point.load().drop_attrs(), expected.drop_attrs())


@pytest.mark.parametrize(
    ("attribute", "says"),
    [("{nope", "damaged"), ("5", "damaged"), ('{"experiment": "sparsity"}', "damaged"), ("escape", "no scale's sweep")],
)
def test_import_refuses_manipulated_points(project: Project, tmp_path: Path, attribute: str, says: str) -> None:
    point = next((project.folder / "results/points").rglob("*2x*.nc"))
    with xr.open_dataset(point) as dataset:
        changed = dataset.load()
    recorded = json.loads(changed.attrs["point"])
    changed.attrs["point"] = json.dumps({**recorded, "seed": "../../escaped"}) if attribute == "escape" else attribute
    changed.to_netcdf(tmp_path / "point.nc")
    listing = project.listing()
    refused = project.mirrorsym("import", str(tmp_path / "point.nc"), check=False)
    assert (refused.returncode, len(refused.stderr.splitlines())) == (1, 1)
    assert says in refused.stderr
    assert project.listing() == listing


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"settings": {"steps": 501}}, "another recipe"),
        ({"sweep": sweep([0.001])}, "no scale's sweep has the job"),
        ({}, "by other code"),
    ],
)
def test_import_refuses_what_does_not_belong(project: Project, changes: dict[str, Any], says: str) -> None:
    kernel = project.folder / KERNEL
    point = str(next((project.folder / "results/points").rglob("*2x*.nc")))
    project.configure(small(**changes))
    if not changes:
        kernel.write_text(f"{kernel.read_text()}\nCHANGED = 1\n")
    listing = project.listing()
    refused = project.mirrorsym("import", point, check=False)
    assert (refused.returncode, len(refused.stderr.splitlines())) == (1, 1)
    assert says in refused.stderr
    assert project.listing() == listing
