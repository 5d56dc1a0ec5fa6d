"""Corollary 1 on the two landscapes of Figure 5."""

from __future__ import annotations

import numpy as np
import pytest

from mirrorsym.mirrors import Mirror
from reproduction.contract import Context
from reproduction.experiments.stationary_conditions import (
    EXPERIMENT,
    LANDSCAPES,
    StationaryConditionsSettings,
    frame,
    gradient,
)

SETTINGS = StationaryConditionsSettings()
ON = [0 in start for start in SETTINGS.starts]


def result(seed: int = 0, landscapes: tuple[str, ...] = LANDSCAPES, **changes: object):
    settings = StationaryConditionsSettings(**{**SETTINGS.model_dump(), **changes})
    return EXPERIMENT.run(settings, {"landscape": landscapes}, seed, Context())


def loss(landscape: str, theta: np.ndarray, sample: float) -> float:
    if landscape == "rescaling":
        return (theta[0] * theta[1] - sample) ** 2
    return -sample * theta @ theta + (theta @ theta) ** 2


@pytest.mark.parametrize("landscape", LANDSCAPES)
def test_gradient_against_finite_differences_and_the_mirrors(landscape: str) -> None:
    theta, step = np.array([0.7, -0.5]), 1e-6
    numeric = [
        (loss(landscape, theta + e, 1.3) - loss(landscape, theta - e, 1.3)) / (2 * step) for e in step * np.eye(2)
    ]
    np.testing.assert_allclose(gradient(landscape, theta, 1.3), numeric, rtol=1e-8)
    for line in frame(landscape, SETTINGS):
        mirror = Mirror.spanned_by([-line[1], line[0]])
        assert mirror.is_symmetric(lambda w: loss(landscape, w, 1.3), theta)
        assert abs(mirror.order_parameter(gradient(landscape, 0.8 * line, 1.3))) < 1e-15


@pytest.mark.parametrize("seed", range(10))
def test_starts_on_a_condition_stay_and_others_do_not(seed: int) -> None:
    data = result(seed)
    assert (data.status == 0).all()
    largest = data.distance.max("step").isel(seed=0)
    assert (largest[:, ON] < 1e-12).all()
    assert (data.distance.min("step").isel(seed=0)[:, np.logical_not(ON)] > 1e-12).all()
    assert (data.own_line_distance.sel(landscape="rotation") < 1e-12).all()
    assert (data.own_line_distance.sel(landscape="rescaling").max("step").isel(seed=0)[np.logical_not(ON)] > 0.1).all()


def test_trajectories_move_and_end_near_the_minima() -> None:
    data = result(steps=2000)
    end = data.position.isel(seed=0, step=slice(1000, None)).mean("step")
    on_valley = end.sel(landscape="rescaling").isel(start=0)
    np.testing.assert_allclose(on_valley, [1, 1], atol=0.1)
    radius = np.sqrt((data.position.sel(landscape="rotation") ** 2).sum("coordinate")).isel(
        seed=0, step=slice(1000, None)
    )
    np.testing.assert_allclose(radius.mean("step"), np.sqrt(0.5), atol=0.05)


def test_runs_are_deterministic_and_do_not_depend_on_the_cut() -> None:
    together, alone = result(3), result(3, landscapes=("rotation",))
    np.testing.assert_array_equal(together.position.sel(landscape=["rotation"]), alone.position)
    assert not np.array_equal(together.position, result(4).position)


def test_contract_and_divergence() -> None:
    data = result(learning_rate=5.0)
    assert (data.status == 1).all()
    for name, variable in EXPERIMENT.variables.items():
        assert data[name].dims == ("landscape", "seed", *variable.dims)
        assert data[name].isnull().all()
    assert data.status.dtype == np.int8
    assert set(data.coords) == {"landscape", "seed", *EXPERIMENT.coords}
