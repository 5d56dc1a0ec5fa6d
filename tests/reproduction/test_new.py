"""``mirrorsym new``: what it refuses, and how it extends a configuration that somebody has written by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from reproduction.cli.new import Places, extended, write_experiment
from reproduction.errors import ConfigError
from reproduction.pipeline.layout import Layout

CONFIG = """\
# What to run.
experiments:
  # the first
  sparsity:                    # with a comment
    module: sparsity

    seeds: 1
# about figures
figures: {}                    # none yet
own_claims: []
"""
BLOCK = """\
experiments:
  spins:
    seeds: 2
figures:
  spins:
    title: spins
"""


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    for folder in ("config", "src/reproduction/experiments", "notebooks", "tests/reproduction"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "config" / "config.yaml").write_text(CONFIG)
    (tmp_path / "src/reproduction/experiments/taken.py").touch()
    (tmp_path / "notebooks/drawn.ipynb").touch()
    return Layout(tmp_path)


def test_blocks_go_to_the_end_of_their_own_and_every_line_stays(layout: Layout) -> None:
    text = extended(layout.config / "config.yaml", BLOCK)
    lines = text.splitlines()
    assert lines[6:10] == ["    seeds: 1", "  spins:", "    seeds: 2", "# about figures"]
    kept = iter(lines)
    assert all(line.replace(" {}", "") in (found.replace(" {}", "") for found in kept) for line in CONFIG.splitlines())
    assert yaml.safe_load(text) == {
        "experiments": {"sparsity": {"module": "sparsity", "seeds": 1}, "spins": {"seeds": 2}},
        "figures": {"spins": {"title": "spins"}},
        "own_claims": [],
    }


@pytest.mark.parametrize("text", ["experiments: {a: {seeds: 1}}\nfigures: {}\n", "figures: {}\n", "experiments: 3\n"])
def test_a_configuration_that_is_written_otherwise_is_left_alone(layout: Layout, text: str) -> None:
    path = layout.config / "config.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match="cannot be extended"):
        extended(path, BLOCK)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("Spins", "'Spins' cannot name an experiment"),
        ("my-spins", "cannot name"),
        ("class", "cannot name"),
        ("claims", "cannot name"),
        ("train_spins", "cannot name"),
        ("größe", "cannot name"),
        ("s" * 100, "cannot name"),
        ("sparsity", "has 'sparsity' among its experiments already"),
        ("taken", r"taken\.py is there already"),
        ("drawn", r"drawn\.ipynb is there already"),
    ],
)
def test_a_name_that_cannot_be_used_is_refused_and_nothing_is_written(layout: Layout, name: str, says: str) -> None:
    before = sorted(layout.root.rglob("*"))
    with pytest.raises(ConfigError, match=says) as error:
        write_experiment(name, layout)
    assert "\n" not in str(error.value)
    assert sorted(layout.root.rglob("*")) == before
    assert (layout.config / "config.yaml").read_text() == CONFIG


def test_a_folder_that_is_no_package_is_refused(layout: Layout) -> None:
    with pytest.raises(ConfigError, match="'my-lab' cannot be the name of a package"):
        write_experiment("spins", layout, layout.root / "my-lab")


def test_a_module_outside_is_named_after_all_packages_that_it_is_in(tmp_path: Path) -> None:
    (tmp_path / "my_lab" / "magnets").mkdir(parents=True)
    assert Places.outside(tmp_path / "my_lab" / "magnets", "spins").module == "magnets.spins"
    (tmp_path / "my_lab" / "__init__.py").touch()
    assert Places.outside(tmp_path / "my_lab" / "magnets", "spins").module == "my_lab.magnets.spins"


def test_what_cannot_be_finished_leaves_nothing(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reproduction.cli.new.extended", lambda path, block: f"{path.read_text()}more: 1\n")
    before = {path: path.read_bytes() for path in layout.root.rglob("*") if path.is_file()}
    with pytest.raises(ConfigError):  # the configuration that comes out is none
        write_experiment("spins", layout)
    assert {path: path.read_bytes() for path in layout.root.rglob("*") if path.is_file()} == before
