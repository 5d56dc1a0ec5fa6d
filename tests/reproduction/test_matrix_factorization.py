"""The matrix factorization kernel against its slow twin, and the experiment's results against what must hold."""

from __future__ import annotations

import warnings
from functools import cache

import numpy as np
import pytest
from pydantic import ValidationError

from mirrorsym.measures import rank
from reproduction.contract import DIVERGED, Context
from reproduction.experiments import factorization_stability
from reproduction.experiments import matrix_factorization as experiment
from reproduction.kernels.matrix_factorization import BLOCK, advance

Arrays = tuple[np.ndarray, ...]


def start(dimension: int, std: float = 0.07, seed: int = 1) -> Arrays:
    generator = np.random.default_rng(seed)
    return tuple(std * generator.standard_normal((dimension, dimension)) for _ in range(2))


def samples(steps: int, dimension: int, seed: int = 0) -> Arrays:
    generator = np.random.default_rng(seed)
    noise = generator.standard_normal((steps, dimension)) * np.sqrt(2 / np.arange(1, dimension + 1))
    return generator.standard_normal((steps, dimension)), noise


def twin(w: np.ndarray, u: np.ndarray, x: np.ndarray, noise: np.ndarray, signal: float, rate: float) -> Arrays:
    w, u = w.copy(), u.copy()
    for x_step, noise_step in zip(x, noise, strict=True):
        hidden = u @ x_step
        error = w @ hidden - (signal * x_step + (1 - signal) * noise_step)
        w, u = w - 2 * rate * np.outer(error, hidden), u - 2 * rate * np.outer(w.T @ error, x_step)
    return w, u


@pytest.mark.parametrize("residual", [False, True])
def test_kernel_equals_its_slow_twin(residual: bool) -> None:
    steps = 1009
    assert steps % BLOCK
    w, u = (matrix + residual * np.eye(200) for matrix in start(200))
    data = samples(steps, 200)
    expected = twin(w, u, *data, 0.1, 1.5e-3)
    assert np.abs(expected[0] - w).max() > 0.1
    assert advance(w, u, *data, 0.1, 1.5e-3)
    np.testing.assert_allclose(w, expected[0], rtol=0, atol=1e-10)
    np.testing.assert_allclose(u, expected[1], rtol=0, atol=1e-10)


@pytest.mark.parametrize("dimension", [1, 7, 40, 83])
@pytest.mark.parametrize("steps", [1, BLOCK - 1, BLOCK, 3 * BLOCK + 5])
def test_kernel_equals_its_slow_twin_in_any_dimension(dimension: int, steps: int) -> None:
    w, u = start(dimension, std=0.15)
    data = samples(steps, dimension)
    expected = twin(w, u, *data, 0.4, 2e-3)
    assert advance(w, u, *data, 0.4, 2e-3)
    np.testing.assert_allclose(w, expected[0], rtol=0, atol=1e-12)
    np.testing.assert_allclose(u, expected[1], rtol=0, atol=1e-12)


def test_twin_steps_along_the_gradient_of_the_summed_squared_loss() -> None:
    w, u = start(5, std=0.5)
    x, noise = samples(1, 5)

    def loss(w: np.ndarray, u: np.ndarray) -> float:
        return float(((w @ u @ x[0] - 0.3 * x[0] - 0.7 * noise[0]) ** 2).sum())

    found = twin(w, u, x, noise, 0.3, 0.01)
    shift = 1e-6
    for index in np.ndindex(5, 5):
        step = np.zeros((5, 5))
        step[index] = shift
        for matrix, after, slope in (
            (w, found[0], loss(w + step, u) - loss(w - step, u)),
            (u, found[1], loss(w, u + step) - loss(w, u - step)),
        ):
            assert after[index] == pytest.approx(matrix[index] - 0.01 * slope / (2 * shift), abs=1e-8)


def test_cutting_the_samples_between_blocks_changes_no_bit() -> None:
    data = tuple(part.astype(np.float32) for part in samples(3 * BLOCK + 5, 60))
    w, u = (matrix.astype(np.float32) for matrix in start(60))
    parts = w.copy(), u.copy()
    assert advance(w, u, *data, 0.1, 1e-3)
    for begin, end in ((0, 2 * BLOCK), (2 * BLOCK, len(data[0]))):
        assert advance(*parts, *(part[begin:end] for part in data), 0.1, 1e-3)
    np.testing.assert_array_equal(parts[0], w)
    np.testing.assert_array_equal(parts[1], u)


@pytest.mark.parametrize("signal", [0.02, 1.0])
def test_float32_and_float64_agree_on_every_rank(signal: float) -> None:
    """A singular value within rounding of the threshold may fall on either side: at most one of 200."""
    w, u = start(200)
    x, noise = samples(3000, 200)
    single = [part.astype(np.float32) for part in (w, u, x, noise)]
    assert advance(w, u, x, noise, signal, 2e-3)
    assert advance(*single, signal, 2e-3)
    exact = [np.linalg.svd(matrix, compute_uv=False) for matrix in (w @ u, w, u)]
    rounded = [single[0].astype(float), single[1].astype(float)]
    for values, matrix in zip(exact, (rounded[0] @ rounded[1], *rounded), strict=True):
        found = np.linalg.svd(matrix, compute_uv=False)
        np.testing.assert_allclose(found, values, rtol=0, atol=1e-4 * values[0])
        assert abs(int(rank(found)) - int(rank(values))) <= 1


def test_a_run_that_diverges_says_so_and_leaves_the_matrices() -> None:
    w, u = start(40)
    before = w.copy(), u.copy()
    assert not advance(w, u, *samples(2000, 40), 1.0, 1.0)
    np.testing.assert_array_equal(w, before[0])
    np.testing.assert_array_equal(u, before[1])


FULL = {
    "parameterization": ["factored", "residual"],
    "initial_std": [0.05, 0.1],
    "signal": [0.1, 1.0],
    "learning_rate": [1e-3, 5e-3, 1.0],
}
SETTINGS = experiment.MatrixFactorizationSettings(dimension=30, measured_steps=(0, 3, 400))


@cache
def full():
    return experiment.run(SETTINGS, FULL, 0, Context())


def test_any_cut_of_the_sweep_gives_the_same_bits() -> None:
    generator = np.random.default_rng(0)
    for _ in range(8):
        part = {name: [v for v in values if generator.random() < 0.5] or [values[-1]] for name, values in FULL.items()}
        part["learning_rate"] = list(generator.permutation(part["learning_rate"]))
        assert experiment.run(SETTINGS, part, 0, Context()).identical(full().sel(part))


def test_a_run_that_diverges_is_flagged_and_has_no_values() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = experiment.run(SETTINGS, FULL, 0, Context())
    bad = result.status == DIVERGED
    assert bool(bad.sel(learning_rate=1.0).all())
    assert not bool(bad.sel(learning_rate=1e-3).any())
    for name in experiment.EXPERIMENT.variables:
        assert bool((result[name].isnull() == bad).all())


def test_ranks_are_those_of_the_matrices_that_their_names_say() -> None:
    x, noise = experiment._Samples(30, 0).draw(400)
    for parameterization in FULL["parameterization"]:
        point = {"parameterization": parameterization, "initial_std": 0.1, "signal": 0.1, "learning_rate": 5e-3}
        identity = np.eye(30) * (parameterization == "residual")
        initial = experiment.initial_factors(30, 0).astype(float) * 0.1
        w, u = twin(*(initial + identity), x.astype(float), noise.astype(float), 0.1, 5e-3)
        found = full().sel(**point, step=400, seed=0)
        spectra = [np.linalg.svd(matrix, compute_uv=False) for matrix in (w @ u, w, u, w - identity, u - identity)]
        np.testing.assert_allclose(found["singular_value"], spectra[0], rtol=0, atol=1e-5)
        assert [int(found[name]) for name in experiment.RANKS] == [int(rank(values)) for values in spectra]


def test_the_start_is_measured_and_shared_by_all_signals_and_learning_rates() -> None:
    at_start = full().sel(step=0, learning_rate=[1e-3])["singular_value"]
    assert float(abs(at_start - at_start.isel(signal=[0])).max()) == 0
    w, u = experiment.initial_factors(30, 0).astype(float)
    expected = np.linalg.svd(w @ u, compute_uv=False)
    for std in FULL["initial_std"]:
        found = at_start.sel(parameterization="factored", initial_std=std).isel(signal=0, learning_rate=0, seed=0)
        np.testing.assert_allclose(found, std**2 * expected, rtol=1e-5, atol=1e-9)


def test_label_noise_has_the_variance_that_falls_with_the_output() -> None:
    x, noise = experiment._Samples(10, 3).draw(20_000)
    np.testing.assert_allclose(noise.var(axis=0), 2 / np.arange(1, 11), rtol=0.05)
    np.testing.assert_allclose(x.var(axis=0), 1, rtol=0.05)


def test_targets_without_label_noise_are_the_signal_alone() -> None:
    noisy, quiet = (experiment._Samples(5, seed=0, label_noise=wanted).draw(7) for wanted in (True, False))
    np.testing.assert_array_equal(noisy[0], quiet[0])
    assert noisy[1].any()
    assert not quiet[1].any()


def test_without_noise_the_product_becomes_the_identity() -> None:
    settings = experiment.MatrixFactorizationSettings(dimension=20, measured_steps=(20_000,))
    grid = {
        "parameterization": ["factored", "residual"],
        "initial_std": [0.2],
        "signal": [1.0],
        "learning_rate": [4e-3],
    }
    result = experiment.run(settings, grid, 0, Context())
    np.testing.assert_allclose(result["singular_value"], 1, atol=1e-3)
    assert bool((result["rank"] == 20).all())


@pytest.mark.parametrize("steps", [(), (-1, 5), (0, 5, 5), (5, 3)])
def test_measured_steps_must_ascend(steps: tuple[int, ...]) -> None:
    with pytest.raises(ValidationError, match="measured_steps"):
        experiment.MatrixFactorizationSettings(measured_steps=steps)


def test_exponent_of_one_noiseless_mode_is_the_mean_logarithm_of_its_growth() -> None:
    """With y = x in one dimension the direction a = b grows by 1 + 2 learning_rate x² a step."""
    settings = factorization_stability.FactorizationStabilitySettings(dimension=1, steps=32768)
    rates = [0.01, 0.1]
    result = factorization_stability.run(settings, {"signal": [1.0], "learning_rate": rates}, 0, Context())
    x, weight = np.polynomial.hermite_e.hermegauss(80)
    expected = [(weight * np.log1p(2 * rate * x**2)).sum() / weight.sum() for rate in rates]
    off = abs(result["lyapunov_exponent"].values.ravel() - expected)
    assert (off < 5 * result["exponent_error"].values.ravel()).all()
    assert (result["exponent_error"].values.ravel() < 0.05 * np.array(expected)).all()
    alone = factorization_stability.run(settings, {"signal": [1.0], "learning_rate": rates[1:]}, 0, Context())
    assert alone.identical(result.sel(learning_rate=rates[1:]))
