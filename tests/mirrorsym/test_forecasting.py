"""A forecast of how a unit leaves its mirror is what a plain training does that starts very near to the mirror."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import mirrorsym
from mirrorsym.forecasting import Forecast, _prediction, _t_quantile

OFF = 1e-8
"""How far off its mirror a unit starts in a plain training."""

Batch = tuple[Tensor, Tensor]
State = dict[str, Tensor]


def squared(model: nn.Module, batch: Batch) -> Tensor:
    return (model(batch[0]) - batch[1]).square().mean()


def data(*shape: int, outputs: int = 1) -> list[Batch]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4, 16, *shape, generator=generator, dtype=torch.double)
    flat = x.flatten(2)
    y = flat[..., :outputs] * flat[..., 1 : 1 + outputs] + flat[..., 2 : 2 + outputs]
    return list(zip(x, y, strict=True))


def network(activation: nn.Module, hidden: int = 6) -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(5, hidden), activation, nn.Linear(hidden, 1)).double()


def train(model: nn.Module, batches: list[Batch], optimizer: torch.optim.Optimizer, steps: int) -> None:
    for step in range(steps):
        optimizer.zero_grad()
        squared(model, batches[step % len(batches)]).backward()
        optimizer.step()


def copied(model: nn.Sequential, pair: tuple[int, ...]) -> Callable[[], float]:
    """Make two neurons copies up to a very small part of their difference; return what measures the difference."""
    first, last = model[0], model[2]
    parts = [first.weight, first.bias[:, None], last.weight.T]
    i, j = pair
    size = math.sqrt(sum(float((p[i] - p[j]).detach().square().sum()) for p in parts))
    with torch.no_grad():
        for part in parts:
            middle, apart = (part[i] + part[j]) / 2, (part[i] - part[j]) / size
            part[i], part[j] = middle + OFF * apart, middle - OFF * apart
    return lambda: math.sqrt(sum(float((p[i] - p[j]).detach().square().sum()) for p in parts))


def zeroed(model: nn.Sequential, units: tuple[int, ...]) -> Callable[[], float]:
    """Make a neuron zero up to a very small share of it; return what measures its norm."""
    first, last = model[0], model[2]
    parts = [first.weight, first.bias[:, None], last.weight.T]
    (i,) = units
    with torch.no_grad():
        for part in parts:
            part[i] *= OFF
    return lambda: math.sqrt(sum(float(p[i].detach().square().sum()) for p in parts))


PLACED = {"permutation": copied, "sign_flip": zeroed, "rescaling": zeroed}


def grown(model: nn.Sequential, one: Forecast, optimizer: Callable[[Any], torch.optim.Optimizer], steps: int) -> float:
    """Train a copy that starts very near to the mirror; return how the logarithm of the distance has grown."""
    run = copy.deepcopy(model)
    size = PLACED[one.symmetry.kind](run, one.units)
    start = size()
    train(run, data(5), optimizer(run.parameters()), steps)
    return math.log(size() / start)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("activation", [nn.Tanh(), nn.ReLU(), nn.GELU()])
def test_sgd_grows_as_forecast(activation: nn.Module, momentum: float) -> None:
    model = network(activation)
    symmetries = mirrorsym.find_symmetries(model, torch.randn(2, 5))
    settings = {"lr": 0.1 * (1 - momentum), "weight_decay": 0.003, "momentum": momentum}
    kinds = set()
    for symmetry in symmetries:
        (one,) = mirrorsym.forecast(model, squared, data(5), [symmetry], steps=60, **settings)
        run = grown(model, one, lambda parameters: torch.optim.SGD(parameters, **settings), 60)
        assert 60 * one.exponent == pytest.approx(run, abs=2e-6)
        assert abs(run) > 0.01
        kinds.add(one.symmetry.kind)
    assert "permutation" in kinds
    assert len(kinds) == (1 if isinstance(activation, nn.GELU) else 2)


def test_one_displacement_serves_all_mirrors_of_a_network() -> None:
    model = network(nn.Tanh())
    symmetries = mirrorsym.find_symmetries(model, torch.randn(2, 5))
    both = mirrorsym.forecast(model, squared, data(5), symmetries, lr=0.1, weight_decay=0.01, steps=40)
    run = copy.deepcopy(model)
    sizes = [PLACED[one.symmetry.kind](run, one.units) for one in both]
    starts = [size() for size in sizes]
    train(run, data(5), torch.optim.SGD(run.parameters(), lr=0.1, weight_decay=0.01), 40)
    growths = [math.log(size() / start) for size, start in zip(sizes, starts, strict=True)]
    assert [40 * one.exponent for one in both] == pytest.approx(growths, abs=2e-6)
    assert set(both[0].units).isdisjoint(both[1].units)


@pytest.mark.parametrize(("name", "kind"), [("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)])
def test_adam_parts_living_copies_as_forecast(name: str, kind: Callable[..., torch.optim.Optimizer]) -> None:
    model = network(nn.Tanh())
    symmetries = mirrorsym.find_symmetries(model, torch.randn(2, 5))
    outlook = mirrorsym.forecast(
        model, squared, data(5), symmetries, lr=0.003, weight_decay=0.1, steps=50, optimizer=name
    )
    assert [one.symmetry.kind for one in outlook] == ["permutation"]
    run = grown(model, outlook[0], lambda parameters: kind(parameters, lr=0.003, weight_decay=0.1), 50)
    assert 50 * outlook[0].exponent == pytest.approx(run, rel=1e-3)
    ((skipped, why),) = outlook.skipped
    assert skipped.kind == "sign_flip"
    assert f"of {skipped.name}: {why}" in str(outlook)


def test_a_unit_with_kinks_is_not_judged_by_its_zero_curvature() -> None:
    model = network(nn.ReLU())
    train(model, data(5), torch.optim.SGD(model.parameters(), lr=0.1), 20)
    (rescaling,) = mirrorsym.find_symmetries(model, torch.randn(2, 5)).of_kind("rescaling")
    (one,) = mirrorsym.forecast(model, squared, data(5), [rescaling], lr=0.1, weight_decay=0.01, steps=50)
    assert abs(one.exponent - math.log(1 - 0.1 * 0.01)) > 3e-4, "which is what autograd's curvature implies"


def test_a_lost_direction_of_a_linear_network_by_its_closed_form() -> None:
    """At W₂W₁ = 0 the loss |W₂W₁ - A|²/2 on white inputs has the exponent ln(1 + λ(σ - γ)), σ the norm of A."""
    model = nn.Sequential(nn.Linear(3, 2, bias=False), nn.Linear(2, 2, bias=False)).double()
    x = 3**0.5 * torch.eye(3, dtype=torch.double)
    target = torch.tensor([[2.0, 0, 0], [0, 0.7, 0]], dtype=torch.double)
    with torch.no_grad():  # its other directions are at rest at decay 0.1
        for parameter in model.parameters():
            parameter.zero_()
        model[0].weight[0, 0] = model[1].weight[0, 0] = (2 - 0.1) ** 0.5
        model[0].weight[1, 1] = model[1].weight[1, 1] = 1e-9

    def loss(network: nn.Module, batch: Tensor) -> Tensor:
        value: Tensor = (network(batch) - batch @ target.T).square().sum() / 6
        return value

    (symmetry,) = mirrorsym.find_symmetries(model, x)
    assert symmetry.kind == "general_linear"
    (one,) = mirrorsym.forecast(model, loss, [x], [symmetry], lr=0.1, weight_decay=0.1, steps=100)
    grown = np.log(1 + 0.1 * (0.7 - 0.1))
    assert one.answer == "yes"
    assert one.exponent == pytest.approx(grown, rel=1e-9)
    assert one.distance < 1e-8
    (one,) = mirrorsym.forecast(model, loss, [x], [symmetry], lr=0.1, weight_decay=0.9, steps=100)
    assert one.answer == "no"


class Channels(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.second = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 3, 3)
        self.read = nn.Linear(3, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.norm(self.first(x)))
        value: Tensor = self.read(torch.nn.functional.gelu(self.second(x)).mean((2, 3)))
        return value


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(6, 4) for _ in range(3))
        self.read = nn.Linear(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        mixed = nn.functional.scaled_dot_product_attention(self.query(x), self.key(x), self.value(x))
        value: Tensor = self.read(mixed.mean(1))
        return value


class Rotary(Attention):
    """Two planes of queries and keys, turned by where a token stands."""

    def forward(self, x: Tensor) -> Tensor:
        angles = torch.arange(x.shape[1])[:, None] * torch.tensor([1.0, 0.1], dtype=torch.double)
        turned = []
        for layer in (self.query, self.key):
            first, second = layer(x).chunk(2, dim=-1)
            turns = (first * angles.cos() - second * angles.sin(), first * angles.sin() + second * angles.cos())
            turned.append(torch.cat(turns, dim=-1))
        mixed = nn.functional.scaled_dot_product_attention(*turned, self.value(x))
        value: Tensor = self.read(torch.tanh(mixed).mean(1))
        return value


@pytest.mark.parametrize(("build", "shape"), [(Channels, (1, 6, 6)), (Attention, (5, 6)), (Rotary, (5, 6))])
def test_networks_grow_as_forecast_by_reflections_of_the_symmetry(
    build: Callable[[], nn.Module], shape: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    model, batches = build().double(), data(*shape)
    found = mirrorsym.find_symmetries(model, batches[0][0])
    outlook = mirrorsym.forecast(model, squared, batches, found, lr=0.1, weight_decay=0.01, momentum=0.5, steps=40)
    assert len(outlook) + len(outlook.skipped) == len(found)
    assert len(outlook) >= 2
    assert (build is Rotary) == any(one.symmetry.kind == "complex" for one in outlook)
    for symmetry in found:
        outlook = mirrorsym.forecast(
            model, squared, batches, [symmetry], lr=0.1, weight_decay=0.01, momentum=0.5, steps=40
        )
        for one in outlook:
            run = copy.deepcopy(model)
            start = _displaced(run, one)
            before = _off(run, one)
            assert before == pytest.approx(start, rel=1e-6)
            train(run, batches, torch.optim.SGD(run.parameters(), lr=0.1, weight_decay=0.01, momentum=0.5), 40)
            if one.exponent < 0.3:
                assert 40 * one.exponent == pytest.approx(math.log(_off(run, one) / before), abs=1e-5), one.symmetry
            else:  # a batch normalization of a channel that is 0 has a slope of 300
                assert one.answer == "yes"
                assert _off(run, one) > 1e-3


def _odd(one: Forecast, state: State) -> State:
    """The part of the state that changes its sign in the mirror."""
    image = one.symmetry.reflect(state, one.normal)
    return {name: (state[name] - image[name]) / 2 for name in state if state[name].is_floating_point()}


def _displaced(model: nn.Module, one: Forecast) -> float:
    """Put a model very near to the mirror; return how near."""
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    odd = _odd(one, state)
    size = math.sqrt(sum(float(odd[name].square().sum()) for name, _ in model.named_parameters()))
    for name, tensor in odd.items():
        state[name] = state[name] - (1 - OFF / size) * tensor
    model.load_state_dict(state)
    return OFF


def _off(model: nn.Module, one: Forecast) -> float:
    odd = _odd(one, dict(model.state_dict()))
    return math.sqrt(sum(float(odd[name].square().sum()) for name, _ in model.named_parameters()))


def test_nine_of_ten_runs_lie_in_the_interval() -> None:
    rng = np.random.default_rng(0)
    for drift in (0, np.linspace(0.9, -0.5, 10)):
        for starts in (1, 3):
            inside = []
            for _ in range(1000):
                runs = drift + 0.1 * rng.standard_normal((starts + 1, 10))
                mean, _, reach = _prediction(runs[:-1], 0.9)
                inside.append(abs(runs[-1].sum() - mean) < reach)
            assert 0.87 < np.mean(inside) < 0.93
    assert _t_quantile(0.9, 6) == pytest.approx(1.943, abs=2e-3), "tables of Student's law"
    assert _t_quantile(0.99, 6) == pytest.approx(3.707, abs=2e-2)
    assert _t_quantile(0.99, 1e9) == pytest.approx(2.5758, abs=1e-4)


def test_the_model_and_the_random_numbers_stay_as_they_are() -> None:
    model = network(nn.Tanh()).float()
    before = copy.deepcopy(model.state_dict())
    loader = torch.utils.data.DataLoader([(x.float(), y.float()) for x, y in data(5)], batch_size=None, shuffle=True)
    symmetries = mirrorsym.find_symmetries(model, torch.randn(2, 5))
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    first = mirrorsym.forecast(model, squared, loader, symmetries, lr=0.1, steps=30, starts=2)
    assert torch.rand(1) == expected
    again = mirrorsym.forecast(model, squared, loader, symmetries, lr=0.1, steps=30, starts=2)
    assert str(first) == str(again)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_living_unit_has_its_measured_slope() -> None:
    model = network(nn.Tanh(), hidden=2)
    (symmetry,) = mirrorsym.find_symmetries(model, torch.randn(2, 5)).of_kind("sign_flip")
    (one,) = mirrorsym.forecast(model, squared, data(5), [symmetry], lr=0.1, weight_decay=0.02, steps=50)
    run, (unit,) = copy.deepcopy(model), one.units
    zeroed(run, (unit,))
    before = float(symmetry.matrix(run.state_dict())[1 - unit].norm())
    train(run, data(5), torch.optim.SGD(run.parameters(), lr=0.1, weight_decay=0.02), 50)
    after = float(symmetry.matrix(run.state_dict())[1 - unit].norm())
    assert one.living == pytest.approx(math.log(after / before) / 50, rel=1e-6)
    (alone,) = mirrorsym.find_symmetries(model, torch.randn(2, 5)).of_kind("permutation")
    (one,) = mirrorsym.forecast(model, squared, data(5), [alone], lr=0.1, steps=20)
    assert math.isnan(one.living), "there is no other pair"


def test_what_cannot_be_forecast_is_said() -> None:
    model = network(nn.Sequential(nn.Tanh(), nn.Dropout(0.5)))
    symmetries = mirrorsym.find_symmetries(model, torch.randn(2, 5))
    with pytest.raises(ValueError, match="the loss has no such mirror: dropout"):
        mirrorsym.forecast(model, squared, data(5), symmetries, lr=0.1)
    assert len(mirrorsym.forecast(model.eval(), squared, data(5), symmetries, lr=0.1, steps=20)) == 2
    with pytest.raises(ValueError, match="the loader gives no batch"):
        mirrorsym.forecast(model, squared, [], symmetries, lr=0.1)
    with pytest.raises(ValueError, match="steps is 3"):
        mirrorsym.forecast(model, squared, data(5), symmetries, lr=0.1, steps=3)
    with pytest.raises(ValueError, match="lr is 0"):
        mirrorsym.forecast(model, squared, data(5), symmetries, lr=0)
    with pytest.raises(ValueError, match="optimizer is 'lion'"):
        mirrorsym.forecast(model, squared, data(5), symmetries, lr=0.1, optimizer="lion")
    with pytest.raises(ValueError, match="adam has no momentum"):
        mirrorsym.forecast(model, squared, data(5), symmetries, lr=0.1, optimizer="adam", momentum=0.9)
    with pytest.raises(ValueError, match="the training diverged, so"):
        mirrorsym.forecast(model, squared, data(5), symmetries, lr=1e3, steps=200)
    model[0].bias.requires_grad_(False)
    assert all(
        "not trained" in why for _, why in mirrorsym.forecast(model, squared, data(5), symmetries, lr=0.1).skipped
    )


def test_a_curve_has_every_change_of_sign_of_one_weight_by_its_closed_form() -> None:
    """Of ℓ = (wu - 1)²/2 with decay γ the zero is left where γ < 1: the exponent is ln(1 + λ(1 - γ))."""

    class Product(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w, self.u = (nn.Parameter(torch.full((1,), 1e-9, dtype=torch.double)) for _ in range(2))

        def forward(self, x: Tensor) -> Tensor:
            return self.w * self.u * x

    x = torch.ones(4, 1, dtype=torch.double)
    (flip,) = mirrorsym.find_symmetries(Product(), x).of_kind("sign_flip")
    rates, decays = [0.1, 0.2], [0.5, 0.9, 1.3, 1.8]
    curve = mirrorsym.forecast_curve(
        Product(),
        lambda model, batch: (model(batch) - 1).square().mean() / 2,
        [x],
        [flip],
        lr=rates,
        weight_decay=decays,
        steps=20,
        retrain=3,
    )
    expected = np.log(1 + np.outer(rates, 1 - np.array(decays)))
    np.testing.assert_allclose(curve.exponents(flip), expected, rtol=1e-8)
    assert [(change.held, change.between, change.rises) for change in curve.changes()] == [
        (0.1, (0.9, 1.3), False),
        (0.2, (0.9, 1.3), False),
    ]
    assert all(0.95 < change.at < 1.05 for change in curve.changes())
    assert "+0.04879" in str(curve)
    with pytest.raises(ValueError, match="a learning rate and a weight decay"):
        mirrorsym.forecast_curve(Product(), squared, [], [flip], lr=0.1, weight_decay=[])
