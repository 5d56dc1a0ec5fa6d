"""A model beside itself: it runs in double precision and evaluation mode, at any parameters, and is left as it was."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.parameter import is_lazy
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from mirrorsym.symmetries.double import Double, Separately
from mirrorsym.symmetries.names import plain
from mirrorsym.symmetries.tensors import tensors_in

Module = TypeVar("Module", bound=nn.Module)
LARGEST = 1e30
"""An output of this size or more is a mask, not a number."""


class Twin:
    """Runs a model at parameters that are not its own.

    Args:
        model: any module, which stays as it is.
        args: what its forward takes.
        kwargs: what it takes by name.

    Raises:
        ValueError: if it cannot be followed: lazy, traced, scripted or complex, or without floating-point outputs.
    """

    def __init__(self, model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        model = unwrapped(model)
        _require_followed(model)
        self.model = model
        self.own: dict[str, Tensor] = {name: p.detach() for name, p in model.named_parameters()}
        self.trained = list(self.own)
        self._trained = set(self.trained)
        self.own |= {name: b.detach() for name, b in model.named_buffers()}
        self.args, self.kwargs = tree_map(_wide, args), tree_map(_wide, dict(kwargs))

    def name_of(self, name: str) -> str:
        """Return the model's name of a parameter.

        Raises:
            ValueError: if it has none.
        """
        names = {plain(own): own for own in self.own}
        for other, tensor in (*self.model.named_parameters(remove_duplicate=False), *self.model.named_buffers()):
            names.setdefault(plain(other), next((n for n, own in self.own.items() if own is tensor), other))
            if plain(other) not in names or other in self.own:
                continue
            for own, kept in self.own.items():
                if kept.data_ptr() == tensor.data_ptr() and kept.shape == tensor.shape:
                    names[plain(other)] = own
        if plain(name) not in names:
            raise ValueError(f"the model has no parameter {name!r}; model.named_parameters() has their names")
        return names[plain(name)]

    def run(
        self,
        tensors: Mapping[str, Tensor],
        mode: TorchDispatchMode | None = None,
        standardizing: bool = False,
        then: Callable[[Any], Any] = lambda outputs: outputs,
    ) -> Any:
        """Return the model's outputs at other parameters and buffers, in double precision.

        What its forward draws at random is the same each time.

        Args:
            tensors: the parameters and buffers.
            mode: sees the operations.
            standardizing: True to let batch normalizations take the batch's statistics, as in training.
            then: what is returned, a function of the outputs; called while the model has these parameters, which a
                checkpoint needs that runs parts of the model again in its backward pass.
        """
        state = {f"model.{name}": tensor for name, tensor in tensors.items()}
        with (
            _as_it_was(self.model, standardizing),
            _plain_operations(),
            torch.random.fork_rng(devices=[]),
            mode or Double(),  # type: ignore[no-untyped-call]
        ):
            torch.manual_seed(0)
            return torch.func.functional_call(_Then(self.model, then), state, self.args, self.kwargs)

    def with_own_buffers(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the tensors, with copies of the buffers, into which a forward may write."""
        return {name: tensor if name in self._trained else tensor.clone() for name, tensor in tensors.items()}

    def values(self, outputs: Any) -> list[Tensor]:
        """Return all floating-point outputs.

        Raises:
            ValueError: if there are none.
        """
        found = [torch.view_as_real(t) if t.is_complex() else t for t in tensors_in(outputs)]
        found = [tensor for tensor in found if tensor.is_floating_point() and tensor.numel()]
        if not found:
            raise ValueError(
                f"{type(self.model).__name__} returns no floating-point numbers to compare; wrap it so that it returns "
                "what its loss is made of, such as the logits in place of their argmax"
            )
        return found


class _Then(nn.Module):
    """A model, and a function of its outputs."""

    def __init__(self, model: nn.Module, then: Callable[[Any], Any]) -> None:
        super().__init__()
        self.model, self.then = model, then

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.then(self.model(*args, **kwargs))


def copied(model: Module) -> Module:
    """Return a deep copy, of models too that keep tensors with a history, which ``copy.deepcopy`` refuses.

    An LSTM under a parametrization keeps those of its last call, the old ``weight_norm`` its weight.
    """
    memo: dict[int, Any] = {}
    for part in model.modules():
        for kept in vars(part).values():
            for one in kept if isinstance(kept, list) else [kept]:
                if isinstance(one, Tensor) and not one.is_leaf:
                    memo[id(one)] = one.detach().clone()
    return copy.deepcopy(model, memo)


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the model inside of what ``torch.compile`` and ``DataParallel`` make of it."""
    while isinstance(inner := getattr(model, "_orig_mod", None), nn.Module) or (
        isinstance(model, nn.DataParallel) and isinstance(inner := model.module, nn.Module)
    ):
        model = inner
    return model


def _require_followed(model: nn.Module) -> None:
    name = type(model).__name__
    if any(isinstance(part, torch.jit.ScriptModule) for part in model.modules()):
        raise ValueError(f"{name} is traced or scripted; pass the module that it was made from")
    for parameter, tensor in (*model.named_parameters(), *model.named_buffers()):
        if is_lazy(tensor):
            raise ValueError(f"{parameter} has no shape yet: run {name} once before its symmetries are looked for")
        if tensor.is_meta:
            raise ValueError(f"{parameter} of {name} is on the meta device and has no values; to_empty gives it some")
        if tensor.is_complex():
            raise ValueError(f"{parameter} of {name} is complex; symmetries are found for real parameters only")


def _wide(value: Any) -> Any:
    if not isinstance(value, Tensor):
        return value
    value = value.detach().cpu()
    return value.double() if value.is_floating_point() else value


@contextmanager
def _plain_operations() -> Iterator[None]:
    """Let attention and transformers be made of plain operations, and new tensors be in double precision."""
    default, fast = torch.get_default_dtype(), torch.backends.mha.get_fastpath_enabled()
    torch.set_default_dtype(torch.double)
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH), Separately():
            yield
    finally:
        torch.set_default_dtype(default)
        torch.backends.mha.set_fastpath_enabled(fast)


@contextmanager
def _as_it_was(model: nn.Module, standardizing: bool) -> Iterator[None]:
    """Put the model in evaluation mode, and afterwards give all modules their attributes and tensors back.

    ``functional_call`` gives a module that the model has in two places the other parameters back, not its own.
    """
    before = [(m, dict(m.__dict__), dict(m._buffers), dict(m._parameters)) for m in model.modules()]
    for module, *_ in before:
        module.training = standardizing and isinstance(module, nn.modules.batchnorm._BatchNorm)
    try:
        yield
    finally:
        for module, attributes, buffers, parameters in before:
            for name in set(module.__dict__) - set(attributes):
                del module.__dict__[name]
            module.__dict__.update(attributes)
            module._buffers.clear()
            module._buffers.update(buffers)
            module._parameters.update(parameters)
