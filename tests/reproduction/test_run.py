"""What a job of a cluster does beside computing: its deadline, and results that other jobs left."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import xarray as xr

from reproduction.experiments.homogeneity import HomogeneitySettings
from reproduction.experiments.stationary_conditions import EXPERIMENT, StationaryConditionsSettings
from reproduction.pipeline import provenance, store
from reproduction.pipeline.layout import Layout
from reproduction.pipeline.points import Point
from reproduction.pipeline.run import MARGIN, ProgressBar, deadline_of, run_point

TRAINING = Point(
    "homogeneity",
    "homogeneity",
    HomogeneitySettings(dataset="digits", width=2, stem_stride=2, epochs=1, batch_size=500, crop_padding=0, flip=False),
    None,
    {"weight_decay": [0.01]},
    0,
)
SIMULATION = Point(
    "tiny", "stationary_conditions", StationaryConditionsSettings(steps=5), None, {"landscape": ["rescaling"]}, 0
)


def test_the_deadline_leaves_a_margin() -> None:
    now = time.monotonic()
    assert deadline_of(None) is None
    assert deadline_of(3600) == pytest.approx(now + 3600 - MARGIN, abs=1)
    assert deadline_of(60) == pytest.approx(now + 40, abs=1)


@pytest.mark.parametrize("point", [TRAINING, SIMULATION], ids=["training", "simulation"])
def test_a_second_job_of_a_cluster_takes_the_first_ones_result(
    point: Point, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "results" / "out.nc"
    first = run_point(point, Layout(tmp_path), out, walltime=600)
    made = out.read_bytes()
    out.unlink()  # as Snakemake does before a job starts
    second = run_point(point, Layout(tmp_path), out, walltime=600)
    assert "has finished it" in capsys.readouterr().out
    assert out.read_bytes() == made
    xr.testing.assert_identical(second, store.read(out))
    xr.testing.assert_identical(first.drop_attrs(), second.drop_attrs())


def test_a_result_of_other_code_is_not_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "results" / "out.nc"
    made = run_point(TRAINING, Layout(tmp_path), out, walltime=600)
    (kept,) = (tmp_path / "results" / "checkpoints").rglob("result.nc")
    store.write(made.assign_attrs(fingerprint="other"), kept)
    again = run_point(TRAINING, Layout(tmp_path), out, walltime=600)
    assert "has finished it" not in capsys.readouterr().out
    xr.testing.assert_identical(again.drop_attrs(), made.drop_attrs())
    assert store.read(kept).attrs["fingerprint"] == made.attrs["fingerprint"]


@pytest.mark.parametrize("point", [TRAINING, SIMULATION], ids=["training", "simulation"])
def test_on_one_machine_nothing_is_kept(point: Point, tmp_path: Path) -> None:
    run_point(point, Layout(tmp_path), tmp_path / "out.nc")
    assert not [path for path in (tmp_path / "results" / "checkpoints").rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda data: data.assign_coords(seed=[7]), r"coordinate 'seed' holds \[7\], and the point is at \[0\]"),
        (lambda data: data.assign_coords(landscape=["rotation"]), "coordinate 'landscape' holds"),
    ],
)
def test_a_result_that_lies_elsewhere_than_its_point_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[xr.Dataset], xr.Dataset], says: str
) -> None:
    wrong = dataclasses.replace(EXPERIMENT, run=lambda *arguments: change(EXPERIMENT.run(*arguments)))
    monkeypatch.setattr("reproduction.pipeline.run.load_experiment", lambda module: wrong)
    with pytest.raises(store.StoreError, match=says):
        run_point(SIMULATION, Layout(tmp_path), tmp_path / "out.nc")
    assert not (tmp_path / "out.nc").exists()


def test_a_processor_has_a_name_also_where_linux_does_not_say_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object, **__: object) -> str:
        raise FileNotFoundError("/proc/cpuinfo")

    monkeypatch.setattr(Path, "read_text", missing)
    assert provenance.device("cpu").removeprefix("CPU ")


def test_steps_of_an_earlier_sitting_are_not_in_the_rate(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressBar(TRAINING) as progress:
        progress(90_000, 100_000, {})
    assert "90000/100000" in (said := capsys.readouterr().err)
    assert "?it/s" in said
