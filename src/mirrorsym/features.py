"""What enters the layers of a network on a batch: dead and dormant units, and the rank of the features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mirrorsym.running import evaluating

DORMANT = 0.025
"""A unit whose mean magnitude is at most this share of its layer's mean is dormant (Sokar et al. 2023)."""
POINTS = 2048
"""At most so many data points (pictures by places, sequences by tokens) of a batch are looked at."""
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


@torch.no_grad()
def entering(model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return what enters each linear and convolutional layer but the data, in evaluation mode.

    The model keeps its mode, its buffers and the state of the random numbers.

    Args:
        model: the model.
        args: what its forward takes by place.
        kwargs: what it takes by name.

    Returns:
        By the layer's name, shape (points, units).
    """
    found: dict[str, Tensor] = {}
    data = {value.data_ptr() for value in (*args, *kwargs.values()) if isinstance(value, Tensor)}

    def keep(name: str, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        if name in found or not inputs or not isinstance(inputs[0], Tensor) or inputs[0].numel() == 0:
            return  # an expert to which no token of the batch was sent
        if inputs[0].data_ptr() not in data:
            rows = inputs[0].movedim(1, -1) if isinstance(module, CONVOLUTIONS) else inputs[0]
            rows = rows.flatten(0, -2) if rows.dim() > 1 else rows[None]
            found[name] = rows[:: -(-len(rows) // POINTS)].double()

    buffers = [
        (module, name, b, b.clone())
        for module in model.modules()
        for name, b in module._buffers.items()
        if b is not None
    ]
    hooks = [
        module.register_forward_pre_hook(lambda module, inputs, name=name: keep(name, module, inputs))
        for name, module in model.named_modules()
        if isinstance(module, (nn.Linear, *CONVOLUTIONS))
    ]
    try:
        with evaluating(model), torch.random.fork_rng(devices=[]):
            model(*args, **kwargs)
    finally:
        for hook in hooks:
            hook.remove()
        for module, name, buffer, value in buffers:
            module._buffers[name] = buffer.copy_(value)
    return found


def counts(rows: Tensor) -> dict[str, float]:
    """Return how many units there are, how many are 0 at every point, how many are dormant.

    Args:
        rows: shape (points, units).
    """
    size = rows.abs().mean(dim=0)
    return {
        "units": float(rows.shape[1]),
        "dead_units": float((rows == 0).all(dim=0).sum()),
        "dormant_units": float((size <= DORMANT * size.mean()).sum()),
    }
