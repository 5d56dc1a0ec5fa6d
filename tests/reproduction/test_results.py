"""Result files for people who go on with them: what xarray and pandas get is what the file holds."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from click.testing import CliRunner

from reproduction import results
from reproduction.cli.user import cli
from reproduction.errors import ConfigError
from reproduction.files import FileError
from reproduction.pipeline import store

ROOT = Path(__file__).parents[2]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """One run that finished, one that diverged, one that is in no sweep, and one that finished."""
    shutil.copytree(ROOT / "config", tmp_path / "config")
    sparsity = np.array([[[0.1, 0.2], [np.nan, np.nan]], [[np.nan, np.nan], [0.7, 0.8]]])
    data = xr.Dataset(
        {
            "sparsity": (("learning_rate", "seed", "threshold"), sparsity),
            "loss": (("learning_rate", "seed"), sparsity[..., 0] * 10),
            "status": (("learning_rate", "seed"), np.array([[0, 1], [2, 0]], np.int8)),
        },
        {"learning_rate": [0.01, 0.1], "seed": [0, 1], "threshold": [1e-6, 1e-3]},
    )
    store.write(data, tmp_path / "results" / "quick" / "sparsity.nc")
    return tmp_path


def test_the_dataset_is_the_file(project: Path) -> None:
    assert results.path("sparsity", directory=project) == project / "results" / "quick" / "sparsity.nc"
    xr.testing.assert_identical(
        results.dataset("sparsity", directory=project), store.read(project / "results/quick/sparsity.nc")
    )


def test_a_table_has_a_row_for_each_run_of_the_sweep(project: Path) -> None:
    table = results.frame("sparsity", "loss", directory=project)
    wanted = {
        "learning_rate": [0.01, 0.01, 0.1],
        "seed": [0, 1, 1],
        "loss": [1.0, np.nan, 7.0],
        "status": ["finished", "diverged", "finished"],
    }
    pd.testing.assert_frame_equal(table, pd.DataFrame(wanted))
    finer = results.frame("sparsity", "sparsity", "loss", directory=project)
    assert list(finer.columns) == ["learning_rate", "seed", "threshold", "sparsity", "loss", "status"]
    assert finer.query("learning_rate == 0.1 and threshold == 0.001")["sparsity"].tolist() == [0.8]


def test_what_is_not_there_is_said(project: Path) -> None:
    with pytest.raises(ConfigError, match=r"there is no variable of sparsity 'spars' \(did you mean 'sparsity'\?\)"):
        results.frame("sparsity", "spars", directory=project)
    with pytest.raises(ConfigError, match=r"valid: loss, sparsity|valid: sparsity, loss"):
        results.frame("sparsity", directory=project)
    with pytest.raises(ConfigError, match="there is no experiment 'sparsit'"):
        results.path("sparsit", directory=project)
    with pytest.raises(FileError, match="is missing; make it with snakemake"):
        results.dataset("plasticity", directory=project)


def test_the_command_shows_the_file_the_table_or_the_path(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)

    def printed(*words: str) -> str:
        done = CliRunner().invoke(cli, ["open", *words], catch_exceptions=False)
        assert done.exit_code == 0
        return done.stdout

    assert printed("sparsity", "--path") == "results/quick/sparsity.nc\n"
    assert printed("sparsity", "--path", "--scale", "tiny") == "results/tiny/sparsity.nc\n"
    assert "threshold" in printed("sparsity")
    read = pd.read_csv(io.StringIO(printed("sparsity", "loss")))
    pd.testing.assert_frame_equal(read, results.frame("sparsity", "loss"))
