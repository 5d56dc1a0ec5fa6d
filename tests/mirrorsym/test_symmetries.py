"""No symmetry that does not hold, and all that the operations of common networks have."""

from __future__ import annotations

import copy
import gc
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import prune, weight_norm
from torch.utils.checkpoint import checkpoint

import mirrorsym
from mirrorsym.symmetries import Kind, Symmetries, Symmetry, Unfollowed, find_symmetries, holds
from mirrorsym.symmetries.acting import Action
from mirrorsym.symmetries.noether import NoetherCharges
from mirrorsym.symmetries.symmetry import Slot
from mirrorsym.symmetries.twin import Twin

torch.set_num_threads(1)

ROWS, TOKENS = torch.randn(5, 4), torch.arange(14).reshape(2, 7) % 9
PICTURES = torch.randn(3, 3, 8, 8)


class Called(nn.Module):
    """Layers with a function in between."""

    def __init__(self, function: Callable[[Tensor], Tensor], units: int = 6, made: int | None = None) -> None:
        super().__init__()
        self.a, self.b, self.function = nn.Linear(4, units), nn.Linear(made or units, 3), function

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.function(self.a(x)))


class Attention(nn.Module):
    """Causal attention with groups of heads that share keys and values, and rotary planes (i, i + rotary/2)."""

    def __init__(self, heads: int = 4, groups: int = 2, size: int = 8, rotary: int = 0, bias: bool = False) -> None:
        super().__init__()
        self.heads, self.groups, self.size, self.rotary = heads, groups, size, rotary
        self.embed = nn.Embedding(9, 12)
        self.q = nn.Linear(12, heads * size, bias=bias)
        self.k, self.v = nn.Linear(12, groups * size, bias=bias), nn.Linear(12, groups * size, bias=bias)
        self.o, self.read = nn.Linear(heads * size, 12, bias=False), nn.Linear(12, 5)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        samples, length, _ = x.shape
        q, k, v = (layer(x).view(samples, length, -1, self.size).transpose(1, 2) for layer in (self.q, self.k, self.v))
        q, k = self.turned(q), self.turned(k)
        shared = self.heads // self.groups
        k, v = (t[:, :, None].expand(-1, -1, shared, -1, -1).reshape(samples, -1, length, self.size) for t in (k, v))
        y = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.read(x + self.o(y.transpose(1, 2).reshape(samples, length, -1)))

    def turned(self, x: Tensor) -> Tensor:
        if not self.rotary:
            return x
        half = self.rotary // 2
        angles = torch.arange(x.shape[2])[:, None].float() * 10 ** -torch.arange(half).float()
        cos, sin = (torch.cat([f, f], dim=-1) for f in (angles.cos(), angles.sin()))
        part, rest = x[..., : self.rotary], x[..., self.rotary :]
        other = torch.cat([-part[..., half:], part[..., :half]], dim=-1)
        return torch.cat([part * cos + other * sin, rest], dim=-1)


class Einsum(nn.Module):
    """Attention written with einsum, one projection for queries, keys and values."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.qkv, self.o = nn.Linear(4, 6), nn.Linear(6, 24), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (t.unflatten(-1, (2, 4)) for t in self.qkv(torch.tanh(self.embed(x))).chunk(3, dim=-1))
        weights = torch.einsum("bthd,bshd->bhts", q, k).softmax(-1)
        return self.o(torch.einsum("bhts,bshd->bthd", weights, v).flatten(-2))


class Recurrent(nn.Module):
    def __init__(self, cell: type[nn.RNNBase], **options: Any) -> None:
        super().__init__()
        self.embed, self.cell = nn.Embedding(9, 5), cell(5, 6, batch_first=True, **options)
        self.read = nn.Linear(12 if options.get("bidirectional") else 6, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.read(self.cell(self.embed(tokens))[0][:, -1])


class Dense(nn.Module):
    """Channels that are concatenated, split and shuffled."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 5, 3, padding=1)
        self.c, self.d = nn.Conv2d(9, 8, 1), nn.Conv2d(4, 2, 1)
        self.e = nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        first = torch.relu(self.a(x))
        both = torch.cat([first, torch.relu(self.b(first))], dim=1)
        one, other = torch.tanh(self.c(both)).chunk(2, dim=1)
        return self.d(one) + self.e(other)


class Stream(nn.Module):
    """A residual stream between batch normalizations and ReLU."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(4, 6, 1), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 4, 1), nn.BatchNorm2d(4))
            for _ in range(2)
        )
        self.read = nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.stem(x)))
        for block in self.blocks:
            x = torch.relu(x + block(x))
        return self.read(x)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.layer, self.head = nn.Embedding(9, 6), nn.Linear(6, 6), nn.Linear(6, 9, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.layer(self.embed(tokens)))


class HandWritten(nn.Module):
    """A recurrent network that creates its state."""

    def __init__(self) -> None:
        super().__init__()
        self.i, self.h, self.o = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.zeros(x.shape[0], 6)
        for _ in range(2):
            hidden = torch.tanh(self.i(x) + self.h(hidden))
        return self.o(hidden)


class Factors(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.u, self.v, self.w = (nn.Parameter(torch.randn(4)) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        return x @ (self.u * self.v * self.w)


class Gated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gate, self.up, self.down = nn.Linear(4, 6), nn.Linear(4, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(functional.silu(self.gate(x)) * self.up(x))


class RMS(nn.Module):
    """A norm by hand, in float32 as language models write it."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(6))

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        return self.weight * (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + 1e-6)).to(x.dtype)


class Spelled(nn.Module):
    """Products by addmm and einsum, axes moved by movedim."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Parameter(torch.randn(shape)) for shape in ((6, 4), (6, 6), (2, 6)))
        self.d = nn.Conv1d(2, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(torch.einsum("nti,hi->nth", x, self.a))
        x = torch.tanh(torch.addmm(torch.zeros(6, dtype=x.dtype), x.flatten(0, 1), self.b.T)).unflatten(0, (2, 5))
        return self.d(torch.einsum("nth,oh->nto", x, self.c).movedim(-1, 1).cos())


class Committee(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(4, 6)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.a(x)).sum(-1)


def layered(*layers: nn.Module) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(*copy.deepcopy(layers))


def kinds(found: Symmetries) -> Counter[tuple[str, int]]:
    return Counter((symmetry.kind, symmetry.units) for symmetry in found)


NETWORKS: dict[str, tuple[Callable[[], nn.Module], Tensor, dict[tuple[str, int], int]]] = {
    "heads": (
        lambda: Attention(groups=4),
        TOKENS,
        {("general_linear", 12): 1, ("general_linear", 8): 8, ("permutation", 4): 1},
    ),
    "groups of heads": (
        lambda: Attention(bias=True),
        TOKENS,
        {("general_linear", 12): 1, ("general_linear", 8): 4, ("permutation", 2): 3},
    ),
    "rotary": (
        lambda: Attention(rotary=8),
        TOKENS,
        {("general_linear", 12): 1, ("complex", 8): 1, ("general_linear", 8): 2, ("permutation", 2): 3},
    ),
    "partly rotary": (
        lambda: Attention(rotary=4),
        TOKENS,
        {
            ("general_linear", 12): 1,
            ("complex", 4): 1,
            ("general_linear", 4): 2,
            ("general_linear", 8): 2,
            ("permutation", 2): 3,
        },
    ),
    "heads that share one key and value": (
        lambda: Attention(groups=1),
        TOKENS,
        {("general_linear", 12): 1, ("general_linear", 8): 2, ("permutation", 4): 1},
    ),
    "rotary heads that share one key and value": (
        lambda: Attention(groups=1, rotary=8),
        TOKENS,
        {("general_linear", 12): 1, ("complex", 4): 1, ("general_linear", 8): 1, ("permutation", 4): 1},
    ),
    "einsum": (
        Einsum,
        torch.randn(2, 5, 4),
        {("sign_flip", 6): 1, ("permutation", 6): 1, ("general_linear", 4): 4, ("permutation", 2): 1},
    ),
    "lstm": (
        lambda: Recurrent(nn.LSTM),
        TOKENS,
        {("general_linear", 5): 1, ("permutation", 6): 1, ("sign_flip", 6): 1},
    ),
    "two lstm both ways": (
        lambda: Recurrent(nn.LSTM, num_layers=2, bidirectional=True),
        TOKENS,
        {("general_linear", 5): 1, ("permutation", 6): 4, ("sign_flip", 6): 4},
    ),
    "gru": (
        lambda: Recurrent(nn.GRU),
        TOKENS,
        {("general_linear", 5): 1, ("permutation", 6): 1, ("sign_flip", 6): 1},
    ),
    "concatenated and split": (
        Dense,
        PICTURES,
        {
            **{(kind, units): 1 for kind in ("rescaling", "permutation") for units in (4, 5)},
            ("permutation", 4): 3,
            ("sign_flip", 4): 2,
        },
    ),
    "stream": (
        Stream,
        PICTURES,
        {("permutation", 4): 1, ("permutation", 6): 2, ("rescaling", 4): 4, ("rescaling", 6): 4}
        | {("sign_flip", 4): 3, ("sign_flip", 6): 2},
    ),
    "tied": (Tied, TOKENS, {("general_linear", 6): 1}),
    "hand-written recurrence": (HandWritten, ROWS, {("sign_flip", 6): 1, ("permutation", 6): 1}),
    "u v w": (Factors, ROWS, {("sign_flip", 4): 2, ("rescaling", 4): 2}),
    "gated": (Gated, ROWS, {("sign_flip", 6): 1, ("rescaling", 6): 1, ("permutation", 6): 1}),
    "norm by hand": (
        layered(nn.Linear(4, 6), RMS(), nn.Linear(6, 3)),
        ROWS,
        {("sign_flip", 6): 2, ("rescaling", 6): 1, ("permutation", 6): 1},
    ),
    "committee": (Committee, ROWS, {("permutation", 6): 1}),
    "square": (
        lambda: Called(torch.square),
        ROWS,
        {("sign_flip", 6): 1, ("rescaling", 6): 1, ("permutation", 6): 1},
    ),
    "spelled out": (
        Spelled,
        torch.randn(2, 5, 4),
        {(kind, units): 2 if units == 6 else 1 for kind in ("sign_flip", "permutation") for units in (2, 6)},
    ),
    "grouped": (
        layered(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 4, 3, groups=2), nn.ReLU(), nn.Conv2d(4, 2, 1)),
        PICTURES,
        {("rescaling", 8): 1, ("rescaling", 4): 1, ("permutation", 4): 2, ("permutation", 2): 3},
    ),
    "depthwise": (
        layered(nn.Conv2d(3, 6, 1), nn.ReLU(), nn.Conv2d(6, 6, 3, groups=6), nn.ReLU(), nn.Conv2d(6, 2, 1)),
        PICTURES,
        {("rescaling", 6): 2, ("permutation", 6): 1},
    ),
    "generator behind a linear layer": (
        layered(
            *(nn.Linear(4, 24), nn.BatchNorm1d(24), nn.ReLU(), nn.Unflatten(1, (6, 2, 2))),
            *(nn.BatchNorm2d(6), nn.ReLU(), nn.ConvTranspose2d(6, 2, 2)),
        ),
        ROWS,
        {("sign_flip", 24): 1, ("rescaling", 24): 1, ("permutation", 6): 1, ("rescaling", 6): 2},
    ),
    "pixel shuffle": (
        layered(nn.Conv2d(3, 16, 1), nn.PixelShuffle(2), nn.ReLU(), nn.Conv2d(4, 2, 3)),
        PICTURES,
        {("rescaling", 4): 1, ("permutation", 4): 1},
    ),
    "bag of embeddings": (
        layered(nn.EmbeddingBag(9, 6), nn.Linear(6, 3)),
        TOKENS,
        {("general_linear", 6): 1},
    ),
    "clipped": (layered(nn.Linear(4, 6), nn.ReLU6(), nn.Linear(6, 3)), ROWS, {("permutation", 6): 1}),
    "far threshold": (layered(nn.Linear(4, 6), nn.Threshold(-20, 0), nn.Linear(6, 3)), ROWS, {("permutation", 6): 1}),
    "wide clip": (
        layered(nn.Linear(4, 6), nn.Hardtanh(-10, 10), nn.Linear(6, 3)),
        ROWS,
        {("sign_flip", 6): 1, ("permutation", 6): 1},
    ),
    "deep": (
        layered(*(layer for _ in range(24) for layer in (nn.Linear(5, 5), nn.SiLU())), nn.Linear(5, 3)),
        torch.randn(4, 5),
        {("permutation", 5): 24},
    ),
}


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def elements(symmetry: Symmetry) -> Iterator[Tensor]:
    """Yield elements of a group as matrices: improper ones, single exchanges, large factors."""
    units = symmetry.units
    identity = torch.eye(units, dtype=torch.double)
    a, b = torch.randperm(units)[:2].tolist() if units > 1 else (0, 0)
    if symmetry.kind == "permutation":
        exchange = identity.clone()
        exchange[[a, b]] = exchange[[b, a]]
        yield from (exchange, identity[torch.randperm(units)])
    elif symmetry.kind == "sign_flip":
        identity[a, a] = -1
        yield identity
    elif symmetry.kind == "rescaling":
        for factor in (50.0, 0.02):
            yield torch.cat([factor * identity[:1], identity[1:]])
    elif symmetry.kind == "complex":
        yield identity * torch.linspace(0.5, 2, units)
    else:
        rotation = torch.linalg.qr(torch.randn(units, units, dtype=torch.double))[0]
        yield from (rotation, torch.cat([-rotation[:1], rotation[1:]]))
        if symmetry.kind == "general_linear":
            yield torch.randn(units, units, dtype=torch.double) + 3 * identity


def living(model: nn.Module, size: float) -> nn.Module:
    """Return a copy in double precision at random parameters, through which a signal passes."""
    twin = copy.deepcopy(model).double().eval()
    with torch.no_grad():
        for parameter in twin.parameters():
            fan_in = parameter[0].numel() if parameter.dim() > 1 else 4
            parameter.copy_(size * 1.5 * torch.randn(parameter.shape).double() / fan_in**0.5)
        for name, buffer in twin.named_buffers():
            if name.endswith(("running_mean", "running_var")):
                buffer.copy_(torch.rand(buffer.shape).double() + 0.5)
    return twin


@pytest.mark.parametrize("network", NETWORKS)
def test_all_symmetries_are_found_and_none_is_wrong(network: str) -> None:
    build, x, expected = NETWORKS[network]
    model = build()
    found = find_symmetries(model, x)
    assert kinds(found) == Counter(expected)
    assert not found.refuted
    assert not found.unfollowed
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.double)
    try:
        for size in (1.0, 3.0):
            twin = living(model, size)
            wide = size * x.double() if x.is_floating_point() else x
            state = dict(twin.named_parameters()) | dict(twin.named_buffers())
            with torch.no_grad():
                before = twin(wide)
                for symmetry in found:
                    for element in (*elements(symmetry), symmetry.sample(3)):
                        changed = symmetry.transform(state, element)
                        after = torch.func.functional_call(twin, changed, (wide,))
                        rounding = 1e-4 if network == "norm by hand" else 1e-9
                        assert float((after - before).norm() / before.norm()) < rounding, symmetry.name
    finally:
        torch.set_default_dtype(default)


@pytest.mark.parametrize(("rotary", "dimension"), [(0, 64), (4, 4 + 16), (8, 8)])
def test_the_dimension_of_a_head_pair_of_eight_is_that_of_its_algebra(rotary: int, dimension: int) -> None:
    """GL(8) without rotary planes; with them a complex number for each, and GL of what is not turned."""
    found = find_symmetries(Attention(heads=1, groups=1, rotary=rotary), TOKENS)
    of_keys = [s for s in found if {slot.name for slot in s.slots} == {"q.weight", "k.weight"}]
    sizes = {"general_linear": lambda n: n * n, "complex": lambda n: 2 * n}
    assert sum(sizes[s.kind](s.units) for s in of_keys) == dimension


def test_the_two_weights_of_a_plane_turn_together() -> None:
    (planes,) = find_symmetries(Attention(heads=2, groups=1, rotary=8), TOKENS).of_kind("complex")
    query, key = planes.slots
    assert query.places == tuple(p for i in range(4) for p in (i, i + 4, i + 8, i + 12))
    assert key.places == tuple(p for i in range(4) for p in (i, i + 4))
    assert key.inverse != query.inverse
    # Its mirror is the whole plane.
    weights = {"q.weight": torch.ones(16, 12), "k.weight": torch.ones(8, 12)}
    reflected = planes.reflect(weights, torch.tensor([0.0, 1, 0, 0]))
    assert torch.equal(reflected["q.weight"][:, 0] < 0, torch.tensor([False, True, False, False] * 4))


def test_a_residual_stream_is_rescaled_by_what_writes_to_it_and_what_reads_it() -> None:
    stream = next(s for s in find_symmetries(Stream(), PICTURES).of_kind("rescaling") if len(s.slots) > 6)
    writes = {f"{norm}.{kind}" for norm in ("norm", "blocks.0.4", "blocks.1.4") for kind in ("weight", "bias")}
    reads = {"blocks.0.0.weight", "blocks.1.0.weight", "read.weight"}
    assert {slot.name for slot in stream.slots if not slot.inverse} == writes
    assert {slot.name for slot in stream.slots if slot.inverse} == reads
    assert not any(slot.buffer for slot in stream.slots)


def test_batch_normalization_takes_the_scale_away_in_training() -> None:
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6, eps=1e-8), nn.ReLU(), nn.Conv2d(6, 2, 1)).double()
    found = find_symmetries(model, PICTURES)
    (scale,) = found.in_training
    assert {slot.name for slot in scale.slots} == {"0.weight", "0.bias"}
    state = dict(model.named_parameters())
    changed = scale.transform(state, torch.linspace(0.5, 2, 6))
    model.train()
    before, after = model(PICTURES.double()), torch.func.functional_call(model, changed, (PICTURES.double(),))
    torch.testing.assert_close(after, before, rtol=1e-5, atol=1e-6)
    # In evaluation mode the same holds once the norm's weight divides and its mean is multiplied.
    assert any({slot.name for slot in s.slots} >= {"0.weight", "1.weight", "1.running_mean"} for s in found)
    assert not find_symmetries(nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2)), ROWS).in_training


CUT = {
    "roll": lambda h: h + torch.roll(h, 1, -1),
    "cumsum": lambda h: h.cumsum(-1),
    "sort": lambda h: h.sort(-1).values,
    "huber": lambda h: torch.where(h.abs() < 20, 0.5 * h * h, 20 * (h.abs() - 10)),
    "clip of the norm": lambda h: h * torch.clamp(100 / h.norm(dim=-1, keepdim=True), max=1),
    "softcap": lambda h: 30 * torch.tanh(h / 30),
    "round": torch.round,
    "center": lambda h: h - h.mean(-1, keepdim=True),
    "logsumexp": lambda h: h - h.logsumexp(-1, keepdim=True),
    "fft": lambda h: torch.fft.rfft(h).abs().repeat(1, 2)[:, :6],
    "cross": lambda h: torch.linalg.cross(h[:, :3], h[:, 3:]).repeat(1, 2),
    "outer": lambda h: torch.einsum("bi,bj->bij", h[:, :2], h[:, 2:5]).flatten(1),
    "top": lambda h: h * (h >= h.topk(2, -1).values[:, -1:]),
    "written": lambda h: torch.zeros_like(h).index_copy_(1, torch.tensor([1, 0, 2, 3, 4, 5]), h),
    "maxout": lambda h: h.view(-1, 3, 2).amax(-1).repeat(1, 2),
    "minimum": lambda h: torch.minimum(h, torch.full((), 50.0)),
}


@pytest.mark.parametrize("function", CUT)
def test_what_is_found_behind_any_function_holds(function: str) -> None:
    model = Called(CUT[function])
    for symmetry in find_symmetries(model, ROWS):
        twin = living(model, 2.0)
        state = dict(twin.state_dict())
        with torch.no_grad():
            for size in (1.0, 100.0):
                before = twin(size * ROWS.double())
                for element in elements(symmetry):
                    after = torch.func.functional_call(
                        twin, symmetry.transform(state, element), (size * ROWS.double(),)
                    )
                    assert float((after - before).norm() / before.norm()) < 1e-9


def test_what_is_not_followed_is_said() -> None:
    found = find_symmetries(Called(lambda h: h.sort(-1).values), ROWS)
    assert [(u.operation, u.module) for u in found.unfollowed] == [("sort", "")]
    assert isinstance(found.unfollowed[0], Unfollowed)
    assert "not followed: sort in the model: the order of units matters to it" in str(found)


class Masked(nn.Module):
    def __init__(self, fill: float) -> None:
        super().__init__()
        self.a, self.b, self.fill = nn.Linear(4, 7), nn.Linear(7, 3), fill

    def forward(self, x: Tensor) -> Tensor:
        return self.b(torch.relu(self.a(x))).masked_fill(torch.tensor([True, False, False]), self.fill)


@pytest.mark.parametrize("fill", [0.0, float("-inf"), torch.finfo(torch.float32).min])
def test_masked_outputs_are_compared_where_they_are_finite(fill: float) -> None:
    found = find_symmetries(Masked(fill), ROWS)
    assert kinds(found) == Counter({("rescaling", 7): 1, ("permutation", 7): 1})
    assert all(holds(Masked(fill), symmetry, ROWS) for symmetry in found)


class Keyword(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.unused = nn.Linear(4, 7), nn.Linear(7, 3), nn.Linear(2, 2)

    def forward(self, x: Tensor, scale: Tensor | None = None, **more: Tensor) -> dict[str, Any]:
        return {"logits": [self.b(torch.tanh(self.a(x))) * (1 if scale is None else scale)], "count": 3}


def test_keywords_and_nested_outputs_are_taken_and_unused_parameters_named() -> None:
    found = find_symmetries(Keyword(), x=ROWS, scale=torch.full((1,), 2.0))
    assert [symmetry.kind for symmetry in found] == ["sign_flip", "permutation"]
    assert found.unused_parameters == ("unused.weight", "unused.bias")
    assert holds(Keyword(), found[0], x=ROWS, scale=torch.full((1,), 2.0))
    assert "not used: unused.weight, unused.bias" in str(found)
    assert 0 < found.seconds < 600


def test_a_key_bias_is_reported_to_have_no_effect() -> None:
    found = find_symmetries(Attention(groups=4, bias=True), TOKENS)
    assert found.free_parameters == ("k.bias",)


def test_pruned_and_weight_normalized_layers() -> None:
    pruned = nn.Sequential(nn.Linear(4, 7), nn.Tanh(), nn.Linear(7, 3))
    prune.l1_unstructured(pruned[0], "weight", 0.5)
    assert kinds(find_symmetries(pruned, ROWS)) == Counter({("sign_flip", 7): 1})  # the mask stays where it is
    normalized = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 7)), nn.Tanh(), nn.Linear(7, 3))
    found = kinds(find_symmetries(normalized, ROWS))
    assert found[("permutation", 7)] == 1
    assert found[("sign_flip", 7)] >= 2  # of g and v, and of either with what comes behind
    old = nn.Sequential(nn.Linear(4, 7), nn.Tanh(), nn.Linear(7, 3))
    with pytest.warns(FutureWarning):
        weight_norm(old[0])
    assert kinds(find_symmetries(old, ROWS)) == found


def test_the_model_is_left_as_it_was() -> None:
    model = nn.Sequential(nn.Linear(4, 7), nn.BatchNorm1d(7), nn.Tanh(), nn.Linear(7, 3))
    model.train()
    prune.l1_unstructured(model[0], "weight", 0.5)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    attributes = [sorted(module.__dict__) for module in model.modules()]
    found = find_symmetries(model, ROWS)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert [sorted(module.__dict__) for module in model.modules()] == attributes
    assert all(module.training for module in model.modules())
    assert model[0].weight.dtype == torch.float32
    found[0].difference(model.eval(), lambda model: model(ROWS).sum())
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


class Remembering(nn.Module):
    """It writes into a buffer, draws noise, and runs a part again in its backward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 6), nn.Linear(6, 5), nn.Linear(5, 3)
        self.register_buffer("mean", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        hidden = checkpoint(lambda h: torch.relu(self.a(h)), x, use_reentrant=False)
        self.mean += hidden.detach().mean()
        noise = torch.randn(len(x), 5)
        return self.c(torch.tanh(self.b(hidden)) + noise) - self.mean


def test_layers_that_the_model_has_in_two_places_are_left_as_they_were() -> None:
    layer, norm = nn.Linear(4, 4), nn.BatchNorm1d(4)
    model = nn.Sequential(layer, norm, nn.Tanh(), layer, norm)
    before = dict(model.named_parameters(remove_duplicate=False))
    outputs = model.eval()(ROWS)
    find_symmetries(model, ROWS)
    after = dict(model.named_parameters(remove_duplicate=False))
    assert before.keys() == after.keys()
    assert all(after[name] is tensor for name, tensor in before.items())
    assert torch.equal(model(ROWS), outputs)


def test_a_forward_that_remembers_draws_and_runs_again_is_the_same_each_time() -> None:
    model = Remembering()
    state = torch.get_rng_state()
    found = find_symmetries(model, ROWS)
    assert kinds(found) == Counter({("permutation", 6): 1})
    assert not found.refuted
    assert [(u.operation, u.why.partition(",")[0]) for u in found.unfollowed] == [("randn", "what it draws is held")]
    assert float(model.mean) == 0
    assert torch.equal(torch.get_rng_state(), state)


class Centres(nn.Module):
    """Units of a product that a bias does not have, and centres that are taken from what has none."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.tokens, self.read = nn.Linear(4, 6), nn.Linear(5, 7), nn.Linear(3, 2)
        self.centres = nn.Parameter(torch.randn(3, 6))

    def forward(self, x: Tensor) -> Tensor:
        mixed = torch.tanh(self.tokens(self.embed(x).transpose(1, 2))).sum(-1)
        return self.read(torch.exp(-(mixed[:, None] - self.centres).square().sum(-1)))


def test_units_of_one_term_alone_stay_units_of_the_sum() -> None:
    found = find_symmetries(Centres(), torch.randn(2, 5, 4))
    every_sign = {("sign_flip", 1): 1}  # of the embedding, the tokens' bias and the centres
    assert kinds(found) == Counter({("permutation", units): 1 for units in (6, 7, 3)} | every_sign)
    assert not found.refuted


class Argmax(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(4, 7)

    def forward(self, x: Tensor) -> Tensor:
        return self.a(x).argmax(-1)


def test_models_that_cannot_be_followed_end_in_one_sentence() -> None:
    mlp = nn.Sequential(nn.Linear(4, 7), nn.Tanh(), nn.Linear(7, 3))
    lazy = nn.Sequential(nn.LazyLinear(7), nn.Tanh(), nn.Linear(7, 3))
    complex_layer = nn.Linear(4, 7, dtype=torch.cfloat)
    for model, x, words in [
        (lazy, ROWS, "has no shape yet: run Sequential once"),
        (torch.jit.trace(mlp, ROWS), ROWS, "is traced or scripted"),
        (complex_layer, ROWS.to(torch.cfloat), "is complex"),
        (nn.Linear(4, 7, device="meta"), ROWS, "is on the meta device"),
        (Argmax(), ROWS, "returns no floating-point numbers"),
    ]:
        with pytest.raises(ValueError, match=words):
            find_symmetries(model, x)
    assert not find_symmetries(nn.Sequential(nn.Linear(4, 0), nn.Linear(0, 3)), ROWS)


def test_names_match_through_wrappers() -> None:
    mlp = nn.Sequential(nn.Linear(4, 7), nn.Tanh(), nn.Linear(7, 3))
    found = find_symmetries(mlp, ROWS)
    compiled = nn.Module()
    compiled.add_module("_orig_mod", mlp)  # as torch.compile does
    for wrapped in (nn.DataParallel(mlp), compiled):
        assert list(find_symmetries(wrapped, ROWS)) == list(found)
        assert holds(wrapped, found[0], ROWS)
        state = wrapped.state_dict()
        assert torch.equal(found[0].matrix(state), found[0].matrix(mlp.state_dict()))
        assert set(found[0].transform(state, found[0].sample())) == set(state)


def test_symmetries_within_one_parameter_hold() -> None:
    flip = Symmetry("sign_flip", 6, (Slot("a.weight", 0), Slot("a.bias", 0)))
    assert holds(Called(torch.square), flip, ROWS)
    assert not holds(Called(torch.tanh), flip, ROWS)
    assert holds(Tied(), Symmetry("general_linear", 6, find_symmetries(Tied(), TOKENS)[0].slots), TOKENS)
    tied = Symmetry("permutation", 6, (Slot("head.weight", 1), Slot("layer.weight", 0), Slot("layer.bias", 0)))
    assert not holds(Tied(), tied, TOKENS)


def test_exchanges_and_factors_are_applied_by_index_and_scale() -> None:
    model = nn.Sequential(nn.Linear(4, 7), nn.ReLU(), nn.Linear(7, 3)).double()
    state = dict(model.state_dict())
    for symmetry in find_symmetries(model, ROWS):
        element = symmetry.sample(1)
        assert element.shape == (7,)
        dense = torch.eye(7).double()[element] if symmetry.kind == "permutation" else element.diag()
        for name, tensor in symmetry.transform(state, dense).items():
            torch.testing.assert_close(tensor, symmetry.transform(state, element)[name], rtol=1e-14, atol=0)


@pytest.mark.parametrize(
    ("kind", "element", "why"),
    [
        ("permutation", torch.tensor([0, 1, 1]), "with each of 0 … 2 once, or a permutation matrix; this one is none"),
        ("permutation", torch.tensor([0, 1, 3]), "this one is none"),
        ("permutation", torch.tensor([1.0, 0, 2]), "its dtype is torch.float32"),
        ("permutation", torch.tensor([1, 0]), r"its shape is \(2,\)"),
        ("permutation", torch.full((3, 3), 1 / 3), "this one is none"),
        ("sign_flip", torch.tensor([1.0, -1, 0]), r"signs ±1 of shape \(3,\)"),
        ("sign_flip", torch.eye(3).roll(1, 0), "this one is none"),
        ("rescaling", torch.tensor([1.0, -2, 3]), "positive factors"),
        ("rescaling", torch.tensor([1.0, float("inf"), 3]), "not finite"),
        ("rotation", torch.eye(3) * 2, "off the identity by 3"),
        ("rotation", torch.ones(3), r"its shape is \(3,\)"),
        ("general_linear", torch.ones(3, 3), "this one is singular"),
        ("complex", torch.tensor([1j, 0, 1]), "none of them 0"),
        ("rescaling", torch.tensor([1j, 1, 1]), "it is complex"),
    ],
)
def test_what_is_no_element_of_the_group_is_refused(kind: Kind, element: Tensor, why: str) -> None:
    symmetry = Symmetry(kind, 3, (Slot("weight", 0),))
    with pytest.raises(ValueError, match=f"an element of this {kind} is .*{why}"):
        symmetry.transform({"weight": torch.ones(3, 2)}, element)


def test_whole_numbers_are_signs_and_factors() -> None:
    weight = {"weight": torch.ones(3, 2)}
    for kind, numbers in (("sign_flip", [1, -1, 1]), ("rescaling", [1, 2, 3])):
        changed = Symmetry(kind, 3, (Slot("weight", 0),)).transform(weight, torch.tensor(numbers))  # type: ignore[arg-type]
        assert changed["weight"][:, 0].tolist() == numbers


def test_what_is_transformed_is_no_memory_of_the_model() -> None:
    model = Tied()
    symmetry = find_symmetries(model, TOKENS)[0]
    state = model.state_dict()
    for changed in (symmetry.transform(state, symmetry.sample()), symmetry.reflect(state, torch.ones(6))):
        own = {tensor.data_ptr() for tensor in state.values()}
        assert not own & {tensor.data_ptr() for tensor in changed.values()}
        assert changed["embed.weight"] is changed["head.weight"]  # tied as before
        assert torch.equal(changed["layer.weight"], state["layer.weight"]) == (
            "layer.weight" not in {slot.name for slot in symmetry.slots}
        )


def test_what_a_pass_made_is_freed_when_it_ends() -> None:
    made: list[weakref.ref[Tensor]] = []

    def in_place(x: Tensor) -> Tensor:
        made.append(weakref.ref(x))
        return x.relu_()

    twin = Twin(Called(in_place), (ROWS,), {})
    gc.disable()
    try:
        twin.run(twin.own)
        assert [kept() for kept in made] == [None]
    finally:
        gc.enable()


@pytest.mark.parametrize("kind", ["permutation", "sign_flip", "rescaling", "rotation", "general_linear", "complex"])
def test_what_is_done_in_place_is_undone(kind: Kind) -> None:
    slots = (
        Slot("a", 0, repeat=2),
        Slot("b", 1, inverse=True, repeat=2),
        Slot("c", (0, 2), repeat=2, places=(3, 1, 0, 7, 5, 2)),
    )
    symmetry = Symmetry(kind, 3, slots)
    state = {"a": torch.randn(6, 4), "b": torch.randn(2, 6), "c": torch.randn(4, 5, 2), "d": torch.randn(2)}
    state = {name: tensor.double() for name, tensor in state.items()}
    now = {name: tensor.clone() for name, tensor in state.items()}
    action = Action(now, [(symmetry, symmetry.sample(1))])
    action.apply(now)
    expected = symmetry.transform(state, symmetry.sample(1))
    assert all(torch.equal(now[name], expected[name]) for name in now)
    assert not any(torch.equal(now[name], state[name]) for name in "abc")
    action.undo(now)
    for name, tensor in state.items():
        torch.testing.assert_close(now[name], tensor, rtol=1e-13, atol=1e-13)


def test_charges_taken_of_each_gradient_are_those_of_all() -> None:
    """M = Σ ∇wᵀ of the one side less the transpose of the other's, made whole, for its diagonal and for its parts."""
    weights = {"a": torch.randn(6, 5).double(), "b": torch.randn(4, 6).double(), "c": torch.randn(6).double()}
    gradients = {name: torch.randn_like(tensor) for name, tensor in weights.items()}
    slots = (Slot("a", 0), Slot("c", 0), Slot("b", 1, inverse=True))
    kinds: tuple[Kind, ...] = ("rescaling", "rotation", "general_linear")
    rescaling, rotation, linear = (Symmetry(kind, 6, slots) for kind in kinds)
    charges = NoetherCharges(weights, [rescaling, linear], torch.Generator().manual_seed(0))
    for name, gradient in gradients.items():
        charges.take(name, gradient / 4)
        charges.take(name, gradient * 3 / 4)  # as a parameter's that two backward passes reach
    ahead = gradients["a"] @ weights["a"].T + torch.outer(gradients["c"], weights["c"])
    behind = gradients["b"].T @ weights["b"]
    torch.testing.assert_close(charges.diagonal(rescaling)[0], (ahead - behind).diagonal())
    left, right = torch.randn(6, 8, generator=torch.Generator().manual_seed(0), dtype=torch.double).split(4, dim=1)
    for symmetry, matrix in ((rotation, ahead + behind), (linear, ahead - behind.T)):
        straight, crossed = (left * (matrix @ right)).sum(0), (right * (matrix @ left)).sum(0)
        expected = (straight - crossed)[None] if symmetry is rotation else torch.stack([straight, crossed])
        torch.testing.assert_close(charges.mixed(symmetry)[0], expected)


class Averaging(nn.Module):
    """A norm by hand: its running mean is a buffer, which moves with its units if each forward writes it."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.a, self.b, self.how = nn.Linear(4, 6), nn.Linear(6, 3), how
        self.register_buffer("mean", torch.randn(6))
        self.register_buffer("cache", torch.zeros(8, 6))

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        if self.how == "in place":
            self.mean.mul_(0.9).add_(0.1 * h.detach().mean(0))
        elif self.how == "anew":
            self.mean = self.mean.lerp(h.detach().mean(0), 0.1)
        elif self.how == "data":
            self.mean.data = 0.9 * self.mean + 0.1 * h.detach().mean(0)
        elif self.how == "cache":
            self.cache[: len(h)] = h
            return self.b(torch.relu(self.cache[: len(h)] * 2))
        return self.b(torch.relu(h - self.mean))


@pytest.mark.parametrize("how", ["in place", "anew", "data", "cache"])
def test_running_statistics_move_with_their_units(how: str) -> None:
    model = Averaging(how)
    mean = model.mean.clone()
    found = find_symmetries(model, ROWS)
    assert kinds(found) == Counter({("rescaling", 6): 1, ("permutation", 6): 1})
    assert torch.equal(model.mean, mean)
    assert not found.unfollowed
    for symmetry in found:
        assert [slot.name for slot in symmetry.slots if slot.buffer] == ([] if how == "cache" else ["mean"])
        state = dict(living(model, 1.0).state_dict())
        changed = symmetry.transform(state, symmetry.sample())
        before, after = (
            torch.func.functional_call(copy.deepcopy(model).double(), s, ROWS.double()) for s in (state, changed)
        )
        torch.testing.assert_close(after, before, rtol=1e-12, atol=1e-12)


def test_a_constant_buffer_holds_units_and_that_is_said() -> None:
    found = find_symmetries(Averaging("never"), ROWS)
    assert not found
    assert [(u.operation, u.why.partition(",")[0]) for u in found.unfollowed] == [("mean", "this buffer is held")]


def test_symmetries_of_a_constrained_network_have_its_names() -> None:
    model = mirrorsym.constrain_all(nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)))
    found = find_symmetries(model, ROWS)
    (exchange,) = found.of_kind("permutation")
    assert exchange.name == "0, 2"
    assert {s.name for s in found.of_kind("rescaling")} == {"0.weight", "0.bias", "2.weight", "2.bias"}
    lines = str(found).splitlines()
    assert "sign_flip      3-6  within 0.weight, 0.bias, 2.weight, 2.bias" in lines
    assert len(lines) == 6
    assert "parametrizations" not in str(found)


def test_printed_it_is_a_table() -> None:
    lines = str(find_symmetries(nn.Sequential(nn.Linear(4, 7), nn.ReLU(), nn.Linear(7, 3)), ROWS)).splitlines()
    assert lines[0].split() == ["kind", "units", "where"]
    assert lines[1].split() == ["rescaling", "7", "0,", "2"]
    assert lines[2].split() == ["permutation", "7", "0,", "2"]
    layers = [layer for _ in range(9) for layer in (nn.Linear(5, 5), nn.BatchNorm1d(5))]

    class Long(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers, self.read = nn.ModuleList(layers), nn.Linear(5, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = self.layers[0](x)
            for first, second in zip(self.layers[2::2], self.layers[3::2], strict=True):
                x = x + second(first(x))
            return self.read(torch.relu(x))

    assert any(s.name == "layers.0 … read (18 modules)" for s in find_symmetries(Long(), torch.randn(4, 5)))


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_where_gradients_are_off_the_same_is_found(mode: Callable[[], AbstractContextManager[None]]) -> None:
    model, x = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2)), torch.randn(3, 4)
    expected = list(find_symmetries(model, x))
    with mode():
        assert list(find_symmetries(model, x + 0)) == expected
        assert torch.is_grad_enabled() is False
    assert len(expected) == 2
