"""The configuration: modules from anywhere, a short form of every sweep for tests, and notes made from settings."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from reproduction.errors import ConfigError
from reproduction.pipeline.config import Config, load_experiment, module_path
from reproduction.pipeline.points import Plan, Point

ROOT = Path(__file__).parents[2]
SWEEP = [{"parameterization": ["vanilla", "rescaled"], "noise_std": [1], "learning_rate": [0.1]}]


def config_of(module: str) -> Config:
    entry = {"module": module, "seeds": 1, "sweep": SWEEP}
    source = {"url": "https://example.org", "checksum": "md5:" + "0" * 32}
    return Config.model_validate({"cifar10": source, "experiments": {"mine": entry}, "figures": {}})


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the path, with a package that has the experiment ``sparsity`` under another name."""
    (tmp_path / "my_lab").mkdir()
    (tmp_path / "my_lab" / "__init__.py").touch()
    shutil.copy(ROOT / "src/reproduction/experiments/sparsity.py", tmp_path / "my_lab" / "spins.py")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in [name for name in sys.modules if name.partition(".")[0] == "my_lab"]:
        del sys.modules[name]


def test_a_module_of_ours_is_known_by_its_short_name() -> None:
    short, full = (
        Plan.of(config_of(name), "mine").points()[0] for name in ("sparsity", "reproduction.experiments.sparsity")
    )
    assert short == full
    assert short.module == "sparsity"
    assert module_path(short.module) == "reproduction.experiments.sparsity"


def test_a_module_may_lie_anywhere(outside: Path) -> None:
    point = Plan.of(config_of("my_lab.spins"), "mine").points()[0]
    assert module_path(point.module) == "my_lab.spins"
    assert load_experiment(point.module).settings.__module__ == "my_lab.spins"
    assert Point.from_json(point.to_json()) == point


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("import nowhere_to_be_found", "module my_lab.broken cannot be imported: ModuleNotFoundError: No module named"),
        ("1 +", "module my_lab.broken cannot be imported: SyntaxError"),
        ("x = 1 / 0", "cannot be imported: ZeroDivisionError: division by zero"),
        ("EXPERIMENT = 1", "module my_lab.broken exports no EXPERIMENT"),
    ],
)
def test_a_module_that_cannot_be_used_is_one_sentence(outside: Path, text: str, says: str) -> None:
    (outside / "my_lab" / "broken.py").write_text(text)
    with pytest.raises(ConfigError, match=says) as error:
        load_experiment("my_lab.broken")
    assert "\n" not in str(error.value)


def test_a_module_that_is_not_there_is_named() -> None:
    with pytest.raises(ConfigError, match=r"no experiment module 'sparsty' \(did you mean 'sparsity'\?\)"):
        load_experiment("sparsty")
    with pytest.raises(ConfigError, match=r"no experiment module 'my_labs\.spins'; is its folder on PYTHONPATH"):
        load_experiment("my_labs.spins")
