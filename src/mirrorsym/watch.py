"""Watch a network that trains: how far it has collapsed onto the symmetries of its loss.

::

    monitor = CollapseMonitor(model, find_symmetries(model, x))
    for step, batch in enumerate(batches):
        ...  # forward, backward, optimizer.step()
        if step % 500 == 0:
            monitor.update(step)
    print(monitor.summary())
    monitor.to_frame()
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mirrorsym import measures
from mirrorsym.symmetries import State, Symmetry

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Record:
    """One number of a :class:`CollapseMonitor`.

    Args:
        step: when it was measured.
        name: a parameter, or the name of a symmetry.
        kind: ``weight``, or the kind of the symmetry.
        quantity: what was measured.
        value: the number, NaN where it is not defined.
    """

    step: int
    name: str
    kind: str
    quantity: str
    value: float


class CollapseMonitor:
    """Measures how far a network has collapsed onto its mirrors (Theorems 2 to 4), each time that its loop asks.

    For every parameter with two or more axes, as a matrix (first axis by all others): ``rank`` and ``full_rank``,
    ``sparsity`` (fraction of entries below ``near_zero``) and ``norm``. For every symmetry:

    - ``units``, and ``effective_units``, those that the collapse has left: groups of copies and the others for a
      permutation, units that are not zero for a sign flip, a rescaling or a plane, the rank for a rotation or any
      matrix. Units at most 1 % of the largest one in norm count as zero, as singular values do in
      :func:`mirrorsym.measures.rank`.
    - ``order_parameter``: the relative distance to the nearest mirror, 0 on it. For a permutation the smallest distance
      of two units that are not zero, ‖a - b‖ / √(‖a‖² + ‖b‖²); for a sign flip or a rescaling the smallest norm of a
      unit over the largest; for a rotation the smallest singular value over the largest.
    - ``identical_pairs``, for a permutation: the fraction of pairs of units that are not zero at a distance below
      ``identical``.
    - ``vanishing_units``, where there are gradients: the fraction of units all of whose weights have a gradient below
      ``near_zero`` in the last batch, which do not learn from it, such as ReLU units that never fire.

    What a network was before training is not collapse: call :meth:`update` once before the first step. It costs the
    singular values of all matrices and the distances of all units of a layer, so do not call it at every step.

    Args:
        model: the model.
        symmetries: as :func:`find_symmetries` returns them; none to watch the matrices alone.
        identical: relative distance below which two units are copies.
        near_zero: magnitude below which a weight or a gradient is zero.
    """

    def __init__(
        self,
        model: nn.Module,
        symmetries: Sequence[Symmetry] = (),
        identical: float = measures.IDENTICAL_DISTANCE,
        near_zero: float = measures.ZERO_THRESHOLD,
    ) -> None:
        self.records: list[Record] = []
        self._model = model
        self._symmetries = tuple(symmetries)
        self._identical = identical
        self._near_zero = near_zero
        self._updates = 0

    @torch.no_grad()
    def update(self, step: int | None = None) -> list[Record]:
        """Measure, keep the records and return them.

        Args:
            step: the training's step; None to count the calls.
        """
        now = self._updates if step is None else step
        self._updates += 1
        parameters = {name: p.detach() for name, p in self._model.named_parameters()}
        gradients = {name: p.grad for name, p in self._model.named_parameters() if p.grad is not None}
        records = []
        for name, parameter in parameters.items():
            if parameter.dim() > 1:
                numbers = self._weight(parameter.flatten(1))
                records += [Record(now, name, "weight", key, value) for key, value in numbers.items()]
        for symmetry in self._symmetries:
            numbers = self._symmetry(symmetry, parameters, gradients)
            records += [Record(now, symmetry.name, symmetry.kind, key, value) for key, value in numbers.items()]
        self.records += records
        return records

    def to_frame(self) -> pd.DataFrame:
        """Return all records as a table with the columns step, name, kind, quantity, value.

        Raises:
            ImportError: if pandas is missing.
        """
        try:
            import pandas as pd
        except ImportError:
            raise ImportError("to_frame makes a pandas table, and pandas is missing: pip install pandas") from None

        return pd.DataFrame([vars(record) for record in self.records], columns=list(Record.__dataclass_fields__))

    def summary(self) -> str:
        """Return one line for each symmetry on how many of its units are left at the last update, the fewest first."""
        last = {(r.name, r.kind, r.quantity): r.value for r in self.records if r.kind != "weight"}
        words = {
            "permutation": "different",
            "rotation": "independent",
            "general_linear": "independent",
            "complex": "not zero",
            "sign_flip": "not zero",
            "rescaling": "not zero",
        }
        lines = []
        for symmetry in self._symmetries:
            left = last.get((symmetry.name, symmetry.kind, "effective_units"), float("nan"))
            line = f"{symmetry.name} ({symmetry.kind}): {left:.0f} of {symmetry.units} units are {words[symmetry.kind]}"
            lines.append((left / symmetry.units, line))
        return "\n".join(line for _, line in sorted(lines, key=lambda pair: pair[0]))

    def _weight(self, matrix: Tensor) -> dict[str, float]:
        return {
            "rank": _rank(_singular_values(matrix)),
            "full_rank": float(min(matrix.shape)),
            "sparsity": float(measures.sparsity(matrix.reshape(-1).cpu(), self._near_zero)),
            "norm": float(matrix.norm()),
        }

    def _symmetry(self, symmetry: Symmetry, parameters: State, gradients: State) -> dict[str, float]:
        matrix = symmetry.matrix(parameters)
        norms = matrix.norm(dim=1).double().cpu().numpy()
        numbers = {"units": float(symmetry.units)}
        if symmetry.kind == "permutation":
            numbers |= self._copies(matrix, norms)
        else:
            sizes = _singular_values(matrix) if symmetry.kind in ("rotation", "general_linear") else norms
            numbers["effective_units"] = _rank(sizes)
            numbers["order_parameter"] = float(sizes.min() / sizes.max()) if sizes.max() != 0 else 0.0
        if all(slot.name in gradients for slot in symmetry.slots if not slot.buffer):
            largest = symmetry.matrix(gradients).abs().amax(dim=1)
            numbers["vanishing_units"] = float((largest < self._near_zero).double().mean())
        return numbers

    def _copies(self, matrix: Tensor, norms: NDArray[np.float64]) -> dict[str, float]:
        if not np.isfinite(norms).all():
            return dict.fromkeys(("effective_units", "order_parameter", "identical_pairs"), float("nan"))
        threshold = max(measures.RELATIVE_RANK_THRESHOLD * norms.max(), measures.ABSOLUTE_RANK_THRESHOLD)
        alive = norms > threshold
        distance = measures.weight_distance(matrix[torch.from_numpy(alive).to(matrix.device)].double().cpu())
        pairs = distance[np.triu_indices(len(distance), k=1)]
        return {
            "effective_units": float(measures.clusters(1 - distance, 1 - self._identical)),
            "order_parameter": float(pairs.min()) if pairs.size else float("nan"),
            "identical_pairs": float((pairs < self._identical).mean()) if pairs.size else float("nan"),
        }


def _singular_values(matrix: Tensor) -> NDArray[np.float64]:
    """Return the singular values, NaN where the training has diverged."""
    if not bool(torch.isfinite(matrix).all()):
        return np.full(min(matrix.shape), np.nan)
    return np.asarray(torch.linalg.svdvals(matrix.double()).cpu().numpy())


def _rank(sizes: NDArray[np.float64]) -> float:
    return float(measures.rank(sizes)) if np.isfinite(sizes).all() else float("nan")
