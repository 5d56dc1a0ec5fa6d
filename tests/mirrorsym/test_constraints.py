import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from torch import nn

from mirrorsym import constraints
from mirrorsym.constraining import constrain, parameter_groups
from mirrorsym.constraints import DCS, Hadamard, MirrorDCS, Unit, ties

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
    zero = torch.zeros_like(w)
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
    torch.testing.assert_close(DCS(o)(w, u, v), MirrorDCS(o)(o.T @ w[:, None], o.T @ u[:, None], v))
    value = torch.tensor([1.0, -2.0, 0.0, 3.0, 0.0, 5.0], dtype=torch.float64)
    torch.testing.assert_close(DCS(o)(*DCS(o).right_inverse(value)), value)
    assert DCS(o).right_inverse(value)[1][4] == pytest.approx(0.1)


def test_equation_7_cannot_leave_the_mirror_of_an_exchange_and_says_so() -> None:
    """(Pw)⊙(Pu) is along (1, 1) for O = (1, -1)/√2, so Oᵀ of the parameter is 0 at every w and u."""
    o = torch.tensor([[1.0], [-1.0]], dtype=torch.float64) / np.sqrt(2)
    for w, u, v in torch.randn(20, 3, 2, dtype=torch.float64):
        assert abs(o.T @ DCS(o)(w, u, v)) < 1e-12
    with pytest.raises(ValueError, match=r"DCS: with this O of shape \(2, 1\).*shape \(2,\); use MirrorDCS"):
        DCS(o).right_inverse(torch.tensor([1.0, 2.0], dtype=torch.float64))


def test_reflecting_both_factors_changes_nothing() -> None:
    o = orthonormal(5, 2)
    reflection = torch.eye(5, dtype=torch.float64) - 2 * o @ o.T
    w, u, v = torch.randn(3, 5, dtype=torch.float64)
    torch.testing.assert_close(DCS(o)(reflection @ w, reflection @ u, v), DCS(o)(w, u, v))
    w, u = o.T @ w[:, None], o.T @ u[:, None]
    torch.testing.assert_close(MirrorDCS(o)(-w, -u, v), MirrorDCS(o)(w, u, v))


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_along_an_axis_it_is_the_constraint_whose_matrix_repeats_for_all_other_entries(axis: int) -> None:
    """The slow way: the dense O over the flattened parameter, one column for each direction and each other entry."""
    value = torch.randn(4, 3, 5, dtype=torch.float64)
    o = orthonormal(value.shape[axis], 2)
    columns = []
    for direction in range(2):
        for other in np.ndindex(*np.delete(value.shape, axis)):
            column = torch.zeros(value.shape, dtype=torch.float64).movedim(axis, -1)
            column[other] = o[:, direction]
            columns.append(column.movedim(-1, axis).reshape(-1))
    dense, along = MirrorDCS(torch.stack(columns, dim=1)), MirrorDCS(o, axis)
    w, u, v = along.right_inverse(value)
    torch.testing.assert_close(along(w, u, v), value)
    assert w.shape == u.shape == (2, value.numel() // value.shape[axis])
    w, u = torch.randn_like(w), torch.randn_like(u)
    torch.testing.assert_close(along(w, u, v), dense(w.reshape(-1, 1), u.reshape(-1, 1), v))


def test_ties_are_kept_by_units_that_are_the_same_and_by_no_others() -> None:
    o = ties(7, [1, 4, 6], [0, 2])
    assert o.shape == (7, 3)
    torch.testing.assert_close(o.T @ o, torch.eye(3))
    same = torch.tensor([2.0, 5.0, 2.0, -1.0, 5.0, 3.0, 5.0])
    assert (o.T @ same).abs().max() < 1e-6
    for unit in (0, 1, 2, 4, 6):
        other = same.clone()
        other[unit] += 1
        assert (o.T @ other).abs().max() > 0.1


def test_two_channels_of_a_large_convolution_are_tied_in_little_memory() -> None:
    layer = nn.Conv2d(512, 512, 3)
    before = layer.weight.detach().clone()
    constrain(layer, "weight", MirrorDCS(ties(512, [3, 7]), axis=0))
    torch.testing.assert_close(layer.weight, before)
    extra = sum(tensor.numel() for tensor in layer.parameters()) - before.numel() - 512
    assert extra == 2 * 512 * 9  # one difference, as a product of two
    with torch.no_grad():
        layer.parametrizations["weight"].original0.zero_()
    torch.testing.assert_close(layer.weight[3], layer.weight[7], atol=1e-6, rtol=0)
    torch.testing.assert_close(layer.weight[3], before[[3, 7]].mean(dim=0), atol=1e-6, rtol=0)


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


def test_the_example_of_hadamard_is_the_lasso() -> None:
    """From PyTorch's own start, whose signs are as good as drawn by lot; scikit-learn's alpha is γ."""
    lasso = pytest.importorskip("sklearn.linear_model").Lasso
    x, y = regression()
    torch.manual_seed(0)
    layer = constrain(nn.Linear(8, 1, dtype=torch.float64), "weight", Hadamard())
    optimizer = torch.optim.SGD(parameter_groups(layer, weight_decay=2 * 0.2), lr=0.05)
    inputs, targets = torch.from_numpy(x), torch.from_numpy(y)
    for _ in range(2000):
        optimizer.zero_grad()
        (layer(inputs)[:, 0] - targets).square().mean().backward()
        optimizer.step()
    expected = lasso(alpha=0.2, tol=1e-12).fit(x, y)
    assert 0 < (expected.coef_ != 0).sum() < 8
    np.testing.assert_allclose(layer.weight.detach().numpy()[0], expected.coef_, atol=1e-6)
    np.testing.assert_allclose(layer.bias.item(), expected.intercept_, atol=1e-6)


def test_units_are_the_group_lasso() -> None:
    """Its minimum: each row's slope is 2γ against the row's direction, and at most 2γ long where the row is zero."""
    random = np.random.default_rng(1)
    x, noise = random.normal(size=(80, 4)), random.normal(size=(80, 3))
    y = x @ np.array([[1.0, -1.0, 0.5], [0, 0, 0], [0.7, 0, 0], [0, 0, 0]]) + 0.3 * noise
    weight = nn.Parameter(0.1 * torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))
    holder = nn.Module()
    holder.register_parameter("weight", weight)
    constrain(holder, "weight", "unit")
    gamma = 0.1
    optimizer = torch.optim.SGD(holder.parameters(), lr=0.1, weight_decay=2 * gamma)
    inputs, targets = torch.from_numpy(x), torch.from_numpy(y)
    for _ in range(3000):
        optimizer.zero_grad()
        (inputs @ holder.weight - targets).square().sum(dim=1).mean().backward()
        optimizer.step()
    found = holder.weight.detach().numpy()
    slope = 2 * x.T @ (x @ found - y) / len(x)
    norms = np.linalg.norm(found, axis=1)
    kept = norms > 1e-8
    assert kept.tolist() == [True, False, True, False]
    np.testing.assert_allclose(slope[kept], -2 * gamma * found[kept] / norms[kept, None], atol=1e-7)
    assert (np.linalg.norm(slope[~kept], axis=1) <= 2 * gamma).all()


def test_a_balanced_start_fixes_the_signs() -> None:
    x, y = regression()
    layer = nn.Linear(8, 1, bias=False, dtype=torch.float64)
    wrong = -np.sign(np.linalg.lstsq(x, y, rcond=None)[0])
    with torch.no_grad():
        layer.weight[0] = torch.from_numpy(0.1 * wrong)
    found = minimized(constrain(layer, "weight", Hadamard(imbalance=0)), gamma=0.01, steps=500)
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
    with pytest.raises(
        ValueError, match=r"Unit: parameters of the shapes \[\(3, 2\), \(2,\)\] do not have as many units"
    ):
        Unit([torch.ones(3, 2), torch.ones(2)])
    with pytest.raises(ValueError, match=r"Unit: parameters of the shapes \[\(3, 2\)\] do not all have an axis 2"):
        Unit([torch.ones(3, 2)], axis=2)
    with pytest.raises(ValueError, match="Hadamard: imbalance is -1"):
        Hadamard(-1)
    with pytest.raises(ValueError, match=r"O needs one row a unit along axis 0"):
        constrain(nn.Linear(8, 5), "weight", MirrorDCS(orthonormal(4, 1).float(), axis=0))
    with pytest.raises(ValueError, match=r"at most once"):
        ties(4, [1, 2], [2, 3])
