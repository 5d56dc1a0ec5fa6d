"""Each empirical claim of the paper against results that support it and results that refute it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import xarray as xr
from claims_world import ROOT, World, make_world, put

from reproduction.analysis.claims import Claim, load_all
from reproduction.analysis.verdict_file import LIMITED, NOT_SUPPORTED, SUPPORTED, UNDECIDED
from reproduction.analysis.verdicts import compute

PAPER, _ = load_all(sorted((ROOT / "claims").glob("*.yaml")), [])
CLAIMS = {
    claim.id: claim for claim in PAPER if claim.kind != "theory" or claim.experiments == ["factorization_stability"]
}
SETTINGS = "settings"
Edit = tuple[str, str, Any, dict[str, Any]]

RESCALED, VANILLA, FINE = {"parameterization": "rescaled"}, {"parameterization": "vanilla"}, {"threshold": 1e-6}
FACTORED, RESIDUAL = {"parameterization": "factored"}, {"parameterization": "residual"}
DECAY, NO_DECAY = {"weight_decay": 1e-3}, {"weight_decay": 0.0}
PAPER = {"precision": "float32", "adam_state": "reset", "noise_std": 0.1, "learning_rate": 0.01}
DOUBLE = PAPER | {"precision": "float64"}
DCS = {"parameterization": "dcs"}
ONE, TWO = {"layers": 1, "layer": 1}, {"layers": 2}


def uncorrelated(old: xr.DataArray) -> xr.DataArray:
    return old.where(old.neuron == old.neuron_2, 0.0)


def all_alike(old: xr.DataArray) -> xr.DataArray:
    return xr.ones_like(old)


def unlike(old: xr.DataArray) -> xr.DataArray:
    """Another pattern than that of the blocks of neighbours."""
    matrix = np.random.default_rng(1).uniform(-0.5, 0.5, old.shape)
    return xr.zeros_like(old) + np.where(np.eye(128) > 0, 1.0, matrix + matrix.swapaxes(-1, -2))


def die_early(old: xr.DataArray) -> xr.DataArray:
    """The same parameters are dead after every task."""
    return xr.where(old.task > 0, old.isel(task=5, drop=True), old).transpose(*old.dims)


def revive(old: xr.DataArray) -> xr.DataArray:
    """After every second task all parameters are alive."""
    return old.where(old.task % 2 == 1, 1.0)


def plus(amount: float) -> Callable[[xr.DataArray], xr.DataArray]:
    return lambda old: old + amount


REFUTING: dict[str, list[Edit]] = {
    "sparsity_rises_with_learning_rate": [("sparsity", "sparsity", 0.01, RESCALED | FINE)],
    "vanilla_never_sparse": [("sparsity", "sparsity", 0.6, VANILLA | FINE | {"learning_rate": 0.004})],
    "symmetry_makes_the_sparsity": [("sparsity", "sparsity", 0.001, RESCALED | FINE)],
    "collapse_begins_at_the_critical_learning_rate": [("sparsity", "sparsity", 0.9, RESCALED | FINE)],
    "second_order_critical_learning_rate": [("sparsity", "sparsity", 0.9, RESCALED | FINE)],
    "label_noise_favours_sparsity": [
        ("sparsity", "sparsity", 1.0, RESCALED | FINE | {"noise_std": 0.1, "learning_rate": 0.015})
    ],
    "small_batches_favour_collapse": [
        ("sparsity_batch", "sparsity", 1.0, FINE | {"batch_size": 64, "learning_rate": 0.015})
    ],
    # A start so close to zero that gradient descent has not left it either.
    "favoured_by_sgd_not_by_gd": [("sparsity", SETTINGS, {"initial_variance": 1e-40}, {})],
    "phase_boundary_is_the_exponents_sign": [("sparsity_phase", "sparsity", lambda old: 1 - old, {})],
    "collapse_can_generalize": [("sparsity_noise_features", "weight", 0.5, RESCALED)],
    "noise_slows_the_escape": [("factorization_stability", "escape_rate", lambda old: 9 * old, {})],
    "noise_attracts_directions": [("factorization_stability", "lyapunov_exponent", 1.0, {})],
    "rank_falls_with_learning_rate": [("matrix_factorization", "rank", 200.0, FACTORED)],
    "rank_falls_with_label_noise": [("matrix_factorization", "rank", 150.0, FACTORED)],
    "residual_always_full_rank": [("matrix_factorization", "rank", 100.0, RESIDUAL | {"signal": 0.02})],
    "residual_removes_the_cause": [("matrix_factorization", "rank", 200.0, FACTORED)],
    "rank_is_the_number_of_positive_exponents": [("matrix_factorization", "rank", 60.0, FACTORED)],
    "phase_diagram_of_the_rank": [("matrix_factorization_phase", "rank", 60.0, {})],
    "once_low_rank_always_low_rank": [("theory_checks", "violation", 0.1, {"check": "low_rank_stays"})],
    "decay_makes_homogeneous_blocks": [("homogeneity", "correlation_pre", uncorrelated, DECAY)],
    "blocks_rare_without_decay": [("homogeneity", "correlation_pre", all_alike, NO_DECAY)],
    "homogeneity_comes_from_decay": [("homogeneity", "correlation_pre", all_alike, NO_DECAY)],
    "post_activation_alike": [("homogeneity", "correlation_post", unlike, DECAY)],
    "blocks_whenever_decay": [("homogeneity", "correlation_pre", uncorrelated, {"weight_decay": 1e-4})],
    "neural_collapse_is_the_permutation": [("homogeneity", "correlation_post", uncorrelated, DECAY)],
    "vanilla_keeps_plasticity": [
        ("plasticity", "gradient_max", 0.0, PAPER | {"variant": "vanilla", "parameter": slice(0, 49)})
    ],
    "rescaling_loses_plasticity": [("plasticity", "gradient_max", 1.0, PAPER | {"variant": "rescaled"})],
    "dead_parameters_rise_steadily": [("plasticity", "gradient_max", die_early, {"variant": "rescaled"})],
    "dead_parameters_stay_dead": [("plasticity", "gradient_max", revive, {"variant": "rescaled"})],
    "gradient_noise_restores_plasticity": [
        ("plasticity", "gradient_max", 0.0, PAPER | {"variant": "rescaled_gradient_noise", "parameter": slice(0, 59)})
    ],
    "gradient_noise_removes_absorbing_states": [
        ("plasticity_damped", "gradient_max", 1.0, PAPER | {"variant": "rescaled"})
    ],
    "fixed_bias_restores_plasticity": [
        ("plasticity", "gradient_max", 0.0, PAPER | {"variant": "rescaled_bias", "parameter": slice(0, 89)})
    ],
    "fixed_bias_removes_the_symmetry": [
        ("plasticity", "gradient_max", 0.0, DOUBLE | {"variant": "rescaled_bias", "parameter": slice(0, 179)})
    ],
    "adam_collapses_too": [("plasticity", "gradient_max", 1.0, {"variant": "rescaled", "task": 1})],
    "sgd_stays_on_rescaling_conditions": [
        ("stationary_conditions", "distance", 0.3, {"landscape": "rescaling", "start": 1, "step": 300})
    ],
    "sgd_stays_on_rotation_conditions": [
        ("stationary_conditions", "own_line_distance", 0.3, {"landscape": "rotation", "start": 6, "step": 300})
    ],
    "condition_reached_before_the_model": [("sparsity", "weight", 0.5, RESCALED)],
    "both_reach_93_percent": [("dcs_resnet", "test_accuracy", plus(-0.1), DCS)],
    "dcs_a_little_better": [("dcs_resnet", "test_accuracy", plus(-0.02), DCS)],
    "dcs_similar_performance": [("dcs_resnet", "test_accuracy", plus(-0.2), DCS)],
    "dcs_similar_time": [("dcs_resnet", "epoch_seconds", 19.0, DCS)],
    "dcs_is_sparse": [("dcs_resnet", "sparsity", 0.01, DCS)],
    "pruning_harmless": [("dcs_resnet", "pruned_test_accuracy", 0.5, DCS)],
    "dcs_memory_twice_at_batch_1": [("dcs_resnet", "peak_memory", 120.0, DCS | {"batch_size": 1})],
    "dcs_memory_under_10_percent_at_batch_128": [("dcs_resnet", "peak_memory", 1300.0, DCS | {"batch_size": 128})],
    "rank_falls_with_decay": [("regularized_factorization", "rank", 50.0, {})],
    "rank_is_the_nuclear_norm_solution": [("regularized_factorization", "rank", 50.0, {})],
    "collapse_at_finite_decay": [("regularized_factorization", "rank", 20.0, {"weight_decay": 3.0})],
    "attention_rank_falls_with_decay": [("attention", "rank", 100.0, ONE)],
    "key_and_query_mirror_each_other": [("attention", "rank", plus(30.0), ONE | {"matrix": "query"})],
    # Each query is the same, whatever its network's key.
    "mirroring_is_due_to_the_symmetry": [("attention", "singular_value", 3.0, ONE | {"matrix": "query"})],
    "mirroring_within_layers_of_two": [("attention", "rank", plus(30.0), TWO | {"matrix": "query"})],
    "layers_do_not_mirror": [("attention", "rank", plus(-25.0), TWO | {"layer": 2})],
    "two_layer_rank_falls_with_decay": [("attention", "rank", 100.0, TWO)],
}


def alter(world: World, experiment: str, variable: str, value: Any, at: dict[str, Any]) -> None:
    """Put a copy of the experiment's results, with one variable or one setting changed, in place of them."""
    world[experiment] = world[experiment].copy(deep=True)
    if variable == SETTINGS:
        settings = json.loads(world[experiment].attrs["settings"]) | value
        world[experiment].attrs["settings"] = json.dumps(settings)
    else:
        put(world, experiment, variable, value, **at)


@pytest.fixture(scope="module")
def world() -> World:
    return make_world()


@pytest.fixture(scope="module")
def supporting(world: World) -> dict[str, dict[str, Any]]:
    return {entry["id"]: entry for entry in compute(CLAIMS.values(), world, "paper").model_dump()["claims"]}


def verdict(claim: Claim, world: World, scale: str = "paper") -> dict[str, Any]:
    entry: dict[str, Any] = compute([claim], world, scale).model_dump()["claims"][0]
    return entry


@pytest.mark.parametrize("name", CLAIMS)
def test_results_that_support_a_claim_do(supporting: dict[str, dict[str, Any]], name: str) -> None:
    entry = supporting[name]
    assert entry["verdict"] == SUPPORTED, entry["reason"]
    assert entry["decided_at"] == "paper"
    assert entry["samples"] >= 3
    assert all(control["passed"] for control in entry["controls"] if not control["record"])


@pytest.mark.parametrize("name", CLAIMS)
def test_results_that_refute_a_claim_do(world: World, name: str) -> None:
    altered = {experiment: world[experiment] for experiment in world}
    for edit in REFUTING[name]:
        alter(altered, *edit)
    entry = verdict(CLAIMS[name], altered)
    assert entry["verdict"] == NOT_SUPPORTED, entry["reason"]
    # The claim's own number refutes it, not a control that the alteration happened to break.
    assert "control" not in entry["reason"], entry["reason"]


@pytest.mark.parametrize("name", [name for name, claim in CLAIMS.items() if any(c.decisive for c in claim.controls)])
def test_decisive_controls_read_something(supporting: dict[str, dict[str, Any]], name: str) -> None:
    for control in supporting[name]["controls"]:
        assert control["effect"] is not None, control["statement"]


def test_every_claim_reads_experiments_that_the_configuration_has(world: World) -> None:
    assert {experiment for claim in CLAIMS.values() for experiment in claim.all_experiments} <= set(world)


@pytest.mark.parametrize("name", CLAIMS)
def test_claims_read_the_experiments_that_they_name_and_no_others(world: World, name: str) -> None:
    claim = CLAIMS[name]
    only = {experiment: world[experiment] for experiment in claim.all_experiments}
    assert verdict(claim, only)["verdict"] == SUPPORTED
    without = verdict(claim, {name: data for name, data in only.items() if name != claim.experiments[0]})
    assert without["verdict"] == UNDECIDED
    assert claim.experiments[0] in without["reason"]


def test_digits_do_not_decide_what_is_said_of_cifar10(world: World) -> None:
    claim = CLAIMS["decay_makes_homogeneous_blocks"]
    at_quick = verdict(claim, world, "quick")
    assert at_quick["verdict"] == UNDECIDED
    assert "paper" in at_quick["reason"]
    digits = world["homogeneity"].assign_attrs(settings='{"dataset": "digits"}')
    elsewhere = verdict(claim, world | {"homogeneity": digits})
    assert elsewhere["verdict"] == UNDECIDED
    assert "digits" in elsewhere["reason"]


@pytest.mark.parametrize(("factor", "exact"), [(1.0, 1.0), (3.0, 0.0)])
def test_copies_in_proportion_are_told_from_exact_ones(world: World, factor: float, exact: float) -> None:
    """Neurons whose weights are a factor of each other's fire alike as copies do."""
    data = world["homogeneity"].copy(deep=True)
    data["correlation_pre"] = xr.ones_like(data["correlation_pre"])
    size = np.where(np.arange(128) % 2, factor, 1.0)
    apart = abs(size[:, None] - size) / np.hypot(size[:, None], size)  # of weights size times one direction
    apart[size[:, None] == size] = 0.0
    data["weight_distance"] = xr.zeros_like(data["weight_distance"]) + apart
    controls = verdict(CLAIMS["neural_collapse_is_the_permutation"], world | {"homogeneity": data})["controls"]
    proportional, copies = (one["effect"] for one in controls if one["record"])
    assert proportional == 1
    among_unequal = 64 * 64 / (128 * 127 / 2)
    assert copies == pytest.approx(1 - (1 - exact) * among_unequal)


def test_collapse_by_another_law_than_the_exponents_is_seen(world: World) -> None:
    """Collapse beyond λ = 0.007/σ, which crosses the exact boundary: the law tells cells better than the sign."""
    data = world["sparsity_phase"].copy(deep=True)
    finished = data["sparsity"].notnull()
    beyond = data.learning_rate * data.noise_std > 0.007
    data["sparsity"] = (beyond & finished).where(finished).astype(float).transpose(*data["sparsity"].dims)
    entry = verdict(CLAIMS["phase_boundary_is_the_exponents_sign"], world | {"sparsity_phase": data})
    assert entry["verdict"] == LIMITED
    (by_law,) = [control for control in entry["controls"] if "λ = c/σ with" in control["statement"]]
    assert by_law["effect"] < -0.1


def test_a_weak_signal_that_loses_rank_without_noise_refutes_the_noise(world: World) -> None:
    data = world["matrix_factorization_noiseless"].copy(deep=True)
    data["rank"][:] = 150.0
    entry = verdict(CLAIMS["rank_falls_with_label_noise"], world | {"matrix_factorization_noiseless": data})
    assert entry["verdict"] == NOT_SUPPORTED
    assert "weak signal" in entry["reason"]


def test_longer_training_that_undoes_an_effect_refutes_the_claim(world: World) -> None:
    long = world["sparsity_long"].copy(deep=True)
    put({"long": long}, "long", "sparsity", 0.0, **RESCALED, **FINE)
    entry = verdict(CLAIMS["sparsity_rises_with_learning_rate"], world | {"sparsity_long": long})
    assert entry["verdict"] == NOT_SUPPORTED
    assert "Ten times as many steps" in entry["reason"]


@pytest.mark.parametrize("scale", ["tiny", "quick", "laptop", "overnight"])
def test_a_scale_decides_only_what_it_can(world: World, scale: str) -> None:
    expected = {
        name: UNDECIDED if scale not in claim.scales else LIMITED if scale in claim.limited else SUPPORTED
        for name, claim in CLAIMS.items()
    }
    entries = compute(CLAIMS.values(), world, scale).model_dump()["claims"]
    assert {entry["id"]: entry["verdict"] for entry in entries} == expected
    assert all(
        CLAIMS[entry["id"]].needs in entry["reason"] for entry in entries if entry["verdict"] in (UNDECIDED, LIMITED)
    )


def test_a_limited_scale_refutes_nothing(world: World) -> None:
    for name in (name for name, claim in CLAIMS.items() if "laptop" in claim.limited):
        altered = dict(world)
        for edit in REFUTING[name]:
            alter(altered, *edit)
        assert verdict(CLAIMS[name], altered, "laptop")["verdict"] == UNDECIDED, name
