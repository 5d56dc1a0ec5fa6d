"""Torch-Pruning, at a number of parameters that is given."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn


def pruned(model: nn.Module, inputs: Tensor, parameters: int, outputs: nn.Module) -> nn.Module:
    """Return a model pruned by Torch-Pruning's group magnitudes over the whole network, without fine-tuning.

    Args:
        model: any; it is left as it is.
        inputs: a batch, shape (samples, …).
        parameters: so many are left at most; the ratio is searched for.
        outputs: the layer that has to keep its outputs.
    """
    place = next(name for name, module in model.named_modules() if module is outputs)
    low, high, best = 0.0, 1.0, copy.deepcopy(model)
    for _ in range(8):
        ratio = (low + high) / 2
        trial = copy.deepcopy(model)
        _prune(trial, inputs, ratio, trial.get_submodule(place))
        if sum(p.numel() for p in trial.parameters()) <= parameters:
            high, best = ratio, trial
        else:
            low = ratio
    return best


def _prune(model: nn.Module, inputs: Tensor, ratio: float, outputs: nn.Module) -> None:
    import torch_pruning

    heads: dict[nn.Module, int] = {}
    for module in model.modules():
        if isinstance(module, nn.MultiheadAttention):
            heads[module] = module.num_heads
        elif hasattr(module, "heads") and hasattr(module, "query"):
            heads |= dict.fromkeys((module.query, module.key, module.value), module.heads)
    options: dict[str, Any] = {"num_heads": heads, "prune_num_heads": False, "prune_head_dims": True} if heads else {}
    pruner = torch_pruning.MagnitudePruner(
        model, inputs, importance=torch_pruning.importance.GroupMagnitudeImportance(p=2), global_pruning=True,
        pruning_ratio=ratio, max_pruning_ratio=0.99, ignored_layers=[outputs], **options,
    )  # fmt: skip
    pruner.step()
    torch.nn.Module.eval(model)
