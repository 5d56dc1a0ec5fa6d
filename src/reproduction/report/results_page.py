"""docs/results.md: the trainings of a scale beside what the paper reports; ``paper/results.md.j2`` has the words."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mirrorsym import measures
from reproduction.analysis import neurons, products, runs
from reproduction.analysis.verdict_file import by_weight, read_verdicts
from reproduction.files import write_atomically
from reproduction.formatting import duration, number, setting
from reproduction.pipeline import store
from reproduction.pipeline.config import Config, load
from reproduction.pipeline.costs import forecast, table
from reproduction.pipeline.layout import Layout
from reproduction.report.gallery import shrunk
from reproduction.report.render import render_template

if TYPE_CHECKING:
    import xarray as xr

EXPERIMENTS = ("homogeneity", "dcs_resnet")


def write_page(config: Config, layout: Layout) -> Path:
    """Write ``docs/results.md`` and its pictures from a scale's results and return its path.

    Raises:
        FileError: if a result file or a figure is missing, or a file cannot be written.
        ReportError: if the template is missing or wrong.
    """
    docs = layout.root / "docs"
    found = content(config, layout)
    for figure in found["figures"]:
        write_atomically(docs / "results" / f"{figure}.png", shrunk(layout.figure(config.scale, figure, "png")))
    page = render_template(found, layout.root / "paper" / "results.md.j2")
    write_atomically(docs / "results.md", page.rstrip() + "\n")
    return docs / "results.md"


def content(config: Config, layout: Layout) -> dict[str, Any]:
    """Return what the template lays out.

    Raises:
        FileError: if a result file or the claims are missing.
    """
    data = {name: store.read(layout.result(config.scale, name)) for name in EXPERIMENTS}
    judged = read_verdicts(layout.claims(config.scale)).claims
    return {
        "scale": config.scale,
        "measures": {
            "homogeneous": number(measures.HOMOGENEOUS_CORRELATION),
            "identical": number(measures.IDENTICAL_DISTANCE),
            "zero": number(measures.ZERO_THRESHOLD),
        },
        "experiments": [_provenance(name, dataset) for name, dataset in data.items()],
        "neurons": neurons_in_numbers(data["homogeneity"]),
        "products": products_in_numbers(data["dcs_resnet"]),
        "figures": [name for name, figure in config.figures.items() if set(figure.experiments) & set(EXPERIMENTS)],
        "claims": [
            claim.model_dump()
            for claim in by_weight(judged)
            if claim.nature == "claim" and set(claim.experiments) & set(EXPERIMENTS)
        ],
        "spent": _spent(config, layout),
        "plan": table(forecast(load(layout.config, {"scale": "paper"}), layout)),
    }


def neurons_in_numbers(data: xr.Dataset) -> dict[str, Any]:
    """Return what :func:`neurons.counts` counts on both sides of the activation: at the start, then at each decay."""
    sides: dict[str, Any] = {}
    for side in ("pre", "post"):
        counts = neurons.counts(data, side)
        start, end = counts.sel(when="start").isel(weight_decay=[0]), counts.sel(when="end")
        sides[side] = {name: [*_cells(start[name]), *_cells(end[name])] for name in counts}
    return {"decays": [setting(float(decay)) for decay in data["weight_decay"].values], **sides}


def products_in_numbers(data: xr.Dataset) -> dict[str, Any]:
    """Return what :func:`products.comparison` compares, one number a parameterization; memory by batch size."""
    compared = products.comparison(data)
    memory = compared["peak_memory"]
    return {
        "parameterizations": data["parameterization"].values.tolist(),
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
    }


def _spent(config: Config, layout: Layout) -> list[dict[str, Any]]:
    """What the trainings took here."""
    from reproduction.pipeline.measured import clock_seconds
    from reproduction.pipeline.points import points_of

    spent = []
    for name in EXPERIMENTS:
        files = [layout.point_benchmark(point.name) for point in points_of(config, name)]
        if known := [seconds for seconds in map(clock_seconds, files) if seconds]:
            spent.append({"name": name, "known": len(known), "all": len(files), "time": duration(sum(known))})
    return spent
