"""Statistics on small data whose answers are worked out by hand."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import xarray as xr

from reproduction.analysis.derived import variable_of
from reproduction.analysis.statistics import NoDataError, StatisticError, evaluate, selection

NAN = np.nan


@pytest.fixture
def results() -> dict[str, xr.Dataset]:
    """Heights over arm, rate and seed; the second arm diverges at the last rate."""
    height = np.array([[[1.0, 2], [3, 4], [5, 8]], [[1, 1], [0, 0], [NAN, NAN]]])
    status = np.where(np.isnan(height), 1, 0).astype(np.int8)
    dims = ("arm", "rate", "seed")
    coords = {"arm": ["one", "two"], "rate": [0.0, 0.1, 1.0], "seed": [0, 1]}
    return {"made_up": xr.Dataset({"height": (dims, height), "status": (dims, status)}, coords)}


def samples(results: dict[str, xr.Dataset], function: str, **arguments: Any) -> list[float]:
    given = {"experiment": "made_up", "variable": "height", **arguments}
    return [float(value) for value in evaluate(function, given, results)]


@pytest.mark.parametrize(
    ("function", "arguments", "expected"),
    [
        ("value", {"at": {"arm": "one", "rate": 0.1}}, [3, 4]),
        ("value", {"at": {"arm": "one", "rate": "last"}}, [5, 8]),
        ("value", {"at": {"arm": "two"}, "reduce": {"rate": "last"}}, [0, 0]),
        ("value", {"at": {"arm": "two"}, "reduce": {"rate": "first"}}, [1, 1]),
        ("value", {"at": {"arm": "two"}, "reduce": {"rate": "max"}}, [1, 1]),
        ("value", {"at": {"arm": "one"}, "reduce": {"rate": "median"}}, [3, 4]),
        ("value", {"at": {"arm": "one"}, "reduce": {"rate": "sum"}}, [9, 14]),
        ("value", {"at": {"arm": "one", "rate": [0, 1]}, "reduce": {"rate": "mean"}}, [3, 5]),
        ("value", {"at": {"arm": "one", "rate": {"above": 0}}, "reduce": {"rate": "min"}}, [3, 4]),
        ("value", {"at": {"arm": "one", "rate": {"below": 0.5}}, "reduce": {"rate": "max"}}, [3, 4]),
        ("value", {"at": {"arm": "one", "rate": {"nearest": 0.01}}}, [3, 4]),
        ("value", {"at": {"arm": "two", "rate": 1}}, [NAN, NAN]),
        ("value", {"variable": "finished", "at": {"arm": "two"}, "reduce": {"rate": "mean"}}, [2 / 3, 2 / 3]),
        ("difference", {"at": {"arm": "one"}, "of": {"rate": 1}, "minus": {"rate": 0}}, [4, 6]),
        ("difference", {"of": {"arm": "one"}, "minus": {"arm": "two"}, "reduce": {"rate": "last"}}, [3, 4]),
        ("difference", {"of": {"arm": "two"}, "minus": {"arm": "one"}, "reduce": {"rate": "min"}}, [-3, -4]),
        (
            "difference",
            {"of": {"arm": "two"}, "minus": {"arm": "one"}, "absolute": True, "reduce": {"rate": "max"}},
            [3, 4],
        ),
        (
            "difference",
            {"at": {"arm": "two"}, "of": {"reduce": {"rate": "max"}}, "minus": {"reduce": {"rate": "last"}}},
            [1, 1],
        ),
        ("ratio", {"at": {"rate": 0}, "of": {"arm": "one"}, "by": {"arm": "two"}}, [1, 2]),
        ("ratio", {"at": {"rate": 0.1}, "of": {"arm": "one"}, "by": {"arm": "two"}}, [NAN, NAN]),
        ("trend", {"at": {"arm": "one"}, "along": "rate"}, [1, 1]),
        ("trend", {"at": {"arm": "two"}, "along": "rate"}, [NAN, NAN]),
    ],
)
def test_general_statistics(
    results: dict[str, xr.Dataset], function: str, arguments: dict[str, Any], expected: list[float]
) -> None:
    np.testing.assert_allclose(samples(results, function, **arguments), expected)


@pytest.mark.parametrize(
    ("function", "arguments", "error", "said"),
    [
        ("valeu", {}, StatisticError, "did you mean 'value'"),
        ("value", {"att": {}}, StatisticError, "did you mean 'at'"),
        ("trend", {}, StatisticError, "needs the argument 'along'"),
        ("value", {"at": {"rate": {"over": 1}}}, StatisticError, "does not fit"),
        ("value", {"at": {"colour": 1}}, StatisticError, "no dimension 'colour'; it has arm, rate, seed"),
        ("value", {"reduce": {"colour": "max"}}, StatisticError, "no dimension 'colour'"),
        ("value", {"variable": "hight"}, StatisticError, "no variable 'hight'"),
        ("value", {}, StatisticError, "leaves the dimensions arm, rate, seed"),
        ("value", {"variable": {"name": "dead_fraction"}}, StatisticError, "cannot be derived"),
        ("value", {"at": {"rate": "fast"}}, StatisticError, "'fast' is no number"),
        ("value", {"experiment": "other"}, NoDataError, "no result of other"),
        ("value", {"at": {"rate": 0.2}}, NoDataError, "rate 0.2 was not run"),
        ("value", {"at": {"arm": "three"}}, NoDataError, "arm three was not run"),
        ("value", {"at": {"rate": {"above": 1}}}, NoDataError, "no rate above 1 was run"),
    ],
)
def test_mistakes_are_one_sentence(
    results: dict[str, xr.Dataset], function: str, arguments: dict[str, Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said) as caught:
        samples(results, function, **arguments)
    assert "\n" not in str(caught.value)


def test_last_takes_the_last_number_of_each_row() -> None:
    data = xr.DataArray([[1.0, 2, NAN], [NAN, NAN, NAN], [NAN, 5, 6]], dims=("row", "step"))
    np.testing.assert_array_equal(selection.reduce(data, {"step": "last"}), [2, NAN, 6])
    np.testing.assert_array_equal(selection.reduce(data, {"step": "first"}), [1, NAN, 5])


def sparse(values: list[float], rates: list[float]) -> xr.Dataset:
    status = np.where(np.isnan(values), 1, 0).astype(np.int8)
    coords = {"learning_rate": rates, "seed": [0]}
    columns = np.array(values)[:, None]
    return xr.Dataset(
        {"sparsity": (("learning_rate", "seed"), columns), "status": (("learning_rate", "seed"), status[:, None])},
        coords,
    )


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 0.0, 1.0], 1 / np.sqrt(0.1)),  # half-way in the logarithm between 0.1 and 1
        ([0.0, 0.4, 0.6], 1 / np.sqrt(0.1)),
        ([0.0, NAN, 1.0], 1 / 0.1),  # between 0.01 and 1
        ([0.7, 0.8, 0.9], 1 / 0.01),
        ([0.0, 0.1, 0.2], 0),
        ([0.0, NAN, NAN], 0),
        ([NAN, NAN, NAN], NAN),
    ],
)
def test_the_onset_is_interpolated(values: list[float], expected: float) -> None:
    found = variable_of(sparse(values, [0.01, 0.1, 1.0]), {"name": "inverse_onset", "fraction": 0.5})
    np.testing.assert_allclose(found.values, [expected])


def neurons(matrix: list[list[float]], distance: list[list[float]] | None = None, post: Any = None) -> xr.Dataset:
    dims = ("seed", "neuron", "neuron_2")
    given = {"pre": matrix, "weight_distance": distance or matrix, "post": matrix if post is None else post}
    variables: dict[str, Any] = {name: (dims, np.array([values], float)) for name, values in given.items()}
    size = np.arange(len(matrix))
    return xr.Dataset(
        variables | {"status": ("seed", np.zeros(1, np.int8))}, {"seed": [0], "neuron": size, "neuron_2": size}
    )


def test_homogeneity_by_hand() -> None:
    """Four neurons, the last one constant; the first two are alike."""
    matrix = [[1, 0.97, 0.1, NAN], [0.97, 1, 0.2, NAN], [0.1, 0.2, 1, NAN], [NAN] * 4]
    near = [[0, 0.1, 1, 1], [0.1, 0, 1, 1], [1, 1, 0, 1], [1, 1, 1, 0]]
    data = neurons(matrix, near)
    options = {"matrix": "pre", "threshold": 0.95}
    assert variable_of(data, {"name": "homogeneous_pairs", **options}).item() == pytest.approx(1 / 3)
    assert variable_of(data, {"name": "alive_fraction", "matrix": "pre"}).item() == 0.75
    assert variable_of(data, {"name": "groups", **options}).item() == pytest.approx(2 / 3)
    assert variable_of(data, {"name": "copies", **options, "distance": 0.2}).item() == 1
    assert variable_of(data, {"name": "copies", **options, "distance": 0.05}).item() == 0
    assert variable_of(data, {"name": "matrix_similarity", "first": "pre", "second": "post"}).item() == pytest.approx(1)
    turned = neurons(matrix, near, (-np.array(matrix)).tolist())
    assert variable_of(turned, {"name": "matrix_similarity", "first": "pre", "second": "post"}).item() == pytest.approx(
        -1
    )


def test_dead_parameters_by_hand() -> None:
    """A model of two parameters and one of four, over three tasks after the start."""
    gradient = np.array([
        [[1, 1, NAN, NAN], [0, 1, NAN, NAN], [0, 0, NAN, NAN], [1, 0, NAN, NAN]],
        [[1, 1, 1, 1], [1, 1, 1, 0], [1, 1, 1, 0], [1, 1, 1, 0]],
    ])  # fmt: skip
    data = xr.Dataset(
        {
            "gradient": (("variant", "seed", "task", "parameter"), gradient[:, None]),
            "status": (("variant", "seed"), np.zeros((2, 1), np.int8)),
        },
        {"variant": ["small", "large"], "seed": [0], "task": np.arange(4), "parameter": np.arange(4)},
    )
    options = {"gradient": "gradient", "threshold": 1e-6}
    found = variable_of(data, {"name": "dead_fraction", **options})
    np.testing.assert_allclose(found[:, 0], [[0, 0.5, 1, 0.5], [0, 0.25, 0.25, 0.25]])
    stay = variable_of(data, {"name": "dead_that_stay", **options})
    np.testing.assert_allclose(stay[:, 0], [2 / 3, 1])  # of one and then two dead, one and one are dead again


def attention(ranks: np.ndarray[Any, Any]) -> dict[str, xr.Dataset]:
    coords = {"seed": np.arange(len(ranks)), "layer": [1, 2], "matrix": ["key", "query"]}
    status = ("seed", np.zeros(len(ranks), np.int8))
    return {"made_up": xr.Dataset({"rank": (("seed", "layer", "matrix"), ranks), "status": status}, coords)}


def test_gaps_of_ranks_by_hand() -> None:
    """Keys and queries of two seeds: (10, 11) and (20, 23) in layer 1, (50, 50) and (60, 60) in layer 2."""
    results = attention(np.array([[[10.0, 11], [50, 50]], [[20, 23], [60, 60]]]))
    data = results["made_up"]
    np.testing.assert_allclose(variable_of(data, "within_layer_gap"), [[1, 0], [3, 0]])
    np.testing.assert_allclose(variable_of(data, "between_layer_gap"), [[40, 39], [40, 37]])
    np.testing.assert_allclose(variable_of(data, "between_seed_gap").sel(layer=1), [[10, 12], [10, 12]])
    found = evaluate("key_query_across_seeds", {"experiment": "made_up", "at": {"layer": 1}}, results)
    np.testing.assert_allclose(found, [1 / 13, 3 / 9])


def test_spectra_are_compared_relative_to_the_key() -> None:
    """Keys (3, 4) and (6, 8), their queries 1 off in one value: across, seed 0 is (4, 4) off and seed 1 (3, 3)."""
    values = np.array([[[3.0, 4], [3, 5]], [[6, 8], [7, 8]]])  # seed, matrix, mode
    coords = {"seed": [0, 1], "matrix": ["key", "query"], "mode": [0, 1]}
    results = {"made_up": xr.Dataset({"singular_value": (tuple(coords), values)}, coords)}
    given = {"experiment": "made_up", "at": {}, "variable": "singular_value"}
    found = evaluate("key_query_across_seeds", given, results)
    np.testing.assert_allclose(found, [1 / np.hypot(4, 4), 1 / np.hypot(3, 3)])


def test_gaps_by_another_threshold_than_the_stored_rank() -> None:
    values = np.array([[[1.0, 0.5, 5e-3], [1.0, 5e-3, 5e-4]]])  # seed, matrix, mode
    coords = {"seed": [0], "matrix": ["key", "query"], "mode": [0, 1, 2]}
    variables = {"singular_value": (tuple(coords), values), "status": ("seed", np.zeros(1, np.int8))}
    data = xr.Dataset(variables, coords).assign(rank=(("seed", "matrix"), np.array([[9.0, 2.0]])))
    gaps = [variable_of(data, {"name": "within_layer_gap", **how}).item() for how in ({}, {"relative": 1e-3})]
    assert gaps == [7, 1]


def at_rest(before: list[float], after: list[float]) -> float:
    results = {
        name: xr.Dataset({"weight": (("seed", "feature"), [weights])}, {"seed": [0]})
        for name, weights in (("short", before), ("long", after))
    }
    given = {"experiment": "short", "longer": "long", "at": {}, "threshold": 1e-6}
    return float(evaluate("at_rest_before_the_model", given, results)[0])


def test_what_rests_while_others_move() -> None:
    assert at_rest([0, 0, 1, 2], [0, 1e-7, 1.5, 2]) == 0.5
    assert at_rest([0, 0, 1, 2], [0.1, 0.1, 1.5, 2]) == 0  # none stays
    assert at_rest([0, 0, 1, 2], [0, 0, 1, 2]) == 0  # all of the model rests
    assert at_rest([0, 0, 1, 2], [0, 0, 0, 0]) == 0.5  # the others come to rest later
    assert np.isnan(at_rest([0, 0, 1, 2], [NAN] * 4))


def test_independent_keys_and_queries_have_a_ratio_of_one() -> None:
    ranks = np.random.default_rng(0).normal(50, 5, (300, 2, 2))
    found = evaluate("key_query_across_seeds", {"experiment": "made_up", "at": {"layer": 1}}, attention(ranks))
    assert np.median(found * 1.0) == pytest.approx(0.85, abs=0.1)  # of the absolute value of a normal number
    mirrored = ranks.copy()
    mirrored[:, :, 1] = mirrored[:, :, 0] + 0.1
    found = evaluate("key_query_across_seeds", {"experiment": "made_up", "at": {"layer": 1}}, attention(mirrored))
    assert found.max() < 0.05


def test_the_rank_of_another_threshold() -> None:
    spectra = np.array([[1, 0.5, 5e-3, 1e-8], [NAN] * 4])
    data = xr.Dataset(
        {"singular_value": (("seed", "mode"), spectra), "status": ("seed", np.array([0, 1], np.int8))},
        {"seed": [0, 1], "mode": np.arange(4)},
    )
    for relative, expected in ((1e-2, 2), (1e-3, 3), (0.9, 1)):
        found = variable_of(data, {"name": "rank_at", "relative": relative})
        np.testing.assert_array_equal(found, [expected, NAN])


def test_distance_to_the_number_of_positive_exponents() -> None:
    """Two signals, two learning rates of which the exponents have one."""
    sweep = {"signal": [0.1, 1.0], "learning_rate": [0.01, 0.02], "seed": [0, 1]}
    rank = np.array([[[2.0, 1], [9, 9]], [[3, NAN], [9, 9]]])
    dims = ("signal", "learning_rate", "seed")
    exponents = np.array([[1, 1, -1], [1, -1, -1]])[:, None, None]
    results = {
        "ranks": xr.Dataset({"rank": (dims, rank)}, sweep),
        "exponents": xr.Dataset(
            {"lyapunov_exponent": ((*dims, "mode"), exponents)},
            {"signal": [0.1, 1.0], "learning_rate": [0.01], "seed": [0], "mode": np.arange(3)},
        ),
    }
    given = {"experiment": "ranks", "stability": "exponents", "at": {}}
    # Predicted: 2 and 1. Seed 0: |2-2|, |3-1|; seed 1: |1-2| and a run that diverged.
    np.testing.assert_allclose(evaluate("rank_against_exponents", given, results), [1, 1])
    np.testing.assert_allclose(evaluate("spread_of_predicted_rank", given, results), [0.5, 0])
    # Ranks 2 and 3 of seed 0 are half a rank off their median; the one that seed 1 has left is its own.
    np.testing.assert_allclose(evaluate("rank_against_exponents_over_constant", given, results), [1 / 0.5, NAN])


def test_phase_agreement_is_a_balanced_accuracy() -> None:
    """At noise 1 the critical rates are about 0.005 and 1.2: one of two sparse cells and the dense one are right."""
    coords = {"parameterization": ["rescaled"], "noise_std": [1.0], "learning_rate": [1e-4, 2e-4, 0.1], "seed": [0],
              "threshold": [1e-6], "feature": np.arange(200)}  # fmt: skip
    dims = ("parameterization", "noise_std", "learning_rate", "seed")
    data = xr.Dataset(
        {
            "sparsity": ((*dims, "threshold"), np.array([1.0, 0.0, 1.0]).reshape(1, 1, 3, 1, 1)),
            "weight": ((*dims, "feature"), np.zeros((1, 1, 3, 1, 200))),
        },
        coords,
    )
    given = {"experiment": "phase", "threshold": 1e-6, "fraction": 0.5, "background": "learnt"}
    for rule in ("exact", "second_order"):
        np.testing.assert_allclose(evaluate("phase_agreement", given | {"rule": rule}, {"phase": data}), [0.75])


def test_the_exponents_sign_against_a_power_law_and_cells_against_it() -> None:
    """At noise 0.5 and 1 the critical rates are about 0.02 and 0.005; 0.03 and all of noise 1 have collapsed."""
    coords = {"parameterization": ["rescaled"], "noise_std": [0.5, 1.0], "learning_rate": [0.001, 0.01, 0.03],
              "seed": [0], "threshold": [1e-6], "feature": np.arange(200)}  # fmt: skip
    dims = ("parameterization", "noise_std", "learning_rate", "seed")
    sparse = np.array([[0.0, 0, 1], [1, 1, 1]]).reshape(1, 2, 3, 1, 1)
    weight = np.zeros((1, 2, 3, 1, 200))
    results = {
        "phase": xr.Dataset(
            {"sparsity": ((*dims, "threshold"), sparse), "weight": ((*dims, "feature"), weight)}, coords
        )
    }
    given = {"experiment": "phase", "threshold": 1e-6, "fraction": 0.5, "background": "learnt"}
    np.testing.assert_allclose(evaluate("collapsed_against_the_exponent", given, results), [1 / 4])
    # The sign tells 3 of 4 and 2 of 2. Above every constant but the smallest, λσ of 0.005 at noise 0.5, a law tells
    # 3 of 4 and 2 of 2 as well: 0.01, 0.015 and 0.03 are above 0.005.
    found = evaluate("phase_agreement_over_power_law", given | {"power": 1}, results)
    np.testing.assert_allclose(found, [0])
    # In λ alone the rates above 0.01 are 2 of 4 and 2 of 2, and those above 0.001 are 3 of 4 and 1 of 2.
    found = evaluate("phase_agreement_over_power_law", given | {"power": 0}, results)
    np.testing.assert_allclose(found, [0.875 - 0.75])


def test_escape_is_compared_cell_by_cell() -> None:
    """Gradient descent's exponents are log(1 + 2 mu lambda) = log 2 and log 3 here."""
    exponents = np.log([[[[4.0, 1.5]], [[2.9, 0.5]]]])  # (signal, learning_rate, seed, mode)
    coords = {"signal": [0.5], "learning_rate": [1.0, 2.0], "seed": [0], "mode": [0, 1]}
    # One vector grows as the largest exponent; that -0.69 is negative is known where errors are small.
    growth, unsure = exponents.max(-1), 0.4

    def shares(escape_error: float, exponent_error: float, settled: tuple[int, int] = (1, 1)) -> dict[str, list[float]]:
        variables = {
            "lyapunov_exponent": (tuple(coords), exponents),
            "exponent_error": (tuple(coords), np.full(exponents.shape, exponent_error)),
            "escape_rate": (tuple(coords)[:3], growth),
            "escape_error": (tuple(coords)[:3], np.full(growth.shape, escape_error)),
            "settled": ("learning_rate", np.array(settled)),
        }
        results = {"made_up": xr.Dataset(variables, coords)}
        return {
            compared: evaluate("escape_over_descent", {"experiment": "made_up", "compared": compared}, results).tolist()
            for compared in ("escape", "largest", "count", "mean")
        }

    assert shares(0.1, 0.1) == {"escape": [0.5], "largest": [0.5], "count": [0.5], "mean": [0.5]}
    assert shares(unsure, 0.4) == {"escape": [0.0], "largest": [0.5], "count": [0.0], "mean": [0.5]}
    assert shares(0.1, 0.1, (1, 0)) == {"escape": [1.0], "largest": [1.0], "count": [0.0], "mean": [0.0]}


def test_the_negative_exponents_of_a_cell_are_counted() -> None:
    """Of twelve exponents none, one, ten and all are below zero in four cells."""
    exponents = np.array([[np.repeat([-1.0, 1.0], [below, 12 - below])] for below in (0, 1, 10, 12)])[None]
    coords = {"signal": [0.5], "learning_rate": [1.0, 2.0, 3.0, 4.0], "seed": [0], "mode": list(range(12))}
    variables = {
        "lyapunov_exponent": (tuple(coords), exponents),
        "exponent_error": (tuple(coords), np.full(exponents.shape, 0.1)),
        "settled": ("learning_rate", np.ones(4)),
    }
    for compared, share in {"count": 0.75, "ten": 0.5, "all": 0.25}.items():
        arguments = {"experiment": "made_up", "compared": compared}
        found = evaluate("escape_over_descent", arguments, {"made_up": xr.Dataset(variables, coords)})
        assert found.tolist() == [share]


def regressors(weights: Any, **settings: Any) -> dict[str, xr.Dataset]:
    """Results of the product regressor at two learning rates, and no plain one."""
    known = {"features": 4, "steps": 50, "initial_variance": 0.1, **settings}
    coords = {"parameterization": ["rescaled"], "noise_std": [0.5], "learning_rate": [0.1, 0.2], "seed": [0, 1]}
    values = np.broadcast_to(np.asarray(weights, float)[..., None, None], (1, 1, 2, 2, 4))
    variables = {"weight": ((*coords, "feature"), values), "status": (tuple(coords), np.zeros((1, 1, 2, 2), np.int8))}
    return {"made_up": xr.Dataset(variables, coords, {"settings": json.dumps(known)})}


def test_features_without_a_true_weight() -> None:
    """Two of four are informative, with weights of a half; the second learning rate is the better one."""
    results = regressors([[[0.0, 0.0]]], informative=2)
    weights = results["made_up"]["weight"].copy()
    weights[:] = 0.0
    weights.loc[{"learning_rate": 0.1}] = [0.0, 0.0, 0.1, 0.1]
    weights.loc[{"learning_rate": 0.2}] = [0.5, 0.0, 0.0, 0.2]
    results["made_up"]["weight"] = weights
    risk = variable_of(results["made_up"], "excess_risk")
    np.testing.assert_allclose(risk.sel(learning_rate=0.1), 0.52)
    np.testing.assert_allclose(risk.sel(learning_rate=0.2), 0.29)
    given = {"experiment": "made_up", "noise_std": 0.5, "threshold": 1e-6}
    np.testing.assert_allclose(evaluate("noise_features_ignored", given, results), [0, 0])  # one of each two
    weights.loc[{"learning_rate": 0.2}] = [0.5, 0.1, 0.0, 0.0]
    results["made_up"]["weight"] = weights
    np.testing.assert_allclose(evaluate("noise_features_ignored", given, results), [1, 1])


def test_the_rank_of_what_a_layer_says() -> None:
    """Of five neurons two are copies, two are independent of all, and one is constant."""
    matrix = np.eye(5)
    matrix[0, 1] = matrix[1, 0] = 1
    matrix[4], matrix[:, 4] = NAN, NAN
    dead = np.full((5, 5), NAN)
    dims = ("seed", "neuron", "neuron_2")
    data = xr.Dataset({"correlation": (dims, [matrix, dead]), "status": ("seed", np.zeros(2, np.int8))})
    found = variable_of(data, {"name": "representation_rank", "matrix": "correlation", "relative": 0.1})
    np.testing.assert_array_equal(found, [3, 0])


@pytest.mark.parametrize("start", ["own", "zero"])
def test_the_plain_regressors_best_risk_is_that_of_simulations(start: str) -> None:
    results = regressors([[[0.35, 0.45]]])
    best = 4 * (0.35 - 0.25) ** 2
    (found, _) = evaluate("risk_over_plain", {"experiment": "made_up", "noise_std": 0.5, "start": start}, results)
    rng, runs = np.random.default_rng(0), 4000
    risks = []
    for rate in np.geomspace(1e-3, 0.1, 12):
        w = rng.standard_normal((runs, 4)) * np.sqrt(0.1) * (start == "own") - 0.25
        for _ in range(50):
            x, noise = rng.standard_normal((runs, 4)), 0.5 * rng.standard_normal(runs)
            w -= 2 * rate * ((w * x).sum(1) - noise)[:, None] * x
        risks.append(float((w**2).sum(1).mean()))
    assert best / found == pytest.approx(min(risks), rel=0.05)


def test_descent_ends_at_the_target_or_has_not_left_zero() -> None:
    arguments = {"experiment": "made_up", "learning_rate": 0.05, "threshold": 1e-6}
    learnt = evaluate("descent_sparsity", arguments, regressors([[[0.0, 0.0]]], steps=2000))
    assert learnt.tolist() == [0, 0]
    # From a start of 1e-9 its factors grow by at most exp(2 * 0.05 * 0.25) a step.
    early = evaluate("descent_sparsity", arguments, regressors([[[0.0, 0.0]]], initial_variance=1e-18))
    assert early.tolist() == [1, 1]


def test_the_smallest_rise_of_the_dead() -> None:
    gradient = [[1.0, 1, 1, 1], [0, 0, 1, 1], [0, 1, 1, 1], [0, 0, 0, 1]]  # task, parameter
    data = xr.Dataset({"gradient_max": (("task", "parameter"), gradient)}, {"task": [0, 1, 2, 3]})
    data["status"] = xr.DataArray(0)
    found = variable_of(data, {"name": "smallest_rise_of_dead", "gradient": "gradient_max", "threshold": 1e-6})
    assert float(found) == -0.25
