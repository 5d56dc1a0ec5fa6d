import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from reproduction.contract import Context, Stopped
from reproduction.data import digits
from reproduction.data.images import Images
from reproduction.models.resnet import ResNet18
from reproduction.pipeline import config
from reproduction.training import loop
from reproduction.training.precision import Precision
from reproduction.training.recipe import Recipe
from tests.stopping import StopAt

SMALL = Recipe(dataset="digits", width=4, stem_stride=2, epochs=3, batch_size=64, schedule="cosine", crop_padding=1)


def some_digits(count: int = 200) -> Images:
    full = digits.load()
    return Images(full.train_images[:count], full.train_labels[:count], full.test_images, full.test_labels, full.source)


def trained(
    recipe: Recipe = SMALL, context: Context | None = None, weight_decay: float = 1e-3, seed: int = 0
) -> tuple[loop.Trained, dict[str, torch.Tensor]]:
    images = some_digits()
    with loop.reproducible("cpu", 1):
        network = loop.initialized(lambda: ResNet18(1, 10, recipe.width, recipe.stem_stride), "test", seed)
        pictures = loop.Pictures(images, "cpu")

        def measure(precision: Precision) -> Mapping[str, float]:
            return {"test_accuracy": loop.accuracy(network, pictures, precision)}

        result = loop.train(network, pictures, recipe, weight_decay, "test", seed, context or Context(), measure)
    return result, network.state_dict()


def without_seconds(result: loop.Trained) -> dict[str, list[float]]:
    return {name: numbers for name, numbers in result.history.items() if name != "epoch_seconds"}


@pytest.mark.parametrize("after", [1, 3, 5, 9])
def test_a_resumed_run_equals_an_undisturbed_one_bit_for_bit(after: int) -> None:
    """With momentum, augmentation and a schedule; three steps an epoch, so inside and at the end of an epoch."""
    whole, weights = trained()
    checkpoint = StopAt(after)
    with pytest.raises(Stopped):
        trained(context=Context(checkpoint=checkpoint))
    resumed, resumed_weights = trained(context=Context(checkpoint=checkpoint))
    assert without_seconds(resumed) == without_seconds(whole)
    assert all(torch.equal(resumed_weights[name], weights[name]) for name in weights)


def test_a_checkpoint_of_another_run_is_not_taken_up() -> None:
    checkpoint = StopAt(4)
    with pytest.raises(Stopped):
        trained(context=Context(checkpoint=checkpoint))
    expected, weights = trained(weight_decay=1e-2)
    other, other_weights = trained(weight_decay=1e-2, context=Context(checkpoint=checkpoint))
    assert without_seconds(other) == without_seconds(expected)
    assert all(torch.equal(other_weights[name], weights[name]) for name in weights)


def test_the_seed_decides_and_the_global_generator_does_not() -> None:
    _, first = trained()
    torch.manual_seed(99)
    state = torch.get_rng_state()
    _, again = trained()
    assert torch.equal(torch.get_rng_state(), state)
    _, other = trained(seed=1)
    assert torch.equal(first["fc.weight"], again["fc.weight"])
    assert not torch.equal(first["fc.weight"], other["fc.weight"])


def test_a_step_is_sgd_with_momentum_and_coupled_decay_on_every_parameter() -> None:
    """Two steps of full batches against SGD written out, for a network whose gradient is known to autograd."""
    images = some_digits(64)
    recipe = SMALL.model_copy(update={"epochs": 2, "crop_padding": 0, "flip": False})
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    weights = [parameter.detach().clone().double() for parameter in network.parameters()]
    velocity = [torch.zeros_like(weight) for weight in weights]
    pictures = loop.Pictures(images, "cpu")
    loop.train(network, pictures, recipe, 0.1, "test", 0, Context())
    x = pictures.normalized(pictures.train_images).flatten(1).double()
    for rate in (0.1, 0.05):
        leaves = [weight.requires_grad_() for weight in weights]
        loss = functional.cross_entropy(functional.linear(x, *leaves), pictures.train_labels)
        gradients = torch.autograd.grad(loss, leaves)
        velocity = [0.9 * v + g + 0.1 * w.detach() for v, g, w in zip(velocity, gradients, weights, strict=True)]
        weights = [(w - rate * v).detach() for v, w in zip(velocity, weights, strict=True)]
    for parameter, expected in zip(network.parameters(), weights, strict=True):
        torch.testing.assert_close(parameter.detach().double(), expected, rtol=1e-4, atol=1e-6)


def decay_strength(recipe: Recipe, weight_decay: float, steps: int) -> float:
    """Mean learning rate * weight decay * steps / (1 - momentum): how many e-folds decay alone takes off."""
    mean = recipe.learning_rate * (0.5 if recipe.schedule == "cosine" else 1.0)
    return mean * weight_decay * steps / (1 - recipe.momentum)


def test_schedules() -> None:
    constant = SMALL.model_copy(update={"schedule": "constant"})
    assert [loop.learning_rate(constant, step, 10) for step in (0, 5, 9)] == [0.1] * 3
    assert [loop.learning_rate(SMALL, step, 10) for step in (0, 5, 10)] == pytest.approx([0.1, 0.05, 0.0])
    rates = [loop.learning_rate(SMALL, step, 1000) for step in range(1000)]
    assert decay_strength(SMALL, 2e-3, 1000) == pytest.approx(sum(rates) * 2e-3 / 0.1, rel=2e-3)
    assert decay_strength(constant, 2e-3, 1000) == pytest.approx(2.0)


STEPS_PER_EPOCH = {"cifar10": 50_000 // 128, "digits": 1437 // 128}


@pytest.mark.parametrize("scale", ["quick", "laptop", "overnight", "paper"])
def test_no_scale_trains_with_a_weight_decay_that_cannot_act(scale: str) -> None:
    """Decay has to take off at least five e-folds, or its result would be a lack of time."""
    settings = config.load(Path(__file__).parents[2] / "config", {"scale": scale})
    for name, experiment in settings.experiments.items():
        recipe = settings.settings_of(name)
        if isinstance(recipe, Recipe):
            swept = [float(value) for product in experiment.sweep for value in product.get("weight_decay", [])]
            decays = [decay for decay in swept or [getattr(recipe, "weight_decay", 0.0)] if decay > 0]
            steps = recipe.epochs * STEPS_PER_EPOCH[recipe.dataset]
            assert recipe.batch_size == 128
            least = 3.9 if scale == "paper" else 5  # the smallest of the values at the paper's 100 epochs is 1e-4
            assert decay_strength(recipe, min(decays), steps) >= least - 1e-9


def test_every_crop_and_flip_is_a_window_of_the_padded_picture() -> None:
    pixels = torch.arange(1, 1 + 6 * 2 * 4 * 5, dtype=torch.int64).reshape(6, 2, 4, 5).to(torch.uint8)
    shifts = torch.tensor([[0, 0], [1, 1], [2, 2], [0, 2], [2, 0], [1, 0]])
    flips = torch.tensor([False, True, False, True, False, True])
    result = loop.augmented(pixels, shifts, flips, padding=1).numpy()
    padded = np.pad(pixels.numpy(), ((0, 0), (0, 0), (1, 1), (1, 1)))
    for i, (row, column) in enumerate(shifts.tolist()):
        window = padded[i, :, row : row + 4, column : column + 5]
        np.testing.assert_array_equal(result[i], window[:, :, ::-1] if flips[i] else window)
    torch.testing.assert_close(loop.augmented(pixels, torch.ones_like(shifts), None, padding=1), pixels)


def test_an_epoch_shows_every_picture_at_most_once_and_drops_the_rest() -> None:
    recipe = SMALL.model_copy(update={"crop_padding": 0, "flip": False})
    pictures = loop.Pictures(some_digits(200), "cpu")
    draws = loop._Epoch.draw(200, recipe, "test", 0, 1, "cpu")
    steps = loop.steps_per_epoch(200, recipe)
    seen = torch.cat([draws.order[step * 64 : (step + 1) * 64] for step in range(steps)])
    assert steps == 3
    assert len(seen) == len(seen.unique()) == 192
    batch, labels = draws.batch(pictures, 2, recipe)
    torch.testing.assert_close(batch, pictures.normalized(pictures.train_images[seen[128:]]))
    assert torch.equal(labels, pictures.train_labels[seen[128:]])
    assert not torch.equal(loop._Epoch.draw(200, recipe, "test", 0, 2, "cpu").order, draws.order)


def test_training_pictures_are_normalized_per_channel() -> None:
    pictures = loop.Pictures(some_digits(), "cpu")
    x = pictures.normalized(pictures.train_images)
    assert x.mean().item() == pytest.approx(0, abs=1e-5)
    assert x.var(correction=0).item() == pytest.approx(1, abs=1e-5)


def test_a_run_that_diverges_says_so_and_raises_nothing() -> None:
    result, _ = trained(SMALL.model_copy(update={"learning_rate": 1e30, "schedule": "constant"}))
    assert result.diverged


def test_the_history_has_the_start_and_every_epoch() -> None:
    shown: list[tuple[int, int]] = []
    result, _ = trained(context=Context(progress=lambda done, total, numbers: shown.append((done, total))))
    assert {name: len(numbers) for name, numbers in result.history.items()} == {
        "train_loss": 4,
        "epoch_seconds": 4,
        "test_accuracy": 4,
    }
    assert all(math.isfinite(number) for numbers in result.history.values() for number in numbers)
    assert result.history["epoch_seconds"][0] == 0
    assert shown[-1] == (9, 9)


@pytest.mark.parametrize(
    ("width", "layout"),
    [
        (1, torch.contiguous_format),
        (4, torch.contiguous_format),
        (6, torch.contiguous_format),
        (8, torch.channels_last),
    ],
)
def test_networks_that_crash_in_channels_last_on_a_cpu_are_trained_in_the_contiguous_layout(
    width: int, layout: torch.memory_format
) -> None:
    assert loop.memory_format(ResNet18(3, 10, width), "cpu") == layout
    assert loop.memory_format(ResNet18(3, 10, width), "cuda") == torch.channels_last


@pytest.mark.parametrize("width", [4, 6, 8])
def test_strided_convolutions_read_the_layout_that_the_network_is_trained_in(width: int) -> None:
    recipe = SMALL.model_copy(update={"width": width, "stem_stride": 1, "epochs": 1})
    network = ResNet18(1, 10, width)
    safe = loop.memory_format(network, "cpu")
    read: list[bool] = []
    network.layer2[0].downsample[0].register_forward_hook(
        lambda module, given, output: read.append(given[0].is_contiguous(memory_format=safe))
    )
    loop.train(network, loop.Pictures(some_digits(128), "cpu"), recipe, 0.0, "test", 0, Context())
    assert read == [True, True]


def test_too_few_pictures_for_a_batch() -> None:
    with pytest.raises(ValueError, match="batch_size is 64 and there are 63 training pictures"):
        loop.steps_per_epoch(63, SMALL)


def test_digits_are_split_without_overlap_and_always_alike() -> None:
    images = digits.load()
    assert images.train_images.shape == (1437, 1, 8, 8)
    assert images.test_images.shape == (360, 1, 8, 8)
    assert images.classes == 10
    assert set(np.unique(images.test_labels)) == set(range(10))
    assert np.array_equal(images.test_images[1, 0], digits_by_index(5))


def digits_by_index(index: int) -> Any:
    from sklearn.datasets import load_digits

    return load_digits().images[index]
