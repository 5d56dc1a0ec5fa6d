"""Constraints are put on networks, trained, saved, and taken off, and what the network computes stays what it was."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import mirrorsym
from mirrorsym.constraining import (
    constrain,
    constrain_all,
    effective_parameters,
    load_plain_state_dict,
    parameter_groups,
    plain_state_dict,
    release,
)

torch.set_num_threads(1)


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


@pytest.mark.parametrize("kind", ["sparse", "unit"])
def test_every_parameter_of_a_network_moves_biases_that_start_at_zero_among_them(kind: str) -> None:
    network = constrain_all(Residual(), kind)  # type: ignore[arg-type]
    start = [value.detach().clone() for *_, value in effective_parameters(network)]
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    nn.functional.cross_entropy(network(torch.randn(32, 1, 8, 8)), torch.randint(10, (32,))).backward()
    optimizer.step()
    for before, (*_, after) in zip(start, effective_parameters(network), strict=True):
        assert not torch.equal(before, after)


class Language(nn.Module):
    """Its embedding is its readout, and one layer is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.layer, self.read = nn.Embedding(7, 4), nn.Linear(4, 4), nn.Linear(4, 7)
        self.read.weight = self.embed.weight

    def forward(self, words: Tensor) -> Tensor:
        return self.read(torch.tanh(self.layer(torch.tanh(self.layer(self.embed(words))))))


WORDS, PICTURES = torch.randint(7, (3, 5)), torch.randn(3, 1, 8, 8)
NETWORKS: dict[str, tuple[Callable[[], nn.Module], Tensor]] = {
    "residual": (Residual, PICTURES),
    "tied": (Language, WORDS),
    "lstm": (lambda: nn.LSTM(8, 4, num_layers=2), torch.randn(3, 8)),
    "transposed": (lambda: nn.ConvTranspose2d(1, 4, 3), PICTURES),
    "attention": (lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), torch.randn(3, 5, 8)),
}


def output(network: nn.Module, x: Tensor) -> Tensor:
    found = network(x)
    return found[0] if isinstance(found, tuple) else found


@pytest.mark.parametrize("kind", ["sparse", "unit"])
@pytest.mark.parametrize("name", list(NETWORKS))
def test_a_network_is_constrained_saved_loaded_and_released(name: str, kind: str) -> None:
    build, x = NETWORKS[name]
    plain, other = build().double().eval(), build().double().eval()
    x = x.double() if x.is_floating_point() else x
    count = len({id(parameter) for parameter in plain.parameters()})
    before, state = output(plain, x), copy.deepcopy(plain.state_dict())
    network = copy.deepcopy(constrain_all(copy.deepcopy(plain), kind))  # type: ignore[arg-type]
    torch.testing.assert_close(output(network, x), before)
    saved = plain_state_dict(network)
    assert set(saved) == set(state)
    for key, value in state.items():
        torch.testing.assert_close(saved[key], value)

    load_plain_state_dict(network, other.state_dict())
    torch.testing.assert_close(output(network, x), output(other, x))
    release(network)
    torch.testing.assert_close(output(network, x), output(other, x))
    assert len({id(parameter) for parameter in network.parameters()}) == count
    assert set(network.state_dict()) == set(state)


@pytest.mark.parametrize("kind", ["sparse", "unit"])
def test_what_is_tied_stays_tied_in_training(kind: str) -> None:
    network = constrain_all(Language(), kind)  # type: ignore[arg-type]
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    network(WORDS).square().mean().backward()
    optimizer.step()
    assert torch.equal(network.embed.weight, network.read.weight)
    again = copy.deepcopy(network)
    again.load_state_dict(network.state_dict())
    assert torch.equal(again.embed.weight, network.read.weight)
    released = release(network)
    assert released.embed.weight is released.read.weight


def test_by_its_name_a_tied_parameter_is_constrained_in_both_places() -> None:
    network = constrain(Language(), "read.weight", imbalance=0.3)
    assert isinstance(network.embed.parametrizations["weight"][0], mirrorsym.Hadamard)
    w, u = network.embed.parametrizations["weight"].parameters()
    torch.testing.assert_close(u**2 - w**2, torch.full_like(u, 0.3))
    assert {id(w), id(u)} < {id(parameter) for parameter in network.read.parameters()}


def test_a_layers_weight_and_bias_are_one_unit_of_one_norm() -> None:
    layer = nn.Linear(5, 3)
    norms = torch.cat([layer.weight, layer.bias[:, None]], dim=1).norm(dim=1).detach()
    constrain(layer, ["weight", "bias"], "unit", imbalance=0.0)
    unit = layer.parametrizations["weight"][0]
    assert unit is layer.parametrizations["bias"][0]
    torch.testing.assert_close(unit.g.square(), norms)
    with torch.no_grad():
        unit.g[1] = 0
    assert layer.weight[1].abs().max() == layer.bias[1] == 0
    assert (layer.weight[[0, 2]] != 0).all()
    weight = layer.weight.detach().clone()
    layer.bias = torch.tensor([1.0, 0.0, 2.0])
    torch.testing.assert_close(layer.weight, weight)
    torch.testing.assert_close(layer.bias, torch.tensor([1.0, 0.0, 2.0]))
    with pytest.raises(ValueError, match="Unit: a unit with g = 0 cannot take a value"):
        layer.bias = torch.ones(3)


def test_groups_name_the_factors_and_leave_the_free_part_of_dcs_without_decay() -> None:
    network = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    constrain(network, "0.weight", mirrorsym.MirrorDCS(mirrorsym.ties(4, [0, 1]), axis=0))
    constrain(network, "1.weight", "unit")
    factors, others = parameter_groups(network, weight_decay=0.1)
    stored = network[0].parametrizations["weight"]
    unit = network[1].parametrizations["weight"]
    expected = [stored.original0, stored.original1, unit.original, unit[0].g]
    assert {id(tensor) for tensor in factors["params"]} == {id(tensor) for tensor in expected}
    assert {id(t) for t in others["params"]} == {id(t) for t in (stored.original2, network[0].bias, network[1].bias)}
    assert (factors["name"], factors["weight_decay"]) == ("factors", 0.1)
    assert (others["name"], others["weight_decay"]) == ("others", 0.0)
    torch.optim.SGD([factors, others], lr=0.1)


def test_a_copy_is_released_or_constrained_further_and_the_original_stays() -> None:
    layer = constrain(nn.Linear(3, 2), "weight")
    x = torch.randn(4, 3)
    expected = layer(x)
    further, freed = copy.deepcopy(layer), copy.deepcopy(layer)
    constrain(further, "bias", "unit")
    release(freed)
    for module in (layer, further, freed):
        torch.testing.assert_close(module(x), expected)
    assert isinstance(layer.bias, nn.Parameter)
    assert isinstance(freed.weight, nn.Parameter)
    assert set(layer.parametrizations) == {"weight"}
    assert set(further.parametrizations) == {"weight", "bias"}


def test_what_is_frozen_stays_frozen() -> None:
    network = nn.Sequential(nn.Linear(4, 4).requires_grad_(False), nn.Linear(4, 2))
    constrain_all(network, "unit")
    assert not any(parameter.requires_grad for parameter in network[0].parameters())
    release(network)
    assert [p.requires_grad for p in network.parameters()] == [False, False, True, True]


def test_a_second_constraint_is_refused_wherever_it_would_nest() -> None:
    network = constrain(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2)), "1.weight")
    for attempt in (constrain_all, lambda module: constrain(module, "1.weight", "unit")):
        with pytest.raises(ValueError, match=r"1.weight has a parametrization already, Hadamard"):
            attempt(network)
    assert not hasattr(network[0], "parametrizations")
    with pytest.raises(ValueError, match=r"weight has a parametrization already, _WeightNorm"):
        constrain_all(nn.utils.parametrizations.weight_norm(nn.Linear(3, 3)))


def test_errors_name_the_parameter_and_what_there_is() -> None:
    with pytest.raises(ValueError, match=r"Linear has no parameter 'wight'; it has weight, bias"):
        constrain(nn.Linear(8, 1), "wight")
    with pytest.raises(ValueError, match=r"Sequential has no parameter '1.weight'; it has 0.weight, 0.bias"):
        constrain(nn.Sequential(nn.Linear(8, 1)), "1.weight")
    with pytest.raises(ValueError, match=r"BatchNorm1d has no parameter 'running_mean'; it has weight, bias"):
        constrain(nn.BatchNorm1d(3), "running_mean")
    with pytest.raises(ValueError, match=r"there is no constraint 'lasso'; there are sparse, unit"):
        constrain(nn.Linear(8, 1), "weight", "lasso")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"weight of LazyLinear has no shape yet"):
        constrain_all(nn.LazyLinear(3))
    with pytest.raises(ValueError, match=r"Linear has no constrained parameter"):
        parameter_groups(nn.Linear(2, 2), 0.1)
    network = constrain_all(nn.Linear(2, 2))
    before = plain_state_dict(network)
    with pytest.raises(ValueError, match=r"the state has no 'bias'"):
        load_plain_state_dict(network, {"weight": torch.ones(2, 2)})
    with pytest.raises(ValueError, match=r"bias has shape \(3,\) in the state, and \(2,\) in the module"):
        load_plain_state_dict(network, {"weight": torch.ones(2, 2), "bias": torch.ones(3)})
    assert all(torch.equal(value, before[key]) for key, value in plain_state_dict(network).items())


class Tied(nn.Module):
    """An embedding that is the readout."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.read = nn.Embedding(6, 4), nn.Linear(4, 6, bias=False)
        self.read.weight = self.embed.weight

    def forward(self, words: Tensor) -> Tensor:
        return self.read(self.embed(words))


@pytest.mark.parametrize("kind", ["sparse", "unit"])
def test_a_parameter_that_is_named_twice_is_constrained_once(kind: str) -> None:
    network, words = Tied(), torch.arange(6)
    before = network(words)
    constrain(network, ["embed.weight", "read.weight", "embed.weight"], kind)  # type: ignore[arg-type]
    torch.testing.assert_close(network(words), before)
    load_plain_state_dict(network, plain_state_dict(network))
    torch.testing.assert_close(network(words), before)
    assert release(network).embed.weight is network.read.weight


def test_what_cannot_be_constrained_leaves_the_others_as_they_were() -> None:
    network = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 5))
    ties = mirrorsym.MirrorDCS(mirrorsym.ties(5, [0, 1]), axis=1)
    with pytest.raises(ValueError, match="axis 1"):
        constrain(network, ["1.weight", "0.weight"], ties)
    network.append(nn.Linear(5, 5, dtype=torch.cfloat))
    names = [name for name, _ in network.named_parameters()]
    for kind in ("sparse", "unit"):
        with pytest.raises(ValueError, match="complex"):
            constrain_all(network, kind)  # type: ignore[arg-type]
    assert [name for name, _ in network.named_parameters()] == names


@pytest.mark.parametrize("kind", ["sparse", "unit"])
@pytest.mark.parametrize("names", [["weight_ih_l0", "bias_ih_l0"], ["bias_hh_l0"], None])
def test_what_is_released_has_its_parameters_in_the_order_that_they_had(kind: str, names: list[str] | None) -> None:
    network = nn.LSTM(3, 4)
    plain = list(network.state_dict())
    for name in names or ():
        constrain(network, name, kind)  # type: ignore[arg-type]
    if names is None:
        constrain_all(network, kind)  # type: ignore[arg-type]
    assert list(release(copy.deepcopy(network)).state_dict()) == plain
    assert list(release(network).state_dict()) == plain


def test_a_deep_copy_is_constrained_and_released_apart() -> None:
    network, x = constrain(nn.Linear(3, 4), "weight"), torch.randn(5, 3)
    before = network(x)
    for other in (constrain(copy.deepcopy(network), "bias"), copy.deepcopy(network)):
        torch.testing.assert_close(release(other)(x), before)
        assert type(other) is nn.Linear
    torch.testing.assert_close(network(x), before)
    torch.testing.assert_close(release(network)(x), before)


@pytest.mark.parametrize("kind", ["sparse", "unit"])
def test_the_plain_state_has_the_order_of_the_plain_network(kind: str) -> None:
    network = nn.ModuleList([Residual(), nn.LSTM(3, 4), Tied(), nn.utils.parametrizations.weight_norm(nn.Linear(3, 4))])
    plain = list(network.state_dict())
    for part in network[:3]:
        constrain_all(part, kind)  # type: ignore[arg-type]
    assert list(plain_state_dict(network)) == plain
