import numpy as np
import pytest
import torch

from mirrorsym.constraining import constrain_all, effective_parameters
from reproduction.contract import Context
from reproduction.data import digits
from reproduction.data.images import Images
from reproduction.experiments.dcs_resnet import EXPERIMENT, DcsResnetSettings, build, prune, sparsity
from reproduction.models.resnet import ResNet18
from reproduction.pipeline import store
from reproduction.training import memory
from reproduction.training.loop import initialized

SMALL = DcsResnetSettings(
    dataset="digits", width=4, stem_stride=2, epochs=2, batch_size=100, crop_padding=1, weight_decay=1e-3
)


def context() -> Context:
    full = digits.load()
    few = Images(full.train_images[:200], full.train_labels[:200], full.test_images, full.test_labels, full.source)
    return Context(images=lambda name: few)


def test_the_dataset_keeps_the_contract_and_both_arms_start_alike() -> None:
    dataset = EXPERIMENT.run(SMALL, {"parameterization": ["vanilla", "dcs"]}, 0, context())
    store.check(dataset, EXPERIMENT)
    assert (dataset["status"] == 0).all()
    assert dataset["epoch"].values.tolist() == [0, 1, 2]
    start = dataset.isel(epoch=0, seed=0)
    np.testing.assert_allclose(start["train_loss"][0], start["train_loss"][1], rtol=1e-4)
    np.testing.assert_allclose(start["sparsity"][0], start["sparsity"][1], atol=1e-3)
    assert start["epoch_seconds"].values.tolist() == [0, 0]
    assert (dataset["epoch_seconds"][..., 1:] > 0).all()
    assert dataset["train_loss"][0, 0, 2] != dataset["train_loss"][1, 0, 2]
    assert (dataset["peak_memory"] > 0).all()


def test_the_numbers_that_are_not_measurements_are_reproducible_bit_for_bit() -> None:
    grid = {"parameterization": ["dcs"]}
    first, again = (EXPERIMENT.run(SMALL, grid, 1, context()) for _ in range(2))
    for name in ("test_accuracy", "train_loss", "sparsity", "pruned_test_accuracy"):
        np.testing.assert_array_equal(first[name], again[name])


def test_a_run_that_diverges_is_nan_with_status_1() -> None:
    settings = SMALL.model_copy(update={"learning_rate": 1e30})
    dataset = EXPERIMENT.run(settings, {"parameterization": ["dcs"]}, 0, context())
    store.check(dataset, EXPERIMENT)
    assert dataset["status"].values.tolist() == [[1]]
    assert all(np.isnan(variable).all() for name, variable in dataset.data_vars.items() if name != "status")


@pytest.mark.parametrize("constrained", [False, True])
def test_sparsity_counts_products_and_pruning_zeroes_them_for_good(constrained: bool) -> None:
    network = ResNet18(1, 10, width=2, stem_stride=2)
    with torch.no_grad():
        network.fc.weight[0] = 1e-7
        network.classifier.bias[3] = -1e-5
    values_before = torch.cat([value.detach().flatten() for value in network.parameters()])
    if constrained:
        constrain_all(network)
    assert sparsity(network) == pytest.approx((values_before.abs() < 1e-6).double().mean().item())
    assert sparsity(network) > 0
    prune(network)
    values = {name: value for owner, name, value in effective_parameters(network) if owner is network.fc}
    assert (values["weight"][0] == 0).all()
    assert (values["weight"][1:] != 0).all()
    assert network.classifier.bias[3].item() == pytest.approx(-1e-5)
    if constrained:
        assert all((factor[0] == 0).all() for factor in network.fc.parametrizations["weight"].parameters())


def test_both_arms_draw_the_same_initial_values() -> None:
    plain, constrained = (
        initialized(lambda arm=arm: build(SMALL, arm, 1, 10), "test", 0) for arm in ("vanilla", "dcs")
    )
    for (*_, value), (*_, product) in zip(
        sorted(effective_parameters(plain), key=_order),
        sorted(effective_parameters(constrained), key=_order),
        strict=True,
    ):
        torch.testing.assert_close(value, product)


def _order(parameter: tuple[torch.nn.Module, str, torch.Tensor]) -> tuple[float, ...]:
    return (parameter[2].numel(), round(parameter[2].abs().sum().item(), 3))


def test_peak_memory_counts_parameters_gradients_momentum_and_factors() -> None:
    """A wide linear layer, whose parameters outweigh all else: 3 times plain.

    As a product 7 times: two factors, their gradients and their momentum, and the product.
    """
    size = 4000 * 1000 * 4

    def plain() -> torch.nn.Module:
        return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4000, 1000))

    peak = memory.step_peak(plain, (1, 1, 4000), 1, "cpu", "float32")
    assert 2.9 * size < peak < 3.2 * size
    constrained = memory.step_peak(lambda: constrain_all(plain()), (1, 1, 4000), 1, "cpu", "float32")
    assert 6.9 * size < constrained < 7.3 * size


def test_a_measuring_process_that_fails_says_so() -> None:
    def broken() -> torch.nn.Module:
        raise RuntimeError("no network")

    with pytest.raises(ChildProcessError, match="measures memory"):
        memory.step_peak(broken, (1, 1, 4), 1, "cpu", "float32")
