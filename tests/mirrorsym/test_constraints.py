import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from torch import nn

from mirrorsym import constraints
from mirrorsym.constraints import DCS, Hadamard, MirrorDCS, constrain, constrain_all, effective_parameters

values = arrays(np.float64, array_shapes(max_dims=3, max_side=4), elements=st.floats(-1e3, 1e3))


def orthonormal(entries: int, directions: int, seed: int = 0) -> torch.Tensor:
    matrix = np.random.default_rng(seed).normal(size=(entries, directions))
    return torch.from_numpy(np.linalg.qr(matrix)[0])


@given(values)
def test_balanced_factors_give_the_value_and_can_always_move(value: np.ndarray) -> None:
    product = torch.from_numpy(value)
    w, u = constraints.balanced_factors(product)
    torch.testing.assert_close(w * u, product, rtol=1e-12, atol=0)
    assert ((w != 0) | (u != 0)).all()
    zero = product == 0
    assert (w[zero] == 0).all()
    assert (u[zero] == 0.1).all()
    torch.testing.assert_close(w[~zero].abs(), u[~zero])


@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 99))
def test_mirror_dcs_starts_at_the_value_and_keeps_it_on_the_mirror_at_zero_factors(n: int, k: int, seed: int) -> None:
    o = orthonormal(n, min(n, k), seed)
    constraint = MirrorDCS(o)
    value = torch.from_numpy(np.random.default_rng(seed + 1).normal(size=n))
    w, u, v = constraint.right_inverse(value)
    torch.testing.assert_close(constraint(w, u, v), value)
    zero = torch.zeros_like(value)
    torch.testing.assert_close(o.T @ constraint(zero, zero, v), torch.zeros(o.shape[1], dtype=torch.float64))


def test_dcs_is_equation_7_for_any_o() -> None:
    o = orthonormal(6, 2)
    projection = o @ o.T
    w, u, v = torch.randn(3, 6, dtype=torch.float64)
    expected = (torch.eye(6, dtype=torch.float64) - projection) @ v + (projection @ w) * (projection @ u)
    torch.testing.assert_close(DCS(o)(w, u, v), expected)
    matrix = DCS(o)(w.reshape(2, 3), u.reshape(2, 3), v.reshape(2, 3))
    torch.testing.assert_close(matrix, expected.reshape(2, 3))


def test_both_forms_agree_on_coordinate_directions_and_start_at_the_value() -> None:
    o = torch.eye(6, dtype=torch.float64)[:, [1, 4]]
    w, u, v = torch.randn(3, 6, dtype=torch.float64)
    torch.testing.assert_close(DCS(o)(w, u, v), MirrorDCS(o)(w, u, v))
    value = torch.tensor([1.0, -2.0, 0.0, 3.0, 0.0, 5.0], dtype=torch.float64)
    torch.testing.assert_close(DCS(o)(*DCS(o).right_inverse(value)), value)
    assert DCS(o).right_inverse(value)[1][4] == 0.1


def test_equation_7_cannot_leave_the_mirror_of_an_exchange_and_says_so() -> None:
    """(Pw)⊙(Pu) is along (1, 1) for O = (1, -1)/√2, so Oᵀ of the parameter is 0 at every w and u."""
    o = torch.tensor([[1.0], [-1.0]], dtype=torch.float64) / np.sqrt(2)
    for w, u, v in torch.randn(20, 3, 2, dtype=torch.float64):
        assert abs(o.T @ DCS(o)(w, u, v)) < 1e-12
    with pytest.raises(ValueError, match=r"DCS: with this O of shape \(2, 1\).*shape \(2,\); use MirrorDCS"):
        DCS(o).right_inverse(torch.tensor([1.0, 2.0], dtype=torch.float64))


@pytest.mark.parametrize("kind", [DCS, MirrorDCS])
def test_reflecting_both_factors_changes_nothing(kind: type[DCS] | type[MirrorDCS]) -> None:
    o = orthonormal(5, 2)
    reflection = torch.eye(5, dtype=torch.float64) - 2 * o @ o.T
    w, u, v = torch.randn(3, 5, dtype=torch.float64)
    torch.testing.assert_close(kind(o)(reflection @ w, reflection @ u, v), kind(o)(w, u, v))


def regression() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(3)
    x = random.normal(size=(60, 8))
    truth = np.array([1.5, -2.0, 0.8, 0.1, 0, 0, 0, 0])
    return x, x @ truth + 0.5 * random.normal(size=60)


def minimized(layer: nn.Linear, gamma: float, steps: int = 4000) -> np.ndarray:
    x, y = (torch.from_numpy(array) for array in regression())
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.03, momentum=0.5, weight_decay=2 * gamma)
    for _ in range(steps):
        optimizer.zero_grad()
        ((layer(x)[:, 0] - y) ** 2).mean().backward()
        optimizer.step()
    return np.asarray(layer.weight.detach().numpy()[0])


@pytest.mark.parametrize("imbalance", [0.0, 0.01])
def test_on_a_linear_model_the_solution_is_the_lasso_with_alpha_equal_to_gamma(imbalance: float) -> None:
    """PyTorch's weight_decay is 2γ. The lasso minimizes (mean squared error)/2 + γ‖·‖₁, which is convex.

    So a point is its minimum where the slope of the first is γ against the sign of a weight, and at most γ at 0. From a
    balanced start it is reached for signs that are right from the start, here those of least squares.
    """
    gamma = 0.2
    x, y = regression()
    layer = nn.Linear(8, 1, bias=False, dtype=torch.float64)
    signs = 1.0 if imbalance == 0 else -1.0
    with torch.no_grad():
        layer.weight[0] = torch.from_numpy(0.1 * signs * np.sign(np.linalg.lstsq(x, y, rcond=None)[0]))
    found = minimized(constrain(layer, "weight", Hadamard(imbalance)), gamma)
    slope = x.T @ (x @ found - y) / len(y)
    kept = np.abs(found) > 1e-8
    assert 0 < kept.sum() < 8
    np.testing.assert_allclose(slope[kept], -gamma * np.sign(found[kept]), atol=1e-8)
    assert (np.abs(slope[~kept]) <= gamma).all()


def test_a_balanced_start_fixes_the_signs() -> None:
    x, y = regression()
    layer = nn.Linear(8, 1, bias=False, dtype=torch.float64)
    wrong = -np.sign(np.linalg.lstsq(x, y, rcond=None)[0])
    with torch.no_grad():
        layer.weight[0] = torch.from_numpy(0.1 * wrong)
    found = minimized(constrain(layer, "weight", Hadamard()), gamma=0.01, steps=500)
    assert (found * wrong >= 0).all()


@given(values, st.floats(1e-4, 10))
def test_unbalanced_factors_give_the_value_and_the_imbalance(value: np.ndarray, imbalance: float) -> None:
    product = torch.from_numpy(value)
    w, u = constraints.unbalanced_factors(product, imbalance)
    torch.testing.assert_close(w * u, product, rtol=1e-10, atol=1e-300)
    torch.testing.assert_close(u**2 - w**2, torch.full_like(product, imbalance), rtol=1e-6, atol=1e-9)


def test_mirror_dcs_makes_two_weights_equal_where_decay_is_strong() -> None:
    """The penalty is on |θ₁ - θ₂|/√2 alone: strong enough, it leaves least squares with the two tied."""
    gamma = 5.0
    x, y = regression()
    o = torch.zeros((8, 1), dtype=torch.float64)
    o[0], o[1] = 1 / np.sqrt(2), -1 / np.sqrt(2)
    layer = constrain(nn.Linear(8, 1, bias=False, dtype=torch.float64), "weight", MirrorDCS(o))
    w, u, v = layer.parametrizations["weight"].parameters()
    optimizer = torch.optim.SGD([{"params": [w, u], "weight_decay": 2 * gamma}, {"params": [v]}], lr=0.05, momentum=0.9)
    inputs, targets = torch.from_numpy(x), torch.from_numpy(y)
    for _ in range(3000):
        optimizer.zero_grad()
        ((layer(inputs)[:, 0] - targets) ** 2).mean().backward()
        optimizer.step()
    found = layer.weight.detach().numpy()[0]
    tied = np.column_stack([x[:, 0] + x[:, 1], x[:, 2:]])
    expected = np.linalg.lstsq(tied, y, rcond=None)[0]
    np.testing.assert_allclose(found, expected[[0, 0, 1, 2, 3, 4, 5, 6]], atol=1e-8)


class Residual(nn.Module):
    """Convolutions with BatchNorm around a residual connection, and a readout."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.stem_norm = nn.Conv2d(1, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.branch, self.branch_norm = nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.read = nn.Linear(4, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.stem_norm(self.stem(x)))
        x = torch.relu(x + self.branch_norm(self.branch(x)))
        return self.read(x.mean(dim=(2, 3)))


def test_a_whole_network_keeps_its_values_and_computes_what_it_did() -> None:
    network = Residual().eval()
    names = {(id(owner), name) for owner, name, _ in effective_parameters(network)}
    plain = [value.detach().clone() for *_, value in effective_parameters(network)]
    pictures = torch.randn(3, 1, 8, 8)
    before = network(pictures)
    count = sum(parameter.numel() for parameter in network.parameters())
    constrain_all(network)
    assert {(id(owner), name) for owner, name, _ in effective_parameters(network)} == names
    assert sum(parameter.numel() for parameter in network.parameters()) == 2 * count
    by_name = sorted(value.numel() for *_, value in effective_parameters(network))
    assert by_name == sorted(value.numel() for value in plain)
    torch.testing.assert_close(network(pictures), before, rtol=1e-4, atol=1e-5)


def test_every_parameter_of_a_network_moves_biases_that_start_at_zero_among_them() -> None:
    network = constrain_all(Residual())
    start = [value.detach().clone() for *_, value in effective_parameters(network)]
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    nn.functional.cross_entropy(network(torch.randn(32, 1, 8, 8)), torch.randint(10, (32,))).backward()
    optimizer.step()
    for before, (*_, after) in zip(start, effective_parameters(network), strict=True):
        assert not torch.equal(before, after)


@pytest.mark.parametrize(
    ("o", "message"),
    [
        (torch.ones(4), r"DCS: O has shape \(4,\)"),
        (torch.ones(2, 3), r"DCS: O has shape \(2, 3\)"),
        (torch.ones(4, 2), r"DCS: the columns of O, of shape \(4, 2\), are not orthonormal"),
        (torch.full((2, 1), float("nan")), r"DCS: the columns of O, of shape \(2, 1\), are not orthonormal"),
    ],
)
def test_a_bad_o_is_refused(o: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DCS(o)


def test_errors_name_the_constraint_and_the_offending_shape() -> None:
    with pytest.raises(
        ValueError, match=r"MirrorDCS: the parameter has shape \(1, 8\), 8 entries, and O has shape \(6, 2\)"
    ):
        constrain(nn.Linear(8, 1), "weight", MirrorDCS(orthonormal(6, 2).float()))
    with pytest.raises(ValueError, match=r"Linear has no parameter 'wight'; it has weight, bias"):
        constrain(nn.Linear(8, 1), "wight", Hadamard())
    integers = nn.Module()
    integers.register_parameter("count", nn.Parameter(torch.zeros(3, dtype=torch.int64), requires_grad=False))
    with pytest.raises(ValueError, match=r"Hadamard: the parameter of shape \(3,\) has dtype torch.int64"):
        constrain(integers, "count", Hadamard())
