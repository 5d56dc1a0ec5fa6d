import numpy as np
import pytest
import torch

from mirrorsym import measures
from reproduction.analysis import neurons
from reproduction.contract import Context
from reproduction.data import digits
from reproduction.experiments.homogeneity import EXPERIMENT, HomogeneitySettings, structure
from reproduction.models.resnet import ResNet18
from reproduction.pipeline import store
from reproduction.training.loop import Pictures

SMALL = HomogeneitySettings(
    dataset="digits", width=2, stem_stride=2, epochs=1, batch_size=500, crop_padding=0, flip=False
)


def context() -> Context:
    return Context(images=lambda name: digits.load())


def test_correlation_is_numpys_and_nan_for_constant_neurons() -> None:
    activations = np.random.default_rng(0).normal(size=(50, 6))
    activations[:, 2] = 3.0
    activations[:, 4] = 1.0 + 1e-9 * activations[:, 1]
    result = measures.correlation(activations)
    alive = [0, 1, 3, 5]
    np.testing.assert_allclose(result[np.ix_(alive, alive)], np.corrcoef(activations[:, alive].T), atol=1e-12)
    assert np.isnan(result[[2, 4]]).all()
    assert np.isnan(result[:, [2, 4]]).all()


def test_blocks_are_drawn_together_and_constant_neurons_last() -> None:
    random = np.random.default_rng(1)
    block = random.permutation(np.repeat([0, 1], 10))
    signals = random.normal(size=(300, 2))
    activations = signals[:, block] + 0.1 * random.normal(size=(300, 20))
    activations[:, 7] = 0
    order = measures.correlation_order(measures.correlation(activations))
    assert sorted(order) == list(range(20))
    assert order[-1] == 7
    assert (np.diff(block[order[:-1]]) != 0).sum() == 1


def test_the_order_does_not_depend_on_the_eigenvectors_sign() -> None:
    matrix = np.array([[1, 0.9, 0.2], [0.9, 1, 0.3], [0.2, 0.3, 1]])
    top = np.linalg.eigh(matrix)[1][:, -1]
    expected = np.argsort(-np.abs(top))
    np.testing.assert_array_equal(measures.correlation_order(matrix), expected)
    np.testing.assert_array_equal(measures.correlation_order(matrix[::-1, ::-1]), 2 - expected)


def test_pairs_and_clusters_of_known_blocks() -> None:
    matrix = np.eye(8)
    for group in ([0, 3, 5], [1, 2]):
        matrix[np.ix_(group, group)] = 0.99
    matrix[3, 5] = matrix[5, 3] = 0.5  # 0-3 and 0-5 still chain the three together
    matrix[7] = matrix[:, 7] = np.nan
    assert measures.homogeneous_pairs(matrix) == pytest.approx(3 / 21)
    assert measures.clusters(matrix) == 4
    assert measures.clusters(np.full((3, 3), np.nan)) == 0
    assert np.isnan(measures.homogeneous_pairs(np.full((3, 3), np.nan)))


def test_weight_distance_is_the_mirrors_order_parameter() -> None:
    rows = np.random.default_rng(2).normal(size=(5, 7))
    rows[1] = rows[0]
    rows[2] = -rows[0]
    result = measures.weight_distance(rows)
    assert result[0, 1] == 0
    assert result[0, 2] == pytest.approx(np.sqrt(2))
    projection = 0.5 * np.block([[np.eye(7), -np.eye(7)], [-np.eye(7), np.eye(7)]])
    theta = np.concatenate([rows[3], rows[4]])
    assert result[3, 4] == pytest.approx(np.sqrt(2) * np.linalg.norm(projection @ theta) / np.linalg.norm(theta))
    assert np.isnan(measures.weight_distance(np.zeros((2, 3)))).all()


def test_copied_neurons_are_found_in_a_network() -> None:
    network = ResNet18(1, 10, width=4, stem_stride=2)
    with torch.no_grad():
        for values in (network.fc.weight, network.fc.bias):
            values[5] = values[9]
        network.classifier.weight[:, 5] = network.classifier.weight[:, 9]
        network.fc.weight[17] = 0
    found = structure(network, Pictures(digits.load(), "cpu"), 100)
    assert found["weight_distance"][5, 9] == 0
    assert found["correlation_pre"][5, 9] == pytest.approx(1)
    assert found["weight_distance"][5, 10] > 0.3
    assert np.isnan(found["correlation_pre"][17]).all()


def test_correlations_are_over_the_first_test_points_in_eval_mode() -> None:
    images = digits.load()
    network = ResNet18(1, 10, width=4, stem_stride=2)
    found = structure(network, Pictures(images, "cpu"), 100)
    pixels = torch.from_numpy(images.test_images[:100]).float()
    x = (pixels - images.train_images.mean()) / images.train_images.std()
    with torch.no_grad():
        before = network.eval().preactivation(x).double().numpy()
    np.testing.assert_allclose(found["correlation_pre"], np.corrcoef(before.T), atol=1e-3)


def test_the_dataset_keeps_the_contract_and_says_what_the_start_was_like() -> None:
    dataset = EXPERIMENT.run(SMALL, {"weight_decay": [0, 1]}, 0, context())
    store.check(dataset, EXPERIMENT)
    assert dataset["weight_decay"].dtype == float
    assert (dataset["status"] == 0).all()
    start = dataset["initial_correlation_pre"]
    np.testing.assert_array_equal(start[0], start[1])
    assert not np.allclose(dataset["correlation_pre"][0], start[0], equal_nan=True)
    assert sorted(dataset["order_pre"].values[0, 0]) == list(range(128))


def test_a_run_that_diverges_has_its_start_and_status_1() -> None:
    settings = SMALL.model_copy(update={"learning_rate": 1e30})
    dataset = EXPERIMENT.run(settings, {"weight_decay": [0.0]}, 0, context())
    store.check(dataset, EXPERIMENT)
    assert dataset["status"].values.tolist() == [[1]]
    ends = [name for name in EXPERIMENT.variables if not name.startswith("initial_")]
    assert all(dataset[name].isnull().all() for name in ends)
    finished = EXPERIMENT.run(SMALL, {"weight_decay": [0.0]}, 0, context())
    for name in set(EXPERIMENT.variables) - set(ends):
        np.testing.assert_array_equal(dataset[name], finished[name])
    counted = neurons.counts(dataset).isel(weight_decay=0, seed=0)
    assert int(counted["clusters"].sel(when="start")) == measures.clusters(
        dataset["initial_correlation_pre"].values[0, 0]
    )
    assert all(counted[name].sel(when="end").isnull() for name in counted)


def test_a_start_that_older_code_did_not_keep_is_not_128_constant_neurons() -> None:
    dataset = EXPERIMENT.run(SMALL, {"weight_decay": [0.0]}, 0, context())
    older = dataset.where(dataset["status"] == 1).assign(status=dataset["status"] + 1)
    assert all(values.isnull().all() for values in neurons.counts(older).data_vars.values())
