"""Lyapunov exponents and critical learning rates of the theory against closed forms, Monte Carlo and slow twins."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mirrorsym import stability
from reproduction.theory import exponents, factorization, rescaled_regressor


def exponent_of_density(
    learning_rate: float, density: Callable[[float], float], support: tuple[float, float], weight_decay: float = 0.0
) -> float:
    """E log|1 - learning_rate (h + weight_decay)| by adaptive quadrature, split where the logarithm diverges."""
    from scipy.integrate import quad

    lower, upper = support
    pole = 1 / learning_rate - weight_decay
    cuts = sorted({lower, upper, *(point for point in (pole, 0.0) if lower < point < upper)})

    def integrand(curvature: float) -> float:
        return density(curvature) * float(np.log(abs(1 - learning_rate * (curvature + weight_decay)) or 1e-300))

    parts = (quad(integrand, a, b, limit=500, epsabs=1e-12)[0] for a, b in pairwise(cuts))
    return float(sum(parts))


def test_lognormal_factor_has_the_mean_of_its_logarithm() -> None:
    """If 1 - rate (h + decay) is lognormal, the exponent is the mean of the normal law."""
    rate, decay, mean, std = 0.4, 0.3, -0.2, 0.5

    def density(curvature: float) -> float:
        factor = 1 - rate * (curvature + decay)
        return float(
            np.exp(-((np.log(factor) - mean) ** 2) / (2 * std**2)) / (factor * std * np.sqrt(2 * np.pi)) * rate
        )

    support = ((1 - np.exp(mean + 9 * std)) / rate - decay, (1 - np.exp(mean - 9 * std)) / rate - decay)
    value = exponent_of_density(rate, density, support, weight_decay=decay)
    assert value == pytest.approx(mean, abs=1e-9)


def test_uniform_density_across_the_pole() -> None:
    value = exponent_of_density(0.5, lambda h: 0.25, (0.0, 4.0))
    assert value == pytest.approx(-1.0, abs=1e-10)  # the mean of log|z| over [-1, 1]


def test_second_order_critical_learning_rate_is_exact_where_the_mean_is_small() -> None:
    values = np.array([-1.0, 0.5, 2.0]) / 10
    weights = np.array([0.6, 0.3, 0.1])
    mean = weights @ values
    for scale in (1e-2, 1e-3):
        shifted = values + (scale - 1) * mean  # mean shrinks, so the critical rate does, and Eq. 5 becomes exact
        exact, _ = exponents.critical_learning_rates(
            lambda rate, law=shifted: float(stability.lyapunov_exponent(rate, law, weights)), scale=1.0
        )
        second = stability.second_order_critical_learning_rate(weights @ shifted, weights @ shifted**2)
        assert exact == pytest.approx(float(second), rel=10 * scale)


def test_both_zeros_of_a_two_point_law() -> None:
    """Where the product of both factors has magnitude 1, solved by hand."""
    lower, upper = exponents.critical_learning_rates(
        lambda rate: float(stability.lyapunov_exponent(rate, [-1.0, 2.0])), scale=1.0
    )
    assert lower == 0  # the mean curvature is positive: every small learning rate collapses
    assert upper == pytest.approx((np.sqrt(17) - 1) / 4, abs=1e-8)
    # |1 + rate| |1 - rate / 2| = 1: the mean curvature is negative.
    lower, upper = exponents.critical_learning_rates(
        lambda rate: float(stability.lyapunov_exponent(rate, [-1.0, 0.5])), scale=1.0
    )
    assert lower == pytest.approx(1.0, abs=1e-8)
    assert upper == pytest.approx((1 + np.sqrt(17)) / 2, abs=1e-8)
    never = exponents.critical_learning_rates(lambda rate: float(np.log1p(rate)), scale=1.0)
    assert np.isnan(never).all()


@pytest.mark.parametrize("background", ["collapsed", "learnt"])
@pytest.mark.parametrize(("learning_rate", "noise_std"), [(0.3, 1.0), (3.0, 0.3), (0.4, 0.1), (20.0, 0.1)])
def test_rescaled_regressor_exponent_against_monte_carlo(
    learning_rate: float, noise_std: float, background: rescaled_regressor.Background
) -> None:
    rng = np.random.default_rng(7)
    samples, dimension = 400_000, 200
    x, rest = rng.standard_normal((2, samples))
    # All other features together, drawn as the sum that they are.
    others = np.sqrt(dimension - 1) / dimension * rng.standard_normal(samples)
    prediction = others if background == "learnt" else 0.0
    residual = prediction - (x / dimension + others + noise_std * rest)
    growth = np.log(np.abs(1 - learning_rate * 2 * x * residual))
    exact = rescaled_regressor.exponent(learning_rate, noise_std, background)
    assert abs(growth.mean() - exact) < 4.5 * growth.std() / np.sqrt(samples)
    mean, square = rescaled_regressor.moments(noise_std, background)
    curvature = 2 * x * residual
    assert abs(curvature.mean() - mean) < 4.5 * curvature.std() / np.sqrt(samples)
    assert abs((curvature**2).mean() - square) < 4.5 * (curvature**2).std() / np.sqrt(samples)


def test_rescaled_regressor_exponent_against_the_bessel_density() -> None:
    """In infinitely many dimensions the curvature is a product of two independent normals."""
    from scipy.special import k0

    for learning_rate in (1e-4, 0.01, 0.3, 1.0, 30.0):
        bessel = exponent_of_density(
            learning_rate, lambda h: float(k0(abs(h) / 2) / (2 * np.pi)) if h else 0.0, (-90.0, 90.0)
        )
        ours = rescaled_regressor.exponent(learning_rate, 1.0, "learnt", dimension=10**12)
        assert ours == pytest.approx(bessel, abs=1e-9)


def test_rescaled_regressor_exponent_against_two_dimensional_quadrature() -> None:
    """Gauss-Hermite in both variables, below the learning rate at which the logarithm's pole matters."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    weights = weights / weights.sum()
    x, rest = nodes[:, None], nodes[None, :]
    for dimension, rate in ((200, 0.003), (3, 0.003)):
        curvature = -2 * x * (x / dimension + 0.5 * rest)
        expected = weights @ np.log(np.abs(1 - rate * curvature)) @ weights
        ours = rescaled_regressor.exponent(rate, 0.5, "learnt", dimension=dimension)
        assert ours == pytest.approx(expected, rel=1e-8)


@settings(max_examples=15)
@given(st.floats(0.03, 10.0), st.sampled_from(["collapsed", "learnt"]))
def test_rescaled_regressor_collapses_between_both_zeros(
    noise_std: float, background: rescaled_regressor.Background
) -> None:
    lower, upper = rescaled_regressor.critical_learning_rates(noise_std, background)
    rates = np.array([lower * (1 - 1e-6), lower * (1 + 1e-6), upper * (1 - 1e-6), upper * (1 + 1e-6)])
    signs = np.sign(rescaled_regressor.exponent(rates, noise_std, background))
    np.testing.assert_array_equal(signs, [1, -1, -1, 1])
    second = stability.second_order_critical_learning_rate(*rescaled_regressor.moments(noise_std, background))
    if noise_std >= 0.3:
        assert lower == pytest.approx(float(second), rel=2e-3)


def test_eq_5_for_the_rescaled_regressor() -> None:
    for noise_std in (0.1, 0.3, 1.0):
        for background, rest in (("collapsed", 0.00505), ("learnt", 0.000075)):
            moments = rescaled_regressor.moments(noise_std, background)  # type: ignore[arg-type]
            critical = stability.second_order_critical_learning_rate(*moments)
            assert critical == pytest.approx(0.005 / (noise_std**2 + rest), rel=1e-12)


def test_rescaled_regressor_without_noise_never_collapses() -> None:
    assert np.isnan(rescaled_regressor.critical_learning_rates(0.0, "learnt")).all()
    assert np.isnan(rescaled_regressor.critical_learning_rates(0.001, "learnt")).all()
    assert (rescaled_regressor.exponent([0.0, 0.1, 10.0], 0.0, "learnt") >= 0).all()
    with pytest.raises(ValueError, match="choose 'collapsed' or 'learnt'"):
        rescaled_regressor.exponent(0.1, 1.0, "half")  # type: ignore[arg-type]


def test_factorization_block_equals_single_steps() -> None:
    rng = np.random.default_rng(2)
    columns, learning_rate = rng.standard_normal((12, 4)), 0.02
    x, y = rng.standard_normal((17, 7)), rng.standard_normal((17, 5))
    expected = columns.copy()
    for x_t, y_t in zip(x, y, strict=True):
        a, b = expected[:5].copy(), expected[5:].copy()
        expected[:5] += 2 * learning_rate * np.outer(y_t, x_t @ b)
        expected[5:] += 2 * learning_rate * np.outer(x_t, y_t @ a)
    np.testing.assert_allclose(factorization.advance(columns, x, y, learning_rate), expected, rtol=1e-11)


def test_factorization_spectrum_equals_its_slow_twin() -> None:
    """Every step by itself, one factorization a step, in float64 and without a rule when to stop."""
    learning_rate, signal, dimension, steps = 0.02, 0.3, 6, 512
    fast = factorization.spectrum(learning_rate, signal, np.random.default_rng(3), steps=steps, dimension=dimension)
    drawn = np.random.default_rng(3).standard_normal((fast.steps, 2 * dimension), dtype=np.float32).astype(float)
    x, noise = drawn[:, :dimension], drawn[:, dimension:]
    y = signal * x + (1 - signal) * np.sqrt(2 / np.arange(1, dimension + 1)) * noise
    order = np.arange(dimension)[::-1]
    basis = np.concatenate([np.eye(dimension)[:, order]] * 2) / np.sqrt(2)
    growth = np.empty((fast.steps, dimension))
    for step in range(fast.steps):
        matrix = np.eye(2 * dimension)
        matrix[:dimension, dimension:] = 2 * learning_rate * np.outer(y[step], x[step])
        matrix[dimension:, :dimension] = 2 * learning_rate * np.outer(x[step], y[step])
        basis, triangle = np.linalg.qr(matrix @ basis)
        growth[step] = np.log(np.abs(np.diag(triangle)))
    batches = growth[fast.steps // 2 :].reshape(factorization.BATCHES, -1, dimension).mean(axis=1)
    mean, error = batches.mean(axis=0), batches.std(axis=0, ddof=1) / np.sqrt(factorization.BATCHES)
    order = np.argsort(-mean)
    np.testing.assert_allclose(fast.exponents, mean[order], atol=1e-6)
    np.testing.assert_allclose(fast.errors, error[order], atol=1e-6)
    assert fast.escape == pytest.approx(mean[0], abs=1e-6)


def test_noiseless_scalar_factorization_has_the_closed_form() -> None:
    """With signal 1 in one dimension the growth along (1, 1) is E log(1 + 2 rate x^2)."""
    learning_rate = 0.1
    found = factorization.spectrum(learning_rate, 1.0, np.random.default_rng(0), 65536, dimension=1)
    nodes, weights = np.polynomial.hermite_e.hermegauss(100)
    expected = weights @ np.log1p(2 * learning_rate * nodes**2) / weights.sum()
    assert found.settled
    assert found.exponents[0] == pytest.approx(expected, abs=4 * found.errors[0])


def test_a_spectrum_is_settled_only_where_longer_products_agree() -> None:
    """Where the basis turns slowly a short run does not settle; where it ends, twice as long a run says the same."""
    short = factorization.spectrum(1e-3, 0.02, np.random.default_rng(0), steps=256, dimension=40)
    assert not short.settled
    assert short.steps == 256
    found = factorization.spectrum(0.02, 0.1, np.random.default_rng(0), steps=16384, dimension=20)
    longer = factorization.spectrum(0.02, 0.1, np.random.default_rng(1), steps=32 * found.steps, dimension=20)
    assert found.settled
    assert found.steps < 16384
    apart = abs(factorization.predicted_rank(found.exponents) - factorization.predicted_rank(longer.exponents))
    assert apart <= 3 * np.hypot(factorization.count_error(found), factorization.count_error(longer)) + 1e-9


def test_count_error_is_that_of_independent_signs() -> None:
    exponents, errors = np.array([0.3, 0.05, -0.02, -0.4]), np.full(4, 0.1)
    spectrum = factorization.Spectrum(exponents, errors, 0.3, 0.1, 16, settled=False)
    drawn = exponents + 0.1 * np.random.default_rng(0).standard_normal((100_000, 4))
    assert factorization.count_error(spectrum) == pytest.approx((drawn > 0).sum(axis=1).std(), rel=0.02)


def test_small_learning_rates_leave_full_rank_and_noise_lowers_it() -> None:
    generator = np.random.default_rng(0)
    calm = factorization.spectrum(1e-3, 1.0, generator, steps=512, dimension=20)
    assert factorization.predicted_rank(calm.exponents) == 20
    noisy = factorization.spectrum(0.05, 0.02, generator, steps=2048, dimension=20)
    assert factorization.predicted_rank(noisy.exponents) < 20


def test_diagonal_approximation_of_factorization() -> None:
    signal, mode = 0.1, np.arange(1, 201)
    expected = signal / (3 * signal**2 + (1 - signal) ** 2 * 2 / mode)
    np.testing.assert_allclose(factorization.diagonal_critical_learning_rates(signal), expected, rtol=1e-12)
