"""What trainings rely on, on the GPU where there is one, else on the CPU as far as that goes.

They need torch, the package and what it imports, and run under other versions than those of the lock: ``make gpu``
runs them on a machine that nobody prepared.
"""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from mirrorsym.constraining import constrain_all
from reproduction.contract import Context, Stopped
from reproduction.data.images import Images
from reproduction.models.resnet import ResNet18
from reproduction.training import loop, memory
from reproduction.training.precision import chosen
from reproduction.training.recipe import Recipe
from tests.stopping import StopAt

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
needs_gpu = pytest.mark.skipif(DEVICE == "cpu", reason="there is no GPU here")
RECIPE = Recipe(width=8, epochs=2, batch_size=32, schedule="cosine")


@functools.cache
def images() -> Images:
    random = np.random.default_rng(0)
    pictures = [random.integers(0, 256, (count, 3, 32, 32), np.uint8) for count in (96, 32)]
    labels = [np.arange(count, dtype=np.int64) % 10 for count in (96, 32)]
    return Images(pictures[0], labels[0], pictures[1], labels[1], "random pictures")


def build(constrained: bool = False) -> nn.Module:
    network = ResNet18(3, 10, RECIPE.width)
    return constrain_all(network) if constrained else network


def trained(
    precision: str, constrained: bool = False, context: Context | None = None, device: str = DEVICE
) -> tuple[loop.Trained, dict[str, torch.Tensor]]:
    recipe = RECIPE.model_copy(update={"precision": precision})
    with loop.reproducible(device, 1):
        network = loop.initialized(lambda: build(constrained), "test", 0).to(device)
        pictures = loop.Pictures(images(), device)
        result = loop.train(network, pictures, recipe, 1e-3, "test", 0, context or Context(device=device))
    return result, {name: value.cpu().clone() for name, value in network.state_dict().items()}


@pytest.mark.parametrize("constrained", [False, True])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_two_trainings_have_the_same_bits(precision: str, constrained: bool) -> None:
    """Raises where an operation has no deterministic kernel."""
    first, weights = trained(precision, constrained)
    again, same = trained(precision, constrained)
    assert first.history["train_loss"] == again.history["train_loss"]
    assert all(torch.equal(weights[name], same[name]) for name in weights)


@pytest.mark.parametrize("constrained", [False, True])
@pytest.mark.parametrize("after", [2, 4])
def test_a_checkpoint_from_inside_an_epoch_leads_to_the_same_bits(after: int, constrained: bool) -> None:
    whole, weights = trained("auto", constrained)
    context = Context(device=DEVICE, checkpoint=StopAt(after))
    with pytest.raises(Stopped):
        trained("auto", constrained, context)
    resumed, same = trained("auto", constrained, context)
    assert resumed.history["train_loss"] == whole.history["train_loss"]
    assert all(torch.equal(weights[name], same[name]) for name in weights)


def test_the_first_loss_is_that_of_a_cpu() -> None:
    expected = trained("float32", device="cpu")[0].history["train_loss"][0]
    assert trained("float32")[0].history["train_loss"][0] == pytest.approx(expected, rel=1e-4)
    assert trained("bfloat16")[0].history["train_loss"][0] == pytest.approx(expected, rel=2e-2)


def test_float32_is_float32() -> None:
    """TF32 keeps 10 bits: the error of a convolution would be a thousandth."""
    pictures, weights = torch.randn(8, 16, 16, 16), torch.randn(16, 16, 3, 3)
    exact = functional.conv2d(pictures.double(), weights.double(), padding=1)
    with loop.reproducible(DEVICE, 1), torch.no_grad():
        found = functional.conv2d(pictures.to(DEVICE), weights.to(DEVICE), padding=1)
        product = pictures.to(DEVICE).flatten(1) @ pictures.to(DEVICE).flatten(1).T
    assert float((found.cpu().double() - exact).norm() / exact.norm()) < 1e-5
    other = pictures.double().flatten(1) @ pictures.double().flatten(1).T
    assert float((product.cpu().double() - other).norm() / other.norm()) < 1e-5


def test_a_step_of_the_fused_optimizer_is_sgd_with_momentum_and_decay() -> None:
    """Two full batches of a linear network, against the formula in float64."""
    recipe = RECIPE.model_copy(update={"batch_size": 96, "crop_padding": 0, "flip": False})
    pictures = loop.Pictures(images(), DEVICE)
    with loop.reproducible(DEVICE, 1):
        network = nn.Sequential(nn.Flatten(), nn.Linear(3072, 10))
        weights = [parameter.detach().double().clone() for parameter in network.parameters()]
        loop.train(network, pictures, recipe, 0.1, "test", 0, Context(device=DEVICE))
    x = pictures.normalized(pictures.train_images).flatten(1).double().cpu()
    velocity = [torch.zeros_like(weight) for weight in weights]
    for rate in (0.1, 0.05):
        leaves = [weight.requires_grad_() for weight in weights]
        loss = functional.cross_entropy(functional.linear(x, *leaves), pictures.train_labels.cpu())
        gradients = torch.autograd.grad(loss, leaves)
        velocity = [0.9 * v + g + 0.1 * w.detach() for v, g, w in zip(velocity, gradients, weights, strict=True)]
        weights = [(w - rate * v).detach() for v, w in zip(velocity, weights, strict=True)]
    for parameter, expected in zip(network.parameters(), weights, strict=True):
        torch.testing.assert_close(parameter.detach().cpu().double(), expected, rtol=1e-3, atol=1e-5)


def test_convolutions_compute_in_channels_last_and_in_the_precision() -> None:
    seen: set[tuple[torch.dtype, bool]] = set()

    class Watching(nn.Conv2d):
        def forward(self, pictures: torch.Tensor) -> torch.Tensor:
            output = super().forward(pictures)
            laid_out = all(one.is_contiguous(memory_format=torch.channels_last) for one in (pictures, output))
            seen.add((output.dtype, laid_out))
            return output

    layers = Watching(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), Watching(8, 8, 3)
    network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))
    recipe = RECIPE.model_copy(update={"precision": "auto"})
    with loop.reproducible(DEVICE, 1):
        result = loop.train(network, loop.Pictures(images(), DEVICE), recipe, 0.0, "test", 0, Context(device=DEVICE))
    assert seen == {(getattr(torch, result.precision), True)}
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}


def test_no_operation_of_the_network_lacks_a_deterministic_gradient() -> None:
    """Pooling to one value has to run as a mean: the gradient of adaptive pooling has no deterministic kernel."""
    names, pending = set(), [functional.cross_entropy(build()(torch.randn(2, 3, 32, 32)), torch.tensor([0, 1])).grad_fn]
    while pending:
        node = pending.pop()
        if node is not None and node not in names:
            names.add(node)
            pending += [following for following, _ in node.next_functions]
    kinds = {node.name() for node in names}
    assert any(kind.startswith("MeanBackward") for kind in kinds)
    refused = "AdaptiveAvgPool", "AdaptiveMaxPool", "MaxPool2DWithIndices", "Upsample", "NllLoss2D", "Embedding"
    assert not [kind for kind in kinds if kind.startswith(refused)]


def test_settings_of_torch_are_put_back() -> None:
    cudnn, filling = torch.backends.cudnn, torch.utils.deterministic

    def state() -> tuple[bool, ...]:
        tf32 = cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
        filled = filling.fill_uninitialized_memory
        return (*tf32, cudnn.benchmark, torch.are_deterministic_algorithms_enabled(), filled)

    before = state()
    with loop.reproducible("cuda", 1):
        assert state() == (False, False, False, True, False)
    assert state() == before


def test_the_peak_of_a_step_counts_parameters_gradients_momentum_and_factors() -> None:
    """A wide layer that outweighs all else: 3 times plain; as a product 7, with the product beside two factors."""
    size = 4000 * 1000 * 4

    def plain() -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(4000, 1000))

    with loop.reproducible(DEVICE, 1):
        peak = memory.step_peak(plain, (1, 1, 4000), 1, DEVICE, "float32")
        constrained = memory.step_peak(lambda: constrain_all(plain()), (1, 1, 4000), 1, DEVICE, "float32")
    assert 2.9 * size < peak < 3.3 * size
    assert 6.9 * size < constrained < 8.3 * size  # the gradient of the product lives until both factors have theirs


@needs_gpu
def test_this_gpu_computes_in_bfloat16() -> None:
    assert chosen("auto", "cuda") == "bfloat16"
