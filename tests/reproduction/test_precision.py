"""What trainings compute in, and that results say so."""

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from reproduction.analysis.claims import load_claims
from reproduction.contract import Context, Stopped
from reproduction.data import digits
from reproduction.data.images import Images
from reproduction.experiments import homogeneity
from reproduction.models.resnet import ResNet18
from reproduction.pipeline import config, notes
from reproduction.pipeline.collect import collect_plan
from reproduction.pipeline.config import module_path
from reproduction.pipeline.layout import Layout
from reproduction.pipeline.points import Plan, Point, points_of
from reproduction.pipeline.run import run_point
from reproduction.training import loop, precision
from reproduction.training.recipe import Recipe
from tests.stopping import StopAt

ROOT = Path(__file__).parents[2]
SMALL = Recipe(dataset="digits", width=8, epochs=2, batch_size=64, precision="bfloat16")


def some_digits(count: int = 128) -> Images:
    full = digits.load()
    return Images(full.train_images[:count], full.train_labels[:count], full.test_images, full.test_labels, full.source)


def trained(recipe: Recipe, context: Context | None = None) -> tuple[loop.Trained, ResNet18]:
    with loop.reproducible("cpu", 1):
        network = loop.initialized(lambda: ResNet18(1, 10, recipe.width, recipe.stem_stride), "test", 0)
        pictures = loop.Pictures(some_digits(), "cpu")
        return loop.train(network, pictures, recipe, 1e-3, "test", 0, context or Context()), network


def pretend(monkeypatch: pytest.MonkeyPatch, **capabilities: bool) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)


def test_auto_is_bfloat16_where_the_processor_multiplies_it(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, avx512_f=True, avx512_bf16=False, amx_bf16=False)
    assert precision.chosen("auto", "cpu") == "float32"
    assert precision.chosen("bfloat16", "cpu") == "bfloat16"
    for name in ("avx512_bf16", "amx_bf16"):
        pretend(monkeypatch, **{name: True})
        assert precision.chosen("auto", "cpu") == "bfloat16"
        assert precision.chosen("float32", "cpu") == "float32"


@pytest.mark.parametrize("native", [True, False])
def test_auto_on_a_gpu_asks_the_gpu(monkeypatch: pytest.MonkeyPatch, native: bool) -> None:
    pretend(monkeypatch, avx512_bf16=not native)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: native)
    assert precision.chosen("auto", "cuda") == ("bfloat16" if native else "float32")


@pytest.mark.parametrize("scale", ["tiny", "quick", "laptop"])
def test_no_verdict_of_the_small_scales_depends_on_the_processor(scale: str) -> None:
    settings = config.load(ROOT / "config", {"scale": scale})
    read = {
        name
        for claim in (one for path in (ROOT / "claims").glob("*.yaml") for one in load_claims(path))
        for name in claim.experiments
    }
    recipes = [settings.settings_of(name) for name in settings.experiments if name in read]
    assert {recipe.precision for recipe in recipes if isinstance(recipe, Recipe)} == {"float32"}


def test_the_network_computes_in_it_and_keeps_float32() -> None:
    """Convolutions give bfloat16; parameters, gradients, momentum and the loss are float32."""
    seen: set[torch.dtype] = set()

    class Watching(nn.Conv2d):
        def forward(self, pictures: torch.Tensor) -> torch.Tensor:
            output = super().forward(pictures)
            seen.add(output.dtype)
            return output

    full = SMALL.model_copy(update={"precision": "float32"})
    for recipe, expected in ((SMALL, torch.bfloat16), (full, torch.float32)):
        seen.clear()
        network = nn.Sequential(Watching(1, 8, 3), nn.Flatten(), nn.Linear(8 * 36, 10))
        result = loop.train(network, loop.Pictures(some_digits(), "cpu"), recipe, 0.0, "test", 0, Context())
        assert seen == {expected}
        assert result.precision == recipe.precision
        for parameter in network.parameters():
            assert parameter.dtype == torch.float32
            assert parameter.grad is not None
            assert parameter.grad.dtype == torch.float32
            # a bfloat16 has 8 significant bits: steps that small are kept only by float32
            assert not torch.equal(parameter, parameter.bfloat16().float())


def test_bfloat16_is_near_float32_and_not_equal_to_it() -> None:
    half, _ = trained(SMALL)
    full, _ = trained(SMALL.model_copy(update={"precision": "float32"}))
    first, exact = half.history["train_loss"][0], full.history["train_loss"][0]
    assert first != exact
    assert first == pytest.approx(exact, rel=0.01)


def test_a_checkpoint_keeps_the_precision_that_it_began_with(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine that would choose the other one."""
    auto = SMALL.model_copy(update={"precision": "auto"})
    whole, weights = trained(SMALL)
    pretend(monkeypatch, avx512_bf16=True)
    checkpoint = StopAt(1)
    with pytest.raises(Stopped):
        trained(auto, Context(checkpoint=checkpoint))
    pretend(monkeypatch, avx512_bf16=False)
    resumed, resumed_weights = trained(auto, Context(checkpoint=checkpoint))
    assert resumed.precision == "bfloat16"
    assert resumed.history["train_loss"] == whole.history["train_loss"]
    for one, other in zip(weights.parameters(), resumed_weights.parameters(), strict=True):
        assert torch.equal(one, other)


def test_points_from_before_there_was_a_choice_keep_their_names() -> None:
    def named(**settings: Any) -> Point:
        recipe = homogeneity.HomogeneitySettings.model_validate(settings)
        return Point("homogeneity", "homogeneity", recipe, None, {"weight_decay": [0.0]}, 0)

    plain = named()
    assert named(precision="float32").name == plain.name
    assert "precision" not in plain.settings.model_dump(mode="json")
    assert named(precision="auto").name != plain.name
    assert Point.from_json(named(precision="auto").to_json()) == named(precision="auto")


def test_a_note_says_what_ran_and_not_what_was_asked_for() -> None:
    paper = homogeneity.HomogeneitySettings()
    asked = paper.model_copy(update={"precision": "auto", "width": 8})
    assert notes.note(asked, paper) == "width 8"
    assert notes.with_precision("width 8", ["float32", "float32"]) == "width 8"
    assert notes.with_precision("width 8", []) == "width 8"
    assert notes.with_precision("width 8", ["bfloat16", "float32"]) == "width 8, bfloat16 and float32"
    assert notes.with_precision("", ["bfloat16"]) == "bfloat16"


def test_a_result_says_what_its_trainings_computed_in_and_collect_where_they_differ(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One seed on a machine with bfloat16, one on a machine without."""
    import xarray as xr

    entry = {
        "settings": {"stem_stride": 1, "width": 8, "batch_size": 128, "precision": "auto"},
        "seeds": 2,
        "sweep": [{"weight_decay": [0]}],
    }
    folder = ROOT / "config"
    settings = config.load(folder, {"scale": "tiny", "experiments": {"homogeneity": entry}})
    layout = Layout(tmp_path)
    points = points_of(settings, "homogeneity")
    monkeypatch.setattr("reproduction.pipeline.run.load_images", lambda *_: some_digits(256))
    from reproduction.pipeline import fingerprints

    fingerprints.update(layout.fingerprints, module_path("homogeneity"))
    for point, native in zip(points, (True, False), strict=True):
        pretend(monkeypatch, avx512_bf16=native)
        one = run_point(point, layout, layout.point(point.name))
        assert one.attrs["precision"] == ("bfloat16" if native else "float32")
    plan = tmp_path / "plan.json"
    plan.write_text(Plan.of(settings, "homogeneity").to_json())
    collect_plan(plan, layout, tmp_path / "homogeneity.nc")
    assert "different precisions: bfloat16 and float32" in capsys.readouterr().out
    with xr.open_dataset(tmp_path / "homogeneity.nc") as collected:
        assert collected.attrs["precision"] == "bfloat16; float32"
        assert collected.attrs["scale_note"].endswith("bfloat16 and float32")
        losses = np.asarray(collected["train_loss"])
    assert np.isfinite(losses).all()


def test_the_peak_of_a_step_is_measured_in_the_precision_that_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    from reproduction.experiments import dcs_resnet
    from reproduction.training import memory

    asked: list[str] = []

    def recorded(build: Any, shape: Any, batch_size: int, device: str, chosen: str) -> int:
        asked.append(chosen)
        return 0

    monkeypatch.setattr(memory, "step_peak", recorded)
    pretend(monkeypatch, amx_bf16=True)
    arguments = {"parameterization": "vanilla", "shape": (1, 8, 8), "classes": 10, "device": "cpu"}
    measure = functools.partial(dcs_resnet.peak_memory, **arguments)
    measure(dcs_resnet.DcsResnetSettings(width=4, precision="auto"))
    measure(dcs_resnet.DcsResnetSettings(width=4))
    assert asked == ["bfloat16", "bfloat16", "float32", "float32"]


def test_bfloat16_on_pictures_that_shrink_to_one_pixel_is_refused() -> None:
    for wanted in ("auto", "bfloat16"):
        with pytest.raises(ValueError, match="digits after a stem of stride 2 need float32"):
            Recipe.model_validate({"dataset": "digits", "stem_stride": 2, "epochs": 1, "precision": wanted})
    Recipe(dataset="digits", stem_stride=2, epochs=1)


def test_a_bfloat16_training_repeats_its_bits() -> None:
    """Also where freed memory holds other numbers than before."""
    _, first = trained(SMALL)
    for count in (1000, 50_000):
        torch.full((count,), float("nan"), dtype=torch.bfloat16)
        _, again = trained(SMALL)
        for one, other in zip(first.parameters(), again.parameters(), strict=True):
            assert torch.equal(one, other)
