"""The script that compares two runs sees every difference that counts, and no other."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

sys.path.insert(0, str(Path(__file__).parents[1]))

from compare_results import differences


def make(folder: Path, change: Callable[[xr.Dataset], xr.Dataset] = lambda data: data, verdict: str = "ok") -> Path:
    results, figures = folder / "results/quick", folder / "paper/figures/quick"
    results.mkdir(parents=True)
    figures.mkdir(parents=True)
    measured = {"seconds": ((), 1.0, {"units": "s"})}
    data = xr.Dataset({"rank": (("seed",), np.array([1.0, np.nan])), **measured}, coords={"seed": [0, 1]})
    change(data).to_netcdf(results / "spins.nc")
    (results / "claims.json").write_text(
        json.dumps({"claims": [{"id": "a", "verdict": verdict, "reason": folder.name}]})
    )
    (figures / "fig.svg").write_text("<svg/>")
    return folder


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda data: data.assign_attrs(created="later"), []),
        (lambda data: data.assign(rank=data["rank"] + 1e-16), []),
        (lambda data: data.assign(seconds=((), 2.0, {"units": "s"})), []),
        (lambda data: data.assign(rank=data["rank"] + 1e-15), ["spins.nc: rank differs"]),
        (lambda data: data.assign(rank=data["rank"].astype("f4")), ["spins.nc: rank differs"]),
        (lambda data: data.assign_coords(seed=[0, 2]), ["spins.nc: seed differs"]),
        (lambda data: data.rename(rank="sparsity"), ["spins.nc: only one has rank", "spins.nc: only one has sparsity"]),
    ],
)
def test_bits_of_variables(tmp_path: Path, change: Callable[[xr.Dataset], xr.Dataset], said: list[str]) -> None:
    assert list(differences(make(tmp_path / "a"), make(tmp_path / "b", change), "quick")) == said


def test_verdicts_figures_and_missing_files(tmp_path: Path) -> None:
    one, other = make(tmp_path / "a"), make(tmp_path / "b", verdict="not supported")
    assert list(differences(one, other, "quick")) == ["claim a: verdict ok and not supported"]
    (other / "results/quick/claims.json").write_bytes((one / "results/quick/claims.json").read_bytes())
    (other / "paper/figures/quick/fig.svg").write_text("<svg />")
    (one / "results/quick/spins.nc").unlink()
    assert list(differences(one, other, "quick")) == ["spins.nc: only one has it", "figure fig.svg differs"]
