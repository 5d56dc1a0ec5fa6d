"""The netCDF contract: what is written is what is read, points fall into their cells, and nothing is half-written."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from reproduction.contract import Axis, Experiment, Settings, Variable
from reproduction.files import FileError, write_atomically
from reproduction.pipeline import store

EXPERIMENT = Experiment(
    name="made_up",
    title="A made-up experiment",
    settings=Settings,
    axes=(Axis("kind", "kind of run", choices=("plain", "fancy")), Axis("rate", "rate of it", units="s")),
    variables={"height": Variable(("step",), "height", units="m")},
    coords={"step": "steps taken"},
    run=lambda settings, grid, seed, context: xr.Dataset(),
)


def point(kinds: list[str], rates: list[float], seed: int, value: float = 1.0) -> xr.Dataset:
    shape = (len(kinds), len(rates), 1)
    dims = ("kind", "rate", "seed")
    height = value * np.arange(np.prod(shape) * 3, dtype=float).reshape(*shape, 3)
    variables = {"height": ((*dims, "step"), height), "status": (dims, np.zeros(shape, np.int8))}
    return xr.Dataset(variables, {"kind": kinds, "rate": rates, "seed": [seed], "step": [0, 1, 5]})


def test_an_experiment_lays_out_its_points_in_the_order_of_its_axes() -> None:
    grid = {"kind": ["plain", "fancy"], "rate": [1, 2]}
    heights = [np.arange(3, dtype=np.float32) + place for place in range(3)]
    found = EXPERIMENT.dataset(grid, 7, {"height": [*heights, np.float32(np.nan)]}, {"step": (0, 1, 5)}, [0, 0, 0, 1])
    store.check(found, EXPERIMENT)
    assert (found.height.dtype, found.rate.dtype, found.status.dtype) == (np.float32, float, np.int8)
    assert found.height.sel(kind="fancy", rate=1, seed=7).values.tolist() == [2, 3, 4]
    assert found.height.sel(kind="fancy", rate=2, seed=7).isnull().all()
    assert found.status.values[..., 0].tolist() == [[0, 0], [0, 1]]
    whole = EXPERIMENT.dataset(grid, 7, {"height": np.ones((4, 3), int)}, {"step": [0, 1, 5]})
    assert (whole.height.dtype, int(whole.status.sum())) == (float, 0)
    with pytest.raises(ValueError, match="reshape"):
        EXPERIMENT.dataset(grid, 7, {"height": np.ones((4, 2))}, {"step": [0, 1, 5]})


def test_what_is_written_is_read_with_the_contracts_attributes(tmp_path: Path) -> None:
    described = store.describe(point(["plain"], [0.5], 3), EXPERIMENT, {"scale": "quick"})
    store.write(described, tmp_path / "sub" / "point.nc")
    found = store.read(tmp_path / "sub" / "point.nc")
    xr.testing.assert_identical(found.drop_attrs(), described.drop_attrs())
    assert found.attrs == {"Conventions": "CF-1.10", "title": "A made-up experiment", "scale": "quick"}
    assert (found.height.attrs["units"], found.rate.attrs["units"]) == ("m", "s")
    assert found.status.attrs["flag_values"].tolist() == [0, 1, 2]
    assert all(
        "_FillValue" not in found[name].encoding or found[name].encoding["_FillValue"] is None for name in found.coords
    )


@given(st.permutations([(kind, rate, seed) for kind in ("plain", "fancy") for rate in (0.1, 2.0) for seed in (0, 4)]))
def test_points_fall_into_their_cells_in_any_order(cells: list[tuple[str, float, int]]) -> None:
    kept = cells[:-1]
    points = [point([kind], [rate], seed, value=seed + rate) for kind, rate, seed in kept]
    whole = store.collect(points, EXPERIMENT)
    assert whole.kind.values.tolist() == [kind for kind in ("plain", "fancy") if kind in {cell[0] for cell in kept}]
    for (kind, rate, seed), one in zip(kept, points, strict=True):
        np.testing.assert_array_equal(whole.height.sel(kind=kind, rate=rate, seed=seed), one.height.values[0, 0, 0])
    kind, rate, seed = cells[-1]
    assert whole.status.sel(kind=kind, rate=rate, seed=seed) == 2
    assert np.isnan(whole.height.sel(kind=kind, rate=rate, seed=seed)).all()


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        (point(["plain"], [1], 0).drop_vars("status"), "'status'"),
        (point(["plain"], [1], 0).transpose("step", ...), "'height'"),
        (point(["plain"], [1], 0).assign(more=1), "'more'"),
        (point(["plain"], [1], 0).drop_vars("step"), "'step'"),
    ],
)
def test_what_breaks_the_contract_is_named(broken: xr.Dataset, says: str) -> None:
    with pytest.raises(store.StoreError, match=says):
        store.check(broken, EXPERIMENT)


def test_points_of_other_steps_are_not_mixed() -> None:
    other = point(["plain"], [1], 1).assign_coords(step=[0, 1, 6])
    with pytest.raises(store.StoreError, match="'step'"):
        store.collect([point(["plain"], [1], 0), other], EXPERIMENT)


def test_points_of_other_precision_are_not_mixed() -> None:
    """The first point's type would be that of all: doubles would lose half of their digits without a word."""
    single = point(["plain"], [0.5], 0)
    single["height"] = single.height.astype(np.float32)
    assert store.collect([single], EXPERIMENT).height.dtype == np.float32
    for points in ([single, point(["plain"], [0.5], 1)], [point(["plain"], [0.5], 1), single]):
        with pytest.raises(store.StoreError, match="'height' has different types in the points: float32, float64"):
            store.collect(points, EXPERIMENT)


@pytest.mark.parametrize(
    ("change", "encoding", "says"),
    [
        ({}, {}, None),
        ({"height": "km"}, {}, "'height' has units 'km', and the contract says 'm'"),
        ({"rate": "ms"}, {}, "'rate' has units 'ms', and the contract says 's'"),
        ({"step": None}, {}, "'step' has units None"),
        ({}, {"height": {"dtype": "i2", "scale_factor": 0.1}}, "'height' is stored packed"),
        ({}, {"height": {"_FillValue": 0.0}}, "'height' is stored packed or with a value for what is missing"),
    ],
)
def test_what_numbers_mean_is_the_contracts(
    tmp_path: Path, change: dict[str, str | None], encoding: dict[str, dict[str, object]], says: str | None
) -> None:
    described = store.describe(point(["plain"], [0.5], 3), EXPERIMENT, {})
    for name, units in change.items():
        described[name].attrs = {} if units is None else {"units": units}
    described.to_netcdf(tmp_path / "point.nc", encoding=encoding)
    with pytest.raises(store.StoreError, match=says) if says else contextlib.nullcontext():
        store.check_meaning(store.read(tmp_path / "point.nc"), EXPERIMENT)


def test_a_coordinate_that_the_contract_does_not_know_is_refused() -> None:
    described = store.describe(point(["plain"], [0.5], 3), EXPERIMENT, {}).assign_coords(machine="another")
    with pytest.raises(store.StoreError, match="knows no coordinate 'machine'"):
        store.check_meaning(described, EXPERIMENT)


def test_seconds_are_numbers_and_not_dates(tmp_path: Path) -> None:
    described = store.describe(point(["plain"], [0.5], 3), EXPERIMENT, {})
    described.height.attrs["units"] = "seconds"
    described.rate.attrs["units"] = "days since 2000-01-01"
    store.write(described, tmp_path / "point.nc")
    found = store.read(tmp_path / "point.nc")
    assert (found.height.dtype, found.rate.dtype) == (float, float)
    assert found.rate.attrs["units"] == "days since 2000-01-01"


def test_a_truncated_file_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "point.nc"
    store.write(point(["plain"], [0.5], 3), path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(store.StoreError, match="is not a readable netCDF file"):
        store.read(path)


def test_a_failed_write_keeps_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_atomically(path, "old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(FileError, match=f"the disk is full: {path}"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["file"]
