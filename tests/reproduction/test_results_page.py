"""The page of the trainings: what its tables say is in the result files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from reproduction.analysis import neurons, products
from reproduction.report.render import render_template
from reproduction.report.results_page import (
    neurons_in_numbers,
    precisions_in_numbers,
    products_in_numbers,
    shrinkage,
    side_by_side,
)
from reproduction.training.loop import learning_rate, steps_per_epoch
from reproduction.training.recipe import Recipe

TEMPLATE = Path(__file__).parents[2] / "paper" / "results.md.j2"
NEURONS, SEEDS = 4, 2
SETTINGS = json.dumps(Recipe(epochs=13).model_dump() | {"weight_decay": 5e-4})


def homogeneity() -> xr.Dataset:
    """Networks in which two of four neurons are one with decay, and one is constant; none of it at the start."""
    blocks = np.eye(NEURONS)
    blocks[0, 1] = blocks[1, 0] = 0.99
    blocks[3] = blocks[:, 3] = np.nan
    distances = 1 - np.eye(NEURONS)
    near = distances.copy()
    near[0, 1] = near[1, 0] = 0.05
    matrices = np.broadcast_to(np.stack([np.eye(NEURONS), blocks])[:, None], (2, SEEDS, NEURONS, NEURONS))
    weights = np.broadcast_to(np.stack([distances, near])[:, None], (2, SEEDS, NEURONS, NEURONS))
    start = np.broadcast_to(np.eye(NEURONS), (2, SEEDS, NEURONS, NEURONS))
    dims = ("weight_decay", "seed", "neuron", "neuron_2")
    return xr.Dataset(
        {
            "correlation_pre": (dims, matrices),
            "correlation_post": (dims, start),
            "weight_distance": (dims, weights),
            "initial_correlation_pre": (dims, start),
            "initial_correlation_post": (dims, start),
            "initial_weight_distance": (dims, np.broadcast_to(distances, matrices.shape)),
            "test_accuracy": (dims[:2], np.array([[0.7, 0.8], [0.6, 0.6]])),
            "status": (dims[:2], np.zeros((2, SEEDS), np.int8)),
        },
        {"weight_decay": [0.0, 0.001], "seed": [0, 1]},
        {"settings": SETTINGS},
    )


def dcs() -> xr.Dataset:
    shape = (2, 1, 4)
    return xr.Dataset(
        {
            "test_accuracy": (("parameterization", "seed", "epoch"), np.arange(8.0).reshape(shape) / 10),
            "sparsity": (("parameterization", "seed", "epoch"), np.linspace(0, 0.7, 8).reshape(shape)),
            "epoch_seconds": (("parameterization", "seed", "epoch"), np.array([[[0.0, 2, 3, 90]], [[0, 6, 5, 7]]])),
            "pruned_test_accuracy": (("parameterization", "seed"), np.array([[0.2], [0.5]])),
            "peak_memory": (("parameterization", "seed", "batch_size"), np.array([[[1e6, 3e6]], [[2e6, 4e6]]])),
            "status": (("parameterization", "seed"), np.zeros((2, 1), np.int8)),
        },
        {"parameterization": ["vanilla", "dcs"], "batch_size": [1, 128]},
        {"settings": SETTINGS},
    )


def page(**changes: Any) -> str:
    content: dict[str, Any] = {
        "measures": {"homogeneous": "0.95", "identical": "0.1", "zero": "10⁻⁶"},
        "experiments": [],
        "neurons": neurons_in_numbers(homogeneity(), "tiny"),
        "products": products_in_numbers(dcs(), "tiny"),
        "precisions": {},
        "figures": [("tiny", "fig7")],
        "claims": [
            {
                "statement": "A <b> holds.",
                "place": "Figure 7",
                "said": [
                    {"scale": "laptop", "verdict": "undecided", "reason": "too few"},
                    {"scale": "tiny", "verdict": "supported", "reason": "1 > 0"},
                ],
            }
        ],
        "spent": [],
        "plan": ["one", "two"],
    }
    return render_template(content | changes, TEMPLATE)


def row_of(text: str, name: str) -> list[str]:
    line = next(line for line in text.splitlines() if line.startswith(f"| {name} |"))
    return [cell.strip() for cell in line.strip("|").split("|")[1:]]


def test_the_table_of_neurons_counts_them_as_they_are() -> None:
    text = page()
    assert row_of(text, "test accuracy, %") == ["", "75 (70–80)", "60"]
    assert (
        "|  | tiny: at the start | tiny: decay 0 | tiny: decay 0.001 |\n| --- | --- | --- | --- |\n| decay alone"
        in text
    )
    pairs = "pairs correlated above 0.95 before the activation, %"
    assert row_of(text, pairs) == ["0", "0", "33.3"]  # one of the three pairs of neurons that are not constant
    assert row_of(text, "the same after it, %") == ["0", "0", "0"]
    assert row_of(text, "groups of neurons before the activation") == ["4", "4", "2"]
    assert row_of(text, "constant neurons before the activation") == ["0", "0", "1"]
    assert row_of(text, "pairs of the others closer than 0.1 in weight, %") == ["0", "0", "33.3"]


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_decay_alone_shrinks_a_weight_by_so_much(schedule: str) -> None:
    recipe = Recipe(epochs=13, schedule=schedule)  # type: ignore[arg-type]
    weight, buffer, decay = 1.0, 0.0, 1e-3
    steps = 13 * steps_per_epoch(50_000, recipe)
    for step in range(steps):
        buffer = recipe.momentum * buffer + decay * weight
        weight -= learning_rate(recipe, step, steps) * buffer
    assert -np.log(weight) == pytest.approx(shrinkage(recipe.model_dump(), decay), rel=0.01)
    s = f"{shrinkage(recipe.model_dump(), decay):.3g}"
    assert s == {"constant": "5.07", "cosine": "2.54"}[schedule]


def test_how_far_decay_shrinks_stands_above_the_numbers() -> None:
    assert row_of(page(), "decay alone makes a weight e⁻ˢ times as large, s") == ["", "0", "5.07"]
    assert row_of(page(), "decay alone makes a parameter e⁻ˢ times as large, s") == ["2.54", "5.07"]


def test_a_run_that_did_not_finish_is_left_out() -> None:
    data = homogeneity()
    data["status"][0, 1] = 1
    assert row_of(page(neurons=neurons_in_numbers(data, "tiny")), "test accuracy, %")[1:] == ["70", "60"]
    counts = neurons.counts(data)
    assert bool(counts.sel(weight_decay=0, seed=1, when="end")["constant_neurons"].isnull())
    assert bool(counts.sel(weight_decay=0, seed=0)["constant_neurons"].notnull().all())
    data["status"][0, 0] = 1
    assert row_of(page(neurons=neurons_in_numbers(data, "tiny")), "test accuracy, %")[1:] == ["none", "60"]


def test_products_are_read_at_the_end_and_time_without_the_start() -> None:
    text = page()
    assert "|  | tiny: plain, λ 0.1 | tiny: w⊙u, λ 0.1 |\n| --- | --- | --- |\n| decay alone" in text
    assert row_of(page(neurons={}), "test accuracy, %") == ["30", "70"]
    assert row_of(text, "the same with parameters below 10⁻⁶ set to zero, %") == ["20", "50"]
    assert row_of(text, "parameters below 10⁻⁶, %") == ["30", "70"]
    assert row_of(text, "seconds of the median epoch's steps, by the clock") == ["3", "6"]
    assert row_of(text, "peak memory at batch 1, MB") == ["1", "2"]
    assert row_of(text, "peak memory at batch 128, MB") == ["3", "4"]
    compared = products.comparison(dcs())
    np.testing.assert_allclose(compared["initial_sparsity"].values, [[0], [0.4]])


def test_the_rest_of_the_page_is_as_it_is_given() -> None:
    text = page()
    said = "  - laptop: **undecided**. too few\n  - tiny: **supported**. 1 > 0\n"
    assert f"- A <b> holds. (Figure 7)\n{said}" in text
    assert "![fig7 at scale tiny](results/tiny/fig7.png)\n" in text
    assert "```\none\ntwo\n```" in text
    assert "Timed here" not in text
    spent = [{"scale": "tiny", "name": "dcs_resnet", "known": 3, "all": 6, "time": "34 min"}]
    assert "Timed here: `dcs_resnet` at tiny: 3 of 6 trainings, 34 min of one core.\n" in page(spent=spent)


def test_scales_stand_side_by_side_in_the_same_rows() -> None:
    one, other = (neurons_in_numbers(homogeneity(), scale) for scale in ("laptop", "overnight"))
    text = page(neurons=side_by_side([one, other]))
    assert "| laptop: decay 0.001 | overnight: at the start |" in text
    assert row_of(text, "groups of neurons before the activation") == ["4", "4", "2", "4", "4", "2"]
    assert row_of(text, "test accuracy, %") == ["", "75 (70–80)", "60", "", "75 (70–80)", "60"]
    assert "Figure 7: every parameter" not in page(products={})


def test_precisions_are_compared_on_the_same_trainings() -> None:
    plain = homogeneity()
    control = plain.isel(weight_decay=[1]).assign_attrs(precision="bfloat16")
    control["test_accuracy"] = control["test_accuracy"] - 0.1
    data = {("laptop", "homogeneity"): plain, ("laptop", "homogeneity_auto"): control}
    text = page(precisions=precisions_in_numbers(data))
    assert "|  | laptop: float32 | laptop: bfloat16 |" in text
    assert row_of(text[text.index("another precision") :], "test accuracy, %") == ["60", "50"]
    assert row_of(text, "groups of neurons") == ["2", "2"]
    assert precisions_in_numbers({("laptop", "homogeneity"): plain}) == {}
