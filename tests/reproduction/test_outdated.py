"""What is printed says where it is older than the results, or about another sweep than the configuration's."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import xarray as xr

from reproduction.cli import user
from reproduction.errors import ConfigError
from reproduction.pipeline.config import Config
from reproduction.pipeline.layout import Layout
from reproduction.pipeline.outdated import changed_since, other_sweeps
from reproduction.pipeline.points import points_of

SWEEP = {"parameterization": ["vanilla", "rescaled"], "noise_std": [1], "learning_rate": [0.1, 0.2]}


def config_of(seeds: int = 2, settings: dict[str, Any] | None = None, **sweep: list[Any]) -> Config:
    entry = {"module": "sparsity", "seeds": seeds, "settings": settings or {}, "sweep": [{**SWEEP, **sweep}]}
    source = {"url": "https://example.org", "checksum": "md5:" + "0" * 32}
    return Config.model_validate({"cifar10": source, "experiments": {"mine": entry}, "figures": {}})


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """A project whose result file holds the sweep of ``config_of()``."""
    made = Layout(tmp_path)
    made.result("quick", "mine").parent.mkdir(parents=True)
    coords = {**{name: SWEEP[name] for name in SWEEP}, "seed": [0, 1]}
    data = xr.Dataset(coords=coords, attrs={"config_hash": points_of(config_of(), "mine")[0].config_hash})
    data.to_netcdf(made.result("quick", "mine"))
    return made


@pytest.mark.parametrize(
    ("config", "different"),
    [
        (config_of(), None),
        (config_of(learning_rate=[0.2, 0.1, 0.10]), None),
        (config_of(seeds=3), "seed"),
        (config_of(learning_rate=[0.1, 0.2, 0.3]), "learning_rate"),
        (config_of(parameterization=["vanilla"]), "parameterization"),
        (config_of(settings={"steps": 17}), "settings or data"),
        (config_of(settings={"steps": 17}, seeds=1), "seed, settings or data"),
    ],
)
def test_a_result_of_another_sweep_is_named(layout: Layout, config: Config, different: str | None) -> None:
    said = f"holds another sweep than is configured ({different}); snakemake --cores all makes it anew"
    assert other_sweeps(config, layout, ["mine"]) == ([f"{layout.result('quick', 'mine')} {said}"] if different else [])


def test_a_missing_or_damaged_result_is_for_its_reader_to_say(layout: Layout) -> None:
    layout.result("quick", "mine").write_bytes(b"damaged")
    assert other_sweeps(config_of(), layout, ["mine"]) == []
    layout.result("quick", "mine").unlink()
    assert other_sweeps(config_of(), layout, ["mine"]) == []


def test_what_was_made_of_other_results_is_named(layout: Layout) -> None:
    path, claims = layout.result("quick", "mine"), layout.claims("quick")
    contents = {"mine": hashlib.sha256(path.read_bytes()).hexdigest()}
    assert changed_since(contents, layout, "quick", claims) == []
    assert changed_since({}, layout, "quick", claims) == []
    path.write_bytes(path.read_bytes() + b"0")
    (line,) = changed_since(contents, layout, "quick", claims)
    assert line.startswith(f"{claims} was made before {path} changed")
    path.unlink()
    assert changed_since(contents, layout, "quick", claims)


def test_the_command_takes_a_configuration_as_snakemake_does(tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text("experiments: {a: {seeds: 1}, b: {seeds: 1}}\ndevice: cpu\n")
    changes = ['experiments={"a": {"seeds": 3}, "c": null}', "scale=laptop"]
    found = user._overrides(None, changes, [tmp_path / "one.yaml"])
    assert found["experiments"] == {"a": {"seeds": "3"}, "b": {"seeds": 1}, "c": None}  # texts, as Snakemake has them
    assert (found["scale"], found["device"]) == ("laptop", "cpu")
    assert user._overrides("tiny", changes, [])["scale"] == "tiny"
    with pytest.raises(ConfigError, match="--config"):
        user._overrides(None, ["device"], [])
