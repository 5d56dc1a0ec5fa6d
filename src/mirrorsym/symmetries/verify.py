"""Whether a transformation is a symmetry: outputs in double precision, at random parameters, before and after it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from mirrorsym.symmetries.symmetry import State, Symmetry

TOLERANCE = 1e-10
"""Relative change of the outputs, in double precision, up to which a candidate counts as a symmetry."""


def holds(model: nn.Module, symmetry: Symmetry, *inputs: Tensor) -> bool:
    """Return whether a transformation leaves the model's outputs unchanged, at random parameters.

    Args:
        model: any module. It is copied, and left as it is.
        symmetry: what to check, for instance one written down by hand.
        *inputs: what the model's forward takes.

    Raises:
        ValueError: if the model has no such parameters.
    """
    twin, arguments = twin_of(model, inputs)
    missing = {slot.name for slot in symmetry.slots} - set(twin.state_dict())
    if missing:
        raise ValueError(f"the model has no parameter {min(missing)!r}; model.named_parameters() has their names")
    randomize(twin)
    return invariance(twin, arguments)(symmetry)


def twin_of(model: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """Return a copy of the model, and inputs for it, in double precision and evaluation mode."""
    arguments = tuple(x.detach().double() if x.is_floating_point() else x for x in inputs)
    return copy.deepcopy(model).double().eval(), arguments


@torch.no_grad()
def randomize(model: nn.Module) -> None:
    """Give the model generic parameters: at collapsed ones more transformations than the symmetries change nothing."""
    rng = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        fan_in = parameter[0].numel() if parameter.dim() > 1 else 4
        parameter.copy_(torch.randn(parameter.shape, generator=rng, dtype=torch.double) / fan_in**0.5)
    for name, buffer in model.named_buffers():
        if name.endswith("running_mean"):
            buffer.copy_(torch.randn(buffer.shape, generator=rng, dtype=torch.double) / 10)
        elif name.endswith("running_var"):
            buffer.copy_(torch.rand(buffer.shape, generator=rng, dtype=torch.double) + 0.5)


@torch.no_grad()
def invariance(model: nn.Module, inputs: tuple[Tensor, ...]) -> Callable[[Symmetry], bool]:
    """Return a function that says whether a transformation leaves the outputs unchanged."""
    state = dict(model.state_dict())
    reference = outputs(model, state, inputs)

    @torch.no_grad()
    def unchanged(symmetry: Symmetry) -> bool:
        matrix = symmetry.sample()
        if not _close(outputs(model, symmetry.transform(state, matrix), inputs), reference):
            return False
        # A layer whose parameters may change in any way and nothing happens, such as an unused one, is no finding.
        part = replace(symmetry, slots=symmetry.slots[:1])
        return not _close(outputs(model, part.transform(state, matrix), inputs), reference)

    return unchanged


def outputs(model: nn.Module, state: State, inputs: tuple[Tensor, ...]) -> Tensor:
    """Return all floating-point outputs as one vector."""
    results = torch.func.functional_call(model, dict(state), inputs)
    return torch.cat([out.reshape(-1) for out in tensors_in(results) if out.is_floating_point()])


def _close(a: Tensor, b: Tensor) -> bool:
    return bool((a - b).norm() <= TOLERANCE * b.norm())


def tensors_in(value: Any) -> Iterator[Tensor]:
    """Yield the tensors in nested containers."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from tensors_in(part)
    elif isinstance(value, tuple | list):
        for part in value:
            yield from tensors_in(part)
