"""Candidates: the spaces of units in a network, from one forward pass.

Every axis of a parameter is a space of units. A sum of two values makes their spaces one, a contraction makes them one
in which one side transforms inversely, an elementwise product makes a third that only permutations tie to both. Spaces
that reach an input, an output or an operation that is not understood are fixed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from mirrorsym.symmetries.symmetry import Slot
from mirrorsym.symmetries.verify import tensors_in


@dataclass
class _Space:
    units: int
    slots: list[Slot]
    fixed: bool = False


@dataclass(frozen=True)
class _Axis:
    """The units along one axis of a value."""

    space: int
    repeat: int = 1


_Axes = list["_Axis | None"]


class Spaces:
    """Spaces of units, which grow together while a forward pass is followed."""

    def __init__(self, names: Mapping[int, str]) -> None:
        self.names = names
        self.used: list[str] = []
        self._spaces: list[_Space] = []
        self._parents: list[int] = []
        self._parameters: dict[str, _Axes] = {}
        self._products: list[tuple[int, int, int]] = []

    def new(self, units: int, slots: Sequence[Slot] = ()) -> _Axis:
        self._spaces.append(_Space(units, list(slots)))
        self._parents.append(len(self._parents))
        self.used += [slot.name for slot in slots if slot.name not in self.used]
        return _Axis(len(self._parents) - 1)

    def parameter(self, tensor: Tensor) -> _Axes:
        """Return the axes of a parameter, the same ones each time it is used."""
        name = self.names.get(id(tensor))
        if name is None:
            return [None] * tensor.dim()
        if name not in self._parameters:
            self._parameters[name] = [self.new(size, [Slot(name, axis)]) for axis, size in enumerate(tensor.shape)]
        return list(self._parameters[name])

    def at(self, axis: _Axis) -> _Space:
        return self._spaces[self._root(axis.space)]

    def fix(self, *axes: _Axis | None) -> None:
        for axis in axes:
            if axis is not None:
                self.at(axis).fixed = True

    def join(self, a: _Axis | None, b: _Axis | None, inverse: bool = False) -> _Axis | None:
        """Make two spaces one; ``inverse`` where what rescales one divides the other."""
        if a is None or b is None or not self._fit(a, b):
            self.fix(a, b)
            return a
        first, second = self._root(a.space), self._root(b.space)
        if first != second:
            kept, gone = self._spaces[first], self._spaces[second]
            kept.slots += [replace(s, inverse=s.inverse != inverse) for s in gone.slots]
            kept.fixed |= gone.fixed
            self._parents[second] = first
        return a

    def multiply(self, a: _Axis | None, b: _Axis | None) -> _Axis | None:
        """Return the axis of an elementwise product."""
        if a is None or b is None or not self._fit(a, b):
            self.fix(a, b)
            return None
        product = self.new(self.at(a).units)
        self._products.append((a.space, b.space, product.space))
        return replace(product, repeat=a.repeat)

    def _fit(self, a: _Axis, b: _Axis) -> bool:
        """Give both the same number of units, where one is a parameter's axis behind a flattened value."""
        for axis, other in ((a, b), (b, a)):
            space, model = self.at(axis), self.at(other)
            alone = len(space.slots) == 1 and axis.repeat == 1 and space.slots[0].repeat == 1
            if alone and other.repeat > 1 and space.units == model.units * other.repeat:
                space.units, space.slots = model.units, [replace(space.slots[0], repeat=other.repeat)]
                return True
        return self.at(a).units == self.at(b).units

    def _root(self, space: int) -> int:
        while self._parents[space] != space:
            space = self._parents[space]
        return space

    def continuous(self) -> Iterator[tuple[int, tuple[Slot, ...]]]:
        """Yield candidates for rotations, flips and rescalings: spaces, and two of the three at a product."""
        seen = set()
        groups: list[tuple[tuple[int, bool], ...]] = [((space, False),) for space in range(len(self._spaces))]
        for a, b, c in self._products:
            # Of a product, one factor goes with the result, or the factors go against each other.
            groups += [((a, False), (c, False)), ((b, False), (c, False)), ((a, False), (b, True))]
        for group in groups:
            roots = {self._root(space): inverse for space, inverse in group}
            members = [(self._spaces[root], inverse) for root, inverse in roots.items()]
            slots = tuple(
                replace(slot, inverse=slot.inverse != inverse) for space, inverse in members for slot in space.slots
            )
            if _trained(slots) < 2 or any(space.fixed for space, _ in members) or slots in seen:
                continue
            seen.add(slots)
            yield members[0][0].units, slots

    def tied(self) -> Iterator[tuple[int, tuple[Slot, ...]]]:
        """Yield candidates for permutations: all spaces that products tie together."""
        group = {root: {root} for root in range(len(self._spaces)) if self._root(root) == root}
        for spaces in self._products:
            whole = set().union(*(group[self._root(space)] for space in spaces))
            group |= dict.fromkeys(whole, whole)
        for members in {id(whole): whole for whole in group.values()}.values():
            parts = [self._spaces[root] for root in sorted(members)]
            slots = tuple(slot for space in parts for slot in space.slots)
            if _trained(slots) > 1 and not any(space.fixed for space in parts):
                yield parts[0].units, slots


def _trained(slots: Sequence[Slot]) -> int:
    """Return how many parameters take part."""
    return len({slot.name for slot in slots if not slot.buffer})


_GET = {torch.Tensor.T.__get__, torch.Tensor.mT.__get__}  # type: ignore[attr-defined]
_CONVOLUTIONS = {"conv1d", "conv2d", "conv3d"}
_TRANSPOSED = {"conv_transpose1d", "conv_transpose2d", "conv_transpose3d"}
_MATMUL = {"matmul", "__matmul__", "mm", "bmm", "mv"}
_MULTIPLY = {"mul", "mul_", "multiply", "__mul__", "__rmul__", "__imul__"}
_UNKNOWN = {"cat", "concat", "stack", "einsum", "tensordot", "addmm", "baddbmm", "roll", "flip", "gather", "sort"}


class Follower(TorchFunctionMode):
    """Notes, while a model runs, which axes of its values are units of which space."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        names = {id(tensor): name for name, tensor in model.named_buffers()}
        self.spaces = Spaces(names | {id(tensor): name for name, tensor in model.named_parameters()})
        self._axes: dict[int, _Axes] = {}
        self._alive: list[Tensor] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        shapes = {id(tensor): tuple(tensor.shape) for tensor in tensors_in((args, kwargs or {}))}
        result = func(*args, **(kwargs or {}))
        axes = self._followed(func, list(args), kwargs or {}, shapes, result)
        if axes is not None and isinstance(result, Tensor):
            self._note(result, axes)
        return result

    def give_up(self, values: Any) -> None:
        """Fix whatever goes into an operation that is not understood, or out of the model."""
        for tensor in tensors_in(values):
            self.spaces.fix(*self._of(tensor))

    def _note(self, tensor: Tensor, axes: _Axes) -> None:
        self._axes[id(tensor)] = axes
        self._alive.append(tensor)  # or another tensor could get its id

    def _of(self, tensor: Any) -> _Axes:
        """Return the axes of a value; of None, as a missing bias, no axes."""
        if not isinstance(tensor, Tensor):
            return []
        if id(tensor) in self._axes:
            return list(self._axes[id(tensor)])
        return self.spaces.parameter(tensor) if isinstance(tensor, nn.Parameter) else [None] * tensor.dim()

    def _followed(
        self, func: Any, args: list[Any], kwargs: dict[str, Any], shapes: dict[int, tuple[int, ...]], result: Any
    ) -> _Axes | None:
        """Return the axes of an operation's result, None where it has none."""
        name = getattr(func, "__name__", "")
        if name == "multi_head_attention_forward":
            self._attention(args, kwargs, result)
            return None
        if not isinstance(result, Tensor):
            if any(True for _ in tensors_in(result)):
                self.give_up((args, kwargs))
            return None
        if name == "linear":
            return self._linear(*(self._of(x) for x in _bound(args, kwargs, "input", "weight", "bias")))
        if name in _CONVOLUTIONS | _TRANSPOSED:
            return self._convolution(args, kwargs, name in _TRANSPOSED)
        if name in _MATMUL:
            return self._matmul(self._of(args[0]), self._of(args[1]))
        if name in ("batch_norm", "layer_norm", "group_norm", "rms_norm"):
            return self._norm(name, args, kwargs)
        if name == "embedding":
            rows, columns = self._of(_bound(args, kwargs, "input", "weight")[1])
            self.spaces.fix(rows)
            return [*[None] * (result.dim() - 1), columns]
        if name == "prelu":
            return self._prelu(*(self._of(x) for x in args))
        if name == "scaled_dot_product_attention":
            query, key, value = (self._of(x) for x in _bound(args, kwargs, "query", "key", "value"))
            self.spaces.join(query[-1], key[-1], inverse=True)
            return [*[None] * (result.dim() - 1), value[-1]]
        if func in _GET or name in ("t", "transpose", "swapaxes", "swapdims", "permute"):
            return self._moved(func, args, kwargs)
        if name in _UNKNOWN:
            self.give_up((args, kwargs))
            return None
        return self._elementwise((args, kwargs), shapes, result, multiplies=name in _MULTIPLY)

    def _moved(self, func: Any, args: list[Any], kwargs: dict[str, Any]) -> _Axes:
        """Move the axes as an operation that only moves them does: it is asked on a tensor whose sizes are numbered."""
        axes = self._of(args[0])
        numbered = torch.empty(tuple(range(len(axes))), device="meta")
        return [axes[place] for place in func(numbered, *args[1:], **kwargs).shape]

    def _linear(self, x: _Axes, weight: _Axes, bias: _Axes) -> _Axes:
        self.spaces.join(x[-1], weight[1], inverse=True)
        if bias:
            self.spaces.join(weight[0], bias[0])
        return [*x[:-1], weight[0]]

    def _matmul(self, a: _Axes, b: _Axes) -> _Axes:
        rows, columns = a[-2:-1], b[-1:] if len(b) > 1 else []
        self.spaces.join(a[-1], b[-2] if len(b) > 1 else b[-1], inverse=True)
        self.spaces.fix(*a[:-2], *b[:-2])
        return [*[None] * (max(len(a), len(b), 2) - 2), *rows, *columns]

    def _convolution(self, args: list[Any], kwargs: dict[str, Any], transposed: bool) -> _Axes:
        x, weight, bias = (self._of(value) for value in _bound(args, kwargs, "input", "weight", "bias"))
        places = ("output_padding", "groups") if transposed else ("dilation", "groups")
        groups = _bound(args, kwargs, "input", "weight", "bias", "stride", "padding", *places)[6] or 1
        self.spaces.fix(*x[:-3], *x[-2 if len(x) < 4 else 2 :], *weight[2:])
        out, into = (weight[1], weight[0]) if transposed else (weight[0], weight[1])
        if groups == 1:
            self.spaces.join(x[1], into, inverse=True)
        elif weight[1] is not None and self.spaces.at(weight[1]).units == 1 and not transposed:
            out = self.spaces.multiply(x[1], out)
        else:
            self.spaces.fix(x[1], out, into)
            out = None
        if bias:
            self.spaces.join(out, bias[0])
        return [None, out, *[None] * (len(x) - 2)]

    def _norm(self, name: str, args: list[Any], kwargs: dict[str, Any]) -> _Axes:
        second = {"batch_norm": ("running_mean", "running_var"), "group_norm": ("num_groups",)}
        between = second.get(name, ("normalized_shape",))
        source, *values = _bound(args, kwargs, "input", *between, "weight", "bias")
        place = 1 if name in ("batch_norm", "group_norm") else -1
        bias = values.pop() if name != "rms_norm" else None
        weight = values.pop(len(between))
        x = self._of(source)
        if any(isinstance(tensor, Tensor) and tensor.dim() > 1 for tensor in (weight, bias)):
            self.give_up((source, weight, bias))
            return [None] * len(x)
        units = x[place]
        for slot_name, buffer in zip(between, values, strict=False):
            if isinstance(buffer, Tensor) and id(buffer) in self.spaces.names:
                slot = Slot(self.spaces.names[id(buffer)], 0, squared=slot_name == "running_var", buffer=True)
                self.spaces.join(units, self.spaces.new(len(buffer), [slot]))
        if isinstance(weight, Tensor):
            units = self.spaces.multiply(units, self._of(weight)[0])
        if isinstance(bias, Tensor):
            self.spaces.join(units, self._of(bias)[0])
        x[place] = units
        return x

    def _prelu(self, x: _Axes, weight: _Axes) -> _Axes:
        slopes = weight[0] if weight else None
        if slopes is not None and self.spaces.at(slopes).units > 1:
            self.spaces.multiply(x[1], slopes)
        return x

    def _attention(self, args: list[Any], kwargs: dict[str, Any], result: Any) -> None:
        names = ("query", "key", "value", "embed_dim_to_check", "num_heads", "in_proj_weight", "in_proj_bias")
        more = ("bias_k", "bias_v", "add_zero_attn", "dropout_p", "out_proj_weight", "out_proj_bias")
        query, key, value, width, heads, weight, bias, bias_k, *_, out, out_bias = _bound(args, kwargs, *names, *more)
        known = self.spaces.names
        if any(id(p) not in known for p in (weight, out)) or bias_k is not None:
            self.give_up((args, kwargs))
            return
        self._heads([known[id(p)] for p in (weight, bias) if p is not None], known[id(out)], width, width // heads)
        for x in (query, key, value):
            self.spaces.join(self._of(x)[-1], self._of(weight)[1], inverse=True)
        if out_bias is not None:
            self.spaces.join(self._of(out)[0], self._of(out_bias)[0])
        self._note(result[0], [*[None] * (result[0].dim() - 1), self._of(out)[0]])

    def _heads(self, rows: list[str], columns: str, width: int, size: int) -> None:
        """Add the spaces inside of attention heads: of each head's queries and keys, and of its values."""
        for start in range(0, width, size):
            query, key, value = ([Slot(name, 0, start + k * width) for name in rows] for k in range(3))
            self.spaces.new(size, query + [replace(slot, inverse=True) for slot in key])
            self.spaces.new(size, [*value, Slot(columns, 1, start, inverse=True)])

    def _elementwise(
        self, arguments: Any, shapes: dict[int, tuple[int, ...]], result: Tensor, multiplies: bool
    ) -> _Axes | None:
        """Follow each axis through a function of one tensor, or of several that broadcast."""
        sources = [tensor for tensor in {id(t): t for t in tensors_in(arguments)}.values() if tensor.dim() > 0]
        if len(sources) == 1:
            return self._single(self._of(sources[0]), shapes[id(sources[0])], tuple(result.shape))
        axes: _Axes = []
        for place in range(-result.dim(), 0):
            # A size of 1 is broadcast: it neither carries units nor tells them apart.
            present = [t for t in sources if len(shapes[id(t)]) >= -place and shapes[id(t)][place] > 1]
            if any(shapes[id(t)][place] != result.shape[place] for t in present):
                self.give_up(arguments)
                return None
            found = [self._of(tensor)[place] for tensor in present]
            axis = found[0] if found else None
            for other in found[1:]:
                axis = (self.spaces.multiply if multiplies else self.spaces.join)(axis, other)
            axes.append(axis)
        return axes

    def _single(self, axes: _Axes, before: tuple[int, ...], after: tuple[int, ...]) -> _Axes:
        """Follow axes through a function of one tensor that acts on each unit, pools, takes a part or flattens."""
        result: _Axes = [None] * len(after)
        for place, axis in enumerate(axes):
            rest = int(np.prod(before[place + 1 :]))
            if axis is None:
                continue
            if len(before) == len(after) and before[place] == after[place]:
                result[place] = axis
            elif after == (*before[:place], before[place] * rest):
                result[place] = replace(axis, repeat=axis.repeat * rest)
            elif place == len(before) - 1 and after and before[-1] == after[-1]:
                result[-1] = axis
            elif len(after) > place and before[: place + 1] == after[: place + 1]:
                result[place] = axis
            else:
                self.spaces.fix(axis)
        return result


def _bound(args: list[Any], kwargs: dict[str, Any], *names: str) -> list[Any]:
    """Return the arguments of these names, in the order of the function's signature, None where one is missing."""
    return [args[place] if place < len(args) else kwargs.get(name) for place, name in enumerate(names)]
