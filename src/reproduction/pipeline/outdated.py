"""Is what a command prints about the results of today's configuration? Held against the result files themselves."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from reproduction.pipeline.config import Config, load_experiment
from reproduction.pipeline.layout import Layout
from reproduction.pipeline.points import Plan

AGAIN = "snakemake --cores all makes it anew"


def other_sweeps(config: Config, layout: Layout, experiments: Iterable[str]) -> list[str]:
    """Return a line for each result file that holds another sweep than the configuration's; a missing one is none."""
    found = []
    for name in experiments:
        path = layout.result(config.scale, name)
        if path.is_file() and (different := _differences(Plan.of(config, name), path)):
            found.append(f"{path} holds another sweep than is configured ({', '.join(different)}); {AGAIN}")
    return found


def _differences(plan: Plan, path: Path) -> list[str]:
    """What differs, in words; nothing where the file cannot be read, which its reader says."""
    import netCDF4

    try:
        with netCDF4.Dataset(path) as file:
            recipe = str(file.getncattr("config_hash"))
            held = {name: set(file[name][:].tolist()) for name in [*_axes(plan), "seed"]}
    except (OSError, AttributeError, IndexError, RuntimeError):
        return []
    wanted: dict[str, set[Any]] = {axis: {v for part in plan.sweep for v in part[axis]} for axis in _axes(plan)}
    wanted["seed"] = set(plan.seeds)
    different = [name for name in held if held[name] != wanted[name]]
    return different + (["settings or data"] if recipe != plan.points()[0].config_hash else [])


def _axes(plan: Plan) -> list[str]:
    return [axis.name for axis in load_experiment(plan.module).axes]


def changed_since(contents: Mapping[str, str], layout: Layout, scale: str, what: Path) -> list[str]:
    """Return a line for each result file that is not the one that something was made of.

    Args:
        contents: the SHA-256 of each experiment's result file then.
        layout: the project's paths.
        scale: of the result files.
        what: the file that was made of them.
    """
    files = {layout.result(scale, name): digest for name, digest in contents.items()}
    return [f"{what} was made before {path} changed; {AGAIN}" for path, was in files.items() if _sha256(path) != was]


def _sha256(path: Path) -> str:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""
