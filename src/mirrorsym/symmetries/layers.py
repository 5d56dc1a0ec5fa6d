"""Matrix products, convolutions, normalizations and gates."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from mirrorsym.symmetries.factors import (
    Factors,
    NotFollowedError,
    along_channels,
    broadcast,
    core_of,
    flat,
    new_axis,
    numbers,
    support,
    tidy,
)
from mirrorsym.symmetries.ties import Ties


class Layers(Ties):
    """Rules for operations that have parameters of their own."""

    def _op_mm(self, func: Any, args: Any, kwargs: Any, result: Tensor) -> Factors:
        a, b = args
        return self._contract(new_axis(2), 1, new_axis(0), 0, (a, b), result, drop=lambda f: f[:, 0, :])

    def _op_bmm(self, func: Any, args: Any, kwargs: Any, result: Tensor) -> Factors:
        a, b = args
        return self._contract(new_axis(3), 2, new_axis(1), 1, (a, b), result, drop=lambda f: f[:, :, 0, :])

    def _op_mv(self, func: Any, args: Any, kwargs: Any, result: Tensor) -> Factors:
        a, b = args
        return self._contract(lambda f: f, 1, new_axis(0), 0, (a, b), result, drop=lambda f: f[:, 0])

    def _op_dot(self, func: Any, args: Any, kwargs: Any, result: Tensor) -> Factors:
        return self._contract(lambda f: f, 0, lambda f: f, 0, args, result, drop=lambda f: f[0])

    def _op_addmm(self, func: Any, args: Any, kwargs: Any, result: Tensor) -> Factors:
        return self._shifted(args[0], self._op_mm(func, args[1:], {}, result), torch.mm, args[1:], result)

    def _op_baddbmm(self, func: Any, args: Any, kwargs: Any, result: Tensor) -> Factors:
        product = self._op_bmm(func, args[1:], {}, result)
        return self._shifted(args[0], product, torch.bmm, args[1:], result) if kwargs.get("beta", 1) else product

    def _op_addmv(self, func: Any, args: Any, kwargs: Any, result: Tensor) -> Factors:
        return self._shifted(args[0], self._op_mv(func, args[1:], {}, result), torch.mv, args[1:], result)

    def _shifted(self, bias: Tensor, made: Factors, multiply: Any, operands: Any, result: Tensor) -> Factors:
        """Add a bias to a product, whose values are made again where no factors tell of them."""
        product = result.detach() if made else multiply(*operands)
        self._note(product, made)
        return self._add(bias, product, result)

    def _op_addcmul(self, func: Any, args: Any, kwargs: Any, result: Tensor) -> Factors:
        base, a, b = args
        product = a * b if func.overloadpacket.__name__.startswith("addcmul") else a / b
        self._note(product, self._times(a, b, 1, product))
        return self._add(base, product, result)

    def _op_convolution(self, func: Any, args: Any, kwargs: Any, result: Tensor) -> Factors:
        x, weight, bias, _, _, _, transposed, _, groups = args
        out_axis, in_axis = (1, 0) if transposed else (0, 1)
        source = self._of_channels(self.factors(x))
        kernel = self.factors(weight)
        spatial = set(range(2, weight.dim()))
        if any(spatial & set(support(factor)) and len(support(factor)) > 1 for factor in kernel):
            raise NotFollowedError("its kernel is tied to units")
        for factor in kernel:
            if spatial & set(support(factor)):
                self.atoms.fix(flat(factor))
        kernel = [factor for factor in kernel if not spatial & set(support(factor))]
        if groups == 1:
            out = self._dense_convolution(x, source, weight, kernel, out_axis, in_axis, result)
        else:
            out = self._grouped_convolution(x, source, weight, kernel, groups, transposed, result)
        if bias is None:
            return out
        wide = self._column(bias, result.dim())
        plain = result - wide
        self._note(plain, out)
        return self._add(plain, wide, result)

    def _dense_convolution(
        self, x: Tensor, source: Factors, weight: Tensor, kernel: Factors, out_axis: int, in_axis: int, result: Tensor
    ) -> Factors:
        """Contract channels as a matrix product does: entries (channels out, channels in)."""
        matrix = weight.detach().flatten(2).select(2, 0) if weight.dim() > 2 else weight
        matrix = matrix.transpose(0, 1) if out_axis == 1 else matrix
        small: Factors = []
        for factor in kernel:
            plane = factor.flatten(2).select(2, 0) if factor.dim() > 2 else factor
            small.append(plane.transpose(0, 1) if out_axis == 1 else plane)
        values = x.detach().movedim(1, -1).flatten(0, -2)
        columns = [f.select(0, 0).flatten(1).select(1, 0).expand(values.shape) for f in source]
        left, right = values, matrix.T
        self._note(left, columns)
        right = right.clone()
        self._note(right, [f.T for f in small])
        factors = self._op_mm(None, (left, right), {}, values.new_empty(len(values), matrix.shape[0]))
        return [along_channels(factor, 1, result.shape) for factor in factors]

    def _grouped_convolution(
        self, x: Tensor, source: Factors, weight: Tensor, kernel: Factors, groups: int, transposed: bool, result: Tensor
    ) -> Factors:
        """Tie channels in and out group by group; a group of one channel scales it."""
        if not source:
            raise NotFollowedError("it groups channels of an input")
        channels = core_of(self.fused(source)).reshape(-1)
        if len(channels) == 1:
            raise NotFollowedError("its channels are not told apart")
        each = x.shape[1] // groups
        name = next((name for name, made in self.parameters.items() if made is self.factors(weight)), None)
        rows_axis = 0
        rows = [f for f in kernel if support(f) == (rows_axis,)]
        columns = [f for f in kernel if support(f) == (1,)]
        if len(rows) + len(columns) < len(kernel) or len(rows) > 1 or transposed:
            raise NotFollowedError("it groups channels in a way that is not followed")
        row = core_of(rows[0]).reshape(-1) if rows else torch.from_numpy(np.repeat(self._one, weight.shape[0]))
        if each == 1:
            entering = channels.repeat_interleave(len(row) // groups)
            leaving = self._product_of(entering, row)
            return [along_channels(leaving, 1, result.shape)]
        if name is None:
            raise NotFollowedError("it groups channels in a way that is not followed")
        own = torch.from_numpy(self.atoms.new(len(channels))).reshape(groups, 1, each)
        own = own.expand(groups, len(row) // groups, each).reshape(len(row), each)
        own = own.reshape(len(row), each, *[1] * (weight.dim() - 2)).expand(weight.shape)
        place = [index for index, f in enumerate(self.parameters[name]) if support(f) == (1,)]
        self.parameters[name][place[0]] = own
        inner = own.reshape(groups, -1, each, *weight.shape[2:]).select(1, 0).flatten(2).select(2, 0).reshape(-1)
        inside, columns_in = numbers(channels, inner)
        self.atoms.unite(inside, columns_in)
        self.atoms.equal(inside, columns_in, inverse=True)
        self.atoms.along(inside, columns_in, inverse=True)
        group = np.arange(groups)
        nodes = self.atoms.new(groups)
        self.atoms.relate(inside, nodes[np.repeat(group, each)])
        self.atoms.relate(row.numpy(), nodes[np.repeat(group, len(row) // groups)])
        return [along_channels(row, 1, result.shape)]

    def _op_native_batch_norm(self, func: Any, args: Any, kwargs: Any, result: Any) -> Any:
        x, weight, bias, mean, variance = args[:5]
        training = bool(args[5])
        return self._batch_norm(x, weight, bias, mean, variance, training, result[0])

    _op_cudnn_batch_norm = _op_native_batch_norm

    def _op_native_batch_norm_legit_no_training(self, func: Any, args: Any, kwargs: Any, result: Any) -> Any:
        x, weight, bias, mean, variance = args[:5]
        return self._batch_norm(x, weight, bias, mean, variance, False, result[0])

    def _op_native_batch_norm_legit(self, func: Any, args: Any, kwargs: Any, result: Any) -> Any:
        x, weight, bias = args[:3]
        if isinstance(args[3], bool):
            return self._batch_norm(x, weight, bias, None, None, True, result[0])
        return self._batch_norm(x, weight, bias, args[3], args[4], args[5], result[0])

    def _batch_norm(self, x: Any, weight: Any, bias: Any, mean: Any, variance: Any, training: bool, out: Tensor) -> Any:
        for statistic in (mean, variance):
            name = self.names.get(id(statistic))
            if name is not None and not training:
                self._movable.add(name)

        value = out.detach().clone()
        factors = self.factors(x)
        if training:
            if any(1 in support(factor) and len(support(factor)) > 1 for factor in factors):
                raise NotFollowedError("units lie along the axes over which it normalizes")
            for factor in factors:
                self._bend([factor], scale=True, sign=1 not in support(factor))
        elif mean is not None:
            x = x.detach()
            self._note(x, self._of_channels(factors))
            factors = self._add(x, self._column(mean, x.dim()), out) if factors else []
            spread = self.factors(variance)
            if factors and spread:
                self.atoms.uncharge(flat(spread[0]))
                self.atoms.unite(*numbers(core_of(self.fused(factors)).reshape(-1), core_of(spread[0]).reshape(-1)))
                self._bend(factors)
                factors = [self._standardized(self.fused(factors))]
            elif spread:
                self.atoms.fix(flat(spread[0]))
        self._note(value, factors)
        return (
            self._scaled_and_shifted(value, *(t if t is None else self._column(t, x.dim()) for t in (weight, bias))),
            [],
            [],
        )

    def _standardized(self, units: Tensor) -> Tensor:
        """Return atoms behind a batch normalization: of the same scale in evaluation mode, of none in training."""
        core = core_of(units)
        old, place = np.unique(core.numpy(), return_inverse=True)
        made = self.atoms.new(len(old))
        self.atoms.unite(made, old)
        self.atoms.signs.equal.append((made, old, 1))
        self.atoms.standardized.append((made, old))
        return torch.from_numpy(made[place.reshape(-1)]).reshape(core.shape).expand(units.shape)

    def _scaled_and_shifted(self, value: Tensor, weight: Tensor | None, bias: Tensor | None) -> Factors:
        if weight is not None:
            self._note(value, self._times(value, weight, 1, value))
        if bias is not None:
            self._note(value, self._add(value, bias, value))
        return self.factors(value)

    def _op_native_layer_norm(self, func: Any, args: Any, kwargs: Any, result: Any) -> Any:
        x, shape, weight, bias = args[:4]
        axes = tuple(range(x.dim() - len(shape), x.dim()))
        return (self._normalized(x, axes, weight, bias, result[0]), [], [])

    def _op_fused_rms_norm(self, func: Any, args: Any, kwargs: Any, result: Any) -> Any:
        x, shape, weight = args[:3]
        axes = tuple(range(x.dim() - len(shape), x.dim()))
        return (self._normalized(x, axes, weight, None, result[0], centred=False), [])

    def _op_native_group_norm(self, func: Any, args: Any, kwargs: Any, result: Any) -> Any:
        x, weight, bias, _, channels, _, groups = args[:7]
        factors = self._of_channels(self.factors(x))
        if factors:
            units = self._single(factors)
            ids = core_of(units[0]).expand(1, channels, *[1] * (x.dim() - 2)).reshape(-1).numpy()
            nodes = self.atoms.new(groups)
            self.atoms.relate(ids, nodes[np.repeat(np.arange(groups), channels // groups)])
            self.atoms.signs.equal.append((ids, nodes[np.repeat(np.arange(groups), channels // groups)], 1))
            self.atoms.uncharge(ids, sign=False)
            self.atoms.bend(ids)
            factors = units
        value = result[0].detach().clone()
        self._note(value, factors)
        columns = [t if t is None else self._column(t, x.dim()) for t in (weight, bias)]
        return (self._scaled_and_shifted(value, *columns), [], [])

    def _column(self, tensor: Tensor, dims: int) -> Tensor:
        """Return a vector over channels in a shape that broadcasts against values of so many axes."""
        shape = (-1, *[1] * (dims - 2))
        wide = tensor.detach().reshape(shape)
        self._note(wide, [factor.reshape(shape) for factor in self.factors(tensor)])
        return wide

    def _normalized(
        self, x: Tensor, axes: tuple[int, ...], weight: Any, bias: Any, out: Tensor, centred: bool = True
    ) -> Factors:
        factors = self.factors(x)
        if factors:
            units = self._single(factors)
            inside = bool(set(axes) & set(support(units[0])))
            if inside:
                self._gather(units[0], axes, signs=centred)
                ids = flat(units[0])
                if centred:
                    self.atoms.bend(ids)
                else:
                    self.atoms.normed.append(ids)
            self.atoms.uncharge(flat(units[0]), sign=False)
            factors = units
        value = out.detach().clone()
        self._note(value, factors)
        return self._scaled_and_shifted(value, weight, bias)

    def _op_prelu_kernel(self, func: Any, args: Any, kwargs: Any, result: Tensor) -> Factors:
        x, slopes = args
        for factor in self.factors(slopes):
            self.atoms.uncharge(flat(factor))
        units = self._single(self.factors(x))
        if not units:
            raise NotFollowedError("its slopes act on inputs")
        self._bend(units, sign=True)
        if self.factors(slopes):
            self._tie(units, self._wide(slopes, result.dim()))
        return units

    def _op_weight_norm_interface(self, func: Any, args: Any, kwargs: Any, result: Any) -> Any:
        """Follow g v / |v|, where the norm is over all axes but one: v counts by its signs alone."""
        v, g = args[:2]
        axis = (args[2] if len(args) > 2 else kwargs.get("dim", 0)) % v.dim()
        rows = [factor for factor in self.factors(v) if axis in support(factor)]
        others = [factor for factor in self.factors(v) if axis not in support(factor)]
        for factor in others:
            self.atoms.uncharge(flat(factor), sign=False)
            self.atoms.normed.append(flat(factor))
        if not rows or not self.factors(g):
            raise NotFollowedError("it normalizes what is no parameter")
        row, size = core_of(self.fused(rows)), core_of(self.fused(self.factors(g)))
        a, b = numbers(*broadcast(row, size))
        made = self.atoms.new(len(a))
        for part in (a, b):
            self.atoms.unite(made, part)
            self.atoms.bend(part)
        self.atoms.scales.equal.append((made, b, 1))
        self.atoms.signs.sums.append((made, a, b, 1, 1))
        whole = torch.from_numpy(made).reshape(torch.broadcast_shapes(row.shape, size.shape)).expand(v.shape)
        return ([whole, *others], [])

    def _op_glu(self, func: Any, args: Any, kwargs: Any, result: Tensor) -> Factors:
        axis = args[1] if len(args) > 1 else kwargs.get("dim", -1)
        half = args[0].shape[axis] // 2
        parts = []
        for start in (0, half):
            part = args[0].narrow(axis, start, half).clone()
            self._note(part, [tidy(factor.narrow(axis, start, half)) for factor in self.factors(args[0])])
            parts.append(part)
        gate = self._single(self.factors(parts[1]))
        self._bend(gate, scale=True, sign=True)
        self._note(parts[1], gate)
        return self._times(parts[0], parts[1], 1, result)
