"""Symmetries that networks of the zoo have, written down by hand from their architectures.

Each is a transformation of the parameters that leaves the outputs as they are, whatever was found; a search that is
complete finds it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.zoo.matching import distinct, reached, spanned
from mirrorsym import Symmetry

State = Mapping[str, Tensor]
Place = tuple[str, int, Sequence[int]]
"""Entries along an axis of a tensor: its name, the axis, the places on it."""


@dataclass(frozen=True)
class Exchange:
    """What lies at some places and what lies at others change places."""

    what: str
    pairs: Sequence[tuple[Place, Place]]

    def apply(self, state: State) -> dict[str, Tensor]:
        result = dict(state)
        for (name, axis, first), (_, _, second) in self.pairs:
            order = torch.arange(result[name].shape[axis])
            order[[*first, *second]] = order[[*second, *first]]
            result[name] = result[name].index_select(axis, order)
        return result

    def found(self, symmetries: Sequence[Symmetry], state: State) -> bool:
        start = distinct(state)
        return reached(symmetries, start, self.apply(start))


@dataclass(frozen=True)
class Flip:
    """What lies at some places changes its sign."""

    what: str
    places: Sequence[Place]

    def apply(self, state: State) -> dict[str, Tensor]:
        result = dict(state)
        for name, axis, places in self.places:
            result[name] = _at(result[name], axis, places, lambda part: -part)
        return result

    def found(self, symmetries: Sequence[Symmetry], state: State) -> bool:
        start = distinct(state)
        return reached(symmetries, start, self.apply(start))


@dataclass(frozen=True)
class Linear:
    """What lies at some places is multiplied by a matrix, what lies at others by its inverse, transposed."""

    what: str
    places: Sequence[Place]
    inverse: Sequence[Place]
    generator: Tensor

    def apply(self, state: State, amount: float = 1.0) -> dict[str, Tensor]:
        matrix = torch.linalg.matrix_exp(amount * self.generator)
        result = dict(state)
        for name, axis, places in self.places:
            result[name] = _at(result[name], axis, places, lambda part: torch.tensordot(matrix, part, dims=1))
        other = torch.linalg.inv(matrix).T
        for name, axis, places in self.inverse:
            result[name] = _at(result[name], axis, places, lambda part: torch.tensordot(other, part, dims=1))
        return result

    def found(self, symmetries: Sequence[Symmetry], state: State) -> bool:
        return spanned(symmetries, state, lambda amount: self.apply(state, amount))


Expected = Exchange | Flip | Linear


def _at(tensor: Tensor, axis: int, places: Sequence[int], function: Callable[[Tensor], Tensor]) -> Tensor:
    moved = tensor.movedim(axis, 0).clone()
    moved[list(places)] = function(moved[list(places)])
    return moved.movedim(0, axis).contiguous()


def _any(size: int) -> Tensor:
    """Return a direction in which a matrix can change."""
    return torch.randn(size, size, generator=torch.Generator().manual_seed(size), dtype=torch.double) / size


def _units(what: str, axes: Sequence[tuple[str, int]], first: int = 1, second: int = 4) -> Exchange:
    return Exchange(what, [((name, axis, [first]), (name, axis, [second])) for name, axis in axes])


def _flip(what: str, axes: Sequence[tuple[str, int]], unit: int = 3) -> Flip:
    return Flip(what, [(name, axis, [unit]) for name, axis in axes])


def _rescaling(what: str, axes: Sequence[tuple[str, int]], inverse: Sequence[tuple[str, int]], unit: int = 2) -> Linear:
    one = torch.ones(1, 1, dtype=torch.double)
    return Linear(what, [(name, axis, [unit]) for name, axis in axes], [(n, axis, [unit]) for n, axis in inverse], one)


def _heads(head: int, size: int, offset: int = 0) -> list[int]:
    return list(range(offset + head * size, offset + (head + 1) * size))


def llama(state: State, groups: int = 2) -> Iterator[Expected]:
    """Two layers, four heads of 8 on one group of keys and values or on two, a stream of 32."""
    norms = [name for name in state if "norm" in name]
    read = [name for name in state if any(p in name for p in ("q_proj", "k_proj", "v_proj", "gate", "up"))]
    written = [name for name in state if any(p in name for p in ("o_proj", "down"))]
    tables = ["model.embed_tokens.weight", "lm_head.weight"]
    stream = [(name, 1) for name in [*tables, *read]] + [(name, 0) for name in written]
    yield _units("two channels of the stream", [*stream, *((name, 0) for name in norms)])
    yield _flip("a channel of the stream", stream)
    yield _rescaling("the last norm and the readout", [("model.norm.weight", 0)], [("lm_head.weight", 1)])
    for layer in (0, 1):
        block = f"model.layers.{layer}."
        attention, mlp = block + "self_attn.", block + "mlp."
        q, k, v, o = (f"{attention}{p}_proj.weight" for p in "qkvo")
        gate, up, down = (f"{mlp}{p}_proj.weight" for p in ("gate", "up", "down"))
        yield _rescaling("a norm and what reads it", [(block + "input_layernorm.weight", 0)], [(q, 1), (k, 1), (v, 1)])
        norm = block + "post_attention_layernorm.weight"
        yield _rescaling("a norm and the gates", [(norm, 0)], [(gate, 1), (up, 1)])
        yield _units("gated units", [(gate, 0), (up, 0), (down, 1)])
        yield _flip("a gated unit", [(up, 0), (down, 1)])
        yield _rescaling("a gated unit", [(up, 0)], [(down, 1)])
        queries = (_heads(0, 8), _heads(1, 8))
        yield Exchange("query heads of a group", [
            ((q, 0, queries[0]), (q, 0, queries[1])), ((o, 1, queries[0]), (o, 1, queries[1]))
        ])  # fmt: skip
        if groups == 2:
            yield Exchange("groups of keys and values", [
                *(((name, axis, _heads(0, 16)), (name, axis, _heads(1, 16))) for name, axis in ((q, 0), (o, 1))),
                *(((name, 0, _heads(0, 8)), (name, 0, _heads(1, 8))) for name in (k, v)),
            ])  # fmt: skip
        shared = 4 // groups
        for group in range(groups):
            members, own = [_heads(shared * group + h, 8) for h in range(shared)], _heads(group, 8)
            yield Linear("values of a group", [(v, 0, own)], [(o, 1, head) for head in members], _any(8))
            for plane in range(4):
                places = [[rows[plane], rows[plane + 4]] for rows in [*members, own]]
                for what, direction in (("turn", [[0.0, -1.0], [1.0, 0.0]]), ("stretch", [[1.0, 0.0], [0.0, 1.0]])):
                    yield Linear(
                        f"{what} of a plane of queries and keys", [(q, 0, rows) for rows in places[:-1]],
                        [(k, 0, places[-1])], torch.tensor(direction, dtype=torch.double),
                    )  # fmt: skip


def gpt2(state: State) -> Iterator[Expected]:
    """Two layers, four heads of 8, one projection for queries, keys and values; the readout is the embedding."""
    stream = [("transformer.wte.weight", 1), ("transformer.wpe.weight", 1)]
    for name in state:
        if "ln_" in name or name.endswith("c_proj.bias") or name.endswith(("c_attn.weight", "c_fc.weight")):
            stream.append((name, 0))
        elif name.endswith("c_proj.weight"):
            stream.append((name, 1))
    yield _units("two channels of the stream", stream)
    for layer in (0, 1):
        block = f"transformer.h.{layer}."
        weight, bias = block + "attn.c_attn.weight", block + "attn.c_attn.bias"
        out, fc, down = block + "attn.c_proj.weight", block + "mlp.c_fc", block + "mlp.c_proj.weight"
        yield _units("hidden units", [(fc + ".weight", 1), (fc + ".bias", 0), (down, 0)])
        norm = block + "ln_1."
        yield _rescaling("a norm and what reads it", [(norm + "weight", 0), (norm + "bias", 0)], [(weight, 0)])
        pairs = [((out, 0, _heads(0, 8)), (out, 0, _heads(2, 8)))]
        for part in (0, 32, 64):
            for name, axis in ((weight, 1), (bias, 0)):
                pairs.append(((name, axis, _heads(0, 8, part)), (name, axis, _heads(2, 8, part))))
        yield Exchange("heads", pairs)
        for head in (0, 3):
            q, k, v = (_heads(head, 8, part) for part in (0, 32, 64))
            yield Linear("queries and keys", [(weight, 1, q), (bias, 0, q)], [(weight, 1, k), (bias, 0, k)], _any(8))
            yield Linear("values", [(weight, 1, v), (bias, 0, v)], [(out, 0, _heads(head, 8))], _any(8))


def vit(state: State) -> Iterator[Expected]:
    """Two layers, four heads of 8, a stream of 32."""
    layers = sorted({name.split(".attention.")[0] for name in state if ".attention." in name})
    stream = []
    for name, tensor in state.items():
        if "patch_embeddings" in name or ("norm" in name) or name.endswith(("o_proj.bias", "fc2.bias")):
            stream.append((name, 0))
        elif "embeddings" in name:
            stream.append((name, 2))
        elif name.endswith(("q_proj.weight", "k_proj.weight", "v_proj.weight", "fc1.weight")):
            stream.append((name, 1))
        elif name.endswith(("o_proj.weight", "fc2.weight")):
            stream.append((name, 0))
        elif name == "classifier.weight":
            stream.append((name, tensor.dim() - 1))
    yield _units("two channels of the stream", stream)
    for layer in layers:
        q, k, v, o = (f"{layer}.attention.{p}_proj." for p in "qkvo")
        fc1, fc2 = layer + ".mlp.fc1.", layer + ".mlp.fc2."
        yield _units("hidden units", [(fc1 + "weight", 0), (fc1 + "bias", 0), (fc2 + "weight", 1)])
        rows = [(part + kind, 0) for part in (q, k, v) for kind in ("weight", "bias")]
        pairs = [((n, axis, _heads(1, 8)), (n, axis, _heads(2, 8))) for n, axis in [*rows, (o + "weight", 1)]]
        yield Exchange("heads", pairs)
        for head in (0, 3):
            own = _heads(head, 8)
            queries, keys = ([(part + kind, 0, own) for kind in ("weight", "bias")] for part in (q, k))
            yield Linear("queries and keys", queries, keys, _any(8))
            values = [(v + kind, 0, own) for kind in ("weight", "bias")]
            yield Linear("values", values, [(o + "weight", 1, own)], _any(8))


def resnet18(state: State) -> Iterator[Expected]:
    """Four stages of two blocks, each of two convolutions with BatchNorm, which its own statistics stay with."""
    statistics = ("weight", "bias", "running_mean", "running_var")
    for stage in range(1, 5):
        blocks = [f"layer{stage}.{block}." for block in (0, 1)]
        writers = [(block + "conv2", block + "bn2") for block in blocks]
        readers = [block + "conv1.weight" for block in blocks]
        if stage == 1:
            writers.append(("conv1", "bn1"))
        else:
            writers.append((f"layer{stage}.0.downsample.0", f"layer{stage}.0.downsample.1"))
            readers = readers[1:]
        following = [f"layer{stage + 1}.0.conv1.weight", f"layer{stage + 1}.0.downsample.0.weight"]
        readers += following if stage < 4 else ["fc.weight"]
        rows = [(f"{norm}.{name}", 0) for _, norm in writers for name in statistics]
        rows += [(conv + ".weight", 0) for conv, _ in writers]
        yield _units(f"two channels of the stream of stage {stage}", [*rows, *((name, 1) for name in readers)])
        scales = [(f"{norm}.{name}", 0) for _, norm in writers for name in ("weight", "bias")]
        yield _rescaling(f"a channel of the stream of stage {stage}", scales, [(name, 1) for name in readers])
        for block in blocks:
            inner = [(block + "bn1." + name, 0) for name in statistics] + [(block + "conv1.weight", 0)]
            yield _units("hidden channels", [*inner, (block + "conv2.weight", 1)])
            scale = [(block + "bn1.weight", 0), (block + "bn1.bias", 0)]
            yield _rescaling("a hidden channel", scale, [(block + "conv2.weight", 1)])
            for conv, norm in (("conv1", "bn1"), ("conv2", "bn2")):
                flipped = [conv + ".weight", norm + ".weight", norm + ".running_mean"]
                yield _flip("a channel before its BatchNorm", [(block + name, 0) for name in flipped])


def resnetv2(state: State) -> Iterator[Expected]:
    """Two stages of one block, between GroupNorms of 32 groups: one exchange for each family of units that there is.

    Channels change places within their group, whole groups with each other. Of 32, 64, 128 and 256 channels, groups
    have 1, 2, 4 and 8: the stem and the first stage's two hidden layers have one family each; its stream, the second
    stage's hidden layers and its stream have 32 + 1.
    """
    layers = [("stages.0.blocks.0.norm1", ["stem.conv.weight"])]
    readers = {}
    for stage in (0, 1):
        block = f"stages.{stage}.blocks.0."
        readers[layers[-1][0]] = [block + "conv1.weight", block + "downsample.conv.weight"]
        layers += [(block + "norm2", [block + "conv1.weight"]), (block + "norm3", [block + "conv2.weight"])]
        readers |= {block + "norm2": [block + "conv2.weight"], block + "norm3": [block + "conv3.weight"]}
        behind = "norm" if stage else "stages.1.blocks.0.norm1"
        layers.append((behind, [block + "conv3.weight", block + "downsample.conv.weight"]))
    readers["norm"] = ["head.fc.weight"]
    for norm, writers in layers:
        axes = [(name, 0) for name in (*writers, norm + ".weight", norm + ".bias")]
        axes += [(name, 1) for name in readers[norm]]
        size = len(state[norm + ".weight"]) // 32
        for group in range(32 if size > 1 else 0):
            yield _units(f"channels of a group of {norm}", axes, size * group, size * group + 1)
        pairs = [((name, axis, _heads(0, size)), (name, axis, _heads(1, size))) for name, axis in axes]
        yield Exchange(f"groups of {norm}", pairs)


EXPECTED: dict[str, Callable[[State], Iterator[Expected]]] = {
    "llama": llama,
    "gpt2": gpt2,
    "vit": vit,
    "resnet18 ×1/8": resnet18,
    "llama, one key and value": lambda state: llama(state, groups=1),
    "timm resnetv2": resnetv2,
}
"""By the network's name in the zoo."""
