"""Breaking a symmetry: units on a mirror are moved and no others, the outputs stay, and training uses them again."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

import mirrorsym

X = torch.randn(64, 5, generator=torch.Generator().manual_seed(3)).double()


def collapsed(activation: nn.Module) -> nn.Sequential:
    """Return a network of which units 0 and 1 are zero, 3 and 4 copies of 2."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 8), activation, nn.Linear(8, 2)).double()
    with torch.no_grad():
        for tensor in (model[0].weight, model[0].bias, model[2].weight.T):
            tensor[:2] = 0
            tensor[3] = tensor[4] = tensor[2]
    return model


def trained(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> Tensor:
    """Train for some steps, and return the last loss."""
    for _ in range(steps):
        optimizer.zero_grad()
        loss = (model(X) - torch.stack([X[:, 0].abs(), X[:, 1] * X[:, 2]], 1)).square().mean()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return loss.detach()


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.Tanh(), nn.GELU()])
def test_units_on_a_mirror_move_the_outputs_stay_and_training_uses_them(activation: nn.Module) -> None:
    model = collapsed(activation)
    before = copy.deepcopy(model)
    stuck = copy.deepcopy(model)
    with torch.no_grad():
        moved = mirrorsym.break_symmetry(model, X)
    assert [(m.units, m.zero) for m in moved] == [(8, (0, 1))]
    assert len(moved[0].copies) == 2
    assert set(moved[0].copies) < {2, 3, 4}
    assert (model(X) - before(X)).abs().max() < 1e-12
    for unit in range(5, 8):  # units off the mirrors keep their bits
        assert torch.equal(model[0].weight[unit], before[0].weight[unit])
        assert torch.equal(model[2].weight[:, unit], before[2].weight[:, unit])
    losses = [trained(m, torch.optim.SGD(m.parameters(), 0.05), 200) for m in (stuck, model)]
    assert (stuck[0].weight[2] - stuck[0].weight[3]).abs().max() < 1e-10
    assert not stuck[0].weight[:2].any()
    assert mirrorsym.compress(model, X)[1].cuts == ()
    assert losses[1] < losses[0]


def test_the_optimizer_forgets_what_was_moved_and_nothing_else() -> None:
    model = collapsed(nn.Tanh())
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)
    trained(model, optimizer, 3)
    before = {name: optimizer.state[p]["momentum_buffer"].clone() for name, p in model.named_parameters()}
    (moved,) = mirrorsym.break_symmetry(model, X, optimizer)
    after = {name: optimizer.state[p]["momentum_buffer"] for name, p in model.named_parameters()}
    shared = sorted({*moved.zero, 2, 3, 4})
    assert not after["2.weight"][:, shared].any()
    assert torch.equal(after["2.weight"][:, 5:], before["2.weight"][:, 5:])
    assert not after["0.weight"][:2].any()
    assert torch.equal(after["0.weight"][2:], before["0.weight"][2:])
    assert torch.equal(after["2.bias"], before["2.bias"])


def test_a_network_off_its_mirrors_keeps_its_bits_and_modes() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Dropout(), nn.Linear(96, 2)
    )
    model[4].eval()
    before, modes = copy.deepcopy(model.state_dict()), [m.training for m in model.modules()]
    assert mirrorsym.break_symmetry(model, torch.randn(8, 3, 6, 6)) == []
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert [m.training for m in model.modules()] == modes


def test_dead_channels_of_a_convolution_live_again() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 4, 3)).double()
    with torch.no_grad():
        for tensor in (model[0].weight, model[0].bias, model[1].weight, model[1].bias, model[3].weight.movedim(1, 0)):
            tensor[2:4] = 0
    model.eval()
    x = torch.randn(4, 3, 8, 8).double()
    before = model(x).detach()
    (moved,) = mirrorsym.break_symmetry(model, x)
    assert moved.zero == (2, 3)
    assert (model(x) - before).abs().max() < 1e-12
    model(x).square().sum().backward()
    assert model[3].weight.grad[:, 2:4].abs().amax((0, 2, 3)).min() > 1e-3


def test_a_tolerance_that_is_not_positive_is_refused() -> None:
    with pytest.raises(ValueError, match="tolerance is -1; it has to be a positive number"):
        mirrorsym.break_symmetry(nn.Linear(2, 2), torch.randn(4, 2), tolerance=-1)


class Products(nn.Module):
    """The paper's regressor, f(x) = Σ wᵢ uᵢ xᵢ."""

    def __init__(self) -> None:
        super().__init__()
        self.w, self.u = nn.Parameter(torch.randn(5).double()), nn.Parameter(torch.randn(5).double())

    def forward(self, x: Tensor) -> Tensor:
        return x @ (self.w * self.u)


def test_entries_of_a_product_that_are_zero_on_both_sides_learn_again() -> None:
    torch.manual_seed(0)
    model = Products()
    optimizer = torch.optim.Adam(model.parameters(), betas=(0.0, 0.999))
    model(X).square().sum().backward()
    optimizer.step()
    with torch.no_grad():
        model.w[1:3], model.u[1:3] = 1e-9, -1e-8
        model.u[4] = 0  # on no mirror: w is not zero
    before, state = copy.deepcopy(model), copy.deepcopy(optimizer.state_dict()["state"])
    (moved,) = mirrorsym.break_symmetry(model, X, optimizer)
    assert (moved.units, moved.zero, moved.copies) == (5, (1, 2), ())
    assert (model(X) - before(X)).abs().max() < 1e-12
    assert torch.equal(model.w[[0, 3, 4]], before.w[[0, 3, 4]])
    assert torch.equal(model.u[[0, 3, 4]], before.u[[0, 3, 4]])
    assert model.w[1:3].abs().min() > 1e-2
    for index, parameter in enumerate(model.parameters()):
        squares = optimizer.state[parameter]["exp_avg_sq"]
        assert not squares[1:3].any()
        assert torch.equal(squares[[0, 3, 4]], state[index]["exp_avg_sq"][[0, 3, 4]])
    optimizer.zero_grad()
    (model(X) - X[:, 1]).square().sum().backward()
    assert model.u.grad[1:3].abs().min() > 1e-2


def test_directions_that_two_layers_have_lost_are_given_again() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 6), nn.Linear(6, 4)).double()
    basis = torch.linalg.qr(torch.randn(6, 6).double())[0]
    kept, lost = basis[:, :4], basis[:, 4:]
    with torch.no_grad():
        model[0].weight.copy_(kept @ kept.T @ model[0].weight)
        model[0].bias.copy_(kept @ kept.T @ model[0].bias)
        model[1].weight.copy_(model[1].weight @ kept @ kept.T)
    optimizer = torch.optim.SGD(model.parameters(), 0.0, momentum=0.9)
    model(X).square().sum().backward()
    optimizer.step()
    optimizer.state[model[0].weight]["momentum_buffer"] += 1
    remembered = optimizer.state[model[0].weight]["momentum_buffer"].clone()
    before = copy.deepcopy(model)
    (moved,) = mirrorsym.break_symmetry(model, X, optimizer)
    assert moved.directions == 2
    assert "moved of 6 units 2 lost directions" in str(moved)
    assert (model(X) - before(X)).abs().max() < 1e-12
    assert torch.allclose(kept.T @ model[0].weight, kept.T @ before[0].weight)
    assert torch.equal(model[1].weight, before[1].weight)
    written = torch.linalg.svdvals(lost.T @ model[0].weight)
    assert written.min() > 0.1 * torch.linalg.svdvals(before[0].weight).max()
    after = optimizer.state[model[0].weight]["momentum_buffer"]
    assert (lost.T @ after).abs().max() < 1e-12
    assert torch.allclose(kept.T @ after, kept.T @ remembered)
    model(X).square().sum().backward()
    assert (model[1].weight.grad @ lost).norm() > 1e-2


def test_a_layer_that_is_zero_as_a_whole_lives_again() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 2)).double()
    with torch.no_grad():
        for tensor in (model[0].weight, model[0].bias, model[2].weight):
            tensor.zero_()
    before = model(X).detach()
    (moved,) = mirrorsym.break_symmetry(model, X)
    assert moved.zero == (0, 1, 2, 3)
    assert torch.equal(model(X), before)
    model(X).square().sum().backward()
    assert model[2].weight.grad.abs().sum(0).min() > 0


def test_a_move_that_would_change_the_outputs_is_not_made() -> None:
    class Skipped(nn.Module):
        """The hidden units are also read by a parameter of no module's, which no one can tell from what writes them."""

        def __init__(self) -> None:
            super().__init__()
            self.up, self.down = nn.Linear(5, 4), nn.Linear(4, 2)
            self.extra = nn.Parameter(torch.randn(2, 4))

        def forward(self, x: Tensor) -> Tensor:
            hidden = torch.tanh(self.up(x))
            return torch.tanh(self.down(hidden)) + hidden @ self.extra.T

    torch.manual_seed(0)
    model = Skipped().double()
    with torch.no_grad():
        for tensor in (model.up.weight, model.up.bias, model.down.weight.T, model.extra.T):
            tensor[1] = 0
    before = copy.deepcopy(model.state_dict())
    assert mirrorsym.break_symmetry(model, X) == []
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_near_copies_whose_split_would_change_the_outputs_stay_and_the_others_move() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 2)).double()
    with torch.no_grad():
        for tensor in (model[0].weight, model[0].bias, model[2].weight.T):
            tensor[0] = 0
        model[0].weight[2] = model[0].weight[1] + 0.002
        model[0].bias[2] = model[0].bias[1]
        model[2].weight[:, 2] = 0.01 * model[2].weight[:, 1]  # so little that a cut takes it for a copy
    assert mirrorsym.compress(model, X)[1].cuts[0].copies == 1
    before = copy.deepcopy(model)
    (moved,) = mirrorsym.break_symmetry(model, X)
    assert (moved.zero, moved.copies) == ((0,), ())
    assert torch.equal(model[2].weight[:, 1:], before[2].weight[:, 1:])


def test_forecasts_say_what_falls_back_and_only_of_the_mirrors_that_units_lay_on() -> None:
    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return (model(batch[0]) - batch[1]).square().mean()

    model = collapsed(nn.ReLU())
    batches = [(X, torch.stack([X[:, 0].abs(), X[:, 1] * X[:, 2]], 1))]
    found = mirrorsym.find_symmetries(model, X)
    outlook = mirrorsym.forecast(model, loss, batches, found, lr=0.1, weight_decay=5.0, steps=20)
    assert {one.answer for one in outlook} == {"no"}
    whole = copy.deepcopy(model)
    with torch.no_grad():  # no copies: only the mirrors at zero are left
        whole[2].weight[:, 3:5], whole[0].weight[3:5] = 0, 0
        whole[0].bias[3:5] = 0
    (one,) = mirrorsym.break_symmetry(whole, X, forecasts=outlook)
    assert [forecast.symmetry.kind for forecast in one.forecasts] == ["rescaling"]
    assert one.falls_back
    assert "zero will fall back: a small distance halves in" in str(one)
    (both,) = mirrorsym.break_symmetry(copy.deepcopy(model), X, forecasts=outlook)
    assert {forecast.symmetry.kind for forecast in both.forecasts} == {"rescaling", "permutation"}
    (silent,) = mirrorsym.break_symmetry(model, X)
    assert silent.forecasts == ()
    assert silent.falls_back is None
    trained(model, torch.optim.SGD(model.parameters(), 0.1, weight_decay=5.0), 60)
    assert max(tensor.abs().max() for tensor in model[0].weight) < 1e-6
