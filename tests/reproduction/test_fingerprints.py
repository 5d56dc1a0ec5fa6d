"""Code goes stale, comments do not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from reproduction.pipeline import fingerprints

FILES = {
    "__init__.py": "",
    "alone.py": "X = 1\n",
    "top.py": '''"""Doc."""
import numpy

def f(x):
    """Doc."""
    from mirrorsym.deep import low
    return x + 1  # why
''',
    "deep/__init__.py": "",
    "deep/low.py": "def g():\n    return 2\n",
}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, content in FILES.items():
        path = tmp_path / "mirrorsym" / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text(content)
    monkeypatch.setattr(fingerprints, "SOURCE", tmp_path)
    return tmp_path / "mirrorsym"


def current(module: str) -> str:
    fingerprints._parsed.cache_clear()
    return fingerprints.fingerprint(module)


@pytest.mark.parametrize(
    ("file", "edit", "changes"),
    [
        ("top.py", lambda text: text.replace("# why", "# because"), False),
        ("top.py", lambda text: text.replace("Doc.", "Words."), False),
        ("top.py", lambda text: text.replace("x + 1", "(x + 1)"), False),
        ("top.py", lambda text: text.replace("x + 1", "x + 2"), True),
        ("deep/low.py", lambda text: text.replace("2", "3"), True),
        ("deep/low.py", lambda text: f"{text}\n\n# more\n", False),
        ("alone.py", lambda text: text.replace("1", "2"), False),
    ],
)
def test_only_what_computes_counts(package: Path, file: str, edit: Callable[[str], str], changes: bool) -> None:
    before = current("mirrorsym.top")
    path = package / file
    path.write_text(edit(path.read_text()))
    assert (current("mirrorsym.top") != before) == changes


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
    (package / "deep" / "low.py").write_text(FILES["deep/low.py"])
    fingerprints._parsed.cache_clear()
    assert fingerprints.update(folder, "mirrorsym.top") == path
    assert path.stat().st_mtime_ns == time


def note(package: Path, folder: Path) -> None:
    """Let the folder hold a note of today's code, as a run of the workflow does."""
    fingerprints._parsed.cache_clear()
    fingerprints.update(folder, "mirrorsym.top")
    fingerprints._parsed.cache_clear()


def test_a_note_of_the_sources_saves_reading_them(
    package: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path_factory.mktemp("results")
    note(package, folder)
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
    note(package, folder)
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


def test_what_a_notebook_imports_counts(tmp_path: Path) -> None:
    cells = [
        {"cell_type": "markdown", "source": ["import reproduction.pipeline.store"]},
        {"cell_type": "code", "source": ["%matplotlib inline\n", "from mirrorsym import measures"]},
        {"cell_type": "code", "source": "from mirrorsym.stability import lyapunov_spectrum"},
    ]
    notebook = tmp_path / "figure.ipynb"
    notebook.write_text(json.dumps({"cells": cells}))
    assert fingerprints.imports_of_notebook(notebook) == [
        "mirrorsym.measures",
        "mirrorsym.stability",
        "reproduction.report.plotting",
    ]
