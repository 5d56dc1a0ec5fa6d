"""Results that travel: take points computed elsewhere into the store, or keep those of older code."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mirrorsym import fingerprints, store
from mirrorsym.config import SCALES, Config, ConfigError, load, load_experiment, nearest
from mirrorsym.files import write_atomically
from mirrorsym.points import Point, points_of


class ImportRefused(ValueError):
    """A file does not belong into the store; the message is one sentence for the user."""


def import_files(files: Sequence[Path], directory: Path) -> list[str]:
    """Copy points into ``results/points`` after all of them were checked; return a line for each.

    Raises:
        ImportRefused: if one is not a point of the configuration at any scale, or other code made it; none is copied.
        StoreError: if one is no readable netCDF file or breaks the contract.
        FileError: if the store cannot be written.
    """
    results = directory / "results"
    recipes = _recipes(directory / "config")
    checked = [_checked(file, recipes, results) for file in files]
    places = [(file, results / "points" / point.name) for file, point in zip(files, checked, strict=True)]
    for point in checked:
        # The fingerprint file has to be older than the point: it is an input of the point's rule.
        fingerprints.update(results / "fingerprints", f"mirrorsym.experiments.{point.module}")
    for file, place in places:
        write_atomically(place, file.read_bytes())
    return [f"{file} is now {place}" for file, place in places]


def _recipes(config_folder: Path) -> dict[str, dict[str, str]]:
    """For each experiment's id the hashes of its settings, and the scale that has them."""
    found: dict[str, dict[str, str]] = {}
    for scale in SCALES:
        config = load(config_folder, {"scale": scale})
        for name in config.experiments:
            found.setdefault(name, {}).setdefault(points_of(config, name)[0].config_hash, scale)
    return found


def _checked(file: Path, recipes: dict[str, dict[str, str]], results: Path) -> Point:
    dataset = store.read(file)
    if "point" not in dataset.attrs:
        raise ImportRefused(f"{file} is not a point: it has no attribute 'point'; mirrorsym run --out writes points")
    point = Point.from_json(dataset.attrs["point"])
    if point.experiment not in recipes:
        raise ImportRefused(f"{file}: there is no experiment {point.experiment!r}{nearest(point.experiment, recipes)}")
    if point.config_hash not in recipes[point.experiment]:
        raise ImportRefused(
            f"{file} is a point of another recipe: no scale of {point.experiment} has its settings or data "
            f"(hash {point.config_hash}, here {', '.join(recipes[point.experiment])})"
        )
    experiment = load_experiment(point.module)
    store.check(dataset, experiment)
    for name, values in {**point.grid, "seed": [point.seed]}.items():
        if dataset[name].values.tolist() != list(values):
            raise ImportRefused(f"{file}: its coordinate {name!r} is not what its attribute 'point' says")
    module = f"mirrorsym.experiments.{point.module}"
    here = {fingerprints.fingerprint(module), fingerprints.accepted(results / "fingerprints", module)}
    if dataset.attrs.get("fingerprint") not in here:
        raise ImportRefused(f"{file} was made by other code of {module} than is here; check out {_commit(dataset)}")
    return point


def _commit(dataset: object) -> str:
    return str(getattr(dataset, "attrs", {}).get("code_version", "that version"))


def accept_results(config: Config, experiment_id: str, results: Path) -> str:
    """Declare that the results of an experiment stand though its code changed; return a line that says so.

    Raises:
        ConfigError: if there is no such experiment.
        ImportRefused: if there is no result, or results of several versions of the code.
    """
    if experiment_id not in config.experiments:
        raise ConfigError(f"there is no experiment {experiment_id!r}{nearest(experiment_id, config.experiments)}")
    module = f"mirrorsym.experiments.{config.module_of(experiment_id)}"
    files = [results / "points" / point.name for point in points_of(config, experiment_id)]
    made_by = {str(store.read(file).attrs["fingerprint"]) for file in files if file.is_file()}
    if len(made_by) != 1:
        what = "results of several versions of the code" if made_by else "no results"
        raise ImportRefused(f"{experiment_id} has {what} at scale {config.scale}, so there is nothing to accept")
    older = made_by.pop()
    fingerprints.accept(results / "fingerprints", module, older)
    return f"{experiment_id}: today's code ({fingerprints.fingerprint(module)[:12]}) counts as {older[:12]}"
