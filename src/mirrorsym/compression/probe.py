"""What the modules that read units are given: on the batch, and on inputs that lie far from it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mirrorsym.compression.inputs import Inputs, plain_attention

ROWS = 1024
"""So many rows of what a module reads are kept of each run."""
FAR = 3.0
"""Far inputs are normal with so many times the root mean square of what the module is given on the batch."""
VERY_FAR = 1e4
"""And then with so many times it, where a unit's bias plays no part: what is given is divided by this again."""


def reading_axis(module: nn.Module) -> int | None:
    """Return the axis of a module's weight that reads, for those that multiply what they read by it; else None."""
    if isinstance(module, nn.Linear):
        return 1
    if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        return 1 if module.groups == 1 else None
    if isinstance(module, nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d):
        return 0 if module.groups == 1 else None
    return 0 if type(module).__name__ == "Conv1D" and hasattr(module, "nf") else None  # transformers' GPT-2


def unit_axis(module: nn.Module) -> int:
    """Return the axis of a module's input along which the units lie, counted from the end."""
    kernel = getattr(module, "kernel_size", None)
    return -1 if not isinstance(kernel, tuple) else -1 - len(kernel)


def is_rms_norm(module: nn.Module) -> bool:
    """Return whether a module divides by the root mean square along its last axis and does not centre."""
    return "RMSNorm" in type(module).__name__


@dataclass(frozen=True)
class Reading:
    """What one module reads, by feature.

    Args:
        rows: samples of it, near and far, shape (rows, features), in double precision.
        lowest: the smallest value of each feature, near and far, shape (features,).
        highest: the largest.
        slope: the difference of the largest and the smallest very far off, over how far that is, shape (features,).
        sensitivity: how much the outputs change at most when a feature changes by one at all places, to first order,
            relative to the outputs' root mean square; shape (features,).
    """

    rows: Tensor
    lowest: Tensor
    highest: Tensor
    slope: Tensor
    sensitivity: Tensor


def observe(model: nn.Module, inputs: Sequence[Inputs]) -> dict[str, Reading]:
    """Return what each module reads that multiplies it by a weight, or divides it by its root mean square.

    The model runs on the inputs, and then with each such module fed with noise, so that a unit that is zero, constant
    or a copy on the batch alone is told from one that is so for all inputs.

    Args:
        model: in evaluation mode.
        inputs: the first are the batch. Those after it may be wider than the batch: what is dead on it can be alive.

    Returns:
        By the module's name. Those are missing that nothing was given to, such as an expert to which no token was sent.
    """
    readers = {n: m for n, m in model.named_modules() if reading_axis(m) is not None or is_rms_norm(m)}
    observer = _Observer(readers)
    with plain_attention():
        for one in inputs:
            observer.near(model, one)
        for seed, distance in enumerate((FAR, FAR, VERY_FAR)):
            observer.far(model, inputs[0], seed, distance)
    return {name: observer.reading(name) for name in readers if observer.was_used(name)}


class _Observer:
    def __init__(self, readers: Mapping[str, nn.Module]) -> None:
        self.readers = readers
        self.rows: dict[str, list[Tensor]] = {name: [] for name in readers}
        self._extremes: dict[str, list[tuple[Tensor, Tensor]]] = {name: [] for name in readers}
        self._slope: dict[str, Tensor] = {}
        self._sensitivity: dict[str, list[Tensor]] = {name: [] for name in readers}
        self._size: dict[str, Tensor] = {}
        self._output_sizes: list[Tensor] = []

    def was_used(self, name: str) -> bool:
        """Return whether a module was given anything on the inputs themselves."""
        return bool(self._sensitivity[name])

    def reading(self, name: str) -> Reading:
        low = torch.stack([low for low, _ in self._extremes[name]]).amin(0)
        high = torch.stack([high for _, high in self._extremes[name]]).amax(0)
        slope = self._slope.get(name, torch.zeros_like(low))
        return Reading(torch.cat(self.rows[name]), low, high, slope, torch.stack(self._sensitivity[name]).amax(0))

    def near(self, model: nn.Module, inputs: Inputs) -> None:
        """Run the model as it is, and measure how its outputs depend on what its modules read."""
        moved: list[tuple[str, Tensor]] = []

        def hook(name: str, value: Tensor) -> Tensor:
            self._note(name, value)
            if name not in self._size:
                self._size[name] = value.detach().square().mean().sqrt()
            step = torch.zeros_like(value, requires_grad=True)
            moved.append((name, step))
            return value + step

        with torch.enable_grad(), self._hooked(hook):
            outputs = inputs.run(model)
            generator = torch.Generator().manual_seed(0)
            total = torch.zeros(())
            finite = [torch.where(output.isfinite(), output, torch.zeros_like(output)) for output in outputs]
            if not self._output_sizes:
                self._output_sizes = [output.detach().square().mean().sqrt().clamp_min(1e-30) for output in finite]
            for output, size in zip(finite, self._output_sizes, strict=True):
                signs = torch.randn(output.shape, generator=generator).sign().to(output)
                total = total.to(output) + (signs * output).sum() / size
        steps = [step for _, step in moved]
        gradients = (
            torch.autograd.grad(total, steps, allow_unused=True)
            if total.requires_grad and steps
            else [None] * len(steps)
        )
        sums: dict[str, Tensor] = {}
        for (name, step), gradient in zip(moved, gradients, strict=True):
            along = _features(self.readers[name], (step if gradient is None else gradient).detach().double().abs())
            sums[name] = sums.get(name, 0) + along.reshape(len(along), -1, along.shape[-1]).sum(1).amax(0)
        for name, sensitivity in sums.items():
            self._sensitivity[name].append(sensitivity)

    def far(self, model: nn.Module, inputs: Inputs, seed: int, distance: float) -> None:
        """Run the model with noise in place of what its modules read."""
        generator = torch.Generator().manual_seed(seed)

        def hook(name: str, value: Tensor) -> Tensor:
            self._note(name, value, distance if distance > FAR else None)
            if is_rms_norm(self.readers[name]):  # what is zero before a norm is zero behind it: let it be seen
                return value
            noise = torch.randn(value.shape, generator=generator).to(value)
            return distance * self._size.get(name, torch.ones(())).to(value) * noise

        with torch.no_grad(), self._hooked(hook), _other_words(model, generator):
            inputs.run(model)

    def _note(self, name: str, value: Tensor, distance: float | None = None) -> None:
        features = _features(self.readers[name], value.detach()).flatten(0, -2)
        low, high = features.amin(0).double(), features.amax(0).double()
        if distance is None:
            self._extremes[name].append((low, high))
        else:
            self._slope[name] = torch.maximum((high - low) / distance, self._slope.get(name, torch.zeros_like(low)))
        if len(features) > ROWS:
            chosen = torch.randperm(len(features), generator=torch.Generator().manual_seed(1))[:ROWS]
            features = features[chosen.to(features.device)]
        self.rows[name].append(features.double() / (distance or 1.0))

    @contextmanager
    def _hooked(self, hook: Callable[[str, Tensor], Tensor]) -> Iterator[None]:
        def register(name: str, module: nn.Module) -> Any:
            def before(_: nn.Module, args: Any, kwargs: Any) -> Any:
                if args and isinstance(args[0], Tensor) and args[0].numel():
                    return (hook(name, args[0]), *args[1:]), kwargs
                return None

            return module.register_forward_pre_hook(before, with_kwargs=True)

        handles = [register(name, module) for name, module in self.readers.items()]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


@contextmanager
def _other_words(model: nn.Module, generator: torch.Generator) -> Iterator[None]:
    """Let embeddings look up any of their entries."""

    def before(module: nn.Module, args: Any) -> Any:
        if args and isinstance(args[0], Tensor):
            assert isinstance(module, nn.Embedding)
            count = -(-args[0].numel() // module.num_embeddings)
            entries = torch.randperm(module.num_embeddings, generator=generator).repeat(count)
            return (entries[: args[0].numel()].reshape(args[0].shape).to(args[0]), *args[1:])
        return None

    handles = [m.register_forward_pre_hook(before) for m in model.modules() if isinstance(m, nn.Embedding)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _features(module: nn.Module, value: Tensor) -> Tensor:
    """Return what a module reads with the units last, shape (samples, …, features)."""
    moved = value.movedim(unit_axis(module), -1)
    return moved.unsqueeze(0) if moved.dim() == 1 else moved
