"""The netCDF contract: units and long names, provenance, atomic writes, and one file from many points."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from reproduction.contract import DIVERGED, FINISHED, NOT_IN_SWEEP, Experiment
from reproduction.errors import UserError
from reproduction.files import FileError, check_readable, write_atomically

if TYPE_CHECKING:
    import xarray as xr

CONVENTIONS = "CF-1.10"
STATUS = {
    "long_name": "state of the run",
    "standard_name": "status_flag",
    "units": "1",
    "flag_values": np.array([FINISHED, DIVERGED, NOT_IN_SWEEP], dtype=np.int8),
    "flag_meanings": "finished diverged not_part_of_the_sweep",
}


class StoreError(UserError, ValueError):
    """A result file does not hold what it should."""


def settings_of(dataset: xr.Dataset) -> dict[str, Any]:
    """Return what an experiment kept fixed."""
    found: dict[str, Any] = json.loads(dataset.attrs["settings"])
    return found


def write(dataset: xr.Dataset, path: Path) -> None:
    """Write a dataset as NETCDF4, whole or not at all.

    Raises:
        FileError: if the file cannot be written.
    """
    encoding: dict[str, dict[str, Any]] = {str(name): {"_FillValue": None} for name in dataset.coords}
    for key, variable in dataset.data_vars.items():
        if variable.nbytes > 65536:
            encoding[str(key)] = {"zlib": True, "complevel": 1}
    content = dataset.to_netcdf(engine="netcdf4", format="NETCDF4", encoding=encoding)
    assert content is not None
    write_atomically(path, content)


def read(path: Path) -> xr.Dataset:
    """Return a result file, read into memory and closed.

    Raises:
        FileError: if it is missing, or the disk does not let it be read.
        StoreError: if it is no netCDF file (a truncated one, say).
    """
    import xarray as xr

    if not path.is_file():
        raise FileError(f"{path} is missing; make it with snakemake")
    try:
        # Units such as seconds are words here; decoded, they would make floats dates.
        with xr.open_dataset(path, engine="netcdf4", decode_times=False) as dataset:
            return dataset.load()
    except (OSError, ValueError, RuntimeError) as error:
        check_readable(path)
        raise StoreError(f"{path} is not a readable netCDF file ({error}); make it again") from None


def describe(dataset: xr.Dataset, experiment: Experiment[Any], attributes: Mapping[str, Any]) -> xr.Dataset:
    """Return the dataset with the contract's units, long names and attributes, beside those that the run gave.

    Raises:
        StoreError: if its variables or dimensions are not the contract's.
    """
    check(dataset, experiment)
    described = dataset.copy()
    axes = {axis.name: {"long_name": axis.long_name, "units": axis.units} for axis in experiment.axes}
    coords = {name: {"long_name": text, "units": "1"} for name, text in experiment.coords.items()}
    for name, attrs in {**axes, **coords, "seed": {"long_name": "seed of the random streams", "units": "1"}}.items():
        described[name].attrs = dict(attrs)
    for name, variable in experiment.variables.items():
        described[name].attrs = {"long_name": variable.long_name, "units": variable.units}
    described["status"].attrs = dict(STATUS)
    described.attrs = {"Conventions": CONVENTIONS, "title": experiment.title, **dataset.attrs, **attributes}
    return described


def check(dataset: xr.Dataset, experiment: Experiment[Any]) -> None:
    """Check that a dataset holds exactly the experiment's variables, over the contract's dimensions in their order.

    Raises:
        StoreError: with one sentence that names the first difference.
    """
    sweep = (*(axis.name for axis in experiment.axes), "seed")
    wanted = {name: sweep + variable.dims for name, variable in experiment.variables.items()} | {"status": sweep}
    found = {str(name): variable.dims for name, variable in dataset.data_vars.items()}
    if found != wanted:
        name = sorted(set(found.items()) ^ set(wanted.items()))[0][0]
        raise StoreError(
            f"{experiment.name}: variable {name!r} has dimensions {found.get(name, 'none (it is missing)')}, "
            f"and the contract says {wanted.get(name, 'that there is no such variable')}"
        )
    for key, variable in dataset.data_vars.items():
        if (variable.dtype != np.int8) if key == "status" else (variable.dtype.kind != "f"):
            raise StoreError(f"{experiment.name}: variable {str(key)!r} has type {variable.dtype}")
    if not np.isin(dataset["status"], (FINISHED, DIVERGED, NOT_IN_SWEEP)).all():
        raise StoreError(f"{experiment.name}: 'status' has values that are no flags")
    missing = [dim for dim in dataset.dims if dim not in dataset.coords]
    if missing:
        raise StoreError(f"{experiment.name}: dimension {missing[0]!r} has no coordinate")


def check_meaning(dataset: xr.Dataset, experiment: Experiment[Any]) -> None:
    """Check that the numbers of a file mean what the contract says: their units, and that none is packed or masked.

    Raises:
        StoreError: with one sentence that names the first difference.
    """
    units = {axis.name: axis.units for axis in experiment.axes} | dict.fromkeys(("seed", "status"), "1")
    units |= dict.fromkeys(experiment.coords, "1")
    units |= {name: variable.units for name, variable in experiment.variables.items()}
    for key, variable in dataset.variables.items():
        name = str(key)
        if name not in units:
            raise StoreError(f"{experiment.name}: the contract knows no coordinate {name!r}")
        if (found := variable.attrs.get("units")) != units[name]:
            raise StoreError(f"{experiment.name}: {name!r} has units {found!r}, and the contract says {units[name]!r}")
        fill = variable.encoding.get("_FillValue", np.nan)
        packed = {"scale_factor", "add_offset", "missing_value"} & set(variable.encoding)
        if packed or not (isinstance(fill, float | np.floating) and np.isnan(fill)):
            raise StoreError(f"{experiment.name}: {name!r} is stored packed or with a value for what is missing")


def check_place(dataset: xr.Dataset, place: Mapping[str, Sequence[Any]]) -> None:
    """Check that a point is where it should be: its axes, and the seed, have these values.

    Raises:
        StoreError: if one has not.
    """
    for axis, values in place.items():
        if (found := dataset[axis].values.tolist()) != list(values):
            raise StoreError(f"coordinate {axis!r} holds {found}, and the point is at {list(values)}")


def collect(datasets: Sequence[xr.Dataset], experiment: Experiment[Any]) -> xr.Dataset:
    """Put the points of a sweep into one dataset; cells that no point holds are NaN with status 2.

    Args:
        datasets: points, each over its own values of the axes and its seed.
        experiment: whose contract they follow.

    Raises:
        StoreError: if a point breaks the contract, or the points' other coordinates or their types differ.
    """
    import xarray as xr

    for dataset in datasets:
        check(dataset, experiment)
    sweep = [axis.name for axis in experiment.axes] + ["seed"]
    coords: dict[str, Any] = {name: _union(datasets, experiment, name) for name in sweep}
    first = datasets[0]
    for name in (str(dim) for dim in first.dims if dim not in sweep):
        if any(not np.array_equal(first[name].values, dataset[name].values) for dataset in datasets):
            raise StoreError(f"{experiment.name}: the points do not share the coordinate {name!r}")
        coords[name] = first[name].values
    for key in first.variables:
        kinds = sorted({str(dataset[key].dtype) for dataset in datasets if dataset[key].dtype.kind in "fi"})
        if len(kinds) > 1:
            raise StoreError(f"{experiment.name}: {str(key)!r} has different types in the points: {', '.join(kinds)}")
    index = {name: {value: i for i, value in enumerate(coords[name])} for name in sweep}
    places = [[[index[name][value] for value in d[name].values] for name in sweep] for d in datasets]
    variables = {}
    for key, variable in first.data_vars.items():
        name = str(key)
        shape = [len(coords[str(dim)]) for dim in variable.dims]
        fill = NOT_IN_SWEEP if name == "status" else np.nan
        full = np.full(shape, fill, dtype=variable.dtype)
        for dataset, place in zip(datasets, places, strict=True):
            full[np.ix_(*place)] = dataset[name].values
        variables[name] = (variable.dims, full)
    return xr.Dataset(variables, coords)


def _union(datasets: Sequence[xr.Dataset], experiment: Experiment[Any], name: str) -> list[Any]:
    found = {value for dataset in datasets for value in dataset[name].values.tolist()}
    choices = next((axis.choices for axis in experiment.axes if axis.name == name), None)
    return sorted(found) if choices is None else [choice for choice in choices if choice in found]
