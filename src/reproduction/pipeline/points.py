"""A point is known by what it is: experiment, settings, grid values and seed, all of it in its file's name."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reproduction.contract import Axis, Experiment, Settings, Value
from reproduction.errors import ConfigError
from reproduction.pipeline.config import Config, load_experiment


@dataclass(frozen=True)
class Point:
    """One training, or one block of a kernel: what one job computes.

    Args:
        experiment: the experiment's id.
        module: its module.
        settings: its settings.
        data: the checksum of the data set's archive, None where none is read.
        grid: axis names to their values in this job.
        seed: the seed.
    """

    experiment: str
    module: str
    settings: Settings
    data: str | None
    grid: Mapping[str, Sequence[Value]]
    seed: int

    @property
    def config_hash(self) -> str:
        """Hash of the experiment's module, settings and data, without its grid."""
        return digest([self.module, self.settings.model_dump(mode="json"), self.data], 12)

    @property
    def labels(self) -> dict[str, str]:
        """Each axis and the seed with the text that names their values in the file name."""
        return {**{name: _label(values) for name, values in self.grid.items()}, "seed": str(self.seed)}

    @property
    def place(self) -> dict[str, Sequence[Value]]:
        """The values of each axis and of the seed."""
        return {**self.grid, "seed": [self.seed]}

    @property
    def name(self) -> Path:
        """The path of the point's file below the folder of points."""
        labels = ",".join(f"{key}~{value}" for key, value in self.labels.items())
        return Path(self.experiment) / self.config_hash / f"{labels}.nc"

    def to_json(self) -> str:
        """Return the point as one line of JSON, the axes in the order of the file's name."""
        return json.dumps({**vars(self), "settings": self.settings.model_dump(mode="json")})

    @classmethod
    def from_json(cls, text: str) -> Point:
        """Return the point that :meth:`to_json` wrote.

        Raises:
            ValueError, TypeError, KeyError: if the text is none that it writes, or its settings are not those of today.
        """
        content = json.loads(text)
        settings = load_experiment(content["module"]).settings.model_validate(content["settings"])
        return cls(**{**content, "settings": settings})


def digest(content: Any, length: int) -> str:
    """Return the first hexadecimal digits of the SHA-256 of a JSON-like value."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:length]


def _label(values: Sequence[Value]) -> str:
    return str(values[0]) if len(values) == 1 else f"{len(values)}x{digest(list(values), 8)}"


def canonical(axis: Axis, values: Sequence[Value]) -> list[Value]:
    """Return the values of an axis as floats in ascending order, or as names in the axis's own order, each once."""
    if axis.choices is not None:
        return [choice for choice in axis.choices if choice in values]
    return sorted({float(value) for value in values})


def data_of(config: Config, settings: Settings) -> str | None:
    """Return the checksum of the archive that a run with these settings reads, None where it reads none."""
    return config.cifar10.checksum if getattr(settings, "dataset", None) == "cifar10" else None


@dataclass(frozen=True)
class Plan:
    """All points of one experiment at one scale, in a form that a job can read from a small file.

    Args:
        scale: the scale's name.
        experiment: the experiment's id.
        module: its module.
        data: the checksum of the data set's archive, None where none is read.
        settings: its settings.
        seeds: in ascending order.
        sweep: products of axis values in canonical form.
        note: how the scale differs from the paper.
    """

    scale: str
    experiment: str
    module: str
    data: str | None
    settings: Settings
    seeds: Sequence[int]
    sweep: Sequence[Mapping[str, Sequence[Value]]]
    note: str = ""

    @classmethod
    def of(cls, config: Config, experiment_id: str) -> Plan:
        """Return the plan of an experiment.

        Raises:
            ConfigError: if its settings are not valid.
        """
        entry, module = config.experiments[experiment_id], config.module_of(experiment_id)
        settings, axes = config.settings_of(experiment_id), load_experiment(module).axes
        sweep = [{axis.name: canonical(axis, product[axis.name]) for axis in axes} for product in entry.sweep]
        data, note = data_of(config, settings), config.note_of(experiment_id)
        return cls(config.scale, experiment_id, module, data, settings, entry.seed_list, sweep, note)

    def to_json(self) -> str:
        """Return the plan as JSON text: what decides the result, however the configuration spells it."""
        parts = {"seeds": self.seeds, "sweep": self.sweep, "note": self.note}
        content = {name: value for name, value in vars(self).items() if name not in (*parts, "settings")}
        content["entry"] = {"settings": self.settings.model_dump(mode="json"), **parts}
        return json.dumps(content, sort_keys=True, indent=1)

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """Return the plan that :meth:`to_json` wrote."""
        content = json.loads(text)
        entry = content.pop("entry")
        settings = load_experiment(content["module"]).settings.model_validate(entry.pop("settings"))
        return cls(**content, settings=settings, **entry)

    def points(self) -> list[Point]:
        """Return the points of the sweep, in its order.

        Raises:
            ConfigError: if two products of the sweep hold the same grid point in different blocks.
        """
        blocks = _blocks(load_experiment(self.module), self.sweep)
        _refuse_overlap(self.experiment, blocks)
        return [
            Point(self.experiment, self.module, self.settings, self.data, block, seed)
            for block in blocks
            for seed in self.seeds
        ]


def points_of(config: Config, experiment_id: str) -> list[Point]:
    """Return the points of an experiment's sweep.

    Raises:
        ConfigError: if its settings are not valid, or two products of the sweep overlap.
    """
    return Plan.of(config, experiment_id).points()


def _blocks(
    experiment: Experiment[Any], sweep: Sequence[Mapping[str, Sequence[Value]]]
) -> list[Mapping[str, Sequence[Value]]]:
    """The grids of the sweep's jobs, each once."""
    blocks: dict[str, Mapping[str, Sequence[Value]]] = {}
    for product in sweep:
        cut = [
            [[value] for value in product[axis.name]] if axis.job_each else [product[axis.name]]
            for axis in experiment.axes
        ]
        for block in itertools.product(*cut):
            grid = {axis.name: values for axis, values in zip(experiment.axes, block, strict=True)}
            blocks[digest(grid, 64)] = grid
    return list(blocks.values())


def _refuse_overlap(experiment_id: str, blocks: Sequence[Mapping[str, Sequence[Value]]]) -> None:
    seen: set[tuple[Value, ...]] = set()
    for block in blocks:
        for cell in itertools.product(*block.values()):
            if cell in seen:
                values = ", ".join(f"{name} {value}" for name, value in zip(block, cell, strict=True))
                raise ConfigError(f"experiments.{experiment_id}.sweep: {values} stands in two products; keep one")
            seen.add(cell)
