"""Follow one forward pass, operation by operation, and note what each ties.

It stands below PyTorch's composite functions: layers, attention and recurrent cells reach it as some hundred plain
operations (``aten``). Each value carries *factors*: arrays of atoms, of the value's own shape, with stride 0 along axes
that they do not tell apart. What lies at an entry has the charge of all its factors together. Operations that only
move entries are carried out on the factors themselves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from mirrorsym.symmetries.double import in_double
from mirrorsym.symmetries.factors import (
    NotFollowedError,
    flat,
    forget,
    is_part,
    is_zero,
    tidy,
)
from mirrorsym.symmetries.functions import ALONG_AN_AXIS, COMPARISONS, POOLS, REDUCTIONS, Functions
from mirrorsym.symmetries.layers import Layers
from mirrorsym.symmetries.moves import COPIES, MOVES, RESHAPES, VIEWS, Moves
from mirrorsym.symmetries.tensors import tensors_in

ADDITIONS = {"add", "sub", "rsub", "lerp"}

EXTREMA = {"maximum", "minimum", "fmax", "fmin"}

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


@dataclass(frozen=True)
class Unfollowed:
    """An operation that was not understood: what goes in and comes out is taken to have no symmetry.

    Args:
        module: the name of the module in which it was met, empty for the model itself.
        operation: its name in PyTorch, or that of a buffer.
        why: one sentence.
    """

    module: str
    operation: str
    why: str


class Follower(Moves, Layers, Functions, TorchDispatchMode):
    """Notes, while a model runs in double precision, what its operations tie.

    Args:
        model: the model, whose modules' names tell where an operation was met.
        tensors: its parameters and buffers by name, those with which it runs.
        moving: the names of what moves with its units: the parameters, and buffers that each forward writes anew. Those
            of batch normalizations do so in any case; others are constants.
    """

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # which would import the compiler, for a second

    def __init__(self, model: nn.Module, tensors: Mapping[str, Tensor], moving: Sequence[str]) -> None:
        TorchDispatchMode.__init__(self)  # type: ignore[no-untyped-call]
        Layers.__init__(self, {id(tensor): name for name, tensor in tensors.items()}, moving)
        self._buffers = {
            tensor.untyped_storage().data_ptr(): name for name, tensor in tensors.items() if name not in moving
        }
        self.unfollowed: dict[Unfollowed, None] = {}
        self._modules = {id(module): name for name, module in model.named_modules()}
        self._inside: list[str] = []
        self._behaviours = {}
        self._hooks: list[Any] = []
        self._written: dict[int, tuple[Any, Tensor, Tensor]] = {}

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
        if torch.Tag.nondeterministic_seeded in func.tags and "rrelu" not in name:
            self._say(name, "what it draws is held, so that units of which each meets a number of its own keep places")
        labelled = [tensor for tensor in given if self.factors(tensor)]
        if not labelled:
            return func(*args, **kwargs)
        part = in_place and is_part(args[0])
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
                forget(tensor)
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
            atoms.as_strided(*place).fill_(0 if is_zero(part) else int(self._one[0]))
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
        old = self.fused(factors) if factors else torch.zeros(()).long() if is_zero(tensor[times <= seen]) else None
        if old is None:
            self._hold(tensor)
            old = torch.from_numpy(self._one).reshape(())
        tensor._factors = [tidy(torch.where(times > seen, new, old))]  # type: ignore[attr-defined]
        tensor._seen = self._clock  # type: ignore[attr-defined]

    def end(self, outputs: Any) -> None:
        """Fix what goes out of the model."""
        for tensor in tensors_in(outputs):
            self._arrive(tensor)
            factors = self.factors(tensor)
            if factors:
                self.atoms.fix(flat(self.fused(factors)))

    def _give_up(self, name: str, tensors: Sequence[Tensor], why: str) -> None:
        self._say(name, why)
        for tensor in tensors:
            for factor in self.factors(tensor):
                self.atoms.fix(flat(factor))

    def _hold(self, constant: Tensor) -> None:
        """Say of a buffer that it is a constant, and that units which meet its values keep their places."""
        name = self._buffers.get(constant.untyped_storage().data_ptr())
        if name is not None and name not in self._movable:
            self._say(name, "this buffer is held, so that units of which each meets a value of its own keep places")

    def _say(self, name: str, why: str) -> None:
        self.unfollowed.setdefault(Unfollowed(self._inside[-1] if self._inside else "", name, why))

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
