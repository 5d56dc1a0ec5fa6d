"""Networks in which every layer is alive, in double precision: where nothing moves, no symmetry can be told.

Each layer is drawn anew, scaled and shifted by what comes out of it; BatchNorm's statistics are those of the batch;
numbers that a network turns into float32 on its way stay in double precision.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode

from mirrorsym.symmetries.tensors import tensors_in

State = Mapping[str, Tensor]


class Double(TorchFunctionMode):
    """Every value that would be of single or half precision is of double precision."""

    NARROW = (torch.float32, torch.float16, torch.bfloat16)

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if function in (Tensor.float, Tensor.half, Tensor.bfloat16):
            function = Tensor.double
        elif getattr(function, "__name__", "") in ("grouped_mm", "_grouped_mm"):
            function = _grouped_product  # it has no double precision
        args = tuple(torch.double if self._narrow(a) else a for a in args)
        kwargs = {name: torch.double if self._narrow(a) else a for name, a in (kwargs or {}).items()}
        result = function(*args, **kwargs)
        if isinstance(result, Tensor) and result.dtype in self.NARROW:
            return result.double()
        return result

    def _narrow(self, value: Any) -> bool:
        return isinstance(value, torch.dtype) and value in self.NARROW


def _grouped_product(rows: Tensor, weights: Tensor, *, offs: Tensor, **unused: None) -> Tensor:
    """Return the rows up to each offset times the weights of their own."""
    ends = offs.tolist()
    parts = [rows[start:end] @ weight for start, end, weight in zip([0, *ends], ends, weights, strict=False)]
    return torch.cat(parts)


class Living:
    """A network with living parameters, and its outputs at others.

    Args:
        model: any module. It is copied, and left as it is.
        inputs: what its forward takes.
        keywords: what it takes by name.
        seed: picks the parameters and the values of the batch.
        size: standard deviation of the inputs and of what comes out of each layer; larger ones reach what is clipped.
    """

    def __init__(
        self,
        model: nn.Module,
        inputs: tuple[Any, ...],
        keywords: Mapping[str, Any] | None = None,
        seed: int = 0,
        size: float = 1.0,
    ) -> None:
        self.rng = torch.Generator().manual_seed(seed)
        self.size = size
        self.model = copy.deepcopy(model).double().eval()
        self.inputs = tuple(self._other(x) for x in inputs)
        self.keywords = {name: self._other(x) for name, x in (keywords or {}).items()}
        self._draw()
        self._scale()
        # Tied parameters stand here once, under their first name.
        tensors = [*self.model.named_parameters(), *self.model.named_buffers()]
        self.state: dict[str, Tensor] = {name: tensor.detach().clone() for name, tensor in tensors}
        self.reference = self.outputs(self.state)
        self.floor = self._rounding()

    @torch.no_grad()
    def outputs(self, state: State) -> list[Tensor]:
        """Return all outputs in double precision."""
        with Double():
            result = torch.func.functional_call(self.model, dict(state), self.inputs, self.keywords)
        return [t.clone() for t in tensors_in(result) if t.is_floating_point()]

    def change(self, state: State) -> float:
        """Return how much other parameters change the outputs: the largest over them, each against its own size.

        Entries that are infinite, as those that a mask hides, are compared only where both are finite.
        """
        found = [0.0]
        for before, after in zip(self.reference, self.outputs(state), strict=True):
            finite = before.isfinite() & after.isfinite()
            if not finite.any() or bool((before.isfinite() != after.isfinite()).any()):
                found.append(float("inf"))
                continue
            spread = (before[finite] - before[finite].mean()).norm()
            size = spread if spread > 0 else before[finite].norm()
            found.append(float((after - before)[finite].norm() / size))
        return max(found)

    def _other(self, x: Any) -> Any:
        """Return an input with other values of the same kind."""
        if isinstance(x, Tensor) and x.is_floating_point():
            return self.size * torch.randn(x.shape, generator=self.rng, dtype=torch.double)
        return x

    @torch.no_grad()
    def _draw(self) -> None:
        for name, parameter in self.model.named_parameters():
            noise = torch.randn(parameter.shape, generator=self.rng, dtype=torch.double)
            matrix = parameter.dim() > 1 and not name.endswith("bias")
            if matrix:
                parameter.copy_(noise / max(1, parameter[0].numel()) ** 0.5)
            elif name.endswith("weight") or "gamma" in name or "scale" in name:
                parameter.copy_(1 + 0.3 * noise)
            else:
                parameter.copy_(0.3 * noise)

    @torch.no_grad()
    def _scale(self) -> None:
        """Scale each layer, when the batch comes by first, so that what comes out of it has the wanted size.

        Each unit's bias is chosen such that it is not the same for all samples: with PyTorch's own initial values, what
        comes out of a deep network hardly depends on what goes in.
        """
        seen: set[int] = set()

        def prepare(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            if isinstance(module, _BatchNorm) and id(module) not in seen and module.running_mean is not None:
                seen.add(id(module))
                x = inputs[0].transpose(0, 1).flatten(1)
                spread = x.var(dim=1).mean()  # over all channels: that of one channel can be about zero
                factors = 0.5 + torch.rand(len(x), generator=self.rng, dtype=torch.double)
                module.running_mean.copy_(x.mean(dim=1))
                module.running_var.copy_(spread * factors)

        def rescale(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> Any:
            weight = getattr(module, "weight", None)
            layer = isinstance(weight, nn.Parameter) and weight.dim() > 1 and isinstance(output, Tensor)
            if not layer or id(weight) in seen or not output.is_floating_point():
                return None
            seen.add(id(weight))
            bias, axis = getattr(module, "bias", None), 1 if weight.dim() > 2 and output.dim() > 2 else -1
            if isinstance(bias, nn.Parameter) and bias.shape == (output.shape[axis],):
                mean = output.movedim(axis, 0).flatten(1).mean(dim=1)
                noise = torch.randn(mean.shape, generator=self.rng, dtype=torch.double)
            else:
                bias, mean, noise = None, torch.zeros(1, dtype=torch.double), torch.zeros(1, dtype=torch.double)
            shape = [-1 if place == axis % output.dim() else 1 for place in range(output.dim())]
            centred = output - mean.view(shape)
            excess = centred.std() / self.size
            if not excess > 0:
                return None
            weight.div_(excess)
            shift = 0.3 * self.size * noise
            if bias is not None:
                bias.copy_((bias - mean) / excess + shift)
            return centred / excess + shift.view(shape)

        hooks = [module.register_forward_pre_hook(prepare) for module in self.model.modules()]
        hooks += [module.register_forward_hook(rescale) for module in self.model.modules()]
        try:
            with Double():
                self.model(*self.inputs, **self.keywords)
        finally:
            for hook in hooks:
                hook.remove()

    def _rounding(self) -> float:
        """Return how much the outputs change where every parameter moves by about one unit in its last place."""
        moved = {
            name: tensor * (1 + 2.0**-52 * torch.randn(tensor.shape, generator=self.rng, dtype=torch.double))
            if tensor.is_floating_point()
            else tensor
            for name, tensor in self.state.items()
        }
        return max(self.change(moved), 2.0**-52)
