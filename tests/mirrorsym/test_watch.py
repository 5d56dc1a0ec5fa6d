"""Symmetries are found in networks that have them, and collapse is measured in networks built to have it."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parameters_to_vector, parametrize, vector_to_parameters

from benchmarks.in_context_regressor import InContextRegressor
from mirrorsym.symmetries import Slot, Symmetry, find_symmetries, holds
from mirrorsym.watching import CollapseMonitor

torch.set_num_threads(1)


class Residual(nn.Module):
    """(I + W)(I + U) x, which has no symmetry."""

    def __init__(self) -> None:
        super().__init__()
        self.u, self.w = nn.Linear(5, 5, bias=False), nn.Linear(5, 5, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        hidden = x + self.u(x)
        return hidden + self.w(hidden)


class Factorization(nn.Module):
    """W U x with matrices of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.u, self.w = nn.Parameter(torch.randn(6, 4)), nn.Parameter(torch.randn(3, 6))

    def forward(self, x: Tensor) -> Tensor:
        return (self.w @ (self.u @ x.T)).T


class Rescaled(nn.Module):
    """(w ⊙ u)ᵀ x."""

    def __init__(self) -> None:
        super().__init__()
        self.u, self.w = nn.Parameter(torch.randn(4)), nn.Parameter(torch.randn(4))

    def forward(self, x: Tensor) -> Tensor:
        return x @ (self.u * self.w)


class Gated(nn.Module):
    """A gated layer in a residual block, between an embedding and a readout."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.place = nn.Linear(4, 6), nn.Parameter(torch.randn(3, 6))
        self.gate, self.up, self.down = nn.Linear(6, 8), nn.Linear(6, 8), nn.Linear(8, 6)
        self.read = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x) + self.place
        x = x + self.down(functional.silu(self.gate(x)) * self.up(x))
        return self.read(x.mean(dim=1))


class Branching(nn.Module):
    """Python decides which way the values go, and one layer is not used."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 6), nn.Linear(6, 2), nn.Linear(6, 2)
        self.unused_1, self.unused_2 = nn.Linear(4, 6), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.a(x)
        if float(x[0, 0]) == math.inf:
            hidden = self.unused_2(self.unused_1(x))
        return self.b(torch.tanh(hidden)) + self.c(torch.tanh(hidden))


class Skewed(nn.Module):
    """Its hidden units differ by numbers that are no parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 5), nn.Linear(5, 2)
        self.register_buffer("shift", torch.arange(5.0))

    def forward(self, x: Tensor) -> Tensor:
        return self.b(torch.tanh(self.a(x) + self.shift))


class Shared(nn.Module):
    """One layer that is applied again and again."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.again, self.last = nn.Linear(4, 5), nn.Linear(5, 5), nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for _ in range(3):
            x = torch.tanh(self.again(x))
        return self.last(x)


class Fused(nn.Module):
    """Attention of two heads with one projection for queries, keys and values."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(6, 18)

    def forward(self, x: Tensor) -> Tensor:
        points, tokens, _ = x.shape
        query, key, value = self.qkv(x).reshape(points, tokens, 3, 2, 3).permute(2, 0, 3, 1, 4)
        return functional.scaled_dot_product_attention(query, key, value)


class Product(nn.Module):
    def __init__(self, shape: torch.Size) -> None:
        super().__init__()
        self.other = nn.Parameter(torch.randn(shape))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.other


def layered(*layers: nn.Module) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(*copy.deepcopy(layers))


def parametrized() -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 6), nn.GELU(), nn.Linear(6, 2))
    for layer in (model[0], model[2]):
        parametrize.register_parametrization(layer, "weight", Product(layer.weight.shape))
    return model


ROWS, PICTURES, TOKENS = torch.randn(5, 4), torch.randn(3, 3, 8, 8), torch.randn(3, 3, 4)
GENERATOR = torch.Generator().manual_seed(0)

CASES: dict[str, tuple[Callable[[], nn.Module], Tensor, set[tuple[str, str, int]]]] = {
    "relu": (
        layered(nn.Linear(4, 7), nn.ReLU(), nn.Linear(7, 3)),
        ROWS,
        {("rescaling", "0, 2", 7), ("permutation", "0, 2", 7)},
    ),
    "tanh": (
        layered(nn.Linear(4, 7), nn.Tanh(), nn.Dropout(), nn.Linear(7, 3)),
        ROWS,
        {("sign_flip", "0, 3", 7), ("permutation", "0, 3", 7)},
    ),
    "gelu": (layered(nn.Linear(4, 7), nn.GELU(), nn.Linear(7, 3)), ROWS, {("permutation", "0, 2", 7)}),
    "softmax": (layered(nn.Linear(4, 7), nn.Softmax(-1), nn.Linear(7, 3)), ROWS, {("permutation", "0, 2", 7)}),
    "of a whole batch": (
        layered(nn.Linear(4, 7), nn.Softmax(-1), nn.Flatten(0), nn.Linear(35, 3)),
        ROWS,
        {("permutation", "0, 3 [0:7]", 7)},
    ),
    "linear": (
        layered(nn.Linear(4, 7), nn.Linear(7, 5, bias=False), nn.Linear(5, 3)),
        ROWS,
        {("general_linear", "0, 1", 7), ("general_linear", "1, 2", 5)},
    ),
    "one layer": (layered(nn.Linear(4, 7)), ROWS, set()),
    "batch norm": (
        layered(nn.Linear(4, 7), nn.BatchNorm1d(7), nn.ReLU(), nn.Linear(7, 3)),
        ROWS,
        {
            *((kind, "0, 1", 7) for kind in ("sign_flip", "rescaling")),
            *((kind, "0, 1, 3", 7) for kind in ("permutation",)),
            ("rescaling", "1, 3", 7),
        },
    ),
    "layer norm": (
        layered(nn.Linear(4, 7), nn.LayerNorm(7), nn.ReLU(), nn.Linear(7, 3)),
        ROWS,
        {("permutation", "0, 1, 3", 7), ("rescaling", "1, 3", 7), ("sign_flip", "0, 1", 1)},
    ),
    "group norm": (
        layered(nn.Conv2d(3, 6, 3), nn.GroupNorm(3, 6), nn.ReLU(), nn.Conv2d(6, 2, 3)),
        PICTURES,
        {
            ("rescaling", "1, 3", 6),
            *(("permutation", f"0, 1, 3 [{start}:{start + 2}]", 2) for start in (0, 2, 4)),
            ("permutation", "0, 1, 3", 3),
            ("sign_flip", "0, 1", 3),
        },
    ),
    "prelu": (
        layered(nn.Linear(4, 7), nn.PReLU(7), nn.Linear(7, 3)),
        ROWS,
        {("rescaling", "0, 2", 7), ("permutation", "0, 1, 2", 7)},
    ),
    "convolutions": (
        layered(
            *(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.MaxPool2d(2), nn.ConvTranspose2d(6, 5, 3), nn.Tanh(), nn.Flatten()),
            nn.Linear(5 * 5 * 5, 3),
        ),
        PICTURES,
        {
            ("rescaling", "0, 3", 6),
            ("permutation", "0, 3", 6),
            ("sign_flip", "3, 6", 5),
            ("permutation", "3, 6", 5),
        },
    ),
    "depthwise": (
        layered(nn.Conv2d(3, 6, 3), nn.GELU(), nn.Conv2d(6, 6, 3, groups=6), nn.GELU(), nn.Conv2d(6, 2, 1)),
        PICTURES,
        {("permutation", "0, 2, 4", 6)},
    ),
    "grouped": (
        layered(nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, 3, groups=2), nn.Conv2d(6, 2, 1)),
        PICTURES,
        {
            *(("general_linear", f"{pair} [{start}:{start + 3}]", 3) for pair in ("0, 1", "1, 2") for start in (0, 3)),
            ("permutation", "0, 1, 2", 2),
        },
    ),
    "pooled": (
        layered(nn.Conv2d(3, 6, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3)),
        PICTURES,
        {("general_linear", "0, 3", 6)},
    ),
    "embedding": (
        layered(nn.Embedding(9, 6), nn.Linear(6, 2)),
        torch.arange(9).reshape(3, 3),
        {("general_linear", "0, 1", 6)},
    ),
    "factorization": (Factorization, ROWS, {("general_linear", "u, w", 6)}),
    "rescaled": (Rescaled, ROWS, {("sign_flip", "u, w", 4), ("rescaling", "u, w", 4)}),
    "residual": (Residual, torch.randn(5, 5), set()),
    "gated": (
        Gated,
        TOKENS,
        {
            ("general_linear", "embed, place, gate, up, down, read", 6),
            ("permutation", "gate, up, down", 8),
            ("sign_flip", "up, down", 8),
            ("rescaling", "up, down", 8),
        },
    ),
    "branching": (Branching, ROWS, {("sign_flip", "a, b, c", 6), ("permutation", "a, b, c", 6)}),
    "skewed": (Skewed, ROWS, set()),
    "shared": (Shared, ROWS, {("sign_flip", "first, again, last", 5), ("permutation", "first, again, last", 5)}),
    "fused": (Fused, torch.randn(2, 4, 6), {("general_linear", f"qkv [{start}:{start + 3}]", 3) for start in (0, 3)}),
    "parametrized": (
        parametrized,
        ROWS,
        {
            ("permutation", ", ".join(f"{i}.parametrizations.weight{p}" for i in (0, 2) for p in (".0", "")), 6),
        },
    ),
    "attention": (
        lambda: InContextRegressor(6, 2),
        torch.randn(3, 5, 6),
        {("general_linear", f"layers.{i}.query, layers.{i}.key", 6) for i in range(2)},
    ),
    "transformer": (
        lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True),
        torch.randn(2, 5, 8),
        {
            *(("general_linear", f"self_attn [{start}:{start + 4}]", 4) for start in (0, 4)),
            ("permutation", "self_attn, self_attn.out_proj", 2),
            ("sign_flip", "norm1, linear1, linear2, norm2", 1),
            *(("general_linear", f"self_attn, self_attn.out_proj [{start}:{start + 4}]", 4) for start in (16, 20)),
            ("rescaling", "linear1, linear2", 16),
            ("permutation", "linear1, linear2", 16),
        },
    ),
}


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("case", [name for name in CASES if name != "parametrized"])
def test_exactly_the_symmetries_are_found(case: str) -> None:
    build, x, expected = CASES[case]
    found = find_symmetries(build(), x)
    assert {(symmetry.kind, symmetry.name, symmetry.units) for symmetry in found} == expected
    assert len(found) == len(expected)


def test_every_parametrized_unit_may_change_places() -> None:
    model = parametrized()
    found = find_symmetries(model, ROWS)
    (units,) = found.of_kind("permutation")
    assert {slot.name for slot in units.slots} == {name for name, _ in model.named_parameters()} - {"2.bias"}
    # The product of two matrices keeps its value when a row, or a column, flips or is rescaled in both.
    for kind in ("sign_flip", "rescaling"):
        assert sorted(s.units for s in found.of_kind(kind)) == [2, 4, 6, 6]


def double(case: str) -> tuple[nn.Module, Tensor]:
    build, x, _ = CASES[case]
    return build().double().eval(), x.double() if x.is_floating_point() else x


def loss_of(x: Tensor) -> Callable[[nn.Module], Tensor]:
    def loss(model: nn.Module) -> Tensor:
        output = model(x)
        return torch.sin(output * torch.linspace(1, 2, output.numel()).reshape(output.shape)).sum()

    return loss


@pytest.mark.parametrize("case", CASES)
def test_the_loss_is_the_same_at_reflected_parameters_and_the_model_is_left_alone(case: str) -> None:
    model, x = double(case)
    before = copy.deepcopy(model.state_dict())
    training = model.training
    for symmetry in find_symmetries(model, x):
        for seed in range(3):
            assert symmetry.difference(model, loss_of(x), seed) < 1e-10
    assert model.training == training
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])
        assert tensor.dtype == before[name].dtype


def test_a_wrong_symmetry_changes_the_loss() -> None:
    model, x = double("relu")
    slots = find_symmetries(model, x)[0].slots
    assert Symmetry("sign_flip", 7, slots).difference(model, loss_of(x)) > 1e-3
    assert Symmetry("permutation", 7, slots[1:]).difference(model, loss_of(x)) > 1e-3


def direction(kind: str, units: int) -> Tensor:
    """Return a direction along which a kind has a mirror."""
    normal = torch.zeros(units, dtype=torch.double)
    if kind in ("rotation", "general_linear"):
        return torch.linspace(-1, 2, units, dtype=torch.double)
    normal[-1] = 1
    if kind == "permutation":
        normal[0] = -1
    return normal


@pytest.mark.parametrize("case", [name for name in CASES if name not in ("shared", "batch norm", "transformer")])
def test_mirrors_of_found_symmetries_obey_theorem_1(case: str) -> None:
    """The reflection as a matrix is the same one, and a gradient on the mirror has no part that leaves it."""
    model, x = double(case)
    start = parameters_to_vector(model.parameters()).detach()
    for symmetry in find_symmetries(model, x):
        if symmetry.kind == "rescaling":
            continue
        normal = direction(symmetry.kind, symmetry.units)
        mirror = symmetry.mirror(model, normal)
        vector_to_parameters(start, model.parameters())
        reflected = symmetry.reflect(dict(model.named_parameters()), normal)
        expected = parameters_to_vector([reflected[name] for name, _ in model.named_parameters()])
        torch.testing.assert_close(mirror.reflect(start), expected.detach(), rtol=0, atol=1e-12)
        vector_to_parameters(mirror.project(start), model.parameters())
        order_parameter = symmetry.matrix(dict(model.named_parameters())).T @ normal
        assert float(order_parameter.detach().abs().max()) < 1e-12
        model.zero_grad()
        loss_of(x)(model).backward()
        gradient = parameters_to_vector([p.grad for p in model.parameters() if p.grad is not None])
        if len(gradient) == len(start):
            assert float(mirror.distance(gradient)) < 1e-9 < float(gradient.norm())
    vector_to_parameters(start, model.parameters())


def test_resnet_units_are_tied_through_its_residual_connections() -> None:
    pytest.importorskip("torchvision", reason="the network is torchvision's, which the library does without")
    from reproduction.models.resnet import ResNet18

    found = find_symmetries(ResNet18(3, 10, width=4, stem_stride=2), torch.randn(2, 3, 16, 16))
    kinds = {(symmetry.kind, symmetry.name) for symmetry in found}
    assert ("permutation", "fc, classifier") in kinds
    assert ("rescaling", "fc, classifier") in kinds
    assert ("permutation", "layer1.0.conv1, layer1.0.bn1, layer1.0.conv2") in kinds
    assert ("sign_flip", "layer4.1.conv2, layer4.1.bn2") in kinds
    permutations = [symmetry for symmetry in found if symmetry.kind == "permutation"]
    assert len(permutations) == 8 + 4 + 1  # inside of each block, along each stage, and the penultimate layer


def test_collapsed_networks_get_no_symmetries_of_their_zeros() -> None:
    model = layered(nn.Linear(4, 7), nn.ReLU(), nn.Linear(7, 3))()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert [symmetry.kind for symmetry in find_symmetries(model, ROWS)] == ["rescaling", "permutation"]


def test_symmetries_written_down_by_hand_are_checked() -> None:
    model, x = Fused(), torch.randn(2, 4, 6)
    names = ("qkv.weight", "qkv.bias")
    head = [tuple(Slot(name, 0, start) for start in (3 * h, 6 + 3 * h) for name in names) for h in range(2)]
    assert holds(model, Symmetry("rotation", 3, head[0]), x)
    assert holds(model, Symmetry("rotation", 3, head[1]), x)
    assert not holds(model, Symmetry("rotation", 3, head[0][:2] + head[1][2:]), x)
    assert not holds(model, Symmetry("rotation", 6, head[0]), x)
    # A symmetry of what is not used is none, as one cannot tell it from any other transformation.
    assert not holds(
        Branching(), Symmetry("sign_flip", 6, (Slot("unused_1.weight", 0), Slot("unused_2.weight", 1))), ROWS
    )
    with pytest.raises(ValueError, match=r"no parameter 'other\.weight'"):
        holds(model, Symmetry("rotation", 3, (Slot("other.weight", 0),)), x)


def test_directions_without_a_mirror_are_refused() -> None:
    model, x = double("relu")
    state = dict(model.named_parameters())
    rescaling, permutation = find_symmetries(model, x)
    for symmetry, normal in [
        (rescaling, [1, 0, 0, 0, 0, 0, 0]),
        (permutation, [1, 0, 0, 0, 0, 0, 0]),
        (permutation, [1, 1, 0, 0, 0, 0, 0]),
        (permutation, [1, -1, 0, 0, 0, 0]),
    ]:
        with pytest.raises(ValueError, match=f"the {symmetry.kind} of 0, 2 has no mirror along"):
            symmetry.reflect(state, torch.tensor(normal, dtype=torch.double))
    shared, x = double("shared")
    (flip, _) = find_symmetries(shared, x)
    with pytest.raises(ValueError, match="from two sides"):
        flip.mirror(shared, torch.tensor([1.0, 0, 0, 0, 0]))


@settings(max_examples=50)
@given(
    st.lists(st.integers(1, 4), min_size=1, max_size=4),
    st.integers(0, 3),
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(0, 2),
)
def test_slots_put_back_what_they_take(shape: list[int], axis: int, units: int, repeat: int, start: int) -> None:
    axis %= len(shape)
    shape[axis] = start + units * repeat + 1
    tensor = torch.randn(shape)
    slot = Slot("weight", axis, start, repeat)
    block = slot.take(tensor, units)
    assert block.shape == (units, repeat * math.prod(shape) // shape[axis])
    assert torch.equal(slot.put(tensor, block), tensor)
    torch.testing.assert_close(slot.take(slot.put(tensor, 2 * block), units), 2 * block)
    untouched = tensor.numel() - block.numel()
    assert int((slot.put(tensor, block + 1) == tensor).sum()) == untouched


# Collapse


def two_layers(activation: nn.Module, weights: Tensor, outgoing: Tensor) -> nn.Module:
    model = nn.Sequential(
        nn.Linear(weights.shape[1] - 1, len(weights)), activation, nn.Linear(len(weights), len(outgoing))
    )
    with torch.no_grad():
        model[0].weight.copy_(weights[:, :-1])
        model[0].bias.copy_(weights[:, -1])
        model[2].weight.copy_(outgoing)
    return model


def measured(model: nn.Module, x: Tensor, **options: float) -> dict[tuple[str, str], float]:
    records = CollapseMonitor(model, find_symmetries(model, x), **options).update(7)
    assert {record.step for record in records} == {7}
    return {(record.kind, record.quantity): record.value for record in records if record.kind != "weight"}


def test_copies_are_counted() -> None:
    weights, outgoing = torch.randn(8, 5), torch.randn(3, 8)
    for first, second in ((0, 3), (3, 5), (1, 6)):  # {0, 3, 5}, {1, 6}, {2}, {7}, and {4}, which is zero
        weights[second], outgoing[:, second] = weights[first], outgoing[:, first]
    weights[4], outgoing[:, 4] = 0, 0
    found = measured(two_layers(nn.GELU(), weights, outgoing), ROWS)
    assert found["permutation", "units"] == 8
    assert found["permutation", "effective_units"] == 4
    assert found["permutation", "order_parameter"] == 0
    assert found["permutation", "identical_pairs"] == pytest.approx((3 + 1) / (7 * 6 / 2))


def test_what_is_not_quite_a_copy_is_told_by_the_threshold() -> None:
    weights, outgoing = torch.randn(4, 5), torch.randn(3, 4)
    weights[1], outgoing[:, 1] = 1.1 * weights[0], 1.1 * outgoing[:, 0]
    model = two_layers(nn.GELU(), weights, outgoing)
    distance = 0.1 / math.sqrt(1 + 1.1**2)
    assert measured(model, ROWS)["permutation", "order_parameter"] == pytest.approx(distance, rel=1e-5)
    assert measured(model, ROWS, identical=1.01 * distance)["permutation", "effective_units"] == 3
    assert measured(model, ROWS, identical=0.99 * distance)["permutation", "effective_units"] == 4


def test_units_of_one_direction_but_other_outgoing_weights_are_no_copies() -> None:
    weights, outgoing = torch.randn(4, 5), torch.randn(3, 4)
    weights[1], outgoing[:, 1] = weights[0], -outgoing[:, 0]
    assert measured(two_layers(nn.GELU(), weights, outgoing), ROWS)["permutation", "effective_units"] == 4


def test_zero_units_and_lost_directions_are_counted() -> None:
    weights, outgoing = torch.randn(8, 5), torch.randn(3, 8)
    weights[:2], outgoing[:, :2] = 0, 0
    found = measured(two_layers(nn.Tanh(), weights, outgoing), ROWS)
    assert found["sign_flip", "effective_units"] == 6
    assert found["sign_flip", "order_parameter"] == 0
    projection = torch.eye(8)
    projection[:, :3] = 0
    rotation = torch.linalg.qr(torch.randn(8, 8))[0]
    projection = rotation @ projection @ rotation.T
    found = measured(two_layers(nn.Identity(), projection @ weights, outgoing @ projection), ROWS)
    assert found["general_linear", "units"] == 8
    assert found["general_linear", "effective_units"] == 5
    assert found["general_linear", "order_parameter"] < 1e-6


def test_matrices_are_measured_without_symmetries() -> None:
    pytest.importorskip("pandas", reason="records become a table of pandas")
    model = nn.Sequential(nn.Conv2d(3, 4, 2))
    with torch.no_grad():
        model[0].weight.zero_()
        model[0].weight[0, 0, 0, 0], model[0].weight[1, 1, 1, 1] = 3, 4
        model[0].weight[2, 0, 0, 0] = 1e-7
    monitor = CollapseMonitor(model)
    monitor.update()
    monitor.update()
    frame = monitor.to_frame()
    assert list(frame.columns) == ["step", "name", "kind", "quantity", "value"]
    assert set(frame["step"]) == {0, 1}
    last = frame[frame["step"] == 1].set_index("quantity")["value"]
    assert last.to_dict() == {"rank": 2, "full_rank": 4, "sparsity": pytest.approx(46 / 48), "norm": 5}


def test_units_that_do_not_learn_are_counted() -> None:
    model = layered(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))()
    with torch.no_grad():
        model[0].bias[:3] = -100
    assert not any(quantity == "vanishing_units" for _, quantity in measured(model, ROWS))
    loss_of(ROWS)(model).backward()
    gradient = torch.cat([model[0].weight.grad, model[0].bias.grad[:, None], model[2].weight.grad.T], dim=1)
    assert int((gradient.abs().amax(dim=1) == 0).sum()) >= 3
    expected = float((gradient.abs().amax(dim=1) < 1e-6).double().mean())
    assert measured(model, ROWS)["permutation", "vanishing_units"] == expected


def test_a_diverged_network_is_measured_as_nan() -> None:
    for activation in (nn.GELU(), nn.Tanh(), nn.Identity()):
        model = two_layers(activation, torch.randn(4, 5), torch.randn(3, 4))
        monitor = CollapseMonitor(model, find_symmetries(model, ROWS))
        with torch.no_grad():
            model[0].weight.fill_(math.nan)
        values = {record.quantity: record.value for record in monitor.update()}
        assert math.isnan(values["effective_units"])
        assert math.isnan(values["order_parameter"])


def test_weight_decay_collapses_a_network_while_it_trains() -> None:
    """Theorem 3: with decay, a linear network keeps the one direction that its target needs; without, it keeps all."""
    pytest.importorskip("pandas", reason="records become a table of pandas")
    x = torch.randn(64, 4)
    y = x[:, :1] * torch.tensor([1.0, -2, 0.5])
    left = {}
    for weight_decay in (0.0, 0.05):
        torch.manual_seed(0)
        model = layered(nn.Linear(4, 6, bias=False), nn.Linear(6, 3))()
        monitor = CollapseMonitor(model, find_symmetries(model, x))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=weight_decay)
        for step in range(2001):
            if step % 1000 == 0:
                monitor.update(step)
            optimizer.zero_grad()
            functional.mse_loss(model(x), y).backward()
            optimizer.step()
        frame = monitor.to_frame()
        rows = frame[(frame["kind"] == "general_linear") & (frame["quantity"] == "effective_units")]
        assert rows["step"].tolist() == [0, 1000, 2000]
        left[weight_decay] = rows["value"].tolist()
    assert left == {0.0: [6, 6, 6], 0.05: [6, 1, 1]}
    assert monitor.summary() == "0, 1 (general_linear): 1 of 6 units are independent"


def test_the_summary_begins_with_what_has_collapsed_most() -> None:
    weights, outgoing = torch.randn(8, 5), torch.randn(3, 8)
    weights[1:], outgoing[:, 1:] = weights[0], outgoing[:, :1]
    model = two_layers(nn.Tanh(), weights, outgoing)
    monitor = CollapseMonitor(model, find_symmetries(model, ROWS))
    monitor.update()
    assert monitor.summary().splitlines() == [
        "0, 2 (permutation): 1 of 8 units are different",
        "1 symmetry has lost nothing",
    ]


def test_order_parameters_do_not_depend_on_where_the_units_are() -> None:
    model, x = double("tanh")
    symmetries = find_symmetries(model, x)
    before = CollapseMonitor(model, symmetries).update()
    permutation = next(s for s in symmetries if s.kind == "permutation")
    model.load_state_dict(permutation.transform(model.state_dict(), permutation.sample(1)))
    after = CollapseMonitor(model, symmetries).update()
    np.testing.assert_allclose([r.value for r in before], [r.value for r in after], rtol=1e-9)
