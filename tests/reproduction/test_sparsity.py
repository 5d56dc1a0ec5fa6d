"""The sparsity kernels against slow twins, and the experiments' results against what must hold whatever the sweep."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from mirrorsym.stability import lyapunov_exponent
from reproduction.contract import DIVERGED, Context
from reproduction.experiments import sparsity, sparsity_batch
from reproduction.kernels import sparsity as kernels
from reproduction.theory import rescaled_regressor
from reproduction.theory.exponents import critical_learning_rates

FEATURES = 200
RATES, NOISES = np.array([5e-4, 2e-3, 4e-3]), np.array([0.1, 1.0, 0.3])


def samples(steps: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    x = generator.standard_normal((steps, FEATURES))
    return x, x.mean(axis=1), generator.standard_normal(steps)


def factors(runs: int) -> tuple[np.ndarray, np.ndarray]:
    start = np.random.default_rng(1).normal(0, FEATURES**-0.5, (2, FEATURES))
    w, u = np.repeat(start[:, None], runs, axis=1)
    return w, u


def in_blocks(kernel, data: tuple[np.ndarray, ...], *state: object, block: int = kernels.BLOCK) -> None:
    for begin in range(0, len(data[0]), block):
        kernel(*(np.ascontiguousarray(part[begin : begin + block]) for part in data), *state)


def test_vanilla_kernel_equals_its_slow_twin() -> None:
    data = samples(1017)
    w, _ = factors(3)
    expected = w.copy()
    in_blocks(kernels.advance_vanilla, data, RATES, NOISES, w, np.zeros(3, np.int8))
    for v, rate, sigma in zip(expected, RATES, NOISES, strict=True):
        for x, signal, noise in zip(*data, strict=True):
            v -= rate * 2 * (v @ x - signal - sigma * noise) * x
    np.testing.assert_allclose(w, expected, rtol=0, atol=1e-10)


def test_rescaled_kernel_equals_its_slow_twin() -> None:
    data = samples(1017)
    w, u = factors(3)
    slow = w.copy(), u.copy()
    in_blocks(kernels.advance_rescaled, data, 10 * RATES, NOISES, w, u, np.zeros(3, np.int8))
    for a, b, rate, sigma in zip(*slow, 10 * RATES, NOISES, strict=True):
        for x, signal, noise in zip(*data, strict=True):
            gradient = 2 * ((a * b) @ x - signal - sigma * noise) * x
            a[:], b[:] = a - rate * gradient * b, b - rate * gradient * a
    np.testing.assert_allclose(w, slow[0], rtol=0, atol=1e-10)
    np.testing.assert_allclose(u, slow[1], rtol=0, atol=1e-10)


def test_twins_step_along_the_gradient_of_the_squared_loss() -> None:
    x, signal, noise = samples(1)
    w, u = factors(1)

    def loss(both: np.ndarray) -> float:
        return float(((both[0] * both[1]) @ x[0] - signal[0] - 0.3 * noise[0]) ** 2)

    start, eps = np.concatenate([w, u]), 1e-6
    slopes = np.zeros_like(start)
    for index in np.ndindex(*start.shape):
        shift = np.zeros_like(start)
        shift[index] = eps
        slopes[index] = (loss(start + shift) - loss(start - shift)) / (2 * eps)
    kernels.advance_rescaled(x, signal, noise, np.array([0.01]), np.array([0.3]), w, u, np.zeros(1, np.int8))
    np.testing.assert_allclose(np.concatenate([w, u]), start - 0.01 * slopes, rtol=0, atol=1e-10)


@pytest.mark.parametrize("batch", [1, 4, 7, 64])
def test_batch_kernel_equals_sgd_on_literal_batches(batch: int) -> None:
    """Literal batches, written in the kernel's variables: it must take the very same steps."""
    steps, rate, sigma = 60, 0.02, 0.8
    generator = np.random.default_rng(batch)
    w, u = factors(1)
    a, b = w[0].copy(), u[0].copy()
    status = np.zeros(1, np.int8)
    for _ in range(steps):
        x, noise = generator.standard_normal((batch, FEATURES)), generator.standard_normal(batch)
        delta = 1 / FEATURES - a * b
        length = np.linalg.norm(delta)
        along = x @ delta / length
        error = x @ delta + sigma * noise
        orthogonal = x - np.outer(along, delta / length)
        normal = error @ orthogonal / np.linalg.norm(error) + generator.standard_normal() * delta
        slope = 2 * rate * error @ x / batch
        a, b = a + slope * b, b + slope * a
        kernels.advance_rescaled_batch(normal[None], along[None], noise[None], np.array([rate]), sigma, w, u, status)
    np.testing.assert_allclose(w[0], a, rtol=0, atol=1e-10)
    np.testing.assert_allclose(u[0], b, rtol=0, atol=1e-10)


def test_batch_kernel_takes_the_same_steps_in_blocks_of_any_length() -> None:
    generator = np.random.default_rng(3)
    data = tuple(generator.standard_normal((1009, size)) for size in (FEATURES, 4, 4))
    results = []
    for block in (1, 50):
        w, u = factors(1)
        in_blocks(kernels.advance_rescaled_batch, data, np.array([0.01]), 1.0, w, u, np.zeros(1, np.int8), block=block)
        results.append(np.stack([w, u]))
    np.testing.assert_allclose(results[0], results[1], rtol=0, atol=1e-10)


def test_one_sample_batches_have_the_law_of_the_online_kernel() -> None:
    """Mean and variance over many one-step runs from the same start, against the exact moments of one SGD step."""
    runs, rate, sigma = 20_000, 0.01, 0.5
    generator = np.random.default_rng(5)
    start_w, start_u = factors(1)
    delta = 1 / FEATURES - start_w[0] * start_u[0]
    moved = np.empty((runs, FEATURES))
    for k in range(runs):
        w, u = start_w.copy(), start_u.copy()
        normal, along, noise = (generator.standard_normal((1, size)) for size in (FEATURES, 1, 1))
        kernels.advance_rescaled_batch(normal, along, noise, np.array([rate]), sigma, w, u, np.zeros(1, np.int8))
        moved[k] = (w[0] - start_w[0]) / (2 * rate * start_u[0])
    variance = delta @ delta + sigma**2 + delta**2
    np.testing.assert_allclose(moved.mean(axis=0), delta, atol=5 * np.sqrt(variance.max() / runs))
    np.testing.assert_allclose(moved.var(axis=0), variance, rtol=6 * np.sqrt(8 / runs))


def test_factors_that_collapse_become_exactly_zero_and_the_prediction_never_notices() -> None:
    data = samples(8000, seed=7)
    w, u = factors(1)
    slow = w[0].copy(), u[0].copy()
    status = np.zeros(1, np.int8)
    in_blocks(kernels.advance_rescaled, data, np.array([0.1]), np.array([1.0]), w, u, status)
    for x, signal, noise in zip(*data, strict=True):
        gradient = 0.2 * ((slow[0] * slow[1]) @ x - signal - noise) * x
        slow = slow[0] - gradient * slow[1], slow[1] - gradient * slow[0]
    assert 0 < np.abs(slow[0] * slow[1]).max() < 1e-12
    zero = w[0] == 0
    assert zero.any()
    assert np.array_equal(zero, u[0] == 0)
    assert np.abs(slow[0] * slow[1])[zero].max() < 1e-45
    np.testing.assert_allclose(w[0] * u[0], slow[0] * slow[1], rtol=1e-6, atol=1e-50)


def run(steps: int = 517, seed: int = 0, module=sparsity, **grid: list):
    return module.run(module.EXPERIMENT.settings(steps=steps), grid, seed, Context())


FULL = {
    "parameterization": ["vanilla", "rescaled"],
    "noise_std": [0.1, 1.0],
    "learning_rate": [1e-3, 0.01, 0.1, 1.0, 3.0],
}


def test_any_cut_of_the_sweep_gives_the_same_bits() -> None:
    whole = run(**FULL)
    generator = np.random.default_rng(0)
    for _ in range(12):
        part = {name: [v for v in values if generator.random() < 0.5] or [values[-1]] for name, values in FULL.items()}
        part["learning_rate"] = list(generator.permutation(part["learning_rate"]))
        cut = run(**part)
        assert cut.identical(whole.sel(part))


def test_any_cut_of_the_batch_sweep_gives_the_same_bits() -> None:
    full = {"batch_size": [1.0, 4.0, 16.0], "learning_rate": [1e-3, 0.1, 5.0]}
    whole = run(module=sparsity_batch, steps=2017, **full)
    for part in (
        {"batch_size": [4.0], "learning_rate": [0.1]},
        {"batch_size": [16.0, 1.0], "learning_rate": [5.0, 1e-3]},
    ):
        assert run(module=sparsity_batch, steps=2017, **part).identical(whole.sel(part))


def test_a_run_that_diverges_is_flagged_and_has_no_values() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = run(**FULL)
    bad = result.status == DIVERGED
    assert bool(bad.sel(learning_rate=3.0).all())
    assert not bool(bad.sel(learning_rate=1e-3).any())
    starts = result.initial_sparsity
    assert bool((starts == starts.sel(learning_rate=1e-3)).all())  # a run had a start, whatever became of it
    for name in ("weight", "sparsity"):
        trailing = result[name].dims[-1]
        assert bool((result[name].isnull().all(trailing) == bad).all())
        assert bool((result[name].isnull().any(trailing) == bad).all())


def test_sparsity_is_measured_on_the_regressor_before_and_after() -> None:
    result = run(steps=3, **FULL)
    start = sparsity.initial_factors("sparsity", FEATURES, 1 / 200, 0)
    assert 0.3 < result.initial_sparsity.sel(parameterization="rescaled", threshold=1e-3).max() < 0.55
    expected = (np.abs(start[0]) < 1e-3).mean()
    np.testing.assert_array_equal(
        result.initial_sparsity.sel(parameterization="vanilla", threshold=1e-3, learning_rate=1e-3), expected
    )
    below = (abs(result.weight) < result.threshold).mean("feature").where(result.status == 0)
    np.testing.assert_array_equal(below.transpose(*result.sparsity.dims), result.sparsity)


def test_the_experiment_feeds_the_kernel_the_streams_of_its_seed() -> None:
    """Also across a block's end: the float32 run follows a float64 run on the same numbers, drawn in one go."""
    one = {"parameterization": ["rescaled"], "noise_std": [1.0], "learning_rate": [0.01]}
    data_x = sparsity.stream("sparsity", 0, "x").standard_normal((kernels.BLOCK + 3, FEATURES), dtype=np.float32)
    noise = sparsity.stream("sparsity", 0, "noise").standard_normal(kernels.BLOCK + 3, dtype=np.float32)
    w, u = (factor[None].astype(float) for factor in sparsity.initial_factors("sparsity", FEATURES, 1 / 200, 0))
    x = data_x.astype(float)
    in_blocks(
        kernels.advance_rescaled,
        (x, x.mean(axis=1), noise.astype(float)),
        np.array([0.01]),
        np.array([1.0]),
        w,
        u,
        np.zeros(1, np.int8),
    )
    result = run(steps=kernels.BLOCK + 3, **one).weight.values.ravel()
    np.testing.assert_allclose(result, (w * u)[0], rtol=2e-4, atol=1e-7)


def test_features_that_are_noise_have_no_true_weight() -> None:
    """Without label noise the plain regressor learns 1/informative of the first features and 0 of the others."""
    one = {"parameterization": ["vanilla"], "noise_std": [0.0], "learning_rate": [1e-3]}
    settings = sparsity.SparsitySettings(steps=20_000, informative=20)
    result = sparsity.run(settings, one, 0, Context()).weight.values.ravel()
    np.testing.assert_allclose(result[:20], 1 / 20, atol=1e-4)
    np.testing.assert_allclose(result[20:], 0, atol=1e-4)


def test_points_from_before_features_could_be_noise_keep_their_names() -> None:
    assert "informative" not in sparsity.SparsitySettings().model_dump(mode="json")
    assert sparsity.SparsitySettings(informative=20).model_dump(mode="json")["informative"] == 20


def test_strong_noise_collapses_only_the_rescaled_regressor() -> None:
    """Well above the critical learning rate of Eq. 5 everything collapses, well below nothing does."""
    rates = [
        0.01 * rescaled_regressor.critical_learning_rates(3.0)[0],
        50 * rescaled_regressor.critical_learning_rates(3.0)[0],
    ]
    result = run(steps=20_000, parameterization=["rescaled"], noise_std=[3.0], learning_rate=rates).sparsity
    assert result.isel(learning_rate=1).min() == 1
    assert result.isel(learning_rate=0).sel(threshold=1e-6).max() < 0.05


@pytest.mark.parametrize("others_learnt", [False, True])
def test_critical_learning_rates_of_one_sample_are_the_exact_ones(others_learnt: bool) -> None:
    law = sparsity_batch.batch_curvature(1, 1.0, others_learnt)
    found = critical_learning_rates(lambda rate: float(lyapunov_exponent(rate, *law)), scale=0.5)
    exact = rescaled_regressor.critical_learning_rates(1.0, "learnt" if others_learnt else "collapsed")
    assert found[0] == pytest.approx(exact[0], rel=1e-6)
    assert found[1] == pytest.approx(exact[1], rel=0.02)  # a sum over values, and the logarithm has a pole among them


def test_batch_curvature_has_the_moments_of_sampled_batches() -> None:
    batch, sigma = 16, 0.7
    x = np.random.default_rng(0).standard_normal((100_000, batch))
    rest = np.random.default_rng(1).normal(0, np.sqrt(sigma**2 + (FEATURES - 1) / FEATURES**2), x.shape)
    sampled = (-2 * x * (x / FEATURES + rest)).mean(axis=1)
    curvature, probability = sparsity_batch.batch_curvature(batch, sigma, others_learnt=False)
    first, second = probability @ curvature, probability @ curvature**2
    assert first == pytest.approx(-2 / FEATURES, rel=1e-6)
    assert second == pytest.approx((sampled**2).mean(), rel=0.02)
    one = rescaled_regressor.moments(sigma, "collapsed", FEATURES)
    assert second == pytest.approx(one[0] ** 2 + (one[1] - one[0] ** 2) / batch, rel=1e-6)


def test_batch_size_must_be_a_whole_number() -> None:
    with pytest.raises(ValueError, match=r"batch_size is 1\.5"):
        run(module=sparsity_batch, batch_size=[1.5], learning_rate=[0.1])
