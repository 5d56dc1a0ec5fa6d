"""What figures, tables and claims share, on small data whose answers are worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from mirrorsym import stability
from reproduction.analysis import batches, conditions, hessians, neurons, products, ranks, runs
from reproduction.analysis.statistics import NoDataError
from reproduction.contract import DIVERGED, FINISHED, NOT_IN_SWEEP
from reproduction.report import plotting
from reproduction.theory import factorization, rescaled_regressor

NAN = np.nan
STATES = np.array([[FINISHED, FINISHED, DIVERGED], [DIVERGED, DIVERGED, DIVERGED], [NOT_IN_SWEEP] * 3], np.int8)


@pytest.fixture
def sweep() -> xr.Dataset:
    """Three rates with three seeds: one seed diverges, all do, and the third rate is not in the sweep."""
    height = np.where(STATES == FINISHED, [1.0, 4.0, 0.0], NAN)
    return xr.Dataset({"height": (("rate", "seed"), height), "status": (("rate", "seed"), STATES)})


def test_states_of_runs(sweep: xr.Dataset) -> None:
    np.testing.assert_array_equal(runs.finished(sweep), [[1, 1, 0], [0, 0, 0], [NAN] * 3])
    np.testing.assert_allclose(runs.diverged_share(sweep), [1 / 3, 1, NAN])
    assert runs.diverged_count(sweep) == "4 of 6"
    sweep["height"][0, 2] = 7
    np.testing.assert_array_equal(runs.of_finished(sweep)["height"][0], [1, 4, NAN])


@pytest.mark.filterwarnings("error")
def test_seeds_that_diverged_are_left_out_of_median_and_range(sweep: xr.Dataset) -> None:
    middle, low, high = runs.spread(sweep["height"])
    np.testing.assert_array_equal(middle, [2.5, NAN, NAN])
    np.testing.assert_array_equal(low, [1, NAN, NAN])
    np.testing.assert_array_equal(high, [4, NAN, NAN])
    np.testing.assert_array_equal(runs.median(sweep["height"]), middle)
    texts = [plotting.spread(sweep["height"].isel(rate=i), "{:.1f}") for i in range(3)]
    assert texts == ["2.5 (1.0–4.0)", "diverged", "diverged"]
    assert plotting.spread(sweep["height"][0, :1], "{:.1f}") == "1.0"


def test_the_decay_shown_is_the_nearest_by_ratio() -> None:
    def shown(*decays: float) -> float:
        return neurons.decay_shown(xr.Dataset(coords={"weight_decay": list(decays)}))

    assert shown(0.0, 1e-4, 5e-4, 1e-3, 5e-3) == 1e-3
    assert shown(0.0, 2e-4, 4e-3) == 4e-3  # four times as large, and a fifth
    with pytest.raises(NoDataError, match="no weight_decay above 0"):
        shown(0.0)


def test_neurons_are_counted_before_and_after_a_training() -> None:
    """Of four neurons two fire alike and one is constant; the two and a third are close in weight."""
    matrix = np.eye(4)
    matrix[0, 1] = matrix[1, 0] = 0.96
    matrix[3] = matrix[:, 3] = NAN
    distance = np.full((4, 4), 0.05)
    distance[0, 2] = distance[2, 0] = 0.2
    dims = ("weight_decay", "seed", "neuron", "neuron_2")
    data = xr.Dataset(
        {
            **{f"correlation_{side}": (dims, matrix[None, None]) for side in ("pre", "post")},
            **{f"initial_correlation_{side}": (dims, np.eye(4)[None, None]) for side in ("pre", "post")},
            "weight_distance": (dims, distance[None, None]),
            "initial_weight_distance": (dims, np.ones((1, 1, 4, 4))),
            "test_accuracy": (dims[:2], [[0.9]]),
            "status": (dims[:2], np.zeros((1, 1), np.int8)),
        },
        {"weight_decay": [0.001], "seed": [0]},
    )
    start, end = (neurons.counts(data).sel(when=when).squeeze() for when in ("start", "end"))
    assert [float(start[name]) for name in ("homogeneous_pairs", "clusters", "constant_neurons")] == [0, 4, 0]
    assert [float(end[name]) for name in ("clusters", "constant_neurons", "test_accuracy")] == [2, 1, 0.9]
    assert float(end["homogeneous_pairs"]) == pytest.approx(1 / 3)
    assert float(end["close_pairs"]) == pytest.approx(2 / 3)
    assert float(start["close_pairs"]) == 0
    assert np.isnan(start["test_accuracy"])
    assert float(neurons.groups(data, "correlation_pre", 0.95).squeeze()) == pytest.approx(2 / 3)
    assert float(neurons.alive_fraction(data, "correlation_pre").squeeze()) == 0.75
    data["status"][0, 0] = DIVERGED
    diverged = neurons.counts(data)
    assert all(bool(values.isnull().all()) for values in diverged.sel(when="end").values())
    assert float(diverged["clusters"].sel(when="start").squeeze()) == 4


def test_an_epochs_seconds_leave_out_the_start() -> None:
    data = xr.Dataset({"epoch_seconds": (("seed", "epoch"), [[0.0, 1, 2, 9], [0, 3, 5, 4]])})
    np.testing.assert_array_equal(products.epoch_seconds(data, "epoch"), [2, 4])
    assert float(products.epoch_seconds(data, "epoch", "seed")) == 3.5


def test_products_with_a_learning_rate_of_their_own_stand_beside_the_others() -> None:
    axes = {"parameterization": ["vanilla", "dcs"], "seed": [0, 1]}
    data = xr.Dataset({"sparsity": (("parameterization", "seed"), [[0.0, 0.1], [0.8, 0.9]])}, axes)
    tuned = data.sel(parameterization=["dcs"]) / 2
    both = products.beside(data, tuned)
    assert both["parameterization"].values.tolist() == ["vanilla", "dcs", products.TUNED]
    np.testing.assert_array_equal(both["sparsity"], [[0, 0.1], [0.8, 0.9], [0.4, 0.45]])
    with pytest.raises(ValueError, match="seed"):  # other seeds would be filled with nothing
        products.beside(data, tuned.sel(seed=[0]))


def test_a_rank_has_settled_where_its_median_stays() -> None:
    rank = xr.DataArray(
        [[[9, 8, 5], [9, 8, 5], [9, 1, 1]], [[9, 8, 6], [9, 8, 6], [9, 9, 0]]], dims=("a", "seed", "step")
    )
    np.testing.assert_array_equal(ranks.last_move(rank), [-3, -2])
    np.testing.assert_array_equal(ranks.unsettled(rank), [True, False])


def test_the_predicted_rank_counts_positive_exponents() -> None:
    spectra = xr.Dataset({"lyapunov_exponent": (("signal", "seed", "mode"), [[[2.0, 1, -1], [1, 0, -1]]])})
    np.testing.assert_array_equal(ranks.predicted_rank(spectra), [1.5])


def attention_ranks() -> xr.Dataset:
    """Two seeds, two layers: key and query 1 apart in layer 1 and 2 in layer 2, the seeds 10; at the start 50."""
    rank = np.zeros((2, 3, 2, 2))  # seed, step, layer, matrix
    rank[:, 0, :, 1] = 50
    rank[:, 1:, 0, 1], rank[:, 1:, 1, 1] = 1, 2
    rank[1, 1:] += 10
    rank[:, 1:, 1, :] += 4
    coords = {"seed": [3, 5], "step": [0, 10, 20], "layer": [1, 2], "matrix": ["key", "query"]}
    return xr.Dataset({"rank": (list(coords), rank)}, coords)


def test_gaps_of_ranks_are_means_after_the_start() -> None:
    gaps = list(ranks.mean_gaps(attention_ranks()))
    seed = [("key and query", 1.0), ("key and query", 2.0), ("two layers", 4.0), ("two layers", 5.0)]
    assert gaps == [*seed, *seed, *[("two seeds", 10.0)] * 4]
    one = attention_ranks().sel(layer=[2], seed=[3])
    assert list(ranks.mean_gaps(one)) == [("key and query", 2.0)]


def test_spectra_and_exact_ranks() -> None:
    values = xr.Dataset(
        {"singular_value": (("matrix", "mode"), [[3.0, 4.0], [0.0, 4.0]])}, {"matrix": ["key", "query"]}
    )
    assert float(ranks.spectra_distance(values)) == pytest.approx(0.6)
    solution = xr.Dataset(
        {"predicted_singular_value": (("seed", "mode"), [[2.0, 1e-9, 0.0], [1, 1, 1]]), "status": ("seed", [0, 1])}
    )
    np.testing.assert_array_equal(ranks.exact_rank(solution), [2, NAN])


def test_edges_lie_halfway_between_neighbours_on_a_logarithmic_axis() -> None:
    np.testing.assert_allclose(plotting.edges([0.01, 1, 100]), [0.001, 0.1, 10, 1000])
    np.testing.assert_allclose(plotting.edges([2.0]), [2 * np.exp(-0.5), 2 * np.exp(0.5)])


def test_the_theory_lines_of_the_figures() -> None:
    mean, square = rescaled_regressor.moments(0.3, "learnt", 50)
    assert rescaled_regressor.second_order(0.3, "learnt", 50) == stability.second_order_critical_learning_rate(
        mean, square
    )
    rate = rescaled_regressor.slowest_learning_rate(1000, 50)
    assert -1000 * rate * mean == pytest.approx(1)  # what grows by -rate E[h] a step has grown by e
    critical = factorization.diagonal_critical_learning_rates(0.1, 6)
    between = (critical.min() + np.sort(critical)[1]) / 2
    np.testing.assert_array_equal(factorization.diagonal_rank(0.1, [0, between, 1], 6), [6, 5, 0])


def test_weight_decay_flattens_the_loss_across_a_mirror_at_its_critical_value() -> None:
    """Of 7 - c s² + s⁴, with curvature -2c, the decay γ = c leaves s⁴."""
    distance = np.array([-1.0, -0.5, 0.0, 0.5, 1.0])
    c = np.array([[2.0], [3.0]])
    data = xr.Dataset(
        {
            "loss_across": (("mirror", "distance"), 7 - c * distance**2 + distance**4),
            "curvature_across": ("mirror", -2 * c[:, 0]),
        },
        {"mirror": ["permutation", "sign"], "distance": distance},
    )
    np.testing.assert_array_equal(hessians.critical_decay(data), [2, 3])
    across = hessians.loss_across(data, [0, 1, 2])
    assert across.dims == ("mirror", "factor", "distance")
    expected = [(factor - 1) * c * distance**2 + distance**4 for factor in (0, 1, 2)]
    np.testing.assert_allclose(across, np.stack(expected, axis=1), atol=1e-14)


def test_the_worst_block_is_the_largest_that_should_vanish_and_the_smallest_that_should_not() -> None:
    names = ("coupling", "displaced_coupling", "sector_coupling", "scalar_formula_error", "scalar_eigenvector_error")
    worst = hessians.worst_blocks(xr.Dataset({name: (("batch_size", "seed"), [[1.0, 3, NAN]]) for name in names}))
    assert {name: value.item() for name, value in worst.items()} == dict.fromkeys(names, 3.0) | {
        "displaced_coupling": 1
    }


def test_trajectories_on_and_off_a_condition_are_counted() -> None:
    """Of two seeds, one leaves; start 1 is off it and one seed passes through it; the last landscape diverged."""
    distance = [[[0, 1e-16, 1e-15], [1.0, 0, 0.5]], [[0, 1e-3, 0], [1, 0.5, 0.4]]]
    own = [[[0, 0, 0], [0, 0, 0.1]], [[0, 0, 0], [0, 0, 0]]]
    dims = ("landscape", "seed", "start", "step")
    lost = np.full((2, 2, 3), NAN)
    data = xr.Dataset({"distance": (dims, [distance, lost]), "own_line_distance": (dims, [own, lost])})
    np.testing.assert_array_equal(conditions.starts_on(data)[0], [[True, False], [True, False]])
    counts = conditions.trajectories(data).isel(landscape=0)
    assert {name: int(value) for name, value in counts.items()} == {
        "starts_on": 2,
        "stayed": 1,
        "starts_off": 2,
        "reached": 1,
        "on_own_line": 3,
    }
    np.testing.assert_array_equal(conditions.trajectories(data)["on_own_line"], [3, 0])


def test_the_critical_rate_of_batches_of_one_is_the_rescaled_regressors() -> None:
    data = xr.Dataset(coords={"batch_size": [1.0, 4.0]}, attrs={"settings": '{"noise_std": 1.0, "features": 200}'})
    critical = batches.critical_learning_rates(data)
    exact = [rescaled_regressor.critical_learning_rates(1.0, where, 200)[0] for where in ("collapsed", "learnt")]
    second = [rescaled_regressor.second_order(1.0, where, 200) for where in ("collapsed", "learnt")]
    assert float(critical["exact"][0]) == pytest.approx(np.mean(exact), rel=1e-6)
    assert float(critical["second_order"][0]) == pytest.approx(np.mean(second), rel=1e-6)
    assert bool((critical.isel(batch_size=1) > 2 * critical.isel(batch_size=0)).to_array().all())


def test_measured_ranks_beside_the_exact_solutions() -> None:
    """Two seeds that finish, one at its step limit, and one that diverges."""
    dims = ("weight_decay", "seed")
    values = np.array([[[2.0, 1e-3], [2.0, 0.5], [NAN, NAN]]])
    solution = np.array([[[2.0, 0.0], [2.25, 0.5], [3.0, 3.0]]])
    data = xr.Dataset(
        {
            "singular_value": ((*dims, "mode"), values),
            "predicted_singular_value": ((*dims, "mode"), solution),
            "rank": (dims, [[1.0, 2, NAN]]),
            "predicted_rank": (dims, [[1.0, 3, 2]]),
            "gradient_norm": (dims, [[1e-9, 1e-7, NAN]]),
            "steps": (dims, [[100.0, 300, NAN]]),
            "status": (dims, np.array([[FINISHED, FINISHED, DIVERGED]], np.int8)),
        },
        attrs={"settings": '{"gradient_norm": 1e-8}'},
    )
    found = {name: value.item() for name, value in ranks.against_prediction(data).items()}
    assert found == {
        "rank": 1.5,
        "predicted_rank": 2,
        "exact_rank": 1.5,
        "equal": 1,
        "difference": 0.25,
        "converged": 1,
        "steps": 300,
    }
    np.testing.assert_array_equal(ranks.converged(data), [[True, False, False]])


def test_a_layers_ranks_at_the_end_are_those_of_the_seeds_that_finished() -> None:
    step = [0, 10, 20, 30, 40, 50]
    key = np.array([[9, 8, 7, 6, 5, 3], [9, 8, 7, 6, 5, 4], [9.0, 0, 0, 0, 0, 0]])
    rank = np.stack([key, key + 1], axis=-1)
    spectra = np.ones((3, 6, 2, 2)) * np.array([[3.0, 4.0], [0.0, 4.0]])
    dims = ("seed", "step", "matrix")
    run = xr.Dataset(
        {
            "rank": (dims, rank),
            "singular_value": ((*dims, "mode"), spectra),
            "train_loss": (dims[:2], 0.1 * key),
            "status": ("seed", np.array([FINISHED, FINISHED, DIVERGED], np.int8)),
        },
        {"step": step, "matrix": ["key", "query"]},
    )
    finished = runs.finished_seeds(run)
    assert finished.sizes["seed"] == 2
    assert ranks.at_the_end(finished) == pytest.approx(
        {
            "last step": 50,
            "rank of W_K": 3.5,
            "rank of W_Q": 4.5,
            "change over the last fifth": -1.5,
            "relative distance of the spectra": 0.6,
            "loss": 0.35,
        }
    )
