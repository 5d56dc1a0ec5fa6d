"""At which learning rate theory expects collapse to begin, for each size of the batch (Section 2.4)."""

from __future__ import annotations

import numpy as np
import xarray as xr

from mirrorsym import stability
from reproduction.experiments.sparsity_batch import batch_curvature
from reproduction.pipeline import store
from reproduction.theory import exponents


def critical_learning_rates(dataset: xr.Dataset) -> xr.Dataset:
    """Return the critical learning rate of each batch size, in the middle of the two backgrounds.

    Args:
        dataset: results of the sparsity_batch experiment.

    Returns:
        ``exact``, where E log|1 - λh| changes sign (Theorem 5 with the batch's curvature h), and ``second_order``
        (Eq. 5), with dimension ``batch_size``.
    """
    settings = store.settings_of(dataset)
    sizes = dataset["batch_size"].values
    rates = [
        np.mean(
            [_critical(int(size), settings["noise_std"], learnt, settings["features"]) for learnt in (False, True)], 0
        )
        for size in sizes
    ]
    names = ("exact", "second_order")
    return xr.Dataset(
        {name: ("batch_size", np.array(rates)[:, place]) for place, name in enumerate(names)}, {"batch_size": sizes}
    )


def _critical(size: int, noise_std: float, others_learnt: bool, features: int) -> list[float]:
    law = batch_curvature(size, noise_std, others_learnt, features)
    values, probabilities = law
    mean, square = float(probabilities @ values), float(probabilities @ values**2)
    exact, _ = exponents.critical_learning_rates(
        lambda rate: float(stability.lyapunov_exponent(rate, *law)), square**-0.5
    )
    return [exact, float(stability.second_order_critical_learning_rate(mean, square))]
