"""Put the points of a plan into the result file of an experiment at a scale."""

from __future__ import annotations

import datetime
import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reproduction.pipeline import fingerprints, provenance, store
from reproduction.pipeline.config import load_experiment, module_path
from reproduction.pipeline.layout import Layout
from reproduction.pipeline.notes import with_precision
from reproduction.pipeline.points import Plan, Point

if TYPE_CHECKING:
    import xarray as xr

    from reproduction.contract import Experiment


def collect_plan(plan_file: Path, layout: Layout, out: Path) -> None:
    """Collect the points of a plan file into ``out``.

    Raises:
        FileError: if a point is missing or the result cannot be written.
        StoreError: if a point does not hold what it should.
    """
    plan = Plan.from_json(plan_file.read_text(encoding="utf-8"))
    experiment = load_experiment(plan.module)
    points = plan.points()
    code = fingerprints.valid(layout.fingerprints, module_path(plan.module))
    datasets = [_read(layout.point(point.name), point, experiment, code) for point in points]
    precisions = {dataset.attrs["precision"] for dataset in datasets if "precision" in dataset.attrs}
    if len(precisions) > 1:
        print(
            f"{plan.experiment}: trainings of this sweep computed in different precisions: "
            + " and ".join(sorted(precisions))
        )
    note = with_precision(plan.note, precisions)
    attributes = {
        "experiment": plan.experiment,
        "scale": plan.scale,
        "scale_note": f"{plan.scale}: {note}" if note else "",
        "config_hash": points[0].config_hash,
        "settings": json.dumps(plan.settings.model_dump(mode="json")),
        **_of_the_points(datasets),
    }
    store.write(store.describe(store.collect(datasets, experiment), experiment, attributes), out)
    for point in points:
        shutil.rmtree(layout.checkpoints(point.name), ignore_errors=True)


def _read(path: Path, point: Point, experiment: Experiment[Any], code: set[str]) -> xr.Dataset:
    try:
        dataset = store.read(path)
    except store.StoreError:
        raise store.StoreError(f"{path} is damaged; delete it and run the same command again") from None
    try:
        store.check(dataset, experiment)
        store.check_meaning(dataset, experiment)
        store.check_place(dataset, point.place)
    except store.StoreError as error:
        raise store.StoreError(f"{path} is not this point: {error}; delete it and run the same command again") from None
    if dataset.attrs.get("fingerprint") not in code:
        raise store.StoreError(f"{path} was made by other code than today's; delete it and run the same command again")
    return dataset


def _of_the_points(datasets: Iterable[xr.Dataset]) -> dict[str, str]:
    """What the points say of themselves, each different value once."""
    found: dict[str, list[str]] = {}
    for dataset in datasets:
        for name in ("code_version", "fingerprint", "software", "device", "data_source", "precision", "accepted"):
            if name in dataset.attrs and dataset.attrs[name] not in found.setdefault(name, []):
                found[name].append(dataset.attrs[name])
    created = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    history = f"{created} collected by mirrorsym {provenance.code_version()}"
    return {name: "; ".join(values) for name, values in found.items()} | {"created": created, "history": history}
