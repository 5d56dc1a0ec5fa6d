"""Gradient descent against its slow twin, the convex prediction against closed forms, and one against the other."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from reproduction.contract import Context
from reproduction.experiments import regularized_factorization as module
from reproduction.experiments.regularized_factorization import EXPERIMENT, RegularizedFactorizationSettings

PAPER = RegularizedFactorizationSettings()


def moments(settings: RegularizedFactorizationSettings, seed: int) -> tuple[np.ndarray, np.ndarray]:
    x, y = module.problem(settings, seed)
    return x.T @ x / settings.points, y.T @ x / settings.points


def test_descent_equals_torch_on_the_points_themselves() -> None:
    torch = pytest.importorskip("torch")
    settings = PAPER.model_copy(update={"max_steps": 1003, "gradient_norm": 1e-300, "learning_rate": 0.1})
    x, y = module.problem(settings, 1)
    start = 0.05 * np.random.default_rng(0).standard_normal((2, 50, 50))
    w, u = (torch.tensor(matrix, requires_grad=True) for matrix in start)
    # torch's weight_decay is the number on the axis.
    optimizer = torch.optim.SGD([w, u], lr=settings.learning_rate, weight_decay=0.07)
    inputs, targets = torch.tensor(x), torch.tensor(y)
    for _ in range(1003):
        optimizer.zero_grad()
        ((inputs @ u.T @ w.T - targets) ** 2).sum(1).mean().backward()
        optimizer.step()
    fast_w, fast_u, _, steps = module.descend(*moments(settings, 1), *start, 0.07, settings)
    assert steps == 1003
    np.testing.assert_allclose(fast_w, w.detach().numpy(), atol=1e-10)
    np.testing.assert_allclose(fast_u, u.detach().numpy(), atol=1e-10)


def test_prediction_soft_thresholds_where_inputs_are_white() -> None:
    cross = np.random.default_rng(0).standard_normal((6, 6))
    solution, values = module.nuclear_norm_regression(np.eye(6), cross, 3.0, 1e-13)
    expected = np.maximum(np.linalg.svd(cross, compute_uv=False) - 1.5, 0)
    np.testing.assert_allclose(values, expected, atol=1e-12)
    assert (values == 0).sum() == (expected == 0).sum() > 0
    np.testing.assert_allclose(np.linalg.svd(solution, compute_uv=False), expected, atol=1e-12)


@pytest.mark.parametrize("penalty", [0.0, 0.1, 0.6])
def test_prediction_satisfies_the_optimality_conditions(penalty: float) -> None:
    gram, cross = moments(PAPER, 2)
    solution, values = module.nuclear_norm_regression(gram, cross, penalty, 1e-12)
    pull = 2 * (cross - solution @ gram)
    left, _, right = np.linalg.svd(solution)
    count = int((values > 0).sum())
    rotated = left.T @ pull @ right.T
    np.testing.assert_allclose(rotated[:count, :count], penalty * np.eye(count), atol=1e-9)
    np.testing.assert_allclose(rotated[:count, count:], 0, atol=1e-9)
    np.testing.assert_allclose(rotated[count:, :count], 0, atol=1e-9)
    if count < 50:
        assert np.linalg.norm(rotated[count:, count:], 2) <= penalty + 1e-9


def test_descent_ends_at_the_prediction_to_the_singular_value() -> None:
    grid = {"weight_decay": [0.2, 0.5, 1.2, 3.0]}
    data = EXPERIMENT.run(PAPER, grid, 0, Context())
    assert (data.gradient_norm < 1e-8).all()
    difference = abs(data.singular_value - data.predicted_singular_value)
    assert (difference < 1e-7).all()
    np.testing.assert_array_equal(data["rank"], data.predicted_rank)
    assert data["rank"].values.ravel().tolist() == sorted(data["rank"].values.ravel(), reverse=True)
    assert data["rank"].values[0] > 5
    assert data["rank"].values[-1] == 0


def test_balance_and_stationarity_at_the_end() -> None:
    settings = PAPER.model_copy(update={"dimension": 6, "points": 40})
    gram, cross = moments(settings, 3)
    start = 0.05 * np.random.default_rng(1).standard_normal((2, 6, 6))
    w, u, norm, _ = module.descend(gram, cross, *start, 0.3, settings)
    assert norm < 1e-8
    np.testing.assert_allclose(w.T @ w, u @ u.T, atol=1e-7)
    slope = 2 * (w @ u @ gram - cross)
    np.testing.assert_allclose(slope @ u.T + 0.3 * w, 0, atol=1e-8)


def test_points_do_not_depend_on_the_cut_and_the_step_limit_is_stated() -> None:
    settings = PAPER.model_copy(update={"max_steps": 70})
    together = EXPERIMENT.run(settings, {"weight_decay": [0.0, 0.1, 0.4]}, 5, Context())
    alone = EXPERIMENT.run(settings, {"weight_decay": [0.1]}, 5, Context())
    for name in (*EXPERIMENT.variables, "status"):
        np.testing.assert_array_equal(together[name].sel(weight_decay=[0.1]), alone[name])
    assert (together.steps == 70).all()
    assert (together.gradient_norm > 1e-8).all()
    assert (together.status == 0).all()


def test_divergence_is_recorded_without_warnings() -> None:
    settings = PAPER.model_copy(update={"learning_rate": 30.0})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = EXPERIMENT.run(settings, {"weight_decay": [0.1]}, 0, Context())
    assert data.status.dtype == np.int8
    assert (data.status == 1).all()
    for name, variable in EXPERIMENT.variables.items():
        assert data[name].dims == ("weight_decay", "seed", *variable.dims)
        assert data[name].isnull().all() == (not name.startswith("predicted"))
    assert set(data.coords) == {"weight_decay", "seed", *EXPERIMENT.coords}
