"""Lyapunov exponents and critical learning rates against closed forms and determinants."""

from __future__ import annotations

import numpy as np
import pytest

from mirrorsym import stability


def test_two_point_law() -> None:
    rates = np.array([[0.1, 0.5], [1.0, 3.0]])
    exponents = stability.lyapunov_exponent(rates, [-1.0, 2.0], [0.75, 0.25], weight_decay=0.1)
    expected = 0.75 * np.log(np.abs(1 + 0.9 * rates)) + 0.25 * np.log(np.abs(1 - 2.1 * rates))
    np.testing.assert_allclose(exponents, expected, rtol=1e-14)
    assert stability.lyapunov_exponent(0.5, [2.0, -1.0]) == -np.inf
    with pytest.raises(ValueError, match="one weight for each curvature"):
        stability.lyapunov_exponent(0.5, [2.0, 1.0], [1.0])


def test_second_order_critical_learning_rate_is_where_the_second_order_exponent_vanishes() -> None:
    values = np.array([-1.0, 0.5, 2.0]) / 10
    weights = np.array([0.6, 0.3, 0.1])
    mean, square = weights @ values, weights @ values**2
    decay = 0.004
    critical = float(stability.second_order_critical_learning_rate(mean, square, decay))
    shifted = values + decay
    assert -critical * weights @ shifted - critical**2 / 2 * weights @ shifted**2 == pytest.approx(0, abs=1e-15)
    assert stability.second_order_critical_learning_rate(mean, square, weight_decay=1.0) == 0


def test_spectrum_of_diagonal_and_of_rotated_triangular_products() -> None:
    rng = np.random.default_rng(0)
    diagonals = np.exp(rng.standard_normal((300, 4)))
    expected = np.sort(np.log(diagonals).mean(0))[::-1]
    np.testing.assert_allclose(stability.lyapunov_spectrum([np.diag(d) for d in diagonals]), expected, atol=1e-12)
    upper = [np.diag(d) + np.triu(rng.standard_normal((4, 4)), 1) for d in diagonals]
    np.testing.assert_allclose(stability.lyapunov_spectrum(upper), expected, atol=1e-12)
    leading = stability.lyapunov_spectrum((np.diag(d) for d in diagonals), basis=np.eye(4)[:, :2])
    np.testing.assert_allclose(leading, np.sort(np.log(diagonals).mean(0)[:2])[::-1], atol=1e-12)
    with pytest.raises(ValueError, match="at least one factor"):
        stability.lyapunov_spectrum([])
    with pytest.raises(ValueError, match=r"factor 1 has shape \(3, 3\)"):
        stability.lyapunov_spectrum([np.eye(2), np.eye(3)])


def test_sum_of_the_spectrum_is_the_mean_log_determinant() -> None:
    rng = np.random.default_rng(1)
    matrices = rng.standard_normal((200, 5, 5))
    expected = np.linalg.slogdet(matrices)[1].mean()
    assert stability.lyapunov_spectrum(list(matrices)).sum() == pytest.approx(expected, abs=1e-10)
