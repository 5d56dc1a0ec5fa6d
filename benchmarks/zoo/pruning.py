"""The groups of channels that Torch-Pruning finds, as exchanges of two units that can be tried.

It is run in a process of its own with a time limit, since on some networks it fails or does not come to an end.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.zoo.child import ChildError, in_child
from benchmarks.zoo.living import tensors_in
from benchmarks.zoo.models import Entry

State = Mapping[str, Tensor]
Swap = tuple[str, tuple[int, ...], tuple[int, ...]]
"""A parameter or buffer, and its entries, counted over the flat tensor, that change places."""


@dataclass(frozen=True)
class Exchange:
    """Two units of a group, and what changes places when they do, step by step."""

    group: str
    units: tuple[int, int]
    swaps: list[Swap]

    def apply(self, state: State) -> dict[str, Tensor]:
        result = dict(state)
        for name, first, second in self.swaps:
            flat = result[name].clone()
            values = flat.view(-1)
            values[[*first, *second]] = values[[*second, *first]]
            result[name] = flat
        return result


def exchanges(entry: Entry, seconds: float = 60) -> list[Exchange] | str:
    """Return two exchanges of each group (next to each other, first and last), or why there are none."""
    try:
        found: list[Exchange] = in_child(lambda: list(find(*entry.make())), seconds)
    except (TimeoutError, ChildError) as error:
        return str(error).partition(":")[0]
    return found


def find(model: nn.Module, inputs: tuple[Any, ...], keywords: Mapping[str, Any]) -> Iterator[Exchange]:
    """Yield exchanges of Torch-Pruning's groups."""
    import torch_pruning

    names = {module: name for name, module in model.named_modules()}
    # Tied parameters are known by their first name.
    tensors = {id(tensor): name for name, tensor in [*model.named_parameters(), *model.named_buffers()]}
    graph = torch_pruning.DependencyGraph()
    graph.build_dependency(
        model, inputs, forward_fn=lambda model, inputs: model(*inputs, **keywords),
        output_transform=lambda output: [t for t in tensors_in(output) if t.grad_fn is not None], verbose=False,
    )  # fmt: skip
    for group in graph.get_all_groups():
        module, prune, units = group[0].dep.target.module, group[0].dep.handler, len(group[0].idxs)
        for pair in sorted({(0, 1), (0, units - 1)}) if units > 1 else ():
            parts = [_parts(graph.get_pruning_group(module, prune, [unit]), names, tensors) for unit in pair]
            parts = [list(dict.fromkeys(part)) for part in parts]
            shapes = [[(name, len(entries)) for name, entries in part] for part in parts]
            if shapes[0] == shapes[1]:  # else the units are of different kinds, as means and variances are
                swaps = [(name, first, second) for (name, first), (_, second) in zip(*parts, strict=True)]
                yield Exchange(names[module], pair, swaps)


def _parts(group: Any, names: Mapping[nn.Module, str], tensors: Mapping[int, str]) -> list[tuple[str, tuple[int, ...]]]:
    """Return which entries of which tensors pruning removes: seen by pruning copies whose entries are their numbers."""
    found = []
    for dep, indices in group:
        target = dep.target.module
        if isinstance(target, nn.Parameter):
            numbers = nn.Parameter(torch.arange(target.numel(), dtype=torch.double).reshape(target.shape))
            left = _prune(dep, numbers, indices)
            found.append((tensors[id(target)], _removed(numbers, left)))
        elif target in names:
            numbered = copy.deepcopy(target)
            with torch.no_grad():
                for tensor in [*numbered.parameters(), *numbered.buffers()]:
                    tensor.data = torch.arange(tensor.numel(), dtype=torch.double).reshape(tensor.shape)
            before = _tensors(numbered)
            after = _tensors(_prune(dep, numbered, indices))
            own = {name: tensors[id(tensor)] for name, tensor in _tensors(target).items()}
            found += [
                (own[name], _removed(before[name], after[name]))
                for name in own
                if before[name].numel() != after[name].numel()
            ]
    return found


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def _prune(dep: Any, target: Any, indices: list[int]) -> Any:
    prune: Callable[[Any, list[int]], Any] = dep.handler
    dep.handler.__self__.pruning_dim = dep.target.pruning_dim
    return prune(target, list(indices))


def _removed(before: Tensor, after: Tensor) -> tuple[int, ...]:
    removed = torch.ones(before.numel(), dtype=torch.bool)
    removed[after.detach().reshape(-1).long()] = False
    return tuple(removed.nonzero()[:, 0].tolist())
