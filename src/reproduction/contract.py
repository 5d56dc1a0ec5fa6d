"""What every experiment is: settings, axes, variables, and a pure function from them and a seed to a Dataset."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict

from reproduction.errors import UserError

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import ArrayLike

    from reproduction.data.images import Images

Value = float | str
Grid = Mapping[str, Sequence[Value]]
"""The values of each axis in one job; the job computes their full product."""

FINISHED, DIVERGED, NOT_IN_SWEEP = 0, 1, 2
"""Values of the CF flag variable ``status``."""


class Settings(BaseModel):
    """What an experiment keeps fixed in a sweep. Each experiment subclasses it, with a description for each field."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


S = TypeVar("S", bound=Settings)


@dataclass(frozen=True)
class Axis:
    """A dimension of a sweep.

    Args:
        name: dimension and coordinate name in the result file.
        long_name: what the coordinate says in words.
        choices: for an axis of names, all of them in the order of the result file; None for an axis of floats.
        units: CF units, "1" where it has none.
        minimum: the smallest value that makes sense.
        job_each: True where each value is a job of its own (a training), False where a job computes all of them.
    """

    name: str
    long_name: str
    choices: tuple[str, ...] | None = None
    units: str = "1"
    minimum: float = 0.0
    job_each: bool = False


@dataclass(frozen=True)
class Variable:
    """A variable of the result: its dimensions after the sweep's axes and ``seed``, and its CF attributes.

    Args:
        dims: the trailing dimensions.
        long_name: what the variable holds in words.
        units: CF units, "1" where it has none.
    """

    dims: tuple[str, ...]
    long_name: str
    units: str = "1"


class SettingError(UserError, ValueError):
    """A setting does not fit the data."""


def whole_number(name: str, value: Value, largest: float = float("inf")) -> int:
    """Return a setting, or the value of an axis, that counts things.

    Raises:
        SettingError: if it is no whole number from 1 to ``largest``.
    """
    if not (float(value).is_integer() and 1 <= float(value) <= largest):
        limits = f"from 1 to {largest}" if largest < float("inf") else "of at least 1"
        raise SettingError(f"{name} is {value}; choose a whole number {limits}")
    return int(float(value))


class Stopped(Exception):
    """A run was asked to stop (a signal, a deadline) and has saved its checkpoint."""


class Checkpoint(Protocol):
    """Where a run may leave its state and find it again. It never sees a path."""

    def load(self) -> dict[str, Any] | None:
        """Return the newest readable state (tensors, numbers, strings and plain containers), or None."""

    def due(self) -> bool:
        """True where the run should call :meth:`save` now: some minutes went by, or it is asked to stop."""

    def save(self, state: dict[str, Any]) -> None:
        """Keep the state.

        Raises:
            Stopped: after the state is safe, where the run is asked to stop.
        """


class NoCheckpoint:
    """A checkpoint that keeps nothing, for short runs and tests."""

    def load(self) -> dict[str, Any] | None:
        return None

    def due(self) -> bool:
        return False

    def save(self, state: dict[str, Any]) -> None:
        return None


def _no_images(name: str) -> Images:
    raise LookupError(f"this run was given no pictures, and asks for {name!r}")


@dataclass(frozen=True)
class Context:
    """What a run may use of the outside world.

    Args:
        progress: called with (done, total) and a few numbers to show, such as ``{"loss": 0.1}``.
        checkpoint: where a training keeps its state.
        device: ``"cpu"`` or ``"cuda"``.
        images: gives the pictures of a data set by its name.
    """

    progress: Callable[[int, int, Mapping[str, float]], None] = lambda done, total, numbers: None
    checkpoint: Checkpoint = field(default_factory=NoCheckpoint)
    device: str = "cpu"
    images: Callable[[str], Images] = _no_images


@dataclass(frozen=True)
class Flop:
    """The floating-point operations of a training job; two for each multiplication with its addition.

    Args:
        kind: trainings of one kind compute in the same way, and take about the same time for each operation.
        steps: of all training steps.
        tests: of the tests before, between and after the epochs.
        step: of one training step, whose size decides how fast a device is.
    """

    kind: str
    steps: float
    tests: float
    step: float


@dataclass(frozen=True)
class Experiment(Generic[S]):
    """An experiment, as the module that defines it exports it under the name ``EXPERIMENT``.

    Args:
        name: the module's name.
        title: one line for the result file and for ``mirrorsym list``.
        settings: the Settings subclass.
        axes: the sweep's dimensions in the order of the result file; ``seed`` follows them.
        variables: the contract: what ``run`` returns beside ``status``, which every Dataset has, an int8 over all
            axes and ``seed``. All others are floating point, NaN where a run diverged; ``initial_…`` are those of the
            start, which every run had.
        coords: long names of the trailing coordinates that ``run`` returns.
        run: (settings, grid, seed, context) to a Dataset with every axis, ``seed`` (length 1) and the trailing
            dimensions of each variable, in the contract's order, with their coordinates. Attributes are added later.
        training: True where a point is a training, which has checkpoints and may use a GPU.
        flop: (settings, grid) to the FLOPs of a training, where the module counts them. They foretell the time of one
            whose like has not run.
    """

    name: str
    title: str
    settings: type[S]
    axes: tuple[Axis, ...]
    variables: Mapping[str, Variable]
    run: Callable[[S, Grid, int, Context], xr.Dataset]
    coords: Mapping[str, str]
    training: bool = False
    flop: Callable[[S, Grid], Flop] | None = None

    def dataset(
        self,
        grid: Grid,
        seed: int,
        values: Mapping[str, Iterable[Any]],
        coords: Mapping[str, Any],
        diverged: ArrayLike = False,
    ) -> xr.Dataset:
        """Return the Dataset that ``run`` has to return.

        Args:
            grid: the values of the axes.
            seed: the seed.
            values: of each variable, one entry for each point of the grid, the last axis running fastest; an entry has
                the shape of the variable's own dimensions, or is one number for all of them.
            coords: of the variables' own dimensions.
            diverged: which of the points diverged, shape (points,) or (); their values are taken as they are given.

        Raises:
            ValueError: if the values of a variable do not have its shape.
        """
        import numpy as np
        import xarray as xr

        sweep = (*(axis.name for axis in self.axes), "seed")
        shape = (*(len(grid[axis.name]) for axis in self.axes), 1)
        variables: dict[str, Any] = {}
        for name, variable in self.variables.items():
            own = tuple(len(coords[dim]) for dim in variable.dims)
            entries = np.stack([entry if np.ndim(entry) else np.full(own, entry) for entry in values[name]])
            floats = entries if entries.dtype.kind == "f" else entries.astype(float)
            variables[name] = ((*sweep, *variable.dims), floats.reshape(shape + own))
        states = np.where(np.reshape(np.broadcast_to(diverged, math.prod(shape)), shape), DIVERGED, FINISHED)
        variables["status"] = (sweep, states.astype(np.int8))
        axes = {axis.name: np.array(grid[axis.name], None if axis.choices else float) for axis in self.axes}
        own_coords = {dim: np.asarray(found) for dim, found in coords.items()}
        return xr.Dataset(variables, {**axes, "seed": [seed], **own_coords})
