"""Results that travel: take points computed elsewhere into the store, or keep those of older code."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from reproduction.errors import UserError, check_names, nearest
from reproduction.files import write_atomically
from reproduction.pipeline import fingerprints, provenance, store
from reproduction.pipeline.config import SCALES, Config, load, load_experiment, module_path
from reproduction.pipeline.layout import Layout
from reproduction.pipeline.points import Point, points_of

if TYPE_CHECKING:
    import xarray as xr


class ImportRefused(UserError, ValueError):
    """A file does not belong into the store."""


def import_files(files: Sequence[Path], layout: Layout, accept: bool = False) -> list[str]:
    """Copy points into the store after all of them were checked; return a line for each.

    Args:
        files: the points.
        layout: the project's paths.
        accept: take points that other code made as those of today's, and say so in their attribute ``accepted``.

    Raises:
        ImportRefused: if one is not a point of the configuration at any scale, or other code made it and that is not
            accepted; none is copied.
        StoreError: if one is no readable netCDF file or breaks the contract.
        FileError: if the store cannot be written.
    """
    wanted = _wanted(layout.config)
    places: dict[Path, Path] = {}
    accepted: dict[Path, xr.Dataset] = {}
    for file in files:
        dataset = store.read(file)
        point = _checked(file, dataset, wanted)
        place = layout.point(point.name)
        if place in places:
            raise ImportRefused(f"{file} and {places[place]} are the same point; import one of them")
        places[place] = file
        module = module_path(point.module)
        if dataset.attrs.get("fingerprint") not in fingerprints.valid(layout.fingerprints, module):
            if not accept:
                commit = dataset.attrs.get("code_version", "that version")
                raise ImportRefused(
                    f"{file} was made by other code of {module} than is here; check out {commit}, or give --accept "
                    "where you know that the difference touches no number"
                )
            accepted[place] = _as_of_today(dataset, fingerprints.accepted(layout.fingerprints, module))
        # The fingerprint file has to be older than the point: it is an input of the point's rule.
        fingerprints.update(layout.fingerprints, module)
    for place, file in places.items():
        if place in accepted:
            store.write(accepted[place], place)
        else:
            write_atomically(place, file.read_bytes())
    _note_imported(layout, list(places))
    said = {True: ", of other code, accepted", False: ""}
    return [f"{file} is now {place}{said[place in accepted]}" for place, file in places.items()]


def _note_imported(layout: Layout, places: Sequence[Path]) -> None:
    """Note the points that came by import: Snakemake has no record of what made them, and misses a change of code."""
    known = set(_imported(layout)) | {str(place.relative_to(layout.root)) for place in places}
    write_atomically(layout.imported, json.dumps(sorted(known), indent=0))


def _imported(layout: Layout) -> list[str]:
    try:
        return [str(name) for name in json.loads(layout.imported.read_bytes())]
    except (OSError, ValueError, TypeError):
        return []


def imported_of_other_code(layout: Layout, config: Config, experiments: Iterable[str]) -> list[str]:
    """Return a line for each of the experiments with imported points that count no more as those of today's code."""
    found = []
    imported = set(_imported(layout))
    for name in experiments if imported else ():
        module = module_path(config.module_of(name))
        places = [layout.point(point.name) for point in points_of(config, name)]
        here = [place for place in places if str(place.relative_to(layout.root)) in imported and place.is_file()]
        code = fingerprints.valid(layout.fingerprints, module) if here else set()
        if old := [place for place in here if _made_by(place) not in code]:
            found.append(
                f"{len(old)} imported points of {name} are of other code than today's, {old[0]} among them; delete "
                "them to compute them here, or import them again with --accept"
            )
    return found


def _made_by(place: Path) -> str:
    try:
        return str(store.read(place).attrs.get("fingerprint", ""))
    except store.StoreError:
        return ""


def _as_of_today(dataset: xr.Dataset, fingerprint: str) -> xr.Dataset:
    """The point as one of today's code; its attribute ``accepted`` says whose it is."""
    made_by, version = (str(dataset.attrs.get(name, "unknown")) for name in ("fingerprint", "code_version"))
    today = f"{provenance.code_version()} ({fingerprint[:12]})"
    text = f"made by code {version} ({made_by[:12]}), taken in as that of {today}"
    return dataset.assign_attrs(fingerprint=fingerprint, accepted=text)


def _wanted(config_folder: Path) -> dict[str, dict[Path, str]]:
    """For each experiment's id the names of its points at all scales, with their hash of settings."""
    found: dict[str, dict[Path, str]] = {}
    for scale in SCALES:
        config = load(config_folder, {"scale": scale})
        for name in config.experiments:
            found.setdefault(name, {}).update({point.name: point.config_hash for point in points_of(config, name)})
    return found


def _checked(file: Path, dataset: xr.Dataset, wanted: dict[str, dict[Path, str]]) -> Point:
    try:
        point = Point.from_json(dataset.attrs["point"])
        name, recipe = point.name, point.config_hash
    except (KeyError, TypeError, ValueError, AttributeError):
        what = "its attribute 'point' is missing or damaged, or has settings that are not known here"
        raise ImportRefused(f"{file} is not a point of this project: {what}") from None
    if point.experiment not in wanted:
        raise ImportRefused(f"{file}: there is no experiment {point.experiment!r}{nearest(point.experiment, wanted)}")
    recipes = sorted(set(wanted[point.experiment].values()))
    if recipe not in recipes:
        raise ImportRefused(
            f"{file} is a point of another recipe: no scale of {point.experiment} has its settings or data "
            f"(hash {recipe}, here {', '.join(recipes)})"
        )
    if name not in wanted[point.experiment]:
        raise ImportRefused(
            f"{file}: no scale's sweep has the job {name.stem}; a job holds all values of an axis that is not split"
        )
    store.check(dataset, load_experiment(point.module))
    store.check_meaning(dataset, load_experiment(point.module))
    try:
        store.check_place(dataset, point.place)
    except store.StoreError as error:
        raise ImportRefused(f"{file} is not what its attribute 'point' says: {error}") from None
    return point


def accept_results(config: Config, experiment_ids: Sequence[str], layout: Layout) -> list[str]:
    """Declare that results stand though the code of their experiments changed; return a line for each module.

    Experiments without a result are passed over.

    Raises:
        ConfigError: if there is no such experiment.
        ImportRefused: if there is no result, or a module's results come from several versions of the code; nothing is
            accepted then.
    """
    check_names(experiment_ids, config.experiments, "experiment")
    made_by: dict[str, set[str]] = {}
    for name in experiment_ids:
        files = (layout.point(point.name) for point in points_of(config, name))
        found = {str(store.read(file).attrs["fingerprint"]) for file in files if file.is_file()}
        made_by.setdefault(module_path(config.module_of(name)), set()).update(found)
    older = {module: found for module, found in made_by.items() if found}
    if not older:
        raise ImportRefused(f"there are no results at scale {config.scale} to accept")
    for module, found in older.items():
        if len(found) > 1:
            raise ImportRefused(
                f"several versions of {module} made the results at scale {config.scale}; none is accepted"
            )
    return [_accepted(layout.fingerprints, module, *found) for module, found in older.items()]


def _accepted(folder: Path, module: str, older: str) -> str:
    fingerprints.accept(folder, module, older)
    return f"{module}: today's code ({fingerprints.noted(folder, module)[:12]}) counts as {older[:12]}"
