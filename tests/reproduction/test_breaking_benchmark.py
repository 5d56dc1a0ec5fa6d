"""The benchmark of remedies trains as the experiment does, and each remedy does what its source says."""

from __future__ import annotations

import numpy as np
import pytest
import torch

pytest.importorskip("numba")

from benchmarks.breaking import METHODS, Runs, measure, table
from reproduction.contract import Context
from reproduction.experiments.plasticity import EXPERIMENT, PlasticitySettings

SETTINGS = PlasticitySettings(tasks=2, steps=60)


def silent(_: str) -> None:
    """Say nothing."""


def test_plain_training_and_the_bias_are_those_of_the_experiment() -> None:
    found = measure(SETTINGS, 1, (0.1,), silent)
    grid = {
        "variant": ["rescaled", "rescaled_bias", "vanilla"],
        "precision": ["float32"],
        "adam_state": ["reset"],
        "noise_std": [0.1],
        "learning_rate": [0.01],
    }
    expected = EXPERIMENT.run(SETTINGS, grid, 0, Context())
    names = [method.name for method in METHODS]
    for name, variant in (("plain training", "rescaled"), ("fixed bias", "rescaled_bias")):
        theirs = expected.sel(variant=variant).train_loss.squeeze().values[1:]
        np.testing.assert_allclose(found[0, :, 0, 0, names.index(name)], theirs, rtol=1e-3)


def test_redo_gives_dormant_units_weights_that_nothing_reads() -> None:
    runs = Runs(SETTINGS, 1, (0.1,))
    k = next(k for k, method in enumerate(METHODS) if method.every == 0)
    runs.factors[0, :, k, :10] = 1e-9
    runs.factors[1, :, k, :10] = 1.0
    before = runs.factors.clone()
    runs._redo(torch.randn(1, 100, 100), [k])
    assert (runs.factors[0, 0, k, :10].abs() > 1e-6).all()
    assert not runs.factors[1, 0, k, :10].any()
    living = before[0, 0, k].abs() > 0.02
    assert torch.equal(runs.factors[:, 0, k, living], before[:, 0, k, living])
    others = [other for other in range(len(METHODS)) if other != k]
    assert torch.equal(runs.factors[:, :, others], before[:, :, others])


def test_the_table_has_a_line_for_each_remedy_and_label_noise() -> None:
    found = np.ones((3, 4, 2, 2, len(METHODS)))
    assert len(table(found, (0.1, 1.0))) == 2 + 2 * len(METHODS)
