"""Code goes stale, comments do not."""

from __future__ import annotations

import inspect
import json
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from reproduction.cli import jobs
from reproduction.errors import ConfigError
from reproduction.pipeline import fingerprints, transfer
from reproduction.pipeline.config import experiment_names
from reproduction.pipeline.layout import Layout

ROOT = Path(__file__).parents[2]
FILES = {
    "mirrorsym/__init__.py": """
from typing import TYPE_CHECKING

VERSION = 1

if TYPE_CHECKING:
    from mirrorsym.lazy import late
""",
    "mirrorsym/alone.py": "X = 1\n",
    "mirrorsym/lazy.py": "late = 1\n",
    "mirrorsym/top.py": '''"""Doc."""
import numpy
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mirrorsym.alone import X

class Settings(Model):
    """Doc."""

    size: int = Field(3, description="Doc.", gt=0)
    """Doc."""

def f(x):
    """Doc."""
    from mirrorsym.deep import low
    return x + 1  # why
''',
    "mirrorsym/deep/__init__.py": "",
    "mirrorsym/deep/low.py": "def g():\n    return 2\n",
    "my_lab/__init__.py": "SEED = 1\n",
    "my_lab/spins.py": "from .physics import energy\nfrom mirrorsym.deep.low import g\nimport my_other_lab\n",
    "my_lab/physics/__init__.py": "",
    "my_lab/physics/energy.py": "E = 1\n",
    "my_lab/unrelated.py": "U = 1\n",
    "my_other_lab.py": "O = 1\n",
    "my_file.py": "import mirrorsym\nimport my_lab.spins\nfrom . import nothing\n",
    "a_name.py": "from mirrorsym import VERSION\n",
    "a_late_name.py": "from mirrorsym import late\n",
}


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, content in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text(content)
    monkeypatch.setattr(fingerprints, "SOURCE", tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


@pytest.fixture
def package(source: Path) -> Path:
    return source / "mirrorsym"


def current(module: str) -> str:
    fingerprints._parsed.cache_clear()
    return fingerprints.fingerprint(module)


@pytest.mark.parametrize(
    ("file", "old", "new", "changes"),
    [
        ("top", "# why", "# because", False),
        ("top", "Doc.", "Words.", False),
        ("top", '    """Doc."""\n\ndef', "\ndef", False),
        ("top", "class Settings(Model):", "class Empty(Model):\n    pass\n\nclass Settings(Model):", True),
        ("top", ", gt=0", ", gt=1", True),
        ("top", ", gt=0", ", gt=0, title='T'", True),
        ("top", "description=", "title=", True),
        ("top", "x + 1", "(x + 1)", False),
        ("top", "x + 1", "x + 2", True),
        ("top", "    return", "    'Words.'\n    pass\n    return", False),
        ("top", "    return", "    f'{next(x)}'\n    return", True),
        ("top", "    return", "    y = 'Words.'\n    return", True),
        ("top", "    from mirrorsym.alone", "    import os\n    from mirrorsym.alone", False),
        ("top", "if TYPE_CHECKING", "if not TYPE_CHECKING", True),
        ("deep/low", "2", "3", True),
        ("deep/low", "2", "None", True),
        ("deep/low", "2", "2\n\n# more", False),
        ("deep/__init__", "", "W = 1", False),
        ("alone", "1", "2", False),
    ],
)
def test_only_what_computes_counts(package: Path, file: str, old: str, new: str, changes: bool) -> None:
    before = current("mirrorsym.top")
    path = package / f"{file}.py"
    content = path.read_text()
    assert old in content
    path.write_text(content.replace(old, new))
    assert (current("mirrorsym.top") != before) == changes


@pytest.mark.parametrize("pair", [("None", "''"), ("1", "1.0"), ("1", "True"), ("'x'", "x"), ("a[:1]", "a[1:]")])
def test_values_that_differ_are_told_apart(package: Path, pair: tuple[str, str]) -> None:
    found = set()
    for value in pair:
        (package / "alone.py").write_text(f"X = f({value})\n")
        found.add(current("mirrorsym.alone"))
    assert len(found) == 2


@pytest.mark.parametrize(
    ("module", "files"),
    [
        (
            "my_lab.spins",
            {"my_lab/__init__", "my_lab/spins", "my_lab/physics/__init__", "my_lab/physics/energy", "low"},
        ),
        ("my_other_lab", {"my_other_lab"}),
        ("my_file", {"my_file", "mirrorsym/__init__", "mirrorsym/lazy"}),
        ("a_name", {"a_name", "mirrorsym/__init__"}),
        ("a_late_name", {"a_late_name", "mirrorsym/__init__", "mirrorsym/lazy"}),
    ],
)
def test_a_module_of_another_package_counts_with_its_own_package_and_ours(
    source: Path, module: str, files: set[str]
) -> None:
    before, changing = current(module), set()
    for name, content in FILES.items():
        (source / name).write_text(f"{content}\nCHANGED = 1\n")
        if current(module) != before:
            changing.add(name.removesuffix(".py"))
        (source / name).write_text(content)
    assert changing == {"mirrorsym/deep/low" if name == "low" else name for name in files}


def test_a_module_that_is_nowhere_is_one_sentence(source: Path) -> None:
    for module in ("my_lab.nowhere", "my_missing_lab", "sys", "mirrorsym.nowhere"):
        with pytest.raises(fingerprints.FileError, match=f"source of the module {module} is not found"):
            current(module)


@pytest.mark.parametrize("version", ["3.12", "3.13", "3.14"])
def test_every_python_makes_the_same_fingerprints(version: str, tmp_path: Path) -> None:
    pyenv = Path("~/.pyenv/versions").expanduser().glob(f"{version}.*/bin/python{version}")
    found = [str(path) for path in (shutil.which(f"python{version}"), *pyenv) if path]
    works = [path for path in found if subprocess.run([path, "-V"], capture_output=True).returncode == 0]
    if not works:
        pytest.skip(f"there is no Python {version}")
    (tmp_path / "tricky.py").write_text(
        "s = f'{x:{width}.{y!r}}a' f'{{{z=}' ''\nt = u'é\u0378', 1e999, 2j, ..., b'\\0'\n"
    )
    script = (
        "import pathlib, sys; from reproduction.pipeline import fingerprints as f\n"
        "for path in sys.argv[1:]: print(f._parsed(pathlib.Path(path), 'a.b').form)"
    )
    paths = [*sorted((ROOT / "src").rglob("*.py")), tmp_path / "tricky.py"]
    environment = {"PYTHONPATH": str(ROOT / "src")}
    made = subprocess.run([works[0], "-c", script, *paths], env=environment, capture_output=True, text=True, check=True)
    assert made.stdout.splitlines() == [fingerprints._parsed(path, "a.b").form for path in paths]


WORKERS = {
    "collect": "reproduction.pipeline.collect",
    "notebooks": "reproduction.report.plotting",
    "claims": "reproduction.analysis.verdicts",
    "paper": "reproduction.report.render",
    "sparsity": "reproduction.experiments.sparsity",
    "homogeneity": "reproduction.experiments.homogeneity",
}


@pytest.mark.parametrize(
    ("file", "stale"),
    [
        ("reproduction/kernels/sparsity.py", {"sparsity"}),
        ("reproduction/experiments/homogeneity.py", {"homogeneity"}),
        ("reproduction/experiments/sparsity_batch.py", set()),
        ("reproduction/pipeline/collect.py", {"collect"}),
        ("reproduction/pipeline/store.py", {"collect", "notebooks", "claims", "paper"}),
        ("reproduction/pipeline/config.py", {"collect", "paper"}),
        ("reproduction/pipeline/run.py", set()),
        ("reproduction/analysis/statistics/general.py", {"claims"}),
        ("reproduction/report/plotting.py", {"notebooks"}),
        ("reproduction/report/content.py", {"paper"}),
        ("reproduction/contract.py", set(WORKERS)),
        ("reproduction/cli/user.py", set()),
        ("reproduction/cli/jobs.py", set()),
        ("mirrorsym/watch.py", set()),
    ],
)
def test_each_rule_depends_on_what_does_its_work(file: str, stale: set[str]) -> None:
    module = file.removesuffix(".py").replace("/", ".")
    assert {rule for rule, worker in WORKERS.items() if module in fingerprints.reached(worker)} == stale


@pytest.mark.parametrize("rule", ["collect", "claims", "paper"])
def test_a_rule_names_the_module_that_its_job_calls(rule: str) -> None:
    (module,) = re.findall(r'fingerprint_of\("(.*)"\)', (ROOT / "workflow" / "rules" / f"{rule}.smk").read_text())
    assert module == WORKERS[rule]
    assert f"from {module} import" in inspect.getsource(jobs.job.commands[rule].callback)


@pytest.mark.parametrize("module", experiment_names())
def test_a_training_depends_on_nothing_that_runs_judges_or_shows_it(module: str) -> None:
    reached = fingerprints.reached(f"reproduction.experiments.{module}")
    above = tuple(f"reproduction.{room}" for room in ("pipeline", "analysis", "report", "cli"))
    assert [name for name in reached if name.startswith(above)] == []


def test_each_version_has_a_file_of_its_own_and_a_reverted_change_its_old_one(package: Path, tmp_path: Path) -> None:
    folder = tmp_path / "fingerprints"
    fingerprints._parsed.cache_clear()
    path = fingerprints.update(folder, "mirrorsym.top")
    time = path.stat().st_mtime_ns
    (package / "deep" / "low.py").write_text("def g():\n    return 7\n")
    fingerprints._parsed.cache_clear()
    other = fingerprints.update(folder, "mirrorsym.top")
    assert other != path
    assert other.read_text() == current("mirrorsym.top")
    (package / "deep" / "low.py").write_text(FILES["mirrorsym/deep/low.py"])
    fingerprints._parsed.cache_clear()
    assert fingerprints.update(folder, "mirrorsym.top") == path
    assert path.stat().st_mtime_ns == time


def note(folder: Path, module: str = "mirrorsym.top") -> None:
    """Let the folder hold a note of today's code, as a run of the workflow does."""
    fingerprints._parsed.cache_clear()
    fingerprints.update(folder, module)
    fingerprints._parsed.cache_clear()


def test_a_note_of_the_sources_saves_reading_them(
    package: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path_factory.mktemp("results")
    note(folder)
    (package / "deep" / "__pycache__").mkdir()
    expected = current("mirrorsym.top")
    monkeypatch.setattr(fingerprints, "_parsed", None)
    assert fingerprints.noted(folder, "mirrorsym.top") == expected
    assert fingerprints.current_file(folder, "mirrorsym.top").read_text() == expected


@pytest.mark.parametrize(
    "change",
    [
        lambda package, folder: (package / "deep/low.py").write_text("def g():\n    return 33\n"),
        lambda package, folder: (package / "top.py").unlink() or (package / "top.py").write_text("Y = 2\n"),
        lambda package, folder: (
            (package / "deep/low").mkdir() or (package / "deep/low/__init__.py").write_text("Z = 3")
        ),
        lambda package, folder: (folder / "mirrorsym.top.json").write_text("{"),
        lambda package, folder: (folder / "mirrorsym.top.json").write_text('{"sources": []}'),
    ],
    ids=["an import", "the module", "a new package", "cut short", "something else"],
)
def test_a_note_that_does_not_hold_is_not_believed(
    package: Path, tmp_path_factory: pytest.TempPathFactory, change: Callable[[Path, Path], object]
) -> None:
    folder = tmp_path_factory.mktemp("results")
    note(folder)
    change(package, folder)
    expected = current("mirrorsym.top")
    fingerprints._parsed.cache_clear()
    assert fingerprints.noted(folder, "mirrorsym.top") == expected
    assert fingerprints.update(folder, "mirrorsym.top").read_text() == expected
    assert fingerprints._noted(folder, "mirrorsym.top") == expected


def test_an_accepted_change_counts_as_the_older_code(package: Path, tmp_path: Path) -> None:
    folder = tmp_path / "fingerprints"
    older = current("mirrorsym.top")
    path = fingerprints.update(folder, "mirrorsym.top")
    (package / "deep" / "low.py").write_text("def g():\n    return 1 + 1\n")
    fingerprints._parsed.cache_clear()
    fingerprints.accept(folder, "mirrorsym.top", older)
    assert fingerprints.accepted(folder, "mirrorsym.top") == older
    assert fingerprints.valid(folder, "mirrorsym.top") == {current("mirrorsym.top"), older}
    assert fingerprints.update(folder, "mirrorsym.top") == path


@pytest.mark.parametrize("module", ["my_lab.spins", "my_other_lab"])
def test_notes_serve_modules_of_other_packages(
    source: Path, module: str, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path_factory.mktemp("results")
    note(folder, module)
    expected = current(module)
    with monkeypatch.context() as patched:
        patched.setattr(fingerprints, "_parsed", None)
        assert fingerprints.noted(folder, module) == expected
    path = source / f"{module.replace('.', '/')}.py"
    path.write_text(f"{path.read_text()}\nCHANGED = 1\n")
    fingerprints._parsed.cache_clear()
    assert fingerprints.noted(folder, module) == current(module) != expected


def test_results_made_under_a_former_name_keep_their_input(
    source: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("results")
    module = "reproduction.experiments.spins"
    (source / "reproduction/experiments").mkdir(parents=True)
    (source / "reproduction/experiments/spins.py").write_text("X = 1\n")
    older = folder / f"mirrorsym.experiments.spins.{'0' * 16}.txt"
    older.write_text("0" * 64)
    assert fingerprints.update(folder, module).name == f"{module}.{current(module)[:16]}.txt"
    fingerprints.accept(folder, module, "0" * 64)
    assert fingerprints.update(folder, module) == fingerprints.current_file(folder, module) == older
    assert older.read_text() == "0" * 64
    (source / "reproduction/experiments/spins.py").write_text("X = 2\n")
    fingerprints._parsed.cache_clear()
    assert fingerprints.update(folder, module).name == f"{module}.{current(module)[:16]}.txt"


@pytest.mark.parametrize(
    ("made_by", "names", "says"),
    [
        ({"a": ["old"], "b": ["old", "old"], "c": []}, "abc", {"m": "old", "n": "old"}),
        ({"a": ["old"], "b": ["older"], "c": ["older"]}, "ab", {"m": "old", "n": "older"}),
        ({"a": ["old"], "b": ["older"], "c": ["old"]}, "abc", "several versions of n "),
        ({"a": ["old"], "b": ["old", "older"], "c": []}, "abc", "several versions of n "),
        ({"a": [], "b": [], "c": []}, "abc", "no results"),
        ({"a": ["old"], "b": [], "c": []}, "ad", "'d'"),
    ],
)
def test_all_results_are_accepted_or_none(
    made_by: Mapping[str, list[str]],
    names: str,
    says: str | dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    modules = {"a": "m", "b": "n", "c": "n"}
    config: Any = SimpleNamespace(experiments=modules, module_of=modules.get, scale="quick")
    prints = {}
    for name, made in made_by.items():
        for number, value in enumerate(made):
            path = tmp_path / "results/points" / name / f"{number}.nc"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
            prints[path] = value
    points = [SimpleNamespace(name=Path(f"{number}.nc")) for number in range(3)]
    monkeypatch.setattr(
        transfer, "points_of", lambda _, name: [SimpleNamespace(name=Path(name) / point.name) for point in points]
    )
    monkeypatch.setattr(transfer.store, "read", lambda path: SimpleNamespace(attrs={"fingerprint": prints[path]}))
    monkeypatch.setattr(transfer.fingerprints, "noted", lambda folder, module: f"today's {module}")
    accepted: dict[str, str] = {}
    monkeypatch.setattr(
        transfer.fingerprints, "accept", lambda folder, module, older: accepted.update({module[-1]: older})
    )
    if isinstance(says, str):
        with pytest.raises((transfer.ImportRefused, ConfigError), match=says):
            transfer.accept_results(config, list(names), Layout(tmp_path))
        assert accepted == {}
    else:
        lines = transfer.accept_results(config, list(names), Layout(tmp_path))
        assert accepted == says
        assert len(lines) == len(says)


@pytest.mark.parametrize("damage", [b"", b"\xff\xfe", b"a"])
def test_a_damaged_fingerprint_file_is_written_anew(source: Path, tmp_path: Path, damage: bytes) -> None:
    """It is an input of rules, which compare its content: damaged, it would make all results stale."""
    folder = tmp_path / "fingerprints"
    path = fingerprints.update(folder, "mirrorsym.top")
    whole, note = path.read_bytes(), folder / "mirrorsym.top.json"
    path.write_bytes(damage)
    note.write_bytes(damage)
    assert fingerprints.update(folder, "mirrorsym.top") == path
    assert path.read_bytes() == whole
    assert note.read_bytes() != damage


def test_what_a_notebook_imports_counts(source: Path) -> None:
    cells = [
        {"cell_type": "markdown", "source": ["import mirrorsym.top"]},
        {"cell_type": "code", "source": ["%matplotlib inline\n", "from mirrorsym import alone, late"]},
        {
            "cell_type": "code",
            "source": "from mirrorsym.deep.low import g\nimport numpy, my_lab.physics.energy, my_file",
        },
        {"cell_type": "code", "source": "this is not Python"},
    ]
    notebook = source / "figure.ipynb"
    notebook.write_text(json.dumps({"cells": cells}))
    ours = ["mirrorsym", "mirrorsym.alone", "mirrorsym.deep.low", "mirrorsym.lazy"]
    assert fingerprints.imports_of_notebook(notebook) == ours
    assert fingerprints.imports_of_notebook(notebook, ["my_lab.spins"]) == [*ours, "my_lab.physics.energy"]
    notebook.write_text("{}")
    assert fingerprints.imports_of_notebook(notebook) == []
