"""The wheel is small, and every verb works where it lies beside numpy, torch and what these need, and nothing else."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]

VERBS = """
import importlib.util, json
import torch
from torch import nn
import mirrorsym

torch.manual_seed(0)
x = torch.randn(32, 3)
batches = [(x, x[:, :1] * x[:, 1:2])]


def collapsed():
    model = nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 1))
    with torch.no_grad():
        model[0].weight[0] = model[0].bias[0] = model[2].weight[:, 0] = 0
        model[0].weight[2], model[0].bias[2] = model[0].weight[1], model[0].bias[1]
        model[2].weight[:, 2] = model[2].weight[:, 1]
    return model


def loss(model, batch):
    return (model(batch[0]) - batch[1]).square().mean()


model, found = collapsed(), {}
found["others"] = [name for name in OTHERS if importlib.util.find_spec(name)]
symmetries = mirrorsym.find_symmetries(model, x)
found["find"] = sorted(symmetry.kind for symmetry in symmetries)
found["watch"] = mirrorsym.watch(model, x, symmetries=symmetries).summary()
outlook = mirrorsym.forecast(model, loss, batches, symmetries, lr=0.1, weight_decay=2.0, steps=20)
found["forecast"] = [forecast.answer for forecast in outlook]
small, report = mirrorsym.compress(model, x)
found["compress"] = [len(small[0].weight), float((small(x) - model(x)).abs().max())]
constrained = mirrorsym.constrain_all(collapsed())
found["constrain"] = list(mirrorsym.plain_state_dict(constrained))
moved = collapsed()
found["break"] = [[list(one.zero), len(one.copies)] for one in mirrorsym.break_symmetry(moved, x)]
other = collapsed()
try:
    mirrorsym.align(model, other, symmetries)
except ImportError as error:
    found["align without scipy"] = str(error)
sys.path.append(EXTRA)
aligned = mirrorsym.align(model, other, symmetries)
found["align"] = float((aligned(x) - other(x)).abs().max())
found["interpolate"] = float((mirrorsym.interpolate(model, model, 0.5)(x) - model(x)).abs().max())
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("setuptools", reason="setuptools builds the wheel")
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    shutil.copytree(ROOT / "src", source / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, source)
    build = "import sys, setuptools.build_meta as backend; backend.build_wheel(sys.argv[1])"
    subprocess.run([sys.executable, "-c", build, str(folder)], cwd=source, capture_output=True, check=True)
    (made,) = folder.glob("*.whl")
    return made


def test_the_wheel_is_small_and_needs_numpy_and_torch_alone(wheel: Path) -> None:
    assert wheel.stat().st_size < 1_000_000
    with zipfile.ZipFile(wheel) as archive:
        (file,) = [name for name in archive.namelist() if name.endswith("/METADATA")]
        needs = re.findall(r"^Requires-Dist: (.*)$", archive.read(file).decode(), re.MULTILINE)
        assert "mirrorsym/py.typed" in archive.namelist()
    assert [need for need in needs if "extra ==" not in need] == ["numpy", "torch"]


def needed(name: str, seen: set[str]) -> Iterator[metadata.Distribution]:
    """A package that is installed and all that it needs; what it needs elsewhere or not at all is not there."""
    try:
        package = metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return
    if package.metadata["Name"] not in seen:
        seen.add(package.metadata["Name"])
        yield package
        for need in package.requires or ():
            if "extra ==" not in need:
                yield from needed(re.split(r"[^\w.-]", need)[0], seen)


def link(folder: Path, *names: str) -> None:
    """Let a folder of packages hold these, and what they need, of those that are installed."""
    folder.mkdir(exist_ok=True)
    seen: set[str] = set()
    for package in (package for name in names for package in needed(name, seen)):
        for top in {file.parts[0] for file in package.files or ()} - {"..", "__pycache__"}:
            if not (folder / top).exists():
                (folder / top).symlink_to(str(package.locate_file(top)))


def test_every_verb_works_beside_numpy_and_torch_alone(wheel: Path, tmp_path: Path) -> None:
    site, extra = tmp_path / "site", tmp_path / "extra"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    shutil.rmtree(site / "reproduction")
    link(site, "numpy", "torch")
    link(extra, "scipy")
    others = ["matplotlib", "pandas", "scipy", "sklearn", "snakemake", "torchvision", "xarray"]
    head = f"import sys; sys.path.insert(0, {str(site)!r}); OTHERS = {others}; EXTRA = {str(extra)!r}"
    command = [sys.executable, "-B", "-I", "-S", "-c", head + VERBS]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["others"] == []
    assert found["find"] == ["permutation", "sign_flip"]
    assert "(permutation): 4 of 6 units are different" in found["watch"]
    assert found["forecast"] == ["no", "no"], "with so much decay nothing leaves its mirror"
    units, change = found["compress"]
    assert units == 4
    assert change < 1e-5
    assert found["constrain"] == ["0.weight", "0.bias", "2.weight", "2.bias"]
    assert found["break"] == [[[0], 1]]
    assert found["align without scipy"] == "align needs scipy for permutations: pip install scipy"
    assert found["align"] < 1e-5
    assert found["interpolate"] == 0
