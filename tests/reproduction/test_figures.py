"""Figures carry what they drew: the same inputs give the same bytes, and a changed result is noticed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from reproduction.pipeline import store
from reproduction.pipeline.layout import FIGURE_FORMATS
from reproduction.report import plotting
from reproduction.report.trace import TraceError, record_of, trace


@pytest.fixture
def results(tmp_path: Path) -> Path:
    shape = (3, 4)
    data = xr.Dataset(
        {"height": (("rate", "seed"), np.arange(12.0).reshape(shape)), "other": (("rate", "seed"), np.ones(shape))},
        {"rate": [0.1, 0.2, 0.3], "seed": range(4)},
    )
    store.write(data, tmp_path / "results" / "made_up.nc")
    return tmp_path / "results"


def draw(results: Path, figures: Path) -> None:
    data = plotting.open_results(results, "made_up")
    fig, ax = plotting.figure()
    drawn = data[["height"]].sel(rate=[0.1, 0.3])
    plotting.band(ax, drawn.rate, drawn.height)
    plotting.title(ax, "Height (“quoted” & <odd>)", data)
    plotting.save(fig, figures, "fig", data=pd.DataFrame({"a": [1.5]}), drawn=[drawn, data[["height"]].sel(seed=2)])


def test_the_same_inputs_give_the_same_bytes(results: Path, tmp_path: Path) -> None:
    draw(results, tmp_path / "one")
    draw(results, tmp_path / "two")
    for file in sorted((tmp_path / "one").iterdir()):
        assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes(), file.name


def test_every_format_carries_the_same_record(results: Path, tmp_path: Path) -> None:
    draw(results, tmp_path)
    records = [record_of(tmp_path / f"fig.{suffix}") for suffix in FIGURE_FORMATS]
    assert records[0] == records[1] == records[2]
    assert records[0]["drawn"][0]["variables"] == ["height"]
    assert records[0]["drawn"][0]["coordinates"]["rate"] == [0.1, 0.3]


@pytest.mark.parametrize(
    ("rate", "variable", "noticed"), [(0.1, "height", True), (0.2, "other", False), (0.3, "height", True)]
)
def test_a_change_of_what_was_drawn_is_noticed(
    results: Path, tmp_path: Path, rate: float, variable: str, noticed: bool
) -> None:
    draw(results, tmp_path)
    assert trace("fig", tmp_path, results) == []
    data = store.read(results / "made_up.nc")
    data[variable].loc[{"rate": rate}] += 1
    store.write(data, results / "made_up.nc")
    assert bool(trace("fig", tmp_path, results)) == noticed


def test_what_is_missing_is_said(results: Path, tmp_path: Path) -> None:
    draw(results, tmp_path)
    store.write(store.read(results / "made_up.nc").drop_sel(rate=0.3), results / "made_up.nc")
    assert "no longer has" in trace("fig", tmp_path, results)[0]
    (results / "made_up.nc").unlink()
    assert "is missing" in trace("fig", tmp_path, results)[0]
    (tmp_path / "fig.pdf").write_bytes(b"%PDF-1.4 nothing")
    with pytest.raises(TraceError, match="no provenance"):
        trace("fig", tmp_path, results)
