"""SGD of a product of two square matrices, one online sample a step, as a compiled loop (Section B.2).

A step reads both matrices twice and changes each by an outer product. All inputs are known ahead, so a block of steps
keeps its changes as lists of vectors and touches the matrices as rarely as it can:

* U times all inputs of the block is one matrix product. What the block's earlier steps changed in U enters through the
  inner products of their inputs with this step's.
* W is read once a step, five rows at a time: while five rows give their errors, the five before them, still in the
  fastest cache, are multiplied by theirs. The block's earlier changes enter through inner products here too.
* At the end of the block each matrix takes all of its changes as one matrix product.

Numba's own vectorization reaches half of the speed, since it cannot keep a tile of a product in registers; so the inner
loops are written in vector instructions. The dtype of the arrays decides the precision. The order of all sums is fixed,
so the bits of a run do not depend on anything else in the process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

BLOCK = 16
"""Steps whose changes wait before the matrices take them; a multiple of 4."""

DIVERGED_LOSS = 1e12
"""A run has diverged when the loss of a sample is above this or not a number; it starts at about 10."""

_VECTOR_BYTES = 32
_TILE_ROWS, _TILE_VECTORS = 2, 5
_ROWS = 5
_PADDING = 40


class _Code:
    """Writes vector instructions into a function that numba compiles. Offsets count elements of the flat arrays."""

    def __init__(self, context: Any, builder: Any, signature: Any, args: Any) -> None:
        self.builder = builder
        self.args = []
        for kind, arg in zip(signature.args, args, strict=True):
            if isinstance(kind, types.Array):
                self.element, self.bits = context.get_data_type(kind.dtype), kind.dtype.bitwidth
                arg = context.make_array(kind)(context, builder, arg).data
            self.args.append(arg)
        self.lanes = 8 * _VECTOR_BYTES // self.bits
        self.vector = ir.VectorType(self.element, self.lanes)
        name = f"v{self.lanes}f{self.bits}"
        self._fma = self._declare(f"llvm.fma.{name}", self.vector, [self.vector] * 3)
        self._sum = self._declare(f"llvm.vector.reduce.fadd.{name}", self.element, [self.element, self.vector])
        self.result = context.get_dummy_value()

    def _declare(self, name: str, returns: Any, takes: list[Any]) -> Any:
        kind = ir.FunctionType(returns, takes)
        return cgutils.get_or_insert_function(self.builder.module, kind, name)  # type: ignore[no-untyped-call]

    def number(self, value: int) -> Any:
        return ir.IntType(64)(value)

    def at(self, start: Any, *offsets: Any) -> Any:
        for offset in offsets:
            start = self.builder.gep(start, [offset])
        return start

    def row(self, start: Any, stride: Any, index: int) -> Any:
        return self.at(start, self.builder.mul(stride, self.number(index)))

    def load(self, place: Any) -> Any:
        return self.builder.load(self.builder.bitcast(place, self.vector.as_pointer()), align=self.bits // 8)

    def store(self, vector: Any, place: Any) -> None:
        self.builder.store(vector, self.builder.bitcast(place, self.vector.as_pointer()), align=self.bits // 8)

    def spread(self, place: Any) -> Any:
        """A vector whose lanes all hold the number at a place."""
        lane = self.builder.insert_element(
            ir.Constant(self.vector, ir.Undefined), self.builder.load(place), ir.IntType(32)(0)
        )
        first = ir.Constant(ir.VectorType(ir.IntType(32), self.lanes), [0] * self.lanes)
        return self.builder.shuffle_vector(lane, lane, first)

    def multiply_add(self, a: Any, b: Any, c: Any) -> Any:
        return self.builder.call(self._fma, [a, b, c])

    def variable(self, value: Any) -> Any:
        place = cgutils.alloca_once(self.builder, self.vector)  # type: ignore[no-untyped-call]
        self.builder.store(value, place)
        return place

    def accumulate(self, variable: Any, a: Any, b: Any) -> None:
        self.builder.store(self.multiply_add(a, b, self.builder.load(variable)), variable)

    def add_sum(self, place: Any, variable: Any) -> None:
        """Add the lanes of a variable to the number at a place."""
        args = [self.builder.load(place), self.builder.load(variable)]
        self.builder.store(self.builder.call(self._sum, args, fastmath=("reassoc",)), place)

    def zeros(self, count: int) -> list[Any]:
        zero = ir.Constant(self.vector, [ir.Constant(self.element, 0.0)] * self.lanes)
        return [self.variable(zero) for _ in range(count)]

    @contextmanager
    def loop(self, stop: Any, step: int = 1) -> Iterator[Any]:
        with cgutils.for_range_slice(self.builder, self.number(0), stop, self.number(step), inc=True) as (index, _):
            yield index


def _tile(rows: int) -> Any:
    """Return c += a @ b on a tile of ``rows`` rows and five vectors of c, held in registers over the whole sum.

    Its arguments are c, where its tile starts, its row stride; a, where it starts, its strides along rows and along the
    sum; b, where it starts, its row stride; and the length of the sum.
    """

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        code = _Code(context, builder, signature, args)
        c, c_start, c_stride, a, a_start, a_stride, a_step, b, b_start, b_stride, count = code.args
        columns = [code.number(v * code.lanes) for v in range(_TILE_VECTORS)]
        places = [[code.at(code.row(code.at(c, c_start), c_stride, r), v) for v in columns] for r in range(rows)]
        sums = [[code.variable(code.load(place)) for place in row] for row in places]
        starts = [code.row(code.at(a, a_start), a_stride, r) for r in range(rows)]
        b_origin = code.at(b, b_start)
        with code.loop(count) as k:
            vectors = [code.load(code.at(b_origin, builder.mul(k, b_stride), v)) for v in columns]
            for r in range(rows):
                factor = code.spread(code.at(starts[r], builder.mul(k, a_step)))
                for v, vector in enumerate(vectors):
                    code.accumulate(sums[r][v], factor, vector)
        for r in range(rows):
            for place, total in zip(places[r], sums[r], strict=True):
                code.store(builder.load(total), place)
        return code.result

    @intrinsic  # type: ignore[untyped-decorator]
    def tile(
        typing: Any, c: Any, c0: Any, c1: Any, a: Any, a0: Any, a1: Any, a2: Any, b: Any, b0: Any, b1: Any, n: Any
    ) -> Any:
        i = types.intp
        return types.void(c, i, i, a, i, i, i, b, i, i, i), emit

    return tile


def _products(rows: int) -> Any:
    """Return out += matrix @ vector for some rows.

    Its arguments are the matrix, where its first row starts, its row stride; the vector, where it starts; out, where it
    starts; and the length of a row.
    """

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        code = _Code(context, builder, signature, args)
        matrix, start, stride, vector, vector_start, out, out_start, count = code.args
        places = [code.row(code.at(matrix, start), stride, r) for r in range(rows)]
        sums, vector = code.zeros(rows), code.at(vector, vector_start)
        with code.loop(count, code.lanes) as i:
            factor = code.load(code.at(vector, i))
            for place, total in zip(places, sums, strict=True):
                code.accumulate(total, code.load(code.at(place, i)), factor)
        for r, total in enumerate(sums):
            code.add_sum(code.at(out, out_start, code.number(r)), total)
        return code.result

    @intrinsic  # type: ignore[untyped-decorator]
    def products(typing: Any, m: Any, m0: Any, m1: Any, v: Any, v0: Any, out: Any, o0: Any, n: Any) -> Any:
        i = types.intp
        return types.void(m, i, i, v, i, out, i, i), emit

    return products


def _combine_and_products(rows: int) -> Any:
    """Return combination += out[here] @ matrix[here] and out[next] += matrix[next] @ vector in one loop.

    Reading the next rows from the outer cache overlaps with work on these in the inner one. Its arguments are those of
    ``_products`` with the combination and where it starts before the length.
    """

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        code = _Code(context, builder, signature, args)
        matrix, start, stride, vector, vector_start, out, out_start, combination, combination_start, count = code.args
        places = [code.row(code.at(matrix, start), stride, r) for r in range(2 * rows)]
        outs = [code.at(out, out_start, code.number(r)) for r in range(2 * rows)]
        sums, vector = code.zeros(rows), code.at(vector, vector_start)
        factors = [code.spread(place) for place in outs[:rows]]
        combination = code.at(combination, combination_start)
        with code.loop(count, code.lanes) as i:
            factor = code.load(code.at(vector, i))
            for place, total in zip(places[rows:], sums, strict=True):
                code.accumulate(total, code.load(code.at(place, i)), factor)
            here = code.at(combination, i)
            value = code.load(here)
            for place, weight in zip(places[:rows], factors, strict=True):
                value = code.multiply_add(weight, code.load(code.at(place, i)), value)
            code.store(value, here)
        for place, total in zip(outs[rows:], sums, strict=True):
            code.add_sum(place, total)
        return code.result

    @intrinsic  # type: ignore[untyped-decorator]
    def combine_and_products(
        typing: Any, m: Any, m0: Any, m1: Any, v: Any, v0: Any, out: Any, o0: Any, c: Any, c0: Any, n: Any
    ) -> Any:
        i = types.intp
        return types.void(m, i, i, v, i, out, i, c, i, i), emit

    return combine_and_products


_add_tile = _tile(_TILE_ROWS)
_add_vector_tile = _tile(1)
_add_four_products = _products(4)
_add_row_products = _products(_ROWS)
_combine_and_add_row_products = _combine_and_products(_ROWS)

_compiled: Callable[..., Any] = njit(cache=True, nogil=True, error_model="numpy")
# Passing arrays to a function of its own would cost as much as some of these do.
_inlined: Callable[..., Any] = njit(cache=True, nogil=True, error_model="numpy", inline="always")


@_compiled
def _add_product(c, a, a_stride, a_step, b, rows, count):  # type: ignore[no-untyped-def]
    """c[:rows] += a @ b with a sum of the given length, a read by its strides."""
    size = b.shape[1]
    width = _TILE_VECTORS * _VECTOR_BYTES // b.itemsize
    for first in range(0, count, _PADDING):
        length = min(_PADDING, count - first)
        for column in range(0, size, width):
            for row in range(0, rows, _TILE_ROWS):
                _add_tile(
                    c, row * size + column, size,
                    a, row * a_stride + first * a_step, a_stride, a_step,
                    b, first * size + column, size, length,
                )  # fmt: skip


@_inlined
def _add_earlier(out, step, directions, here, coefficient, changes):  # type: ignore[no-untyped-def]
    """out[step] += the sum over earlier steps of their changes times (their direction · here[step])."""
    size = out.shape[1]
    width = _TILE_VECTORS * _VECTOR_BYTES // out.itemsize
    for first in range(0, step, 4):
        coefficient[first : first + 4] = 0
        _add_four_products(directions, first * size, size, here, step * size, coefficient, first, size)
    for column in range(0, size, width):
        _add_vector_tile(
            out, step * size + column, size, coefficient, 0, 0, 1, changes, column, size, step
        )  # fmt: skip


@_inlined
def _error_and_gradient(w, h, error, gradient, step):  # type: ignore[no-untyped-def]
    """error[step] += w @ h[step], then gradient[step] += w.T @ error[step], in one pass over w."""
    size = w.shape[1]
    width = _TILE_VECTORS * _VECTOR_BYTES // w.itemsize
    here = step * size
    _add_row_products(w, 0, size, h, here, error, here, size)
    for row in range(0, size - _ROWS, _ROWS):
        _combine_and_add_row_products(w, row * size, size, h, here, error, here + row, gradient, here, size)
    last = size - _ROWS
    for column in range(0, size, width):
        _add_vector_tile(
            gradient, here + column, size, error, here + last, 0, 1, w, last * size + column, size, _ROWS
        )  # fmt: skip


@_compiled
def _advance(w, transposed_u, x, noise, signal, learning_rate, inputs, hidden, error, gradient, coefficient):  # type: ignore[no-untyped-def]
    """Take the steps on padded matrices, in place; the last five arguments are room for one block of steps."""
    steps, dimension = x.shape
    size = w.shape[0]
    zero, one = signal - signal, w.dtype.type(1)
    rate = -(learning_rate + learning_rate)
    for start in range(0, steps, BLOCK):
        count = min(BLOCK, steps - start)
        for k in range(count):
            for i in range(dimension):
                inputs[k, i] = x[start + k, i]
            for i in range(dimension):
                error[k, i] = -(signal * inputs[k, i] + (one - signal) * noise[start + k, i])
            for i in range(size):
                hidden[k, i] = zero
            for i in range(size):
                gradient[k, i] = zero
        _add_product(hidden, inputs, size, 1, transposed_u, count, size)
        for k in range(count):
            _add_earlier(hidden, k, inputs, inputs, coefficient, gradient)
            _add_earlier(error, k, hidden, hidden, coefficient, error)
            _error_and_gradient(w, hidden, error, gradient, k)
            _add_earlier(gradient, k, error, error, coefficient, hidden)
            # From here on both hold the step's change: W gains error × hidden, U gains gradient × input.
            for i in range(size):
                error[k, i] *= rate
            for i in range(size):
                gradient[k, i] *= rate
        loss = zero
        for i in range(dimension):
            loss += error[count - 1, i] * error[count - 1, i]
        if not loss <= w.dtype.type(DIVERGED_LOSS) * rate * rate:
            return False
        _add_product(w, error, 1, size, hidden, size, count)
        _add_product(transposed_u, inputs, 1, size, gradient, size, count)
    return True


def _aligned_zeros(shape: tuple[int, ...], kind: Any) -> NDArray[np.floating]:
    """Return zeros that start at a cache line, so that no vector lies across two."""
    count, line = int(np.prod(shape)), 64 // np.dtype(kind).itemsize
    room = np.zeros(count + line, kind)
    first = -(room.ctypes.data // room.itemsize) % line
    return room[first : first + count].reshape(shape)


def advance(
    w: NDArray[np.floating],
    u: NDArray[np.floating],
    x: NDArray[np.floating],
    noise: NDArray[np.floating],
    signal: float,
    learning_rate: float,
) -> bool:
    """Advance W and U by SGD on ``||W U x - signal x - (1 - signal) noise||**2``, one sample a step.

    A model with residual connections is the same in the matrices that multiply, I + W and I + U: pass those.

    Args:
        w: shape (dimension, dimension), C-contiguous, changed in place.
        u: same shape and dtype, changed in place.
        x: inputs, shape (steps, dimension), same dtype.
        noise: noise of the targets, same shape and dtype.
        signal: the paper's mu.
        learning_rate: of steps along the gradient of the loss without a half, so W changes by
            ``-2 learning_rate (W h - y) h.T`` with ``h = U x``.

    Returns:
        False where the run diverged, which is looked at once a block; then ``w`` and ``u`` are left as they were.
    """
    dimension, scalar = len(w), w.dtype.type
    size = -(-dimension // _PADDING) * _PADDING
    matrices = [_aligned_zeros((size, size), w.dtype) for _ in range(2)]
    inner_w, inner_transposed_u = (matrix[:dimension, :dimension] for matrix in matrices)
    inner_w[:], inner_transposed_u[:] = w, u.T
    room = [_aligned_zeros(shape, w.dtype) for shape in [(BLOCK, size)] * 4 + [(BLOCK,)]]
    finished = bool(_advance(*matrices, x, noise, scalar(signal), scalar(learning_rate), *room))
    if finished:
        w[:], u[:] = inner_w, inner_transposed_u.T
    return finished
