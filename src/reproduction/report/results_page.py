"""docs/results.md: trainings on CIFAR-10, scale by scale, beside the paper's; ``paper/results.md.j2`` has the words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mirrorsym import measures
from reproduction.analysis import neurons, products, runs
from reproduction.analysis.verdict_file import by_weight, read_verdicts
from reproduction.files import FileError, write_atomically
from reproduction.formatting import duration, number, setting
from reproduction.pipeline import store
from reproduction.pipeline.config import Config, load
from reproduction.pipeline.costs import forecast, table
from reproduction.pipeline.layout import Layout
from reproduction.report.gallery import shrunk
from reproduction.report.render import render_template
from reproduction.training.flop import DCS, SIZES, VANILLA

if TYPE_CHECKING:
    import xarray as xr

SCALES = ("laptop", "overnight", "paper")
"""Those that train on CIFAR-10."""
TABLES = {"homogeneity": "homogeneity", "dcs_resnet": "dcs_resnet", "dcs_resnet_tuned": "dcs_resnet"}
"""The experiments whose networks have columns, and in whose table."""
OTHER_PRECISION = "homogeneity_auto"
"""The control of ``homogeneity`` that differs in the precision alone."""
ARMS = {VANILLA: "plain", DCS: "w⊙u"}


def write_page(layout: Layout) -> Path:
    """Write ``docs/results.md`` and its pictures from what was trained on CIFAR-10 here, and return its path.

    Raises:
        FileError: if there is no result, a figure is missing, or a file cannot be written.
        ReportError: if the template is missing or wrong.
    """
    docs = layout.root / "docs"
    found = content(layout)
    for scale, figure in found["figures"]:
        picture = docs / "results" / scale / f"{figure}.png"
        write_atomically(picture, shrunk(layout.figure(scale, figure, "png")))
    page = render_template(found, layout.root / "paper" / "results.md.j2")
    write_atomically(docs / "results.md", page.rstrip() + "\n")
    return docs / "results.md"


def content(layout: Layout) -> dict[str, Any]:
    """Return what the template lays out: the scales side by side, as far as they were trained.

    Raises:
        FileError: if no scale has a result.
    """
    data = {
        (scale, name): store.read(layout.result(scale, name))
        for scale in SCALES
        for name in (*TABLES, OTHER_PRECISION)
        if layout.result(scale, name).is_file()
    }
    if not data:
        raise FileError(f"no training of the scales {', '.join(SCALES)} is collected here; run snakemake at one first")
    configs = {scale: load(layout.config, {"scale": scale}) for scale, _ in data}
    return {
        "measures": {
            "homogeneous": number(measures.HOMOGENEOUS_CORRELATION),
            "identical": number(measures.IDENTICAL_DISTANCE),
            "zero": number(measures.ZERO_THRESHOLD),
        },
        "experiments": [_provenance(name, dataset) for (_, name), dataset in data.items()],
        "neurons": side_by_side([neurons_in_numbers(one, scale) for scale, one in _of_table(data, "homogeneity")]),
        "precisions": precisions_in_numbers(data),
        "products": side_by_side([products_in_numbers(one, scale) for scale, one in _of_table(data, "dcs_resnet")]),
        "figures": [
            (scale, name)
            for scale, config in configs.items()
            for name, figure in config.figures.items()
            if set(figure.experiments) & set(TABLES) and layout.figure(scale, name, "png").is_file()
        ],
        "claims": _judged(layout, configs),
        "spent": [line for scale, config in configs.items() for line in _spent(scale, config, layout)],
        "plan": table(forecast(load(layout.config, {"scale": "paper"}), layout)),
    }


def _of_table(data: Mapping[tuple[str, str], xr.Dataset], title: str) -> list[tuple[str, xr.Dataset]]:
    return [(scale, dataset) for (scale, name), dataset in data.items() if TABLES.get(name) == title]


def _judged(layout: Layout, scales: Iterable[str]) -> list[dict[str, Any]]:
    """The claims on these experiments, each with what every scale says of it."""
    found: dict[str, dict[str, Any]] = {}
    for scale in scales:
        if layout.claims(scale).is_file():
            for claim in by_weight(read_verdicts(layout.claims(scale)).claims):
                if claim.nature == "claim" and set(claim.experiments) & set(TABLES):
                    entry = found.setdefault(claim.id, {**claim.model_dump(), "said": []})
                    entry["said"].append({"scale": scale, "verdict": claim.verdict, "reason": claim.reason})
    return list(found.values())


def side_by_side(tables: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return tables of the same rows as one, their columns one after the other; an empty one where there is none."""
    joined: dict[str, Any] = {}
    for one in tables:
        for name, cells in one.items():
            joined[name] = (
                side_by_side([joined.get(name, {}), cells])
                if isinstance(cells, Mapping)
                else [*joined.get(name, []), *cells]
            )
    return joined


def neurons_in_numbers(data: xr.Dataset, scale: str) -> dict[str, Any]:
    """Return what :func:`neurons.counts` counts on both sides of the activation: at the start, then at each decay."""
    sides: dict[str, Any] = {}
    for side in ("pre", "post"):
        counts = neurons.counts(data, side)
        start, end = counts.sel(when="start").isel(weight_decay=[0]), counts.sel(when="end")
        sides[side] = {str(name): [*_cells(start[name]), *_cells(end[name])] for name in counts}
        sides[side]["test_accuracy"][0] = None  # networks are not tested before they are trained
    decays, settings = data["weight_decay"].values.tolist(), store.settings_of(data)
    return {
        "columns": [f"{scale}: {when}" for when in ("at the start", *(f"decay {setting(decay)}" for decay in decays))],
        "shrunk": [None, *([shrinkage(settings, decay)] * 3 for decay in decays)],
        **sides,
    }


def shrinkage(settings: Mapping[str, Any], weight_decay: float) -> float:
    """Return s where weight decay alone makes a weight e⁻ˢ times as large over a training.

    In small steps, SGD with learning rate λ and momentum m takes λ γ w / (1 - m) off a weight in each.

    Args:
        settings: of the training (:class:`~reproduction.training.recipe.Recipe`).
        weight_decay: γ.
    """
    steps = SIZES[settings["dataset"]].train // settings["batch_size"] * settings["epochs"]
    mean = settings["learning_rate"] * {"constant": 1.0, "cosine": 0.5}[settings["schedule"]]
    return float(mean * weight_decay * steps / (1 - settings["momentum"]))


def precisions_in_numbers(data: Mapping[tuple[str, str], xr.Dataset]) -> dict[str, Any]:
    """Return what :func:`neurons.counts` counts of the same trainings in float32 and in the other precision."""
    tables = []
    for scale, name in data:
        if name == OTHER_PRECISION and (scale, "homogeneity") in data:
            control = data[scale, name]
            for one in (data[scale, "homogeneity"].sel(weight_decay=control["weight_decay"]), control):
                counts = neurons.counts(one).sel(when="end")
                column = f"{scale}: {one.attrs.get('precision', 'float32')}"
                tables.append({"columns": [column], **{str(name): _cells(counts[name]) for name in counts}})
    return side_by_side(tables)


def products_in_numbers(data: xr.Dataset, scale: str) -> dict[str, Any]:
    """Return what :func:`products.comparison` compares, one number a parameterization; memory by batch size."""
    compared, settings = products.comparison(data), store.settings_of(data)
    memory, rate = compared["peak_memory"], setting(settings["learning_rate"])
    arms = data["parameterization"].values.tolist()
    return {
        "columns": [f"{scale}: {ARMS[arm]}, λ {rate}" for arm in arms],
        "shrunk": [[(1 + (arm == DCS)) * shrinkage(settings, settings["weight_decay"])] * 3 for arm in arms],
        **{str(name): _cells(values) for name, values in compared.drop_vars("peak_memory").items()},
        "peak_memory": {int(size): _cells(memory.sel(batch_size=size)) for size in memory["batch_size"].values},
    }


def _cells(values: xr.DataArray) -> list[list[float]]:
    """Median, smallest and largest number over seeds of each column."""
    found: list[list[float]] = np.stack([part.values for part in runs.spread(values)], axis=-1).tolist()
    return found


def _provenance(name: str, data: xr.Dataset) -> dict[str, Any]:
    return {
        "name": name,
        "note": data.attrs["scale_note"] or data.attrs["scale"],
        "seeds": data.sizes["seed"],
        "settings": ", ".join(f"{key} {setting(value)}" for key, value in store.settings_of(data).items()),
        "data": data.attrs["data_source"],
        "device": data.attrs["device"],
        "code": data.attrs["code_version"],
        "software": data.attrs["software"],
        "accepted": data.attrs.get("accepted", ""),
    }


def _spent(scale: str, config: Config, layout: Layout) -> list[dict[str, Any]]:
    """What the trainings took here."""
    from reproduction.pipeline.measured import clock_seconds
    from reproduction.pipeline.points import points_of

    spent = []
    for name in (name for name in (*TABLES, OTHER_PRECISION) if name in config.experiments):
        files = [layout.point_benchmark(point.name) for point in points_of(config, name)]
        if known := [seconds for seconds in map(clock_seconds, files) if seconds]:
            spent.append(
                {"scale": scale, "name": name, "known": len(known), "all": len(files), "time": duration(sum(known))}
            )
    return spent
