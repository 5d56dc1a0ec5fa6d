"""find_symmetries on networks that people have, by a check that shares nothing with it; and that check itself."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from benchmarks.zoo import pruning
from benchmarks.zoo.check import HELD, check
from benchmarks.zoo.expected import EXPECTED
from benchmarks.zoo.living import Living
from benchmarks.zoo.matching import distinct, reached
from benchmarks.zoo.models import SMALL, Entry
from mirrorsym import Slot, Symmetry, find_symmetries

torch.set_num_threads(1)

LIGHT = [
    "tanh perceptron", "relu perceptron", "u-net", "dcgan generator", "vae", "u⊙v⊙w", "lstm", "gru",
    "minimal gpt", "einsum attention", "rms stream", "encoder, norm first", "encoder, norm last",
    "convnext", "densenet", "regnet", "vgg", "vit (torchvision)",
    "bert", "distilbert", "gpt2", "gpt_neox", "opt", "llama", "mixtral", "t5", "vit",
    "timm vit", "timm mixer",
]  # fmt: skip
"""Those that take a second or less; `make bench-symmetries` looks at all."""


def entry_of(name: str) -> Entry:
    entry = SMALL[name]
    if entry.package:
        pytest.importorskip(
            entry.package, reason=f"{entry.package} is missing; `make` installs it, the library needs none"
        )
    return entry


@pytest.mark.parametrize("name", LIGHT)
def test_every_symmetry_that_is_found_holds_and_is_more_than_nothing(name: str) -> None:
    model, inputs, keywords = entry_of(name).make()
    found = find_symmetries(model, *inputs, **keywords)
    assert found
    assert [str(wrong) for wrong in check(found, Living(model, inputs, keywords))] == []
    assert [str(wrong) for wrong in check(found, Living(model, inputs, keywords, seed=1, size=3.0), singly=0)] == []


@pytest.mark.parametrize("name", EXPECTED)
def test_symmetries_written_down_by_hand_are_found(name: str) -> None:
    model, inputs, keywords = entry_of(name).make()
    living = Living(model, inputs, keywords)
    found = find_symmetries(model, *inputs, **keywords)
    expected = list(EXPECTED[name](living.state))
    assert [one.what for one in expected if living.change(one.apply(living.state)) > HELD] == []
    assert [one.what for one in expected if not one.found(found, living.state)] == []


def test_channels_and_groups_between_group_norms_are_exchanged_in_as_many_families_as_counted_by_hand() -> None:
    model, inputs, keywords = entry_of("timm resnetv2").make()
    by_hand = list(EXPECTED["timm resnetv2"](dict(model.state_dict())))
    assert len(by_hand) == 3 * 1 + 4 * (32 + 1)
    assert len(find_symmetries(model, *inputs, **keywords).of_kind("permutation")) == len(by_hand)


@pytest.mark.parametrize(
    "name", ["u-net", "minimal gpt", "einsum attention", "densenet", "convnext", "vgg", "timm vit"]
)
def test_groups_of_torch_pruning_whose_exchange_holds_are_found(name: str) -> None:
    pytest.importorskip("torch_pruning", reason="torch-pruning is missing; `make` installs it, the library needs none")
    model, inputs, keywords = entry_of(name).make()
    living = Living(model, inputs, keywords)
    found = find_symmetries(model, *inputs, **keywords)
    exchanges = list(pruning.find(model, inputs, keywords))
    true = [exchange for exchange in exchanges if living.change(exchange.apply(living.state)) < HELD]
    assert true
    start = distinct(living.state)
    assert [(e.group, e.units) for e in true if not reached(found, start, e.apply(start))] == []


def test_torch_pruning_has_a_time_limit() -> None:
    assert pruning.exchanges(SMALL["u-net"], seconds=0.01) == "no answer in 0 s"


# --- the check ---


def layered(activation: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Linear(4, 6), activation, nn.Linear(6, 3))


def of(kind: str) -> Symmetry:
    slots = (Slot("0.weight", 0), Slot("0.bias", 0), Slot("2.weight", 1, inverse=True))
    return Symmetry(kind, 6, slots)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("activation", "true"),
    [
        (nn.Identity(), {"permutation", "sign_flip", "rescaling", "rotation", "general_linear"}),
        (nn.Tanh(), {"permutation", "sign_flip"}),
        (nn.ReLU(), {"permutation", "rescaling"}),
        (nn.ReLU6(), {"permutation"}),
        (nn.GELU(), {"permutation"}),
    ],
)
def test_the_check_tells_what_holds(activation: nn.Module, true: set[str]) -> None:
    x = torch.randn(5, 4)
    living = [Living(layered(activation), (x,), size=size) for size in (1.0, 3.0)]
    for kind in ("permutation", "sign_flip", "rescaling", "rotation", "general_linear"):
        wrong = [found for network in living for found in check([of(kind)], network, singly=0)]
        assert (not wrong) == (kind in true), (kind, wrong)


def test_the_check_finds_the_wrong_one_among_many() -> None:
    living = Living(layered(nn.Tanh()), (torch.randn(5, 4),))
    wrong = check([of("permutation"), of("sign_flip"), of("rescaling"), of("sign_flip")], living)
    assert {one.symmetry for one in wrong} == {of("rescaling")}
    assert "rescaling of 0, 2 (6 units): changes the outputs" in str(wrong[0])


def test_half_a_symmetry_is_wrong() -> None:
    half = Symmetry("permutation", 6, (Slot("0.weight", 0), Slot("2.weight", 1, inverse=True)))
    assert check([half], Living(layered(nn.Tanh()), (torch.randn(5, 4),)))


class Unused(nn.Module):
    """Its second layer takes no part."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 3), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.first(x)


def test_what_moves_nothing_in_any_case_is_no_finding() -> None:
    nothing = Symmetry("permutation", 3, (Slot("second.weight", 0), Slot("second.bias", 0)))
    (wrong,) = check([nothing], Living(Unused(), (torch.randn(5, 4),)))
    assert wrong.why == "half of it moves nothing"


def test_deep_networks_are_alive() -> None:
    """With PyTorch's own initial values, what comes out of forty layers does not depend on what goes in."""
    deep = nn.Sequential(*(layer for _ in range(40) for layer in (nn.Linear(8, 8), nn.ReLU())), nn.Linear(8, 2))
    x = torch.randn(6, 8)
    y = deep(x).detach()
    assert float(y.std(dim=0).max() / y.std()) < 1e-3
    living = Living(deep, (x,))
    (z,) = living.reference
    assert float(z.std(dim=0).max() / z.std()) > 0.1
    slots = (Slot("0.weight", 0), Slot("0.bias", 0), Slot("2.weight", 1, inverse=True))
    assert check([Symmetry("rescaling", 8, slots)], living) == []
    assert [wrong.why for wrong in check([Symmetry("sign_flip", 8, slots)], living, singly=0)] == [
        "changes the outputs"
    ]


class Narrow(nn.Module):
    """It computes in single precision, whatever its parameters are."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(x).float() + torch.ones(3, dtype=torch.float32)
        return y.to(torch.float32).softmax(dim=-1, dtype=torch.float32)


def test_single_precision_inside_of_a_network_is_answered_in_double() -> None:
    living = Living(Narrow(), (torch.randn(5, 4),))
    assert living.reference[0].dtype == torch.double
    weights = living.state["layer.weight"] @ living.inputs[0].T
    exact = (weights.T + living.state["layer.bias"] + 1).softmax(dim=-1)
    torch.testing.assert_close(living.reference[0], exact, rtol=1e-14, atol=1e-14)
