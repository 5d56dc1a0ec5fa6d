"""The explorer's charts, drawn by Vega-Lite: Altair writes their specifications, the page gives them their rows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import altair as alt

ROWS, THEORY, HERE = alt.NamedData("rows"), alt.NamedData("theory"), alt.NamedData("here")
COLORS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#777777"]
HEIGHT = 260
LEGEND_BELOW = 60
"""Height of a legend under a square, in pixels."""


def sets(spec: Any) -> list[str]:
    """Return the names of the data that a specification draws."""
    if isinstance(spec, dict):
        named = [spec["data"]["name"]] if "name" in spec.get("data", {}) else []
        return sorted({*named, *(name for part in spec.values() for name in sets(part))})
    return sorted({name for part in spec for name in sets(part)}) if isinstance(spec, list) else []


def _spec(chart: Any, height: int = HEIGHT) -> dict[str, Any]:
    found: dict[str, Any] = chart.properties(width="container", height=height).to_dict()
    found["config"] = {"range": {"category": COLORS}, "view": {"continuousHeight": height}}
    found["autosize"] = {"type": "fit", "contains": "padding"}
    return found


def phase_diagram() -> dict[str, Any]:
    """Median share of vanished weights over learning rate and noise, where theory puts its ends, and a place."""
    x = alt.X(
        "learning_rate_low:Q",
        title="learning rate λ",
        axis=alt.Axis(grid=False),
        scale=alt.Scale(type="log", nice=False),
    )
    y = alt.Y(
        "noise_std_low:Q", title="label noise σ", axis=alt.Axis(grid=False), scale=alt.Scale(type="log", nice=False)
    )
    cells = (
        alt.Chart(ROWS)
        .transform_aggregate(
            sparsity="median(value)",
            runs="valid(value)",
            groupby=["learning_rate", "noise_std", *_ends("learning_rate"), *_ends("noise_std")],
        )
        .mark_rect(stroke=None)
        .encode(
            x=x,
            x2="learning_rate_high:Q",
            y=y,
            y2="noise_std_high:Q",
            color=alt.condition(
                "datum.runs > 0",
                alt.Color("sparsity:Q", title="share", scale=alt.Scale(scheme="cividis", domain=[0, 1])),
                alt.value("#bbbbbb"),
            ),
            tooltip=["learning_rate:Q", "noise_std:Q", alt.Tooltip("sparsity:Q", format=".3f"), "runs:Q"],
        )
    )
    ends = (
        alt.Chart(THEORY)
        .mark_line(strokeWidth=2, clip=True)
        .encode(
            x=alt.X("rate:Q", scale=alt.Scale(type="log", nice=False)),
            y="noise_std:Q",
            order="noise_std:Q",
            color=alt.Color("end:N", title="theory", scale=alt.Scale(range=["#E69F00", "#D55E00"])),
            tooltip=["end:N", "noise_std:Q", "rate:Q"],
        )
    )
    here = (
        alt.Chart(HERE)
        .mark_point(size=110, stroke="#d00000", strokeWidth=3)
        .encode(x="learning_rate:Q", y="noise_std:Q")
    )
    return _spec(alt.layer(cells, ends, here).resolve_scale(color="independent"), 320)


def _ends(name: str) -> list[str]:
    return [f"{name}_low", f"{name}_high"]


def curves(
    x: str,
    x_title: str,
    y_title: str,
    *,
    log: bool = False,
    color: str = "seed",
    top: float | None = None,
    theory: bool = False,
    words: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Runs as points and their median as a line, one colour for each value of ``color``; theory as dashed lines.

    ``words`` are what the legend calls the values.
    """
    scale = alt.Scale(type="log", nice=False) if log else alt.Scale(zero=False)
    axis = alt.Undefined if log else alt.Axis(tickMinStep=1)
    horizontal = alt.X(f"{x}:Q", title=x_title, scale=scale, axis=axis)
    ends = alt.Scale(domain=[0, top]) if top is not None else alt.Scale(zero=False)
    vertical = alt.Y("value:Q", title=y_title, scale=ends)
    said = alt.Legend(labelExpr=f"({json.dumps(words)})[datum.label] || datum.label") if words else alt.Undefined
    named = alt.Color(f"{color}:N", title=color.replace("_", " "), legend=said)
    base = alt.Chart(ROWS).transform_filter("isValid(datum.value)")
    points = base.mark_point(filled=True, size=28, opacity=0.45).encode(
        x=horizontal, y=vertical, color=named, tooltip=[f"{x}:Q", "value:Q", f"{color}:N", "seed:N"]
    )
    if color == "seed":
        line = base.mark_line(strokeWidth=2, color="#777777")
    else:
        line = base.mark_line(strokeWidth=2).encode(color=named)
    middle = line.encode(x=horizontal, y=alt.Y("median(value):Q"))
    lines = (
        alt.Chart(THEORY)
        .mark_rule(strokeDash=[5, 3], strokeWidth=1.5, clip=True, color="#E69F00")
        .encode(x="rate:Q", tooltip=["end:N", "rate:Q"])
    )
    here = alt.Chart(HERE).mark_rule(color="#d00000", opacity=0.6, clip=True).encode(x=f"{x}:Q")
    return _spec(alt.layer(points, middle, *[lines] * theory, here))


def spectrum() -> dict[str, Any]:
    """All weights of a place by size, seed by seed, and the thresholds."""
    y = alt.Y("value:Q", title="log₁₀ |weight|")
    weights = (
        alt.Chart(ROWS)
        .transform_filter("isValid(datum.value)")
        .mark_line(strokeWidth=1.5)
        .encode(
            x=alt.X("order:Q", title="weights, by size"), y=y, color="seed:N", tooltip=["seed:N", "order:Q", "value:Q"]
        )
    )
    lines = alt.Chart(THEORY).mark_rule(strokeDash=[5, 3], color="#777777").encode(y="threshold:Q")
    return _spec(alt.layer(weights, lines))


def matrix() -> dict[str, Any]:
    """A square matrix of correlations."""
    cells = (
        alt.Chart(ROWS)
        .mark_rect()
        .encode(
            x=alt.X("neuron:O", axis=None),
            y=alt.Y("neuron_2:O", axis=None),
            color=alt.Color(
                "value:Q",
                title="correlation",
                legend=alt.Legend(orient="bottom"),
                scale=alt.Scale(scheme="blueorange", domain=[-1, 1]),
            ),
            tooltip=["neuron:O", "neuron_2:O", alt.Tooltip("value:Q", format=".2f")],
        )
    )
    return _spec(cells, 420)


def plane() -> dict[str, Any]:
    """A path in the plane of two parameters over the height of the mean loss, and the lines that are conditions."""
    x = alt.X("u:Q", scale=alt.Scale(domain=[-2.2, 2.2]))
    y = alt.Y("w:Q", scale=alt.Scale(domain=[-2.2, 2.2]))
    height = (
        alt.Chart(alt.NamedData("height"))
        .mark_rect(clip=True)
        .encode(
            x=alt.X("u_low:Q", title="u", axis=alt.Axis(grid=False), scale=alt.Scale(domain=[-2.2, 2.2])),
            x2="u_high:Q",
            y=alt.Y("w_low:Q", title="w", axis=alt.Axis(grid=False), scale=alt.Scale(domain=[-2.2, 2.2])),
            y2="w_high:Q",
            color=alt.Color("loss:Q", legend=None, scale=alt.Scale(scheme="greys", reverse=True)),
        )
    )
    lines = (
        alt.Chart(alt.NamedData("lines"))
        .mark_line(strokeDash=[5, 3], color="#E69F00", clip=True)
        .encode(x=x, y=y, detail="line:N")
    )
    path = alt.Chart(ROWS).mark_line(clip=True, color="#0072B2", strokeWidth=1.5).encode(x=x, y=y, order="step:Q")
    start = alt.Chart(HERE).mark_point(size=110, stroke="#d00000", strokeWidth=3).encode(x=x, y=y)
    return _spec(alt.layer(height, lines, path, start), 380)


def distance() -> dict[str, Any]:
    """How far a path is from the nearer condition, step by step."""
    chart = (
        alt.Chart(ROWS)
        .mark_line(color="#0072B2")
        .encode(
            x=alt.X("step:Q", title="SGD steps"),
            y=alt.Y(
                "distance:Q",
                title="distance to the nearer line",
                scale=alt.Scale(type="log", domain=[1e-17, 10], clamp=True),
            ),
            tooltip=["step:Q", "distance:Q"],
        )
    )
    return _spec(chart)
