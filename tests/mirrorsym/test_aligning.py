"""What symmetries moved is brought back; what they did not comes nearer, and computes the same."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import mirrorsym
from mirrorsym.aligning import _balance, _doubles
from mirrorsym.symmetries.acting import transformed

pytest.importorskip("scipy", reason="permutations are aligned by an assignment")
torch.set_num_threads(1)


class Residual(nn.Module):
    """Convolutions and batch normalization around a residual stream."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.stem_norm = nn.Conv2d(2, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.first, self.first_norm = nn.Conv2d(6, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.second, self.second_norm = nn.Conv2d(8, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.read = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem_norm(self.stem(x)))
        x = x + self.second_norm(self.second(torch.relu(self.first_norm(self.first(x)))))
        return self.read(torch.relu(x).mean(dim=(2, 3)))


class Attention(nn.Module):
    """Two heads between an embedding and a readout, without normalization."""

    def __init__(self, heads: int = 3) -> None:
        super().__init__()
        self.heads = heads
        self.embed = nn.Linear(5, 12)
        self.query, self.key, self.value = (nn.Linear(12, 12) for _ in range(3))
        self.out, self.hidden, self.read = nn.Linear(12, 12), nn.Linear(12, 9), nn.Linear(9, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        q, k, v = (m(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for m in (self.query, self.key, self.value))
        x = torch.tanh(x + self.out(functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)))
        return self.read(functional.gelu(self.hidden(x)))


class Normed(nn.Module):
    """A residual stream with layer normalization, before each step or after it; its units change signs all at once."""

    def __init__(self, after: bool = False) -> None:
        super().__init__()
        self.after = after
        self.embed, self.up, self.down = nn.Linear(5, 12), nn.Linear(12, 20), nn.Linear(20, 12)
        self.norm, self.last, self.read = nn.LayerNorm(12), nn.LayerNorm(12), nn.Linear(12, 3)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.add_(0.2 * torch.randn_like(parameter))

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.embed(x)) if self.after else self.embed(x)
        x = x + self.down(functional.gelu(self.up(x if self.after else self.norm(x))))
        return self.read(self.last(x))


class Grouped(nn.Module):
    """Group normalization: groups of units change places, and units within each."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.norm = nn.Linear(5, 12), nn.GroupNorm(3, 12)
        self.hidden, self.last, self.read = nn.Linear(12, 12), nn.GroupNorm(4, 12), nn.Linear(12, 3)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.add_(0.2 * torch.randn_like(parameter))

    def forward(self, x: Tensor) -> Tensor:
        return self.read(torch.relu(self.last(self.hidden(torch.relu(self.norm(self.embed(x)))))))


NETWORKS: dict[str, tuple[Callable[[], nn.Module], Tensor]] = {
    "relu": (
        lambda: nn.Sequential(nn.Linear(4, 9), nn.ReLU(), nn.Linear(9, 7), nn.ReLU(), nn.Linear(7, 2)),
        torch.randn(6, 4),
    ),
    "tanh": (
        lambda: nn.Sequential(nn.Linear(4, 9), nn.Tanh(), nn.Linear(9, 7), nn.Tanh(), nn.Linear(7, 2)),
        torch.randn(6, 4),
    ),
    "linear": (lambda: nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 4), nn.Linear(4, 5)), torch.randn(6, 6)),
    "residual": (Residual, torch.randn(3, 2, 6, 6)),
    "attention": (Attention, torch.randn(3, 4, 5)),
    "norms before": (Normed, torch.randn(6, 5)),
    "groups": (Grouped, torch.randn(6, 5)),
    "norms after": (lambda: Normed(after=True), torch.randn(6, 5)),
}


@torch.no_grad()
def distance(one: nn.Module, other: nn.Module) -> float:
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    apart = sum(float((x - y).square().sum()) for x, y in pairs)
    return (apart / sum(float(x.square().sum()) for x in one.parameters())) ** 0.5


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", list(NETWORKS))
def test_a_network_moved_by_all_of_its_symmetries_comes_back(name: str, seed: int) -> None:
    torch.manual_seed(seed)
    build, x = NETWORKS[name]
    a, x = build().double().eval(), x.double()
    found = mirrorsym.find_symmetries(a, x)
    b = copy.deepcopy(a)
    for number, symmetry in enumerate(found):
        b.load_state_dict(symmetry.transform(b.state_dict(), symmetry.sample(seed + number)))
    torch.testing.assert_close(b(x), a(x))
    assert distance(a, b) > 0.5
    before = copy.deepcopy(b.state_dict())
    aligned = mirrorsym.align(a, b, found)
    assert distance(a, aligned) < 1e-6
    assert all(torch.equal(value, before[key]) for key, value in b.state_dict().items()), "b is left as it was"


def test_a_llama_comes_back_with_its_planes_and_its_groups_of_heads() -> None:
    transformers = pytest.importorskip("transformers", reason="the network is of that package")
    sizes = {"vocab_size": 50, "hidden_size": 32, "intermediate_size": 48, "max_position_embeddings": 32}
    heads = {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    torch.manual_seed(0)
    a = transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes, **heads)).double().eval()
    with torch.no_grad():
        for name, gain in a.named_parameters():
            if "norm" in name:
                gain.add_(0.1 * torch.randn_like(gain))
    words = torch.randint(50, (2, 7))
    found = mirrorsym.find_symmetries(a, words)
    state = dict(a.state_dict())
    for number, symmetry in enumerate(found):
        state = symmetry.transform(state, symmetry.sample(number))
    b = copy.deepcopy(a)
    b.load_state_dict(state)
    assert distance(a, b) > 0.5
    assert distance(a, mirrorsym.align(a, b, found)) < 1e-6


@pytest.mark.parametrize("name", list(NETWORKS))
def test_another_network_comes_nearer_and_computes_what_it_did(name: str) -> None:
    torch.manual_seed(5)
    build, x = NETWORKS[name]
    a, b = build().eval(), build().eval()
    aligned = mirrorsym.align(a, b, mirrorsym.find_symmetries(a, x))
    assert distance(a, aligned) < 0.97 * distance(a, b)
    torch.testing.assert_close(aligned(x), b(x), rtol=1e-3, atol=1e-4)
    assert {p.dtype for p in aligned.parameters()} == {torch.float32}


@pytest.mark.parametrize("name", ["relu", "linear", "attention"])
def test_a_balanced_network_is_the_smallest_of_its_orbit(name: str) -> None:
    """Any element of a continuous group makes it larger, by autograd the slope at the identity is 0."""
    torch.manual_seed(0)
    build, x = NETWORKS[name]
    model, x = build().double().eval(), x.double()
    found = [s for s in mirrorsym.find_symmetries(model, x) if s.kind in ("rescaling", "general_linear")]
    state, frame = _balance(_doubles(model), found)
    norm = sum(float(value.square().sum()) for value in state.values())
    for symmetry in found:
        for seed in range(3):
            element = symmetry.sample(seed)
            one = torch.eye(len(element)).double() if element.dim() == 2 else torch.ones_like(element)
            near = transformed(state, [(symmetry, one + 1e-2 * (element - one))])
            assert sum(float(value.square().sum()) for value in near.values()) > norm
    moved = copy.deepcopy(model)
    moved.load_state_dict(state)
    torch.testing.assert_close(moved(x), model(x))
    assert frame


def test_between_two_networks_statistics_are_those_of_the_batches() -> None:
    torch.manual_seed(0)
    a, b = Residual(), Residual()
    batches = [torch.randn(8, 2, 6, 6) for _ in range(3)]
    middle = mirrorsym.interpolate(a, b, 0.25, batches)
    torch.testing.assert_close(middle.read.weight, 0.75 * a.read.weight + 0.25 * b.read.weight)
    entering = [middle.stem(batch).movedim(1, -1).flatten(0, -2) for batch in batches]
    expected = torch.stack([rows.var(dim=0) for rows in entering]).mean(dim=0)
    torch.testing.assert_close(middle.stem_norm.running_var, expected)
    for spelt in ([[batch] for batch in batches], [{"x": batch} for batch in batches]):
        again = mirrorsym.interpolate(a, b, 0.25, spelt)
        torch.testing.assert_close(again.stem_norm.running_var, expected)
    assert middle.stem_norm.momentum == 0.1
    assert all(module.training for module in middle.modules())
    plain = mirrorsym.interpolate(a, b, 0.25)
    torch.testing.assert_close(plain.stem_norm.running_var, a.stem_norm.running_var)


def test_networks_of_two_architectures_are_refused_by_name() -> None:
    a, b = nn.Linear(2, 3), nn.Linear(2, 4)
    with pytest.raises(ValueError, match=r"weight has shape \(3, 2\) in the first network and \(4, 2\) in the second"):
        mirrorsym.align(a, b, [])
    with pytest.raises(ValueError, match=r"the second network has no 'bias'"):
        mirrorsym.align(a, nn.Linear(2, 3, bias=False), [])
    with pytest.raises(ValueError, match=r"the first network has no 'bias'"):
        mirrorsym.align(nn.Linear(2, 3, bias=False), a, [])


class LastOfLSTM(nn.Module):
    """It keeps the products that its constrained LSTM was called with."""

    def __init__(self) -> None:
        super().__init__()
        self.memory, self.read = mirrorsym.constrain_all(nn.LSTM(3, 4)), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.read(self.memory(x)[0][-1])


def old_weight_norm() -> nn.Module:
    with pytest.warns(FutureWarning, match="weight_norm"):
        return nn.Sequential(nn.utils.weight_norm(nn.Linear(3, 4)), nn.Tanh(), nn.Linear(4, 2))


@pytest.mark.parametrize("make", [LastOfLSTM, old_weight_norm])
def test_models_that_keep_what_they_computed_are_copied(make: Callable[[], nn.Module]) -> None:
    model, x = make(), torch.randn(5, 12, 3)
    x = x if make is LastOfLSTM else x[0]
    outputs = model(x)
    outputs.sum().backward()
    aligned = mirrorsym.align(model, model, mirrorsym.find_symmetries(model, x))
    for other in (aligned, mirrorsym.interpolate(model, aligned, 0.5), mirrorsym.compress(model, x)[0]):
        torch.testing.assert_close(other(x), outputs, rtol=1e-3, atol=1e-4)
