"""The tables of docs/results.md: what they say is in the result file."""

from __future__ import annotations

import numpy as np
import xarray as xr

from reproduction.report.results_page import dcs_rows, homogeneity_rows

NEURONS, SEEDS = 4, 2


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
            "correlation_post": (dims, matrices),
            "weight_distance": (dims, weights),
            "initial_correlation_pre": (dims, start),
            "initial_correlation_post": (dims, start),
            "initial_weight_distance": (dims, np.broadcast_to(distances, matrices.shape)),
            "test_accuracy": (dims[:2], np.array([[0.7, 0.8], [0.6, 0.6]])),
            "status": (dims[:2], np.zeros((2, SEEDS), np.int8)),
        },
        {"weight_decay": [0.0, 0.001], "seed": [0, 1]},
    )


def test_homogeneity_is_counted_as_it_is() -> None:
    head, accuracy, pairs, after, groups, constant, close = homogeneity_rows(homogeneity())
    assert head[2:] == ["decay 0", "decay 0.001"]
    assert accuracy[2:] == ["75 (70–80)", "60"]
    assert pairs[1:] == ["0", "0", "33.3"]  # one of the three pairs of neurons that are not constant
    assert after[1:] == pairs[1:]
    assert groups[1:] == ["4", "4", "2"]
    assert constant[1:] == ["0", "0", "1"]
    assert close[1:] == ["0", "0", "16.7"]  # one of six


def test_a_run_that_did_not_finish_is_left_out() -> None:
    data = homogeneity()
    data["status"][0, 1] = 1
    assert homogeneity_rows(data)[1][2:] == ["70", "60"]


def test_dcs_is_read_at_the_end_and_time_without_the_start() -> None:
    arms, shape = ["vanilla", "dcs"], (2, 1, 4)
    data = xr.Dataset(
        {
            "test_accuracy": (("parameterization", "seed", "epoch"), np.arange(8.0).reshape(shape) / 10),
            "sparsity": (("parameterization", "seed", "epoch"), np.zeros(shape)),
            "epoch_seconds": (("parameterization", "seed", "epoch"), np.array([[[0.0, 2, 3, 90]], [[0, 6, 5, 7]]])),
            "pruned_test_accuracy": (("parameterization", "seed"), np.array([[0.2], [0.5]])),
            "peak_memory": (("parameterization", "seed", "batch_size"), np.array([[[1e6, 3e6]], [[2e6, 4e6]]])),
            "status": (("parameterization", "seed"), np.zeros((2, 1), np.int8)),
        },
        {"parameterization": arms, "batch_size": [1, 128]},
    )
    rows = {row[0]: row[1:] for row in dcs_rows(data)}
    assert rows[""] == ["plain", "w⊙u"]
    assert rows["test accuracy, %"] == ["30", "70"]
    assert rows["seconds of the median epoch's steps, by the clock"] == ["3", "6"]
    assert rows["peak memory at batch 1, MB"] == ["1", "2"]
