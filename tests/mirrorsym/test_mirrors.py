"""Theorem 1 as properties, and the symmetries of Section 3 as mirrors."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mirrorsym import mirrors, stability
from mirrorsym.mirrors import Mirror

GAMMA = 0.3


@st.composite
def mirrors_of_any_size(draw: st.DrawFn) -> tuple[Mirror, np.random.Generator]:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    parameters = draw(st.integers(1, 8))
    codimension = draw(st.integers(1, parameters))
    return Mirror.spanned_by(rng.standard_normal((parameters, codimension))), rng


class SymmetricLoss:
    """A smooth loss with a given mirror and no other structure: f(w) + f(R w), f a random tanh network."""

    def __init__(self, mirror: Mirror, rng: np.random.Generator) -> None:
        self.reflection = mirror.R
        self.weights = rng.standard_normal((12, mirror.parameters))
        self.outputs = rng.standard_normal(12)

    def __call__(self, w: np.ndarray) -> float:
        return float(sum(self.outputs @ np.tanh(self.weights @ v + 0.3) for v in (w, self.reflection @ w)))

    def gradient(self, w: np.ndarray) -> np.ndarray:
        def part(v: np.ndarray) -> np.ndarray:
            return self.weights.T @ (self.outputs * (1 - np.tanh(self.weights @ v + 0.3) ** 2))

        return part(w) + self.reflection @ part(self.reflection @ w)

    def hessian(self, w: np.ndarray) -> np.ndarray:
        def part(v: np.ndarray) -> np.ndarray:
            t = np.tanh(self.weights @ v + 0.3)
            return self.weights.T @ ((self.outputs * -2 * t * (1 - t**2))[:, None] * self.weights)

        return part(w) + self.reflection @ part(self.reflection @ w) @ self.reflection

    def smallest_eigenvalue_anywhere(self) -> float:
        """Bound |tanh''| by 0.77."""
        return -2 * 0.77 * float((np.abs(self.outputs) * (self.weights**2).sum(1)).sum())


@given(mirrors_of_any_size())
def test_reflection_is_orthogonal_and_its_own_inverse(case: tuple[Mirror, np.random.Generator]) -> None:
    mirror, rng = case
    identity = np.eye(mirror.parameters)
    np.testing.assert_allclose(mirror.R @ mirror.R, identity, atol=1e-12)
    np.testing.assert_allclose(mirror.R.T @ mirror.R, identity, atol=1e-12)
    np.testing.assert_allclose(mirror.P @ mirror.P, mirror.P, atol=1e-12)
    np.testing.assert_allclose(mirror.basis.T @ mirror.basis, identity, atol=1e-12)
    w = rng.standard_normal((3, mirror.parameters))
    np.testing.assert_allclose(mirror.reflect(w), w @ mirror.R, atol=1e-12)
    np.testing.assert_allclose(mirror.project(w), (w + mirror.reflect(w)) / 2, atol=1e-12)
    np.testing.assert_allclose(mirror.order_parameter(mirror.reflect(w)), -mirror.order_parameter(w), atol=1e-12)
    removed = np.linalg.norm(w - mirror.project(w), axis=-1)
    np.testing.assert_allclose(mirror.distance(w), removed, atol=1e-12)
    assert np.all(np.linalg.norm(mirror.project(w), axis=-1) < np.linalg.norm(w, axis=-1))


@given(mirrors_of_any_size())
def test_theorem_1_gradient_and_hessian_on_the_mirror(case: tuple[Mirror, np.random.Generator]) -> None:
    mirror, rng = case
    loss = SymmetricLoss(mirror, rng)
    w = 2 * rng.standard_normal(mirror.parameters)
    assert mirror.is_symmetric(loss, w)
    on_mirror = mirror.project(w)
    gradient = loss.gradient(on_mirror) + 2 * GAMMA * on_mirror
    np.testing.assert_allclose(mirror.order_parameter(gradient), 0, atol=1e-10)
    hessian = loss.hessian(on_mirror)
    assert mirror.off_block(hessian) < 1e-12
    rotated = mirror.rotate(hessian)
    np.testing.assert_allclose(np.linalg.eigvalsh(rotated), np.linalg.eigvalsh(hessian), atol=1e-9)


@given(mirrors_of_any_size())
def test_theorem_1_gamma_0_is_where_the_projection_starts_to_win(case: tuple[Mirror, np.random.Generator]) -> None:
    mirror, rng = case
    loss = SymmetricLoss(mirror, rng)
    w = 2 * rng.standard_normal(mirror.parameters)
    gamma_0 = stability.gamma_0(loss, mirror, w)
    margin = 1e-6 * max(1.0, abs(gamma_0))
    projected = mirror.project(w)

    def gain(gamma: float) -> float:
        return loss(w) + gamma * w @ w - loss(projected) - gamma * projected @ projected

    assert gain(gamma_0 + margin) > 0 > gain(gamma_0 - margin)


@settings(max_examples=20)
@given(mirrors_of_any_size())
def test_theorem_1_above_gamma_1_gradient_descent_ends_on_the_mirror(case: tuple[Mirror, np.random.Generator]) -> None:
    mirror, rng = case
    loss = SymmetricLoss(mirror, rng)
    lowest = loss.smallest_eigenvalue_anywhere()
    gamma = 1.1 * stability.gamma_1(lowest)
    w = rng.standard_normal(mirror.parameters)
    assert np.linalg.eigvalsh(loss.hessian(w))[0] >= lowest
    learning_rate = 1 / (2 * gamma - lowest)
    for _ in range(500):
        w = w - learning_rate * (loss.gradient(w) + 2 * gamma * w)
    assert mirror.distance(w) < 1e-6


def test_gamma_1_counts_the_decay_as_twice_gamma() -> None:
    # -a w^2 + w^4 with decay gamma w^2: the second well is gone exactly from gamma = a on.
    assert stability.gamma_1(-2 * 1.5) == 1.5
    assert stability.gamma_1(0.7) == 0


def test_gamma_0_refuses_a_point_on_the_mirror() -> None:
    with pytest.raises(ValueError, match="lies on the mirror"):
        stability.gamma_0(lambda w: 0.0, Mirror.spanned_by([1.0, -1.0]), np.array([2.0, 2.0]))


def test_rescaling_of_two_scalars_has_two_mirrors() -> None:
    def loss(v: np.ndarray) -> float:
        return float((v[0] * v[1] - 1) ** 2)

    plus, minus = mirrors.rescaling_mirrors()
    assert plus.is_symmetric(loss, np.array([0.3, 2.0]))
    assert minus.is_symmetric(loss, np.array([0.3, 2.0]))
    np.testing.assert_allclose(plus.project(np.array([1.0, 3.0])), [-1, 1], atol=1e-15)
    np.testing.assert_allclose(minus.project(np.array([1.0, 3.0])), [2, 2], atol=1e-15)
    assert not plus.is_symmetric(lambda v: v[0], np.array([0.3, 2.0]))


def test_rescaling_of_vectors_is_the_identity_mirror() -> None:
    rng = np.random.default_rng(0)
    mirror = mirrors.identity_mirror(7)
    matrix = rng.standard_normal((3, 4))
    w = rng.standard_normal(7)
    assert mirror.is_symmetric(lambda v: ((np.outer(v[:3], v[3:]) - matrix) ** 2).sum(), w)
    np.testing.assert_array_equal(mirror.reflect(w), -w)
    assert mirror.basis.shape == (7, 7)


def test_rotation_mirror_reflects_the_matrix() -> None:
    rng = np.random.default_rng(1)
    normal, matrix, x = rng.standard_normal(5), rng.standard_normal((5, 3)), rng.standard_normal(3)
    mirror = mirrors.rotation_mirror(normal, columns=3)
    unit = normal / np.linalg.norm(normal)
    expected = matrix - 2 * np.outer(unit, unit @ matrix)
    np.testing.assert_allclose(mirror.reflect(matrix.reshape(-1)).reshape(5, 3), expected, atol=1e-12)
    np.testing.assert_allclose(mirror.order_parameter(matrix.reshape(-1)), unit @ matrix, atol=1e-12)
    assert mirror.is_symmetric(lambda v: float((((v.reshape(5, 3) @ x) ** 2).sum() - 1) ** 2), matrix.reshape(-1))


@pytest.mark.parametrize("directions", [1, 2])
def test_double_rotation_mirror_reflects_both_matrices(directions: int) -> None:
    rng = np.random.default_rng(2)
    u, w, target = rng.standard_normal((2, 4)), rng.standard_normal((4, 3)), rng.standard_normal((2, 3))
    normal = rng.standard_normal((4, directions))
    mirror = mirrors.double_rotation_mirror(normal, rows=2, columns=3)
    q = np.linalg.qr(normal)[0]
    reflection = np.eye(4) - 2 * q @ q.T
    theta = np.concatenate([u.reshape(-1), w.reshape(-1)])
    reflected = mirror.reflect(theta)
    np.testing.assert_allclose(reflected[:8].reshape(2, 4), u @ reflection, atol=1e-12)
    np.testing.assert_allclose(reflected[8:].reshape(4, 3), reflection @ w, atol=1e-12)
    assert mirror.is_symmetric(lambda v: ((v[:8].reshape(2, 4) @ v[8:].reshape(4, 3) - target) ** 2).sum(), theta)
    assert mirror.codimension == 5 * directions


def test_permutation_mirror_exchanges_two_neurons() -> None:
    rng = np.random.default_rng(3)
    mirror = mirrors.permutation_mirror(3)
    expected = 0.5 * np.block([[np.eye(3), -np.eye(3)], [-np.eye(3), np.eye(3)]])
    np.testing.assert_allclose(mirror.P, expected, atol=1e-15)
    theta = rng.standard_normal(6)
    np.testing.assert_allclose(mirror.reflect(theta), np.roll(theta, 3), atol=1e-12)
    placed = mirror.embed([0, 5, 2, 1, 6, 3], parameters=8)
    longer = rng.standard_normal(8)
    exchanged = longer[[1, 0, 3, 2, 4, 6, 5, 7]]
    np.testing.assert_allclose(placed.reflect(longer), exchanged, atol=1e-12)


def test_sectors_split_the_space_along_two_mirrors() -> None:
    rng = np.random.default_rng(4)
    first = mirrors.permutation_mirror(2).embed([0, 1, 2, 3], 6)
    second = mirrors.identity_mirror(2).embed([4, 5], 6)
    parts = mirrors.sectors([first, second])
    assert [part.shape for part in parts] == [(6, 2), (6, 2), (6, 2)]
    basis = np.concatenate(parts, axis=1)
    np.testing.assert_allclose(basis.T @ basis, np.eye(6), atol=1e-12)
    for part in parts:
        for mirror in (first, second):
            image = mirror.P @ part
            assert np.allclose(image, 0, atol=1e-12) or np.allclose(image, part, atol=1e-12)
    blocks = np.kron(np.eye(3), np.ones((2, 2)))
    hessian = basis @ blocks @ basis.T
    assert mirrors.coupling(hessian, parts) < 1e-14
    hessian += 3 * (basis[:, :1] @ basis[:, 2:3].T + basis[:, 2:3] @ basis[:, :1].T)
    assert mirrors.coupling(hessian, parts) == pytest.approx((18 / 30) ** 0.5)
    assert mirrors.coupling(np.zeros((2, 6, 6)), parts).tolist() == [0, 0]
    with pytest.raises(ValueError, match="does not commute"):
        mirrors.sectors([Mirror.spanned_by([1.0, 0.0]), Mirror.spanned_by(rng.standard_normal(2))])
    with pytest.raises(ValueError, match="acts on 2 parameters and mirror 1 on 3"):
        mirrors.sectors([mirrors.identity_mirror(2), mirrors.identity_mirror(3)])


def test_torch_tensors_stay_tensors_and_carry_gradients() -> None:
    torch = pytest.importorskip("torch")
    mirror = mirrors.rescaling_mirrors()[1].embed([0, 2], 3)
    w = torch.tensor([[1.0, 5.0, 3.0]], dtype=torch.float32, requires_grad=True)
    assert mirror.reflect(w).dtype == torch.float32
    np.testing.assert_allclose(mirror.project(w).detach().numpy(), [[2, 5, 2]], atol=1e-6)
    mirror.distance(w).sum().backward()
    np.testing.assert_allclose(w.grad.numpy(), [[-(0.5**0.5), 0, 0.5**0.5]], atol=1e-6)
    slope = torch.func.grad(lambda v: mirror.order_parameter(v).sum() ** 2)(torch.tensor([1.0, 5.0, 3.0]))
    np.testing.assert_allclose(slope.numpy(), [-2, 0, 2], atol=1e-6)


def test_mistakes_are_named_in_one_sentence() -> None:
    with pytest.raises(ValueError, match="not orthonormal"):
        Mirror(np.array([[1.0], [1.0]]))
    with pytest.raises(ValueError, match="not orthonormal"):
        Mirror(np.array([[np.nan], [1.0]]))
    with pytest.raises(ValueError, match=r"O has shape \(2,\)"):
        Mirror(np.array([1.0, 0.0]))
    with pytest.raises(ValueError, match=r"w has shape \(3,\) and O has shape \(2, 1\)"):
        mirrors.rescaling_mirrors()[0].reflect(np.zeros(3))
    with pytest.raises(ValueError, match=r"the Hessian has shape \(3, 3\)"):
        mirrors.rescaling_mirrors()[0].rotate(np.eye(3))
    with pytest.raises(ValueError, match="linearly dependent"):
        Mirror.spanned_by(np.ones((3, 2)))
    with pytest.raises(ValueError, match="linearly dependent"):
        Mirror.spanned_by(np.zeros(3))
    with pytest.raises(ValueError, match="needs 2 different ones"):
        mirrors.rescaling_mirrors()[0].embed([1, 1], 3)
    with pytest.raises(ValueError, match="the vector has 2 entries"):
        mirrors.rescaling_mirrors()[0].embed([1, 2], 2)
