"""What a model is run on: the batch, other inputs in its range, and how far two sets of outputs are apart."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from mirrorsym.running import arguments
from mirrorsym.symmetries.tensors import tensors_in


@dataclass(frozen=True)
class Inputs:
    """What a forward takes, by place and by name."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    @classmethod
    def of(cls, batch: Any) -> Inputs:
        """Return the inputs that a batch stands for: one, several by place, or a mapping by name."""
        return cls(*arguments(batch))

    def run(self, model: nn.Module) -> list[Tensor]:
        """Return all floating-point outputs of a model."""
        outputs = [tensor for tensor in tensors_in(model(*self.args, **self.kwargs)) if tensor.is_floating_point()]
        if not outputs:
            raise ValueError(
                f"{type(model).__name__} returns no floating-point numbers to compare; wrap it so that it does"
            )
        return outputs

    def redrawn(self, seed: int, spread: float = 1.0) -> Inputs:
        """Return inputs of the same shapes in the same range.

        Numbers are normal, with the batch's mean and standard deviation at each place, between its extremes; integers
        are the batch's own in another order; flags stay.

        Args:
            seed: of the numbers.
            spread: multiplies the standard deviation; where it is not 1 there are no extremes.
        """
        generator = torch.Generator().manual_seed(seed)

        def draw(value: Any) -> Any:
            if not isinstance(value, Tensor) or value.dtype == torch.bool or not value.numel():
                return value
            if value.is_floating_point():
                single = value.dim() == 0 or len(value) == 1
                deviation = value.float().std(correction=0) if single else value.float().std(0, correction=0)
                middle = value.float().mean() if single else value.float().mean(0)
                noise = torch.randn(value.shape, generator=generator).to(value.device)
                drawn = (middle + spread * deviation * noise).to(value.dtype)
                return drawn.clamp(value.min(), value.max()) if spread == 1 else drawn
            order = torch.randperm(value.numel(), generator=generator).to(value.device)
            return value.reshape(-1)[order].reshape(value.shape)

        return Inputs(tree_map(draw, self.args), tree_map(draw, dict(self.kwargs)))


def outputs_of(model: nn.Module, inputs: Sequence[Inputs]) -> list[list[Tensor]]:
    """Return the outputs of a model on several inputs."""
    with torch.no_grad(), plain_attention():
        return [one.run(model) for one in inputs]


def distance(outputs: Sequence[Sequence[Tensor]], others: Sequence[Sequence[Tensor]]) -> float:
    """Return the largest change of an output, relative to the root mean square of the first ones.

    It is infinite where shapes differ.
    """
    largest = 0.0
    for before, after in zip(outputs, others, strict=True):
        for a, b in zip(before, after, strict=True):
            if a.shape != b.shape:
                return math.inf
            if a.numel():
                change = torch.nan_to_num(a.double() - b.double(), nan=0.0, posinf=0.0, neginf=0.0)
                change = torch.where(a == b, torch.zeros_like(change), change)
                if bool((a.isnan() != b.isnan()).any()):
                    return math.inf
                finite = a.double()[a.isfinite()]
                size = float(finite.square().mean().sqrt()) if finite.numel() else 0.0
                largest = max(largest, float(change.abs().max()) / max(size, torch.finfo(torch.double).tiny))
    return largest


@contextmanager
def plain_attention() -> Iterator[None]:
    """Let transformers' layers call their parts, so that what these read is seen."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
