"""Result files for people who go on with them: the path, the dataset of xarray, or a table of pandas.

from reproduction import results

sweep = results.dataset("sparsity")
table = results.frame("sparsity", "sparsity")
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from reproduction.contract import DIVERGED, FINISHED, NOT_IN_SWEEP
from reproduction.errors import check_names
from reproduction.pipeline import store
from reproduction.pipeline.config import load
from reproduction.pipeline.layout import Layout

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

WORDS = {FINISHED: "finished", DIVERGED: "diverged"}


def path(experiment: str, scale: str = "quick", directory: str | Path = ".") -> Path:
    """Return where the result file of an experiment lies; it need not be there yet.

    Args:
        experiment: its id, as ``mirrorsym list`` has them.
        scale: tiny, quick, laptop, overnight or paper.
        directory: the project's folder.

    Raises:
        ConfigError: if there is no such experiment or scale.
    """
    layout = Layout(Path(directory))
    check_names([experiment], load(layout.config, {"scale": scale}).experiments, "experiment")
    return layout.result(scale, experiment)


def dataset(experiment: str, scale: str = "quick", directory: str | Path = ".") -> xr.Dataset:
    """Return a result file in memory: a dimension for each axis of the sweep and for the seed, units in the attributes.

    Raises:
        ConfigError: if there is no such experiment or scale.
        FileError: if the file is missing.
        StoreError: if it cannot be read.
    """
    return store.read(path(experiment, scale, directory))


def frame(experiment: str, *variables: str, scale: str = "quick", directory: str | Path = ".") -> pd.DataFrame:
    """Return variables as a tidy table: a row for each run, and for each value of further dimensions that they share.

    Columns are the axes, the seed, further dimensions, the variables, and ``status`` in words. What is in no run of the
    sweep is left out; what diverged has missing values.

    Raises:
        ConfigError: if there is no such experiment, scale or variable.
        FileError: if the file is missing.
        StoreError: if it cannot be read.
    """
    data = dataset(experiment, scale, directory)
    known = [str(name) for name in data.data_vars if name != "status"]
    check_names(variables or ("",), known, f"variable of {experiment}")
    table = data[[*variables, "status"]].to_dataframe().reset_index()
    table = table[table["status"] != NOT_IN_SWEEP].reset_index(drop=True)
    table["status"] = table["status"].map(WORDS)
    return table
