"""The configuration: modules from anywhere, a short form of every sweep for tests, and notes made from settings."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from snakemake.cli import parse_config

from reproduction.errors import ConfigError
from reproduction.files import read_yaml
from reproduction.pipeline.config import Config, load, load_experiment, module_path
from reproduction.pipeline.notes import by_origin, words
from reproduction.pipeline.points import Plan, Point
from reproduction.pipeline.snakemake.command_line import with_nulls

ROOT = Path(__file__).parents[2]
SWEEP = [{"parameterization": ["vanilla", "rescaled"], "noise_std": [1], "learning_rate": [0.1]}]


def config_of(module: str) -> Config:
    entry = {"module": module, "seeds": 1, "sweep": SWEEP}
    source = {"url": "https://example.org", "checksum": "md5:" + "0" * 32}
    return Config.model_validate({"cifar10": source, "experiments": {"mine": entry}, "figures": {}})


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the path, with a package that has the experiment ``sparsity`` under another name."""
    (tmp_path / "test_lab").mkdir()
    (tmp_path / "test_lab" / "__init__.py").touch()
    shutil.copy(ROOT / "src/reproduction/experiments/sparsity.py", tmp_path / "test_lab" / "spins.py")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in [name for name in sys.modules if name.partition(".")[0] == "test_lab"]:
        del sys.modules[name]


def test_a_module_of_ours_is_known_by_its_short_name() -> None:
    short, full = (
        Plan.of(config_of(name), "mine").points()[0] for name in ("sparsity", "reproduction.experiments.sparsity")
    )
    assert short == full
    assert short.module == "sparsity"
    assert module_path(short.module) == "reproduction.experiments.sparsity"


def test_a_module_may_lie_anywhere(outside: Path) -> None:
    point = Plan.of(config_of("test_lab.spins"), "mine").points()[0]
    assert module_path(point.module) == "test_lab.spins"
    assert load_experiment(point.module).settings.__module__ == "test_lab.spins"
    assert Point.from_json(point.to_json()) == point


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "import nowhere_to_be_found",
            "module test_lab.broken cannot be imported: ModuleNotFoundError: No module named",
        ),
        ("1 +", "module test_lab.broken cannot be imported: SyntaxError"),
        ("x = 1 / 0", "cannot be imported: ZeroDivisionError: division by zero"),
        ("EXPERIMENT = 1", "module test_lab.broken exports no EXPERIMENT"),
    ],
)
def test_a_module_that_cannot_be_used_is_one_sentence(outside: Path, text: str, says: str) -> None:
    (outside / "test_lab" / "broken.py").write_text(text)
    with pytest.raises(ConfigError, match=says) as error:
        load_experiment("test_lab.broken")
    assert "\n" not in str(error.value)


def test_a_module_that_is_not_there_is_named() -> None:
    with pytest.raises(ConfigError, match=r"no experiment module 'sparsty' \(did you mean 'sparsity'\?\)"):
        load_experiment("sparsty")
    with pytest.raises(ConfigError, match=r"no experiment module 'test_labs.spins'; is the folder .* on PYTHONPATH"):
        load_experiment("test_labs.spins")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A configuration of one experiment, with scales that say nothing of it."""
    (tmp_path / "scales").mkdir()
    for scale in ("tiny", "quick"):
        (tmp_path / "scales" / f"{scale}.yaml").write_text("{}")
    sweep = [{"parameterization": ["vanilla", "rescaled"], "noise_std": [1], "learning_rate": [0.1, 0.2, 0.3]}]
    entry = {"settings": {"steps": 1000}, "seeds": 10, "sweep": sweep}
    source = {"url": "https://example.org", "checksum": "md5:" + "0" * 32}
    content = {"cifar10": source, "experiments": {"sparsity": entry}, "figures": {}}
    (tmp_path / "cluster.yaml").write_text("{}")
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(content))
    return tmp_path


def entry_of(folder: Path, scale: str, **changes: Any) -> tuple[list[int], list[dict[str, list[Any]]]]:
    entry = load(folder, {"scale": scale, "experiments": {"sparsity": changes}}).experiments["sparsity"]
    return entry.seed_list, entry.sweep


def test_tiny_takes_one_seed_and_the_ends_of_each_list_unless_something_else_is_said(folder: Path) -> None:
    ends = [{"parameterization": ["vanilla", "rescaled"], "noise_std": [1.0], "learning_rate": [0.1, 0.3]}]
    assert entry_of(folder, "tiny") == ([0], ends)
    assert entry_of(folder, "tiny", seeds=[5, 6]) == ([5, 6], ends)
    (folder / "scales" / "tiny.yaml").write_text(yaml.safe_dump({"experiments": {"sparsity": {"sweep": SWEEP}}}))
    assert entry_of(folder, "tiny") == ([0], SWEEP)
    assert len(entry_of(folder, "quick")[0]) == 10
    assert entry_of(folder, "quick")[1][0]["learning_rate"] == [0.1, 0.2, 0.3]


def test_a_note_is_made_from_the_settings_that_a_scale_overrides(folder: Path) -> None:
    assert load(folder, {"scale": "quick"}).note_of("sparsity") == ""
    changed = {"settings": {"features": 50, "initial_variance": 0.1, "steps": 1000}, "seeds": 1}
    (folder / "scales" / "quick.yaml").write_text(yaml.safe_dump({"experiments": {"sparsity": changed}}))
    config = load(folder, {"scale": "quick"})
    assert config.note_of("sparsity") == "50 features, initial variance 0.1"
    assert Plan.of(config, "sparsity").note == "50 features, initial variance 0.1"


def test_a_note_has_the_values_of_a_sweep_that_the_paper_has_not(folder: Path) -> None:
    sweep = [{"parameterization": ["vanilla"], "noise_std": [1.0, 2.0], "learning_rate": [0.1]}]
    (folder / "scales" / "quick.yaml").write_text(yaml.safe_dump({"experiments": {"sparsity": {"sweep": sweep}}}))
    assert load(folder, {"scale": "quick"}).note_of("sparsity") == "noise std 1 and 2"
    fewer = [{**sweep[0], "noise_std": [1]}]
    (folder / "scales" / "quick.yaml").write_text(yaml.safe_dump({"experiments": {"sparsity": {"sweep": fewer}}}))
    assert load(folder, {"scale": "quick"}).note_of("sparsity") == ""


def test_settings_say_where_they_come_from(folder: Path) -> None:
    origin = {"paper": ["features", "steps"], "open": ["thresholds"]}
    changed = {"settings": {"steps": 7}, "origin": origin}
    (folder / "scales" / "quick.yaml").write_text(yaml.safe_dump({"experiments": {"sparsity": changed}}))
    found = load(folder, {"scale": "quick"}).origins_of("sparsity")
    assert (list(found.paper), found.changed, list(found.open), list(found.ours)) == (
        ["features"], {"steps": 7}, ["thresholds"], ["initial_variance"],
    )  # fmt: skip
    assert found.in_paper
    assert [head for head, settings in by_origin(found) if settings] == [
        "as in the paper", "not as in the paper", "left open there", "ours",
    ]  # fmt: skip
    (folder / "scales" / "quick.yaml").write_text(yaml.safe_dump({"experiments": {"sparsity": {"settings": {}}}}))
    ours = load(folder, {"scale": "quick"}).origins_of("sparsity")
    assert not ours.in_paper
    assert [head for head, settings in by_origin(ours) if settings] == ["an experiment of ours"]
    wrong = {"experiments": {"sparsity": {"origin": {"paper": ["step"]}}}}
    (folder / "scales" / "quick.yaml").write_text(yaml.safe_dump(wrong))
    with pytest.raises(ConfigError, match=r"experiments\.sparsity\.origin: .*step.*did you mean 'steps'"):
        load(folder, {"scale": "quick"})


def test_every_experiment_of_a_figure_of_the_paper_says_what_the_paper_gives() -> None:
    config = load(ROOT / "config", {"scale": "paper"})
    known = {name for name in config.experiments if config.origins_of(name).in_paper}
    assert known == {
        "sparsity", "homogeneity", "stationary_conditions", "plasticity", "regularized_factorization",
        "matrix_factorization", "dcs_resnet", "attention",
    }  # fmt: skip
    assert not any(config.origins_of(name).changed for name in known)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("width", 8, "width 8"),
        ("epochs", 90, "90 epochs"),
        ("epochs", 1, "1 epoch"),
        ("max_steps", 200, "max steps 200"),
        ("steps", (1500, 600), "1,500 and 600 steps"),
        ("steps", (20, 20), "20 steps"),
        ("flip", False, "no flip"),
        ("dataset", "digits", "scikit-learn's digits"),
        ("bias", 2, "bias 2"),
        ("optimizer", "gradient_descent", "optimizer gradient descent"),
        ("thresholds", (1e-6, 1e-3), "thresholds 10⁻⁶ and 0.001"),
    ],
)
def test_settings_are_said_in_words(name: str, value: Any, said: str) -> None:
    assert words(name, value) == said


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda path: path.write_text("a: {b: 1}\nc: 2\na: {}\n"), r"not valid YAML: 'a' stands there twice.*line 1"),
        (lambda path: path.mkdir(), "cannot be read"),
    ],
)
def test_a_file_that_says_two_things_or_none_is_refused(
    tmp_path: Path, make: Callable[[Path], object], says: str
) -> None:
    make(tmp_path / "config.yaml")
    with pytest.raises(ConfigError, match=says):
        read_yaml(tmp_path / "config.yaml", dict)


@pytest.mark.parametrize("null", ["null", "~", "Null"])
def test_null_removes_a_figure_also_on_the_command_line(null: str) -> None:
    """Snakemake reads what stands inside a mapping as text."""
    given = with_nulls(parse_config([f'figures={{"fig1": {null}}}', "device=cpu", "scale=quick"]))
    assert given == {"figures": {"fig1": None}, "device": "cpu", "scale": "quick"}
    whole, without = load(ROOT / "config"), load(ROOT / "config", given)
    assert whole.figures.keys() - without.figures.keys() == {"fig1"}


def test_a_word_that_only_begins_like_null_stays() -> None:
    given = {"a": ["nullable", {"b": "null"}], "c": "", "d": 0}
    assert with_nulls(given) == {"a": ["nullable", {"b": None}], "c": "", "d": 0}
