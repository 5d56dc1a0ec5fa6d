"""Generic parameters at which every layer's values keep their size, also in deep networks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from mirrorsym.symmetries.acting import memory
from mirrorsym.symmetries.double import in_double
from mirrorsym.symmetries.twin import Twin

_WEIGHTED = {"mm": (0, 1), "bmm": (0, 1), "mv": (0, 1), "addmm": (1, 2), "baddbmm": (1, 2), "convolution": (0, 1)}
_BATCH_NORMS = {"native_batch_norm", "cudnn_batch_norm", "_native_batch_norm_legit_no_training"}


@torch.no_grad()
def draw(twin: Twin, seed: int) -> tuple[dict[str, Tensor], list[str]]:
    """Return random parameters and buffers for a model, in double precision.

    At collapsed parameters more transformations than the symmetries change nothing. Matrices are scaled, where they are
    used first, so that what they make has variance 1; batch normalizations take their statistics from the data.

    Args:
        twin: the model.
        seed: picks the parameters.

    Returns:
        Parameters and buffers by name, and the names of the buffers that a forward writes anew as a whole: running
        statistics, which are those of one forward.
    """
    generator = torch.Generator().manual_seed(seed)
    tensors = {name: _random(tensor, generator) for name, tensor in twin.own.items() if name in twin.trained}
    buffers = {name: _double(tensor) for name, tensor in twin.own.items() if name not in twin.trained}
    tensors |= {name: tensor.clone() for name, tensor in buffers.items()}
    calibration = _Calibration(tensors, twin.trained, generator)
    statistics = twin.run(tensors, calibration, then=lambda outputs: calibration.replaced(twin))
    statistics |= {name: tensors[name] for name in calibration.written}
    taken = {name: tensors[name] for name in calibration.standardizing}
    return tensors | buffers | taken | statistics, list(statistics)


def _double(tensor: Tensor) -> Tensor:
    """Return a copy, in double precision if it has numbers."""
    return tensor.detach().cpu().to(torch.double if tensor.is_floating_point() else tensor.dtype, copy=True)


def _random(tensor: Tensor, generator: torch.Generator) -> Tensor:
    if not tensor.is_floating_point():
        return tensor.cpu().clone()
    noise = torch.rand(tensor.shape, generator=generator, dtype=torch.double).sub_(0.5).mul_(12**0.5)
    if tensor.dim() > 1 and tensor.shape[0] > 1:
        return noise.div_(tensor[0].numel() ** 0.5)
    if tensor.numel() and float(tensor.min()) > 0:
        # What starts positive may have to be, as under a logarithm.
        mean = min(max(float(tensor.double().mean()), 0.3), 10.0)
        return torch.rand(tensor.shape, generator=generator, dtype=torch.double).add_(0.5).mul_(mean)
    return noise.mul_(0.3)


class _Calibration(TorchDispatchMode):
    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # which would import the compiler, for a second

    def __init__(self, tensors: Mapping[str, Tensor], trained: list[str], generator: torch.Generator) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._weights = {tensors[name].untyped_storage().data_ptr(): tensors[name] for name in trained}
        self._buffers = {
            memory(tensor): name
            for name, tensor in tensors.items()
            if name not in trained and tensor.is_floating_point()
        }
        self.written: dict[str, None] = {}
        self.standardizing: dict[str, None] = {}
        self._generator = generator
        self._done: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        args, kwargs = in_double(func, args, kwargs or {}, lambda old, new: None)
        name = func.overloadpacket.__name__
        if name in _BATCH_NORMS and args[3] is not None and not (len(args) > 5 and args[5] is True):
            self._take_statistics(args[0], args[3], args[4])
        elif name.endswith("_") and args and memory(args[0]) in self._buffers:
            self.written.setdefault(self._buffers[memory(args[0])])
        result = func(*args, **kwargs)
        if name in _WEIGHTED and isinstance(result, Tensor):
            for place in _WEIGHTED[name]:
                weight = self._weights.get(args[place].untyped_storage().data_ptr())
                if weight is not None and id(weight) not in self._done and weight.dim() > 1:
                    self._done.add(id(weight))
                    size = float(result.std()) if result.numel() > 1 else 1.0
                    if 0 < size < float("inf") and not 0.5 < size < 2:
                        weight.div_(size)
                        result = result / size  # up to the bias, which does not matter here
                    break
        return result

    def replaced(self, twin: Twin) -> dict[str, Tensor]:
        """Return the buffers for which a forward has put others in place, of the same shape."""
        shapes = {name: place[1] for place, name in self._buffers.items()}
        return {
            name: _double(buffer)
            for name, buffer in twin.model.named_buffers()
            if shapes.get(name) == buffer.shape and memory(buffer) not in self._buffers
        }

    def _take_statistics(self, x: Tensor, mean: Tensor, variance: Tensor) -> None:
        self.standardizing |= {self._buffers[memory(t)]: None for t in (mean, variance) if memory(t) in self._buffers}
        axes = [axis for axis in range(x.dim()) if axis != 1]
        pooled = x.var(axes, unbiased=False).mean().clamp(min=1e-4)
        noise = torch.randn(mean.shape, generator=self._generator, dtype=torch.double)
        mean.copy_(x.mean(axes) + 0.1 * pooled.sqrt() * noise)
        variance.copy_(pooled * (0.7 + 0.7 * torch.rand(mean.shape, generator=self._generator, dtype=torch.double)))
