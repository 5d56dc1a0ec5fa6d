"""The statistics that decide claims: from result files to one number a seed.

A statistic is a function ``(results, **arguments)`` with ``results`` a mapping from experiments to their datasets; it
returns a one-dimensional DataArray, the samples (one a seed, or one a cell of a phase diagram). The arguments stand in
the files of claims, thresholds among them: there is none in this package.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from reproduction.analysis.statistics.selection import NoDataError, StatisticError

if TYPE_CHECKING:
    import numpy as np
    import xarray as xr
    from numpy.typing import NDArray

__all__ = ["NoDataError", "StatisticError", "evaluate", "lowest"]

DIFFERENCES = frozenset({"difference", "noise_features_ignored", "phase_agreement_over_power_law", "trend"})
"""Statistics that can be negative, whatever variable they read."""


def evaluate(function: str, arguments: Mapping[str, Any], results: Mapping[str, xr.Dataset]) -> NDArray[np.float64]:
    """Return the samples of a statistic, shape (samples,), NaN where a run diverged.

    Args:
        function: name of the statistic.
        arguments: what the file of claims writes beside the name.
        results: datasets by experiment.

    Raises:
        StatisticError: if there is no such statistic, or its arguments do not fit; one sentence.
        NoDataError: if the results lack an experiment or a value of a sweep.
    """
    import numpy as np
    from pydantic import TypeAdapter, ValidationError

    from reproduction.analysis.statistics import general, predictions, symmetry
    from reproduction.errors import nearest

    known: dict[str, Callable[..., xr.DataArray]] = {
        **general.STATISTICS,
        **predictions.STATISTICS,
        **symmetry.STATISTICS,
    }
    if function not in known:
        raise StatisticError(f"there is no statistic {function!r}{nearest(function, known)}")
    statistic = known[function]
    parameters = {name: value for name, value in inspect.signature(statistic).parameters.items() if name != "results"}
    for name in arguments:
        if name not in parameters:
            raise StatisticError(f"statistic {function} has no argument {name!r}{nearest(name, parameters)}")
    for name, parameter in parameters.items():
        if parameter.default is parameter.empty and name not in arguments:
            raise StatisticError(f"statistic {function} needs the argument {name!r}")
    hints = inspect.get_annotations(statistic, eval_str=True)
    checked = {}
    for name, value in arguments.items():
        try:
            checked[name] = TypeAdapter(hints[name]).validate_python(value)
        except ValidationError as error:
            said = error.errors(include_url=False)[0]["msg"]
            raise StatisticError(f"statistic {function}: {name} {value!r} does not fit: {said}") from None
    samples = statistic(results, **checked)
    if samples.ndim > 1:
        left = ", ".join(str(dim) for dim in samples.dims)
        raise StatisticError(f"statistic {function} leaves the dimensions {left}; pick or reduce all but one")
    return np.atleast_1d(np.asarray(samples.values, dtype=float))


def lowest(function: str, arguments: Mapping[str, Any]) -> float:
    """Return what a statistic cannot fall below: 0 for a size, a count or a share, else minus infinity."""
    from reproduction.analysis.derived import SIGNED

    variable = arguments.get("variable")
    name = variable.get("name") if isinstance(variable, dict) else variable
    is_size = function not in DIFFERENCES and name not in SIGNED
    return 0.0 if is_size or arguments.get("absolute") else -math.inf
