import pytest
import torch
from torch import nn

from reproduction.models.resnet import PENULTIMATE, ResNet18


def test_full_width_has_11_24_million_parameters() -> None:
    assert sum(parameter.numel() for parameter in ResNet18(3, 10).parameters()) == 11_235_786


@pytest.mark.parametrize(("channels", "size", "stem_stride"), [(3, 32, 1), (3, 32, 2), (1, 8, 1), (1, 8, 2)])
def test_pictures_of_32_and_of_8_pixels_go_through(channels: int, size: int, stem_stride: int) -> None:
    network = ResNet18(channels, 10, width=4, stem_stride=stem_stride)
    assert network(torch.randn(5, channels, size, size)).shape == (5, 10)


def test_first_stage_keeps_the_pictures_size() -> None:
    network = ResNet18(3, 10, width=4)
    sizes: dict[str, torch.Size] = {}
    for name in ("layer1", "layer2", "layer3", "layer4"):
        network.get_submodule(name).register_forward_hook(
            lambda module, given, output, name=name: sizes.update({name: output.shape[1:]})
        )
    network(torch.randn(2, 3, 32, 32))
    assert sizes == {"layer1": (4, 32, 32), "layer2": (8, 16, 16), "layer3": (16, 8, 8), "layer4": (32, 4, 4)}


def test_the_logits_are_the_classifier_of_the_rectified_penultimate_layer() -> None:
    network = ResNet18(3, 10, width=4).eval()
    pictures = torch.randn(6, 3, 16, 16)
    before = network.preactivation(pictures)
    assert before.shape == (6, PENULTIMATE)
    assert (before < 0).any()
    expected = before.clamp(min=0) @ network.classifier.weight.T + network.classifier.bias
    torch.testing.assert_close(network(pictures), expected)


def test_no_parameter_is_left_on_the_meta_device_and_convolutions_start_as_in_torchvision() -> None:
    network = ResNet18(3, 10, width=16)
    assert {parameter.device.type for parameter in network.parameters()} == {"cpu"}
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            fan_out = module.out_channels * module.kernel_size[0] * module.kernel_size[1]
            assert module.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.15)
        if isinstance(module, nn.BatchNorm2d):
            assert torch.equal(module.weight, torch.ones_like(module.weight))
