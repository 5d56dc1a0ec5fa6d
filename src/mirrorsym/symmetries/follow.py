"""Follow one forward pass, operation by operation, and note what each ties.

It stands below PyTorch's composite functions: layers, attention and recurrent cells reach it as some hundred plain
operations (``aten``). Each value carries *factors*: arrays of atoms, of the value's own shape, with stride 0 along axes
that they do not tell apart. What lies at an entry has the charge of all its factors together. Operations that only
move entries are carried out on the factors themselves.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from mirrorsym.symmetries.atoms import Atoms, Ids, pairs
from mirrorsym.symmetries.double import in_double
from mirrorsym.symmetries.elementwise import Behaviour, behaviour
from mirrorsym.symmetries.tensors import tensors_in

Factors = list[Tensor]


@dataclass(frozen=True)
class Unfollowed:
    """An operation that was not understood: what goes in and comes out is taken to have no symmetry.

    Args:
        module: the name of the module in which it was met, empty for the model itself.
        operation: its name in PyTorch.
        why: one sentence.
    """

    module: str
    operation: str
    why: str


class NotFollowedError(Exception):
    """Raised by a rule that meets a case that it does not cover."""


VIEWS = {
    "permute",
    "t",
    "transpose",
    "unsqueeze",
    "squeeze",
    "slice",
    "select",
    "expand",
    "alias",
    "detach",
    "numpy_T",
    "split",
    "split_with_sizes",
    "unbind",
    "unsafe_split",
    "unsafe_split_with_sizes",
    "unsafe_chunk",
    "chunk",
    "swapaxes",
    "movedim",
    "diagonal",
    "unfold",
    "narrow",
    "view_as_real",
}
RESHAPES = {"view", "_unsafe_view", "reshape", "flatten", "_reshape_alias"}
COPIES = {"clone", "contiguous", "_to_copy", "lift_fresh", "lift_fresh_copy", "positive", "lift"}
MOVES = {
    "flip",
    "roll",
    "repeat",
    "index_select",
    "pixel_shuffle",
    "pixel_unshuffle",
    "channel_shuffle",
    "native_channel_shuffle",
    "rot90",
    "repeat_interleave",
    "im2col",
    "unfold_copy",
    "take_along_dim",
}
POOLS = {
    "max_pool2d_with_indices",
    "avg_pool2d",
    "avg_pool1d",
    "avg_pool3d",
    "_adaptive_avg_pool2d",
    "_adaptive_avg_pool3d",
    "adaptive_avg_pool1d",
    "adaptive_max_pool2d",
    "max_pool3d_with_indices",
    "upsample_nearest2d",
    "upsample_bilinear2d",
    "upsample_bicubic2d",
    "upsample_nearest1d",
    "upsample_linear1d",
    "upsample_nearest3d",
    "_upsample_bilinear2d_aa",
    "_upsample_bicubic2d_aa",
    "upsample_trilinear3d",
    "reflection_pad2d",
    "replication_pad2d",
    "reflection_pad1d",
    "grid_sampler_2d",
    "replication_pad1d",
}
MAXIMA = {"max_pool2d_with_indices", "adaptive_max_pool2d", "max_pool3d_with_indices"}
REDUCTIONS = {"sum", "mean", "linalg_vector_norm", "norm", "var", "std", "var_mean", "logsumexp", "amax", "amin"}
REDUCTIONS |= {"max", "min", "argmax", "argmin", "prod", "any", "all", "nansum", "median"}
ADDITIONS = {"add", "sub", "rsub", "lerp"}
EXTREMA = {"maximum", "minimum", "fmax", "fmin"}
COMPARISONS = {"gt", "lt", "ge", "le", "eq", "ne"}
ALONG_AN_AXIS = {"cumsum", "_softmax", "softmax", "_safe_softmax", "_log_softmax", "sort", "topk", "cumprod"}
SHAPES_ALONE = {
    "zeros_like",
    "ones_like",
    "full_like",
    "empty_like",
    "rand_like",
    "randn_like",
    "new_zeros",
    "new_ones",
    "new_full",
    "new_empty",
    "sym_size",
    "size",
    "is_same_size",
    "_local_scalar_dense",
    "item",
    "bernoulli",
    "new_empty_strided",
    "empty_strided",
}


class Follower(TorchDispatchMode):
    """Notes, while a model runs in double precision, what its operations tie.

    Args:
        model: the model, whose modules' names tell where an operation was met.
        tensors: its parameters and buffers by name, those with which it runs.
        trained: the names of the parameters. Of buffers, the statistics of batch normalizations move with their units;
            others are constants.
    """

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # which would import the compiler, for a second

    def __init__(self, model: nn.Module, tensors: Mapping[str, Tensor], trained: Sequence[str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.atoms = Atoms()
        self._movable = set(trained)
        self.names = {id(tensor): name for name, tensor in tensors.items()}
        self.parameters: dict[str, Factors] = {}
        self.used: dict[str, None] = {}
        self.unfollowed: dict[Unfollowed, None] = {}
        self._modules = {id(module): name for name, module in model.named_modules()}
        self._inside: list[str] = []
        self._behaviours: dict[Any, Behaviour | None] = {}
        self._hooks: list[Any] = []
        self._clock = 0
        self._written: dict[int, tuple[Any, Tensor, Tensor]] = {}
        self._one = self.atoms.new(1)
        self.atoms.fix(self._one)

    def __enter__(self) -> Any:
        register = torch.nn.modules.module
        self._hooks = [
            register.register_module_forward_pre_hook(self._go_in),
            register.register_module_forward_hook(self._go_out, always_call=True),
        ]
        return super().__enter__()  # type: ignore[no-untyped-call]

    def __exit__(self, *error: Any) -> None:
        for hook in self._hooks:
            hook.remove()
        super().__exit__(*error)  # type: ignore[no-untyped-call]

    def _go_in(self, module: nn.Module, _: Any) -> None:
        self._inside.append(self._modules.get(id(module), self._inside[-1] if self._inside else ""))

    def _go_out(self, *_: Any) -> None:
        if self._inside:
            self._inside.pop()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        args, kwargs = in_double(func, args, kwargs or {}, self._keep)
        name = func.overloadpacket.__name__
        in_place = name.endswith("_") and not name.endswith("__") and name not in ("lift_fresh_",)
        self._clock += 1
        given = list(tensors_in((args, kwargs)))
        taken = name in ("select", "unbind") and hasattr(args[0], "_stacked")
        for tensor in given:
            self._refresh(tensor)
            if not taken:
                self._arrive(tensor)
        self._use(args, kwargs)
        labelled = [tensor for tensor in given if self.factors(tensor)]
        if not labelled:
            return func(*args, **kwargs)
        part = in_place and _is_part(args[0])
        before = args[0].clone() if in_place and isinstance(args[0], Tensor) else None
        result = func(*args, **kwargs)
        plain = name.rstrip("_") if in_place else name
        try:
            if before is not None:
                args = (before, *args[1:])
                before._factors = self.factors(result)  # type: ignore[attr-defined]
            self._note(result, self._follow(plain, func, args, kwargs, result))
        except (NotFollowedError, RuntimeError, ValueError, IndexError, TypeError) as error:
            # An operation is called in ways that no rule foresees: that is said, and the search goes on.
            why = error if isinstance(error, NotFollowedError) else "it is called in a way that is not covered"
            self._give_up(name, labelled, str(why))
            for tensor in tensors_in(result):
                _forget(tensor)
        if part:
            self._write(result)
        return result

    def _write(self, part: Tensor) -> None:
        """Remember what was written into a part of a tensor, for other names of the same memory."""
        storage = part.untyped_storage()
        size = storage.nbytes() // part.element_size()
        if storage.data_ptr() not in self._written:
            zeros = torch.zeros(size, dtype=torch.int64)
            self._written[storage.data_ptr()] = (storage, zeros, zeros.clone())
        _, atoms, times = self._written[storage.data_ptr()]
        place = (part.shape, part.stride(), part.storage_offset())
        factors = self.factors(part)
        if factors:
            atoms.as_strided(*place).copy_(self.fused(factors))
        else:
            atoms.as_strided(*place).fill_(0 if _zeros(part) else int(self._one[0]))
        times.as_strided(*place).fill_(self._clock)
        part._seen = self._clock  # type: ignore[attr-defined]

    def _refresh(self, tensor: Tensor) -> None:
        """Give a tensor the factors of what was written into parts of it under other names."""
        if not self._written or tensor.layout != torch.strided:
            return
        record = self._written.get(tensor.untyped_storage().data_ptr())
        if record is None or record[1].numel() * tensor.element_size() != record[0].nbytes():
            return
        place = (tensor.shape, tensor.stride(), tensor.storage_offset())
        times = record[2].as_strided(*place)
        seen = getattr(tensor, "_seen", 0)
        if not tensor.numel() or int(times.max()) <= seen:
            return
        new = record[1].as_strided(*place)
        factors = self.factors(tensor)
        old = self.fused(factors) if factors else torch.zeros(()).long() if _zeros(tensor[times <= seen]) else None
        if old is None:
            old = torch.from_numpy(self._one).reshape(())
        tensor._factors = [_tidy(torch.where(times > seen, new, old))]  # type: ignore[attr-defined]
        tensor._seen = self._clock  # type: ignore[attr-defined]

    def end(self, outputs: Any) -> None:
        """Fix what goes out of the model."""
        for tensor in tensors_in(outputs):
            self._arrive(tensor)
            factors = self.factors(tensor)
            if factors:
                self.atoms.fix(_flat(self.fused(factors)))

    def factors(self, tensor: Any) -> Factors:
        """Return the factors of a value, empty for a constant or an input."""
        if not isinstance(tensor, Tensor):
            return []
        found: Factors | None = getattr(tensor, "_factors", None)
        if found is not None:
            return found
        name = self.names.get(id(tensor))
        if name is None or name not in self._movable:
            return []
        if name not in self.parameters:
            sizes = [(axis, size) for axis, size in enumerate(tensor.shape) if size > 1]
            axes = sizes or [(0, 1)]
            fresh = tensor.is_floating_point() and tensor.dim() > 0 and tensor.numel() > 0
            made = [_along(self.atoms.new(size), axis, tensor.shape) for axis, size in axes] if fresh else []
            self.parameters[name] = made
        return self.parameters[name]

    def _use(self, args: Any, kwargs: Any) -> None:
        for tensor in tensors_in((args, kwargs)):
            name = self.names.get(id(tensor))
            if name is not None:
                self.used.setdefault(name)

    def _keep(self, old: Tensor, new: Tensor) -> None:
        factors = self.factors(old)
        if factors:
            new._factors = factors  # type: ignore[attr-defined]

    def _note(self, result: Any, factors: Any) -> None:
        if isinstance(result, Tensor):
            result._seen = self._clock  # type: ignore[attr-defined]
            if factors:
                result._factors = factors  # type: ignore[attr-defined]
            else:
                _forget(result)
        elif isinstance(result, tuple | list):
            several = isinstance(factors, tuple)
            for index, tensor in enumerate(result):
                if isinstance(tensor, Tensor):
                    self._note(tensor, factors[index] if several else factors if index == 0 else None)

    def _give_up(self, name: str, tensors: Sequence[Tensor], why: str) -> None:
        where = self._inside[-1] if self._inside else ""
        self.unfollowed.setdefault(Unfollowed(where, name, why))
        for tensor in tensors:
            for factor in self.factors(tensor):
                self.atoms.fix(_flat(factor))

    # The operations

    def _follow(self, name: str, func: Any, args: Any, kwargs: Any, result: Any) -> Any:
        """Return the factors of an operation's result, a tuple of them for several results."""
        if name in SHAPES_ALONE:
            return []
        if name in VIEWS | RESHAPES | COPIES | MOVES:
            return self._moved(name, func, args, kwargs)
        rule = getattr(self, f"_op_{name.lstrip('_')}", None)
        if rule is not None:
            return rule(func, args, kwargs, result)
        if name in ADDITIONS:
            operands = args[1::-1] if name == "rsub" else args[:2]
            if name == "lerp" and isinstance(args[2], Tensor) and self.factors(args[2]):
                raise NotFollowedError("its weight depends on parameters")
            return self._add(operands[0], operands[1], result)
        if name in EXTREMA:
            joined = self._add(args[0], args[1], result)
            self._bend(joined, sign=True)
            return joined
        if name in COMPARISONS and isinstance(args[1], Tensor) and args[1].dim() > 0:
            return self._compare(args, result)
        if name in ("mul", "multiply", "div", "divide", "true_divide"):
            return self._times(args[0], args[1], -1 if "div" in name else 1, result)
        if name in REDUCTIONS:
            return self._reduce(name, args, kwargs, result)
        if name in ALONG_AN_AXIS:
            return self._ordered(name, args, kwargs, result)
        if name in POOLS:
            return self._pooled(name, args[0], result)
        return self._elementwise(name, func, args, kwargs, result)

    def _moved(self, name: str, func: Any, args: Any, kwargs: Any) -> Any:
        """Carry out on the factors what only moves entries."""
        x, *others = args
        if any(self.factors(tensor) for tensor in tensors_in((others, kwargs))):
            raise NotFollowedError("where it moves entries to depends on parameters")
        factors = self.factors(x)
        if name in ("select", "unbind") and hasattr(x, "_stacked"):
            axis, parts = x._stacked
            if (others[0] if others else kwargs.get("dim", 0)) % x.dim() == axis:
                return tuple(parts) if name == "unbind" else parts[others[1]]
            self._arrive(x)
        if name in COPIES:
            return factors
        if name in RESHAPES:
            return [self._copies(x, factor, _tidy(factor.reshape(others[0]))) for factor in factors]
        moved = [func(factor, *others, **kwargs) for factor in factors]
        for before, after in zip(factors, moved, strict=True):
            if _support(before) and not any(_support(part) for part in tensors_in([after])):
                self.atoms.immovable.append(_flat(before))  # each was taken for a place of its own
        tidy = _tidy if name in MOVES else lambda factor: factor
        if moved and isinstance(moved[0], tuple | list):
            return tuple([tidy(part) for part in parts] for parts in zip(*moved, strict=True))
        return [tidy(factor) for factor in moved]

    def _copies(self, x: Tensor, before: Tensor, after: Tensor) -> Tensor:
        """Return atoms of their own for copies, such as keys that several queries share, behind a reshape."""
        core = _core(after)
        if core.numel() == _core(before).numel():
            return after
        known = _support(before)
        alike = [axis for axis in range(x.dim()) if axis not in known and x.shape[axis] > 1 and _uniform(x, axis)]
        if not alike:
            return after
        old = core.reshape(-1).numpy()
        made = self.atoms.new(len(old))
        self.atoms.relate(made, old)
        self.atoms.equal(made, old)
        self.atoms.along(made, old)
        return torch.from_numpy(made).reshape(core.shape).expand(after.shape)

    def _op_cat(self, func: Any, args: Any, kwargs: Any, result: Tensor) -> Factors:
        parts = list(args[0])
        axis = (args[1] if len(args) > 1 else kwargs.get("dim", 0)) % result.dim()
        parts = [part for part in parts if part.numel()]
        ends = np.cumsum([0, *(part.shape[axis] for part in parts)])
        whole = [result.narrow(axis, start, part.shape[axis]) for start, part in zip(ends, parts, strict=False)]
        arrays = [self._one_factor(part) for part in parts]
        known = [array for array in arrays if array is not None]
        if not any(axis in _support(array) for array in known):
            first = known[0]
            self._await(result, [(_core(first), _core(array)) for array in known[1:]])
            for part, missing in zip(parts, (array is None for array in arrays), strict=True):
                if missing and not _zeros(part):
                    self._constant(_core(first).expand(_spread_shape(first, part.shape)), part)
            return [_core(first).expand(result.shape)]
        supports = sorted({axis}.union(*(_support(array) for array in known)))
        shape = [result.shape[i] if i in supports else 1 for i in range(result.dim())]
        pieces = []
        for own, part in zip(arrays, whole, strict=True):
            small = [part.shape[axis] if i == axis else size for i, size in enumerate(shape)]
            if own is not None:
                pieces.append(_core(own).expand(small))
            elif _zeros(part):
                pieces.append(torch.zeros(small, dtype=torch.int64))
            else:
                fixed = torch.from_numpy(self.atoms.new(math.prod(small))).reshape(small)
                self.atoms.fix(_flat(fixed))
                pieces.append(fixed)
        return [torch.cat(pieces, axis).expand(result.shape)]

    _op_concat = _op_cat

    def _op_stack(self, func: Any, args: Any, kwargs: Any, result: Tensor) -> Factors:
        axis = (args[1] if len(args) > 1 else kwargs.get("dim", 0)) % result.dim()
        parts = []
        for part in args[0]:
            wider = part.unsqueeze(axis)
            factors = [factor.unsqueeze(axis) for factor in self.factors(part)]
            if factors:
                wider._factors = factors
            parts.append(wider)
        made = self._op_cat(func, (parts, axis), {}, result)
        result._stacked = (axis, [self.factors(part) for part in args[0]])  # type: ignore[attr-defined]
        return made

    def _await(self, result: Tensor, waiting: list[tuple[Tensor, Tensor]]) -> None:
        """Join what lies side by side when it is used: the last states of recurrent layers often are not."""
        pairs_of = [_broadcast(a, b) for a, b in waiting]
        result._waiting = [(a, b) for a, b in pairs_of if not torch.equal(a, b)]  # type: ignore[attr-defined]

    def _arrive(self, tensor: Tensor) -> None:
        for a, b in getattr(tensor, "_waiting", ()):
            self._join(a, b)
        if hasattr(tensor, "_waiting"):
            tensor._waiting = []

    def _one_factor(self, part: Tensor) -> Tensor | None:
        factors = self.factors(part)
        return self.fused(factors) if factors else None

    def _op_index(self, func: Any, args: Any, kwargs: Any, result: Tensor) -> Factors:
        x, indices = args[0], args[1]
        if any(self.factors(index) for index in indices if index is not None):
            self._give_up("index", [index for index in indices if index is not None], "parameters choose what is taken")
        return [_tidy(func(factor, indices)) for factor in self.factors(x)]

    def _op_gather(self, func: Any, args: Any, kwargs: Any, result: Tensor) -> Factors:
        if self.factors(args[2]):
            self._give_up("gather", [args[2]], "parameters choose what is taken")
        return [_tidy(func(factor, *args[1:], **kwargs)) for factor in self.factors(args[0])]

    def _op_constant_pad_nd(self, func: Any, args: Any, kwargs: Any, result: Tensor) -> Factors:
        x, widths = args[0], args[1]
        value = args[2] if len(args) > 2 else kwargs.get("value", 0)
        padded = {x.dim() - 1 - place // 2 for place, width in enumerate(widths) if width}
        factors = []
        for factor in self.factors(x):
            if padded & set(_support(factor)):
                factors.append(_tidy(func(factor, widths, 0 if not value else int(self._one[0]))))
            else:
                factors.append(_core(factor).expand(result.shape))
        if value:
            self._bend(factors, scale=True, sign=True)
        return factors

    def _op_as_strided(self, func: Any, args: Any, kwargs: Any, result: Tensor) -> Factors:
        x, shape = args[:2]
        if list(shape) != list(result.shape) or x.shape != result.shape or _is_part(x):
            raise NotFollowedError("it takes entries by their places in memory")
        return self.factors(x)

    def _op_fill(self, func: Any, args: Any, kwargs: Any, result: Any) -> Factors:
        return []

    _op_zero = _op_fill

    def _op_copy(self, func: Any, args: Any, kwargs: Any, result: Tensor) -> Factors:
        return [_core(factor).expand(_ahead(factor, result)) for factor in self._wide(args[1], result.dim())]

    def _op_where(self, func: Any, args: Any, kwargs: Any, result: Tensor) -> Factors:
        if len(args) < 3:
            raise NotFollowedError("where its entries are depends on parameters")
        condition, a, b = args
        joined = self._add(a, b, result)
        if not self.factors(condition):
            if a.dim() and b.dim():
                self._apart(joined, condition, result)
            return joined
        values = self._product(joined, self._wide(condition, result.dim()), 1)
        self._bend(values)
        return values

    def _op_masked_fill(self, func: Any, args: Any, kwargs: Any, result: Tensor) -> Factors:
        x, mask, value = args
        factors = self.factors(x)
        if self.factors(mask):
            raise NotFollowedError("parameters choose what is filled")
        self._apart(factors, mask, result)
        number = float(value)
        if number != 0:
            self._bend(factors, scale=not math.isinf(number), sign=True)
        return factors

    def _op_index_add(self, func: Any, args: Any, kwargs: Any, result: Tensor) -> Factors:
        base, axis, index, source = args[:4]
        if self.factors(index):
            raise NotFollowedError("parameters choose where it adds")
        axis %= base.dim()
        known = self.factors(source)
        if any(axis in _support(factor) for factor in [*known, *self.factors(base)]):
            raise NotFollowedError("it adds along units")
        spread = [_core(factor).expand(base.shape) for factor in known]
        if not self.factors(base):
            return spread
        return self._match(self.factors(base), spread, result)

    def _op_index_put(self, func: Any, args: Any, kwargs: Any, result: Tensor) -> Factors:
        base, indices, values = args[:3]
        taken = [axis for axis, index in enumerate(indices) if index is not None]
        known = self._wide(values, base.dim()) if values.dim() <= base.dim() else []
        if any(set(taken) & set(_support(factor)) for factor in [*known, *self.factors(base)]) or (
            self.factors(values) and not known
        ):
            raise NotFollowedError("it writes along units")
        spread = [_core(factor).expand(base.shape) for factor in known]
        if not self.factors(base) or not spread:
            return spread or self.factors(base)
        return self._match(self.factors(base), spread, result)

    _op_unsafe_index_put = _op_index_put

    def _op_scatter_add(self, func: Any, args: Any, kwargs: Any, result: Tensor) -> Factors:
        raise NotFollowedError("it scatters entries")

    def _op_embedding(self, func: Any, args: Any, kwargs: Any, result: Tensor) -> Factors:
        weight = args[0]
        rows = [factor for factor in self.factors(weight) if 0 in _support(factor)]
        for factor in rows:
            self.atoms.fix(_flat(factor))
        kept = [factor for factor in self.factors(weight) if 0 not in _support(factor)]
        return [factor[0].expand(result.shape) for factor in kept]

    def _op_mm(self, func: Any, args: Any, kwargs: Any, result: Tensor) -> Factors:
        a, b = args
        return self._contract(_put(a, 2), 1, _put(b, 0), 0, (a, b), result, drop=lambda f: f[:, 0, :])

    def _op_bmm(self, func: Any, args: Any, kwargs: Any, result: Tensor) -> Factors:
        a, b = args
        return self._contract(_put(a, 3), 2, _put(b, 1), 1, (a, b), result, drop=lambda f: f[:, :, 0, :])

    def _op_mv(self, func: Any, args: Any, kwargs: Any, result: Tensor) -> Factors:
        a, b = args
        return self._contract(lambda f: f, 1, _put(b, 0), 0, (a, b), result, drop=lambda f: f[:, 0])

    def _op_dot(self, func: Any, args: Any, kwargs: Any, result: Tensor) -> Factors:
        return self._contract(lambda f: f, 0, lambda f: f, 0, args, result, drop=lambda f: f[0])

    def _op_addmm(self, func: Any, args: Any, kwargs: Any, result: Tensor) -> Factors:
        bias, *matrices = args
        product = torch.mm(*matrices)
        self._note(product, self._op_mm(func, matrices, {}, product))
        return self._add(bias, product, result)

    def _op_baddbmm(self, func: Any, args: Any, kwargs: Any, result: Tensor) -> Factors:
        bias, *matrices = args
        product = torch.bmm(*matrices)
        self._note(product, self._op_bmm(func, matrices, {}, product))
        return self._add(bias, product, result) if kwargs.get("beta", 1) else self.factors(product)

    def _op_addmv(self, func: Any, args: Any, kwargs: Any, result: Tensor) -> Factors:
        bias, *matrices = args
        product = torch.mv(*matrices)
        self._note(product, self._op_mv(func, matrices, {}, product))
        return self._add(bias, product, result)

    def _op_addcmul(self, func: Any, args: Any, kwargs: Any, result: Tensor) -> Factors:
        base, a, b = args
        product = a * b if func.overloadpacket.__name__.startswith("addcmul") else a / b
        self._note(product, self._times(a, b, 1, product))
        return self._add(base, product, result)

    def _op_convolution(self, func: Any, args: Any, kwargs: Any, result: Tensor) -> Factors:
        x, weight, bias, _, _, _, transposed, _, groups = args
        out_axis, in_axis = (1, 0) if transposed else (0, 1)
        source = self.factors(x)
        kernel = self.factors(weight)
        spatial = set(range(2, weight.dim()))
        if any(set(_support(factor)) - {1} for factor in source):
            raise NotFollowedError("units lie along the axes over which it moves")
        if any(spatial & set(_support(factor)) and len(_support(factor)) > 1 for factor in kernel):
            raise NotFollowedError("its kernel is tied to units")
        for factor in kernel:
            if spatial & set(_support(factor)):
                self.atoms.fix(_flat(factor))
        kernel = [factor for factor in kernel if not spatial & set(_support(factor))]
        if groups == 1:
            out = self._dense_convolution(x, source, weight, kernel, out_axis, in_axis, result)
        else:
            out = self._grouped_convolution(x, source, weight, kernel, groups, transposed, result)
        if bias is None:
            return out
        wide = self._column(bias, result.dim())
        plain = result - wide
        self._note(plain, out)
        return self._add(plain, wide, result)

    def _dense_convolution(
        self, x: Tensor, source: Factors, weight: Tensor, kernel: Factors, out_axis: int, in_axis: int, result: Tensor
    ) -> Factors:
        """Contract channels as a matrix product does: entries (channels out, channels in)."""
        matrix = weight.detach().flatten(2).select(2, 0) if weight.dim() > 2 else weight
        matrix = matrix.transpose(0, 1) if out_axis == 1 else matrix
        small: Factors = []
        for factor in kernel:
            plane = factor.flatten(2).select(2, 0) if factor.dim() > 2 else factor
            small.append(plane.transpose(0, 1) if out_axis == 1 else plane)
        values = x.detach().movedim(1, -1).flatten(0, -2)
        columns = [f.select(0, 0).flatten(1).select(1, 0).expand(values.shape) for f in source]
        left, right = values, matrix.T
        self._note(left, columns)
        right = right.clone()
        self._note(right, [f.T for f in small])
        factors = self._op_mm(None, (left, right), {}, values.new_empty(len(values), matrix.shape[0]))
        return [_along_factor(factor, 1, result.shape) for factor in factors]

    def _grouped_convolution(
        self, x: Tensor, source: Factors, weight: Tensor, kernel: Factors, groups: int, transposed: bool, result: Tensor
    ) -> Factors:
        """Tie channels in and out group by group; a group of one channel scales it."""
        if not source:
            raise NotFollowedError("it groups channels of an input")
        channels = _core(self.fused(source)).reshape(-1)
        if len(channels) == 1:
            raise NotFollowedError("its channels are not told apart")
        each = x.shape[1] // groups
        name = next((name for name, made in self.parameters.items() if made is self.factors(weight)), None)
        rows_axis = 0
        rows = [f for f in kernel if _support(f) == (rows_axis,)]
        columns = [f for f in kernel if _support(f) == (1,)]
        if len(rows) + len(columns) < len(kernel) or len(rows) > 1 or transposed:
            raise NotFollowedError("it groups channels in a way that is not followed")
        row = _core(rows[0]).reshape(-1) if rows else torch.from_numpy(np.repeat(self._one, weight.shape[0]))
        if each == 1:
            entering = channels.repeat_interleave(len(row) // groups)
            leaving = self._product_of(entering, row)
            return [_along_factor(leaving, 1, result.shape)]
        if name is None:
            raise NotFollowedError("it groups channels in a way that is not followed")
        own = torch.from_numpy(self.atoms.new(len(channels))).reshape(groups, 1, each)
        own = own.expand(groups, len(row) // groups, each).reshape(len(row), each)
        own = own.reshape(len(row), each, *[1] * (weight.dim() - 2)).expand(weight.shape)
        place = [index for index, f in enumerate(self.parameters[name]) if _support(f) == (1,)]
        self.parameters[name][place[0]] = own
        inner = own.reshape(groups, -1, each, *weight.shape[2:]).select(1, 0).flatten(2).select(2, 0).reshape(-1)
        inside, columns_in = _numbers(channels, inner)
        self.atoms.unite(inside, columns_in)
        self.atoms.equal(inside, columns_in, inverse=True)
        self.atoms.along(inside, columns_in, inverse=True)
        group = np.arange(groups)
        nodes = self.atoms.new(groups)
        self.atoms.relate(inside, nodes[np.repeat(group, each)])
        self.atoms.relate(row.numpy(), nodes[np.repeat(group, len(row) // groups)])
        return [_along_factor(row, 1, result.shape)]

    def _op_native_batch_norm(self, func: Any, args: Any, kwargs: Any, result: Any) -> Any:
        x, weight, bias, mean, variance = args[:5]
        training = bool(args[5])
        return self._batch_norm(x, weight, bias, mean, variance, training, result[0])

    _op_cudnn_batch_norm = _op_native_batch_norm

    def _op_native_batch_norm_legit_no_training(self, func: Any, args: Any, kwargs: Any, result: Any) -> Any:
        x, weight, bias, mean, variance = args[:5]
        return self._batch_norm(x, weight, bias, mean, variance, False, result[0])

    def _op_native_batch_norm_legit(self, func: Any, args: Any, kwargs: Any, result: Any) -> Any:
        x, weight, bias = args[:3]
        if isinstance(args[3], bool):
            return self._batch_norm(x, weight, bias, None, None, True, result[0])
        return self._batch_norm(x, weight, bias, args[3], args[4], args[5], result[0])

    def _batch_norm(self, x: Any, weight: Any, bias: Any, mean: Any, variance: Any, training: bool, out: Tensor) -> Any:
        for statistic in (mean, variance):
            name = self.names.get(id(statistic))
            if name is not None and not training:
                self._movable.add(name)

        value = out.detach().clone()
        factors = self.factors(x)
        if any(1 in _support(factor) and len(_support(factor)) > 1 for factor in factors):
            raise NotFollowedError("units lie along the axes over which it normalizes")
        if training:
            for factor in factors:
                self._bend([factor], scale=True, sign=1 not in _support(factor))
        elif any(set(_support(factor)) - {1} for factor in factors):
            raise NotFollowedError("units lie along the axes over which it normalizes")
        elif mean is not None:
            factors = self._add(x, self._column(mean, x.dim()), out) if factors else []
            spread = self.factors(variance)
            if factors and spread:
                self.atoms.uncharge(_flat(spread[0]))
                self.atoms.unite(*_numbers(_core(self.fused(factors)).reshape(-1), _core(spread[0]).reshape(-1)))
                self._bend(factors)
                factors = [self._standardized(self.fused(factors))]
            elif spread:
                self.atoms.fix(_flat(spread[0]))
        self._note(value, factors)
        return (
            self._scaled_and_shifted(value, *(t if t is None else self._column(t, x.dim()) for t in (weight, bias))),
            [],
            [],
        )

    def _standardized(self, units: Tensor) -> Tensor:
        """Return atoms behind a batch normalization: of the same scale in evaluation mode, of none in training."""
        core = _core(units)
        old, place = np.unique(core.numpy(), return_inverse=True)
        made = self.atoms.new(len(old))
        self.atoms.unite(made, old)
        self.atoms.signs.equal.append((made, old, 1))
        self.atoms.standardized.append((made, old))
        return torch.from_numpy(made[place.reshape(-1)]).reshape(core.shape).expand(units.shape)

    def _scaled_and_shifted(self, value: Tensor, weight: Tensor | None, bias: Tensor | None) -> Factors:
        if weight is not None:
            self._note(value, self._times(value, weight, 1, value))
        if bias is not None:
            self._note(value, self._add(value, bias, value))
        return self.factors(value)

    def _op_native_layer_norm(self, func: Any, args: Any, kwargs: Any, result: Any) -> Any:
        x, shape, weight, bias = args[:4]
        axes = tuple(range(x.dim() - len(shape), x.dim()))
        return (self._normalized(x, axes, weight, bias, result[0]), [], [])

    def _op_fused_rms_norm(self, func: Any, args: Any, kwargs: Any, result: Any) -> Any:
        x, shape, weight = args[:3]
        axes = tuple(range(x.dim() - len(shape), x.dim()))
        return (self._normalized(x, axes, weight, None, result[0], centred=False), [])

    def _op_native_group_norm(self, func: Any, args: Any, kwargs: Any, result: Any) -> Any:
        x, weight, bias, _, channels, _, groups = args[:7]
        factors = self.factors(x)
        if any(set(_support(factor)) - {1} for factor in factors):
            raise NotFollowedError("units lie along the axes over which it normalizes")
        if factors:
            units = self._single(factors)
            ids = _core(units[0]).expand(1, channels, *[1] * (x.dim() - 2)).reshape(-1).numpy()
            nodes = self.atoms.new(groups)
            self.atoms.relate(ids, nodes[np.repeat(np.arange(groups), channels // groups)])
            self.atoms.signs.equal.append((ids, nodes[np.repeat(np.arange(groups), channels // groups)], 1))
            self.atoms.uncharge(ids, sign=False)
            self.atoms.bend(ids)
            factors = units
        value = result[0].detach().clone()
        self._note(value, factors)
        columns = [t if t is None else self._column(t, x.dim()) for t in (weight, bias)]
        return (self._scaled_and_shifted(value, *columns), [], [])

    def _column(self, tensor: Tensor, dims: int) -> Tensor:
        """Return a vector over channels in a shape that broadcasts against values of so many axes."""
        shape = (-1, *[1] * (dims - 2))
        wide = tensor.detach().reshape(shape)
        self._note(wide, [factor.reshape(shape) for factor in self.factors(tensor)])
        return wide

    def _normalized(
        self, x: Tensor, axes: tuple[int, ...], weight: Any, bias: Any, out: Tensor, centred: bool = True
    ) -> Factors:
        factors = self.factors(x)
        if factors:
            units = self._single(factors)
            inside = bool(set(axes) & set(_support(units[0])))
            if inside:
                self._gather(units[0], axes, signs=centred)
                ids = _flat(units[0])
                if centred:
                    self.atoms.bend(ids)
                else:
                    self.atoms.normed.append(ids)
            self.atoms.uncharge(_flat(units[0]), sign=False)
            factors = units
        value = out.detach().clone()
        self._note(value, factors)
        return self._scaled_and_shifted(value, weight, bias)

    def _gather(self, units: Tensor, axes: Sequence[int], signs: bool, scales: bool = False) -> Tensor:
        """Return the atoms of what all units along some axes make together."""
        core = _core(units)
        groups = self._groups([core], axes)
        a, b = _numbers(core, groups.expand(core.shape))
        self.atoms.relate(a, b)
        if signs:
            self.atoms.signs.equal.append((a, b, 1))
        if scales:
            self.atoms.scales.equal.append((a, b, 1))
        return groups

    def _groups(self, cores: Sequence[Tensor], axes: Sequence[int]) -> Tensor:
        """Return new atoms, one for all along some axes, the same ones where the same are gathered."""
        small = [1 if axis in axes else size for axis, size in enumerate(cores[0].shape)]
        inner = sorted({axis % len(small) for axis in axes})
        rows = [core.movedim(inner, list(range(-len(inner), 0))).reshape(math.prod(small), -1) for core in cores]
        _, place = np.unique(torch.cat(rows, dim=1).numpy(), axis=0, return_inverse=True)
        made = self.atoms.new(int(place.max()) + 1)
        return torch.from_numpy(made[place.reshape(-1)]).reshape(small)

    def _op_prelu_kernel(self, func: Any, args: Any, kwargs: Any, result: Tensor) -> Factors:
        x, slopes = args
        for factor in self.factors(slopes):
            self.atoms.uncharge(_flat(factor))
        units = self._single(self.factors(x))
        if not units:
            raise NotFollowedError("its slopes act on inputs")
        self._bend(units, sign=True)
        if self.factors(slopes):
            self._tie(units, self._wide(slopes, result.dim()))
        return units

    def _op_weight_norm_interface(self, func: Any, args: Any, kwargs: Any, result: Any) -> Any:
        """Follow g v / |v|, where the norm is over all axes but one: v counts by its signs alone."""
        v, g = args[:2]
        axis = (args[2] if len(args) > 2 else kwargs.get("dim", 0)) % v.dim()
        rows = [factor for factor in self.factors(v) if axis in _support(factor)]
        others = [factor for factor in self.factors(v) if axis not in _support(factor)]
        for factor in others:
            self.atoms.uncharge(_flat(factor), sign=False)
            self.atoms.normed.append(_flat(factor))
        if not rows or not self.factors(g):
            raise NotFollowedError("it normalizes what is no parameter")
        row, size = _core(self.fused(rows)), _core(self.fused(self.factors(g)))
        a, b = _numbers(*_broadcast(row, size))
        made = self.atoms.new(len(a))
        for part in (a, b):
            self.atoms.unite(made, part)
            self.atoms.bend(part)
        self.atoms.scales.equal.append((made, b, 1))
        self.atoms.signs.sums.append((made, a, b, 1, 1))
        whole = torch.from_numpy(made).reshape(torch.broadcast_shapes(row.shape, size.shape)).expand(v.shape)
        return ([whole, *others], [])

    def _op_glu(self, func: Any, args: Any, kwargs: Any, result: Tensor) -> Factors:
        axis = args[1] if len(args) > 1 else kwargs.get("dim", -1)
        half = args[0].shape[axis] // 2
        parts = []
        for start in (0, half):
            part = args[0].narrow(axis, start, half).clone()
            self._note(part, [_tidy(factor.narrow(axis, start, half)) for factor in self.factors(args[0])])
            parts.append(part)
        gate = self._single(self.factors(parts[1]))
        self._bend(gate, scale=True, sign=True)
        self._note(parts[1], gate)
        return self._times(parts[0], parts[1], 1, result)

    def _op_pow(self, func: Any, args: Any, kwargs: Any, result: Tensor) -> Factors:
        base, exponent = args
        if isinstance(exponent, Tensor) or isinstance(base, int | float):
            if isinstance(exponent, Tensor) and exponent.dim() == 0 and not self.factors(exponent):
                exponent = exponent.item()
            elif isinstance(base, Tensor) or self.factors(exponent):
                raise NotFollowedError("its exponent is no number")
        return self._elementwise("pow", func, (base, exponent), kwargs, result, squares=exponent == 2)

    # Sums, products and contractions

    def _add(self, a: Any, b: Any, result: Tensor) -> Factors:
        """Join two terms: equal charges, one unit. A number that is not 0 fixes the charges."""
        first, second = self._wide(a, result.dim()), self._wide(b, result.dim())
        if first and second:
            a_missing = self._missing(a, first, second, result)
            b_missing = self._missing(b, second, first, result)
            return self._match(first + a_missing, second + b_missing, result)
        known, other = (first, b) if first else (second, a)
        known = [_core(factor).expand(result.shape) for factor in known]
        if _zeros(other):
            return known
        whole = self._single(known)
        self.atoms.uncharge(_flat(whole[0]))
        self._bend(whole)
        self._constant(whole[0], other)
        return whole

    def _match(self, first: Factors, second: Factors, result: Tensor) -> Factors:
        """Join the factors of two terms, those of the same axes with each other."""
        first, second = list(first), list(second)
        kept: Factors = []
        for factor in list(first):
            partner = next((f for f in second if _support(f) == _support(factor)), None)
            if partner is None or not _support(factor):
                continue
            first = [f for f in first if f is not factor]
            second = [f for f in second if f is not partner]
            a, b = _core(factor), _core(partner)
            self._join(a, b)
            kept.append(torch.where(a == 0, b, a).expand(result.shape))
        if first or second:
            a = _core(self.fused(first)) if first else torch.from_numpy(self._one)
            b = _core(self.fused(second)) if second else torch.from_numpy(self._one)
            if first and second:
                a, b = _broadcast(a, b)
                self._join(a, b)
                a = torch.where(a == 0, b, a)
            else:
                self.atoms.uncharge(_flat(a if first else b))
            if first:
                kept.append(
                    _core(self.fused(first)).expand(result.shape) if not second else _tidy(a).expand(result.shape)
                )
        return kept

    def _join(self, a: Tensor, b: Tensor) -> None:
        a, b = _broadcast(a, b)
        left, right = _numbers(a, b)
        if len(np.unique(left)) > 1 and len(np.unique(right)) > 1:
            spread = _support(a) != _support(b)
            self.atoms.unite(left, right, merge=not spread)
        if len(np.unique(left)) == 1 or len(np.unique(right)) == 1:
            self.atoms.bend(np.concatenate([left, right]))
        self.atoms.equal(left, right)
        self.atoms.along(left, right)

    def _missing(self, value: Any, own: Factors, other: Factors, result: Tensor) -> Factors:
        """Return factors of constants for axes of the other term's units along which this one's values differ."""
        wanted = set().union(*(_support(factor) for factor in other)) - set().union(*(_support(f) for f in own))
        return self._fixed(value, wanted, result)

    def _fixed(self, value: Any, axes: set[int], result: Tensor) -> Factors:
        if not isinstance(value, Tensor):
            return []
        wide = value.reshape(*[1] * (result.dim() - value.dim()), *value.shape)
        varying = [axis for axis in sorted(axes) if not _uniform(wide, axis)]
        if not varying:
            return []
        shape = [wide.shape[axis] if axis in varying else 1 for axis in range(wide.dim())]
        atoms = torch.from_numpy(self.atoms.new(math.prod(shape))).reshape(shape)
        self.atoms.fix(_flat(atoms))
        return [atoms.expand(result.shape)]

    def _constant(self, units: Tensor, other: Any) -> None:
        """Tie units to the places of a constant that differs along them."""
        for factor in self._fixed(other, set(_support(units)), units):
            a, b = _broadcast(_core(units), _core(factor))
            left, right = _numbers(a, b)
            self.atoms.unite(left, right, merge=False)

    def _apart(self, factors: Factors, mask: Tensor, result: Tensor) -> None:
        for factor in factors:
            if _support(factor):
                self._constant(factor, mask)

    def _times(self, a: Any, b: Any, power: float, result: Tensor) -> Factors:
        if isinstance(a, Tensor) and a is b and power == 1:
            return self._squared(a)
        if not isinstance(a, Tensor) or not isinstance(b, Tensor):
            known = a if isinstance(a, Tensor) else b
            if known is a:
                return self._wide(a, result.dim())
            return self._scaled_powers(self._single(self._wide(b, result.dim())), power)
        first, second = self._wide(a, result.dim()), self._wide(b, result.dim())
        if (not first and _zeros(a)) or (not second and _zeros(b)):
            return []
        first += self._missing(a, first, second, result)
        second += self._missing(b, second, first, result)
        first = [_core(factor).expand(result.shape) for factor in first]
        second = [_core(factor).expand(result.shape) for factor in second]
        return self._product(first, second, power)

    def _squared(self, x: Tensor) -> Factors:
        units = self._single(self.factors(x))
        return self._powers(units, Behaviour(0, 2.0), squares=True)

    def _product(self, first: Factors, second: Factors, power: float) -> Factors:
        """Return the factors of an elementwise product: charges add up, and units along one axis go together."""
        kept = list(first)
        for factor in second:
            own = set(_support(factor))
            touching = [f for f in kept if own & set(_support(f)) or (not own and not _support(f))]
            if not touching:
                kept.append(factor if power == 1 else self._scaled_powers([factor], power)[0])
                continue
            whole = self.fused(touching)
            kept = [f for f in kept if not any(f is t for t in touching)]
            kept.append(self._product_of(whole, factor, power))
        return kept

    def _product_of(self, a: Tensor, b: Tensor, power: float = 1, bend: bool = True) -> Tensor:
        """Return the atoms of the product of two arrays of atoms."""
        shape = torch.broadcast_shapes(a.shape, b.shape)
        apart = set(_support(a)) == set(_support(b))
        smaller_first = len(_support(a)) < len(_support(b))
        smaller = a if smaller_first else b
        whole = set(_support(a)) | set(_support(b))
        apart_from = [set(_support(factor)) != whole for factor in (a, b)]
        a, b = _broadcast(_core(a), _core(b))
        left, right = a.reshape(-1).numpy(), b.reshape(-1).numpy()
        _, index, place = np.unique(np.stack([left, right]), axis=1, return_index=True, return_inverse=True)
        first, second = left[index], right[index]
        made = self.atoms.new(len(index))
        made[(first == 0) | (second == 0)] = 0
        self._bundle(made, (first, apart_from[0]), (second, apart_from[1]))
        self.atoms.total(made, first, second, 1, power)
        if not apart:
            self.atoms.along(made, second if smaller_first else first)
        if bend:
            # A factor that is the same for several units mixes with none of them.
            self.atoms.bend(np.concatenate([made, first, second]) if apart else _flat(smaller))
        return torch.from_numpy(made[place.reshape(-1)]).reshape(a.shape).expand(shape)

    def _bundle(self, made: Ids, *parts: tuple[Ids, bool]) -> None:
        """Let new atoms and those that they are made of be exchanged together.

        Several new atoms of one old one are copies along other axes, or places of one unit that go together.
        """
        several = [(part, broadcast) for part, broadcast in parts if len(np.unique(part)) > 1]
        for part, broadcast in several:
            if not broadcast or len(np.unique(part)) == len(made):
                self.atoms.unite(made, part)
        others = [part for part, broadcast in several if broadcast and len(np.unique(part)) < len(made)]
        if others:
            self.atoms.relate(made, *others)

    def fused(self, factors: Factors) -> Tensor:
        """Return one factor in place of several."""
        whole = factors[0]
        for factor in factors[1:]:
            whole = self._product_of(whole, factor, bend=False)
        return whole

    def _single(self, factors: Factors) -> Factors:
        return [self.fused(factors)] if len(factors) > 1 else list(factors)

    def _contract(
        self,
        widen_a: Callable[[Tensor], Tensor],
        axis_a: int,
        widen_b: Callable[[Tensor], Tensor],
        axis_b: int,
        operands: Sequence[Tensor],
        result: Tensor,
        drop: Callable[[Tensor], Tensor],
    ) -> Factors:
        """Follow a sum over products: charges inside add up to one that all terms have."""
        a, b = operands
        first, second = self.factors(a), self.factors(b)
        if (not first and _zeros(a)) or (not second and _zeros(b)):
            return []
        inner_a = [f for f in first if axis_a in _support(f)]
        inner_b = [f for f in second if axis_b in _support(f)]
        outer = [drop(_expanded(widen_a(f), widen_b(b), result)) for f in first if axis_a not in _support(f)]
        outer_b = [drop(_expanded(widen_b(f), widen_a(a), result)) for f in second if axis_b not in _support(f)]
        outer = self._product(outer, outer_b, 1) if outer else outer_b
        gauge = bool(len(first) > len(inner_a) or len(second) > len(inner_b))
        if not inner_a and not inner_b:
            return outer
        wide_a, wide_b = widen_a(a), widen_b(b)
        whole = torch.broadcast_shapes(wide_a.shape, wide_b.shape)
        inner_axis = axis_a
        left = widen_a(self.fused(inner_a)).expand(whole) if inner_a else None
        right = widen_b(self.fused(inner_b)).expand(whole) if inner_b else None
        for one, other, unlabelled in ((left, right, wide_b), (right, left, wide_a)):
            if one is not None and other is None:
                fixed = self._fixed(unlabelled, {inner_axis}, one)
                if fixed:
                    other_core, one_core = _broadcast(_core(fixed[0]), _core(one))
                    x, y = _numbers(one_core, other_core)
                    self.atoms.unite(x, y, merge=False)
                self.atoms.bend(_flat(one))
        cores = [_core(side) for side in (left, right) if side is not None]
        cores = list(_broadcast(*cores))
        made = self._sum_over(cores, inner_axis, gauge)
        if made is None:
            return outer
        inner = drop(made.expand(whole)).expand(result.shape) if made.dim() else made.expand(result.shape)
        return self._product(outer, [inner], 1) if outer else [inner]

    def _sum_over(self, cores: list[Tensor], axis: int, gauge: bool) -> Tensor | None:
        """Return the atoms of a sum over one axis of products of one or two arrays of atoms."""
        flat = [core.reshape(-1).numpy() for core in cores]
        rest = [size for place, size in enumerate(cores[0].shape) if place != axis]
        alone = math.prod(rest) == 1
        if len(cores) == 2:
            a, b = pairs(*flat)
            one_to_one = len(np.unique(a)) == len(a) and len(np.unique(b)) == len(b)
            self.atoms.along(a, b, inverse=True)
            if alone:
                self.atoms.unite(a, b, merge=True)
            elif one_to_one:
                self.atoms.joined.append((a, b))
            if alone and gauge:
                self.atoms.equal(a, b, inverse=True)
                return None
        elif alone and gauge:
            self.atoms.uncharge(flat[0])
            return None
        groups = self._groups(cores, (axis,))
        spread = groups.expand(cores[0].shape).reshape(-1).numpy()
        if len(cores) == 1:
            self.atoms.equal(flat[0], spread)
            self.atoms.relate(flat[0], spread)
            return groups
        self.atoms.total(spread, flat[0], flat[1])
        if not alone:
            if one_to_one:
                self.atoms.relate(flat[0], spread)
            else:
                self.atoms.relate(flat[0], flat[1], spread)
        return groups

    def _reduce(self, name: str, args: Any, kwargs: Any, result: Any) -> Any:
        x = args[0]
        out = result[0] if isinstance(result, tuple | list) else result
        axes, keep = _reduced_axes(name, args, kwargs, x, out)
        factors: Factors = []
        inside = [f for f in self.factors(x) if set(axes) & set(_support(f))]
        for factor in self.factors(x):
            if not any(factor is f for f in inside):
                factors.append(_reduced(_core(factor).expand(x.shape), axes, keep, out))
        linear = name in ("sum", "mean", "nansum")
        if name in ("argmax", "argmin", "any", "all", "prod"):
            raise NotFollowedError("it chooses along an axis")
        if inside:
            units = self.fused(inside)
            ids = _flat(units)
            norm = name == "linalg_vector_norm" and (args[1] if len(args) > 1 else 2) == 2
            if norm or (linear and self.atoms.are_squares(ids)):
                self.atoms.normed.append(ids)
            else:
                self.atoms.bend(ids)
            if name == "logsumexp":
                self.atoms.uncharge(ids)
            if name in ("amax", "amin", "max", "min", "median"):
                self.atoms.uncharge(ids, scale=False)
            even = name in ("linalg_vector_norm", "norm")
            groups = self._gather(units, axes, signs=not even, scales=True)
            made = groups.expand([1 if axis in axes else size for axis, size in enumerate(x.shape)])
            made = made if keep else made.reshape([s for axis, s in enumerate(made.shape) if axis not in axes])
            if even:
                self.atoms.uncharge(_flat(groups), scale=False)
            factors = self._product(factors, [made.expand(out.shape)], 1)
        elif not linear:
            factors = self._single(factors)
            if name == "logsumexp":
                self._bend(factors, scale=True, sign=True)
            elif name in ("amax", "amin", "max", "min", "median"):
                self._bend(factors, sign=True)
            else:
                degree = 2.0 if name == "var" else 1.0
                factors = self._powers(factors, Behaviour(0, degree))
        if name == "var_mean":
            raise NotFollowedError("it makes a variance and a mean")
        if name in ("var", "std") and inside:
            # A variance of units lets all of them flip together, or none.
            for factor in factors:
                self.atoms.uncharge(_flat(factor))
        return factors

    def _ordered(self, name: str, args: Any, kwargs: Any, result: Any) -> Any:
        """Follow what acts along an axis: units may not lie along it, but for softmax, which only needs all of them."""
        x = args[0]
        axis = (args[2 if name == "topk" else 1] if len(args) > (2 if name == "topk" else 1) else -1) % max(x.dim(), 1)
        units = self._single(self.factors(x))
        out = result[0] if isinstance(result, tuple | list) else result
        along = axis in _support(units[0])
        if "softmax" in name:
            if along:
                self._gather(units[0], (axis,), signs=False)
            self._bend(units, scale=True, sign=True)
            return units
        if along:
            raise NotFollowedError("the order of units matters to it")
        if name == "cumsum":
            return units
        self._bend(units, sign=True, scale=name == "cumprod")
        return (([_core(unit).expand(out.shape) for unit in units]), []) if name in ("sort", "topk") else units

    def _pooled(self, name: str, x: Tensor, result: Any) -> Any:
        out = result[0] if isinstance(result, tuple | list) else result
        factors = self.factors(x)
        if any(set(_support(factor)) - {0, 1} for factor in factors):
            raise NotFollowedError("units lie along the axes over which it moves")
        factors = [_core(factor).expand(out.shape) for factor in factors]
        if name in MAXIMA:
            factors = self._single(factors)
            self._bend(factors, sign=True)
            return (factors, [])
        return factors

    def _compare(self, args: Any, result: Tensor) -> Factors:
        a, b = args[:2]
        joined = self._add(a, b, result)
        self._bend(joined, sign=True)
        return self._powers(self._single(joined), Behaviour(None, 0.0))

    # Functions of one value

    def _elementwise(self, name: str, func: Any, args: Any, kwargs: Any, result: Any, squares: bool = False) -> Factors:
        labelled = [index for index, value in enumerate(args) if isinstance(value, Tensor) and self.factors(value)]
        if (
            len(labelled) != 1
            or not isinstance(result, Tensor)
            or result.shape != args[labelled[0]].shape
            or any(self.factors(tensor) for tensor in tensors_in(kwargs))
        ):
            raise NotFollowedError("it is not known")
        place = labelled[0]
        others = [value for index, value in enumerate(args) if index != place]
        if any(tensor.numel() > 1 for tensor in tensors_in((others, kwargs))):
            raise NotFollowedError("it is not known")
        found = self._behaviour(func, args, kwargs, place)
        if found is None:
            raise NotFollowedError("it does not act on each entry alone")
        if found.linear:
            return self.factors(args[place])
        return self._powers(self._single(self.factors(args[place])), found, squares)

    def _behaviour(self, func: Any, args: Any, kwargs: Any, place: int) -> Behaviour | None:
        def numbers(value: Any) -> Any:
            return value.item() if isinstance(value, Tensor) else value

        others = [numbers(value) for index, value in enumerate(args) if index != place]
        key = (func, repr(others), repr(sorted((k, str(numbers(v))) for k, v in kwargs.items())), place)
        if key not in self._behaviours:
            name = func.overloadpacket.__name__
            outer = name.rstrip("_") if name.endswith("_") else name
            function = getattr(torch.ops.aten, outer, func.overloadpacket)

            def call(x: Tensor) -> Any:
                return function(*[x.clone() if index == place else v for index, v in enumerate(args)], **kwargs)

            self._behaviours[key] = behaviour(call)
        return self._behaviours[key]

    def _powers(self, units: Factors, found: Behaviour, squares: bool = False) -> Factors:
        """Return the factors behind a function that is odd or even, homogeneous or neither."""
        ids = _flat(units[0])
        if found.parity is None:
            self.atoms.uncharge(ids, scale=False)
        if found.degree is None:
            self.atoms.uncharge(ids, sign=False)
        if squares:
            self.atoms.normed.append(ids)
        else:
            self.atoms.bend(ids)
        if found.degree in (1, None) and found.parity != 0:
            return units
        made = self._scaled_powers(units, found.degree or 0, even=found.parity == 0)
        if squares:
            self.atoms.note_squares(_flat(made[0]))
        return made

    def _scaled_powers(self, units: Factors, power: float, even: bool = False) -> Factors:
        """Return new atoms, one for each old one, whose charges are its charges times a power."""
        if power == 1 and not even:
            return units
        core = _core(units[0])
        old, place = np.unique(core.numpy(), return_inverse=True)
        made = self.atoms.new(len(old))
        made[old == 0] = 0
        self.atoms.unite(made, old)
        nothing = np.zeros_like(old)
        self.atoms.scales.sums.append((made, old, nothing, float(power), 0.0))
        if even:
            self.atoms.signs.zero.append(made)
        else:
            self.atoms.signs.equal.append((*_without_zeros(made, old), 1))
        if not even and power != -1:
            self.atoms.bend(made)
        return [torch.from_numpy(made[place.reshape(-1)]).reshape(core.shape).expand(units[0].shape)]

    def _bend(self, factors: Factors, scale: bool = False, sign: bool = False) -> None:
        for factor in factors:
            self.atoms.bend(_flat(factor))
            self.atoms.uncharge(_flat(factor), scale=scale, sign=sign)

    def _tie(self, units: Factors, others: Factors) -> None:
        for other in others:
            a, b = _broadcast(_core(units[0]), _core(other))
            left, right = _numbers(a, b)
            if len(np.unique(right)) > 1:
                self.atoms.unite(left, right, merge=False)

    def _wide(self, value: Any, dims: int) -> Factors:
        """Return a value's factors with axes of size 1 in front, as broadcasting puts them."""
        return [f.reshape(*[1] * (dims - f.dim()), *f.shape) if f.dim() < dims else f for f in self.factors(value)]


def _broadcast(*tensors: Tensor) -> tuple[Tensor, ...]:
    return tuple(torch.broadcast_tensors(*tensors))


def _put(other: Tensor, axis: int) -> Callable[[Tensor], Tensor]:
    return partial(torch.unsqueeze, dim=axis)


def _forget(tensor: Tensor) -> None:
    if hasattr(tensor, "_factors"):
        del tensor._factors


def _is_part(tensor: Any) -> bool:
    """Return whether a tensor is a part of a larger one that other names may show."""
    if not isinstance(tensor, Tensor) or tensor.layout != torch.strided:
        return False
    return tensor.untyped_storage().nbytes() > tensor.numel() * tensor.element_size() and tensor.numel() > 1


def _support(factor: Tensor) -> tuple[int, ...]:
    """Return the axes along which an array of atoms tells entries apart."""
    return tuple(
        a for a, (size, step) in enumerate(zip(factor.shape, factor.stride(), strict=True)) if step and size > 1
    )


def _core(factor: Tensor) -> Tensor:
    """Return an array of atoms with size 1 along the axes that it does not tell apart."""
    for axis, (size, step) in enumerate(zip(factor.shape, factor.stride(), strict=True)):
        if size > 1 and not step:
            factor = factor.narrow(axis, 0, 1)
    return factor


def _tidy(factor: Tensor) -> Tensor:
    """Return an array of atoms with stride 0 along all axes that it does not tell apart."""
    core = _core(factor)
    for axis in _support(core):
        first = core.narrow(axis, 0, 1)
        if bool((core.narrow(axis, core.shape[axis] - 1, 1) == first).all()) and bool((core == first).all()):
            core = first
    return core.expand(factor.shape)


def _flat(factor: Tensor) -> Ids:
    """Return the different atoms of an array."""
    return np.unique(_core(factor).numpy())


def _numbers(a: Tensor, b: Tensor) -> tuple[Ids, Ids]:
    """Return two arrays of atoms of one shape as vectors."""
    return a.reshape(-1).numpy(), b.reshape(-1).numpy()


def _without_zeros(a: Ids, b: Ids) -> tuple[Ids, Ids]:
    kept = (a != 0) & (b != 0)
    return a[kept], b[kept]


def _along(atoms: Ids, axis: int, shape: Sequence[int]) -> Tensor:
    """Return atoms along one axis as an array of a shape."""
    return torch.from_numpy(atoms).reshape([-1 if place == axis else 1 for place in range(len(shape))]).expand(shape)


def _along_factor(factor: Tensor, axis: int, shape: Sequence[int]) -> Tensor:
    """Return what lies along the last axis of an array along another axis of a shape."""
    core = _core(factor)
    if core.numel() not in (1, shape[axis]):
        raise NotFollowedError("units lie along the axes over which it moves")
    return core.reshape([-1 if place == axis else 1 for place in range(len(shape))]).expand(tuple(shape))


def _ahead(factor: Tensor, result: Tensor) -> torch.Size:
    return result.shape


def _spread_shape(factor: Tensor, shape: Sequence[int]) -> list[int]:
    own = _support(factor)
    return [factor.shape[axis] if axis in own else size for axis, size in enumerate(shape)]


def _expanded(wide: Tensor, other: Tensor, result: Tensor) -> Tensor:
    return _core(wide).expand(torch.broadcast_shapes(wide.shape, other.shape))


def _zeros(value: Any) -> bool:
    """Return whether a number or all entries of a tensor are 0."""
    if not isinstance(value, Tensor):
        return bool(value == 0)
    flat = value.reshape(-1)
    return not bool(flat[:1].any()) and not bool(flat.any())


def _uniform(value: Tensor, axis: int) -> bool:
    """Return whether a tensor has the same values all along an axis."""
    if value.shape[axis] == 1 or value.stride(axis) == 0:
        return True
    first = value.narrow(axis, 0, 1)
    if not torch.equal(first, value.narrow(axis, 1, 1)):
        return False
    return bool((value == first).all())


def _reduced_axes(name: str, args: Any, kwargs: Any, x: Tensor, out: Tensor) -> tuple[tuple[int, ...], bool]:
    """Return over which axes a reduction goes, and whether it keeps them with size 1."""
    place = 2 if name in ("linalg_vector_norm", "norm") else 1
    dims = args[place] if len(args) > place else kwargs.get("dim")
    if dims is None or dims == [] or isinstance(dims, bool):
        return tuple(range(x.dim())), out.dim() == x.dim() and x.dim() > 0
    axes = tuple(dim % x.dim() for dim in (dims if isinstance(dims, list | tuple) else [dims]))
    return axes, out.dim() == x.dim()


def _reduced(factor: Tensor, axes: Sequence[int], keep: bool, out: Tensor) -> Tensor:
    small = factor
    for axis in sorted(axes, reverse=True):
        small = small.narrow(axis, 0, 1) if keep else small.select(axis, 0)
    return _core(small).expand(out.shape)


def axes_of(factors: Factors) -> list[tuple[tuple[int, ...], Ids]]:
    """Return for each factor of a parameter the axes along which it tells entries apart, and the atoms along them."""
    return [(_support(factor) or (0,), _core(factor).reshape(-1).numpy()) for factor in factors]
