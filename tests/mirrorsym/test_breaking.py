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
