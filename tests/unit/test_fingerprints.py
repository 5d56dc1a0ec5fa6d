"""Code goes stale, comments do not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mirrorsym import fingerprints

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
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    monkeypatch.setattr(fingerprints, "PACKAGE", tmp_path)
    return tmp_path


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


def test_a_reverted_change_gets_its_old_content_and_time_back(package: Path, tmp_path: Path) -> None:
    folder = tmp_path / "fingerprints"
    fingerprints._parsed.cache_clear()
    path = fingerprints.update(folder, "mirrorsym.top")
    content, time = path.read_text(), path.stat().st_mtime
    (package / "deep" / "low.py").write_text("def g():\n    return 7\n")
    fingerprints._parsed.cache_clear()
    fingerprints.update(folder, "mirrorsym.top")
    assert (path.read_text(), path.stat().st_mtime > time) == (current("mirrorsym.top"), True)
    (package / "deep" / "low.py").write_text(FILES["deep/low.py"])
    fingerprints._parsed.cache_clear()
    fingerprints.update(folder, "mirrorsym.top")
    assert (path.read_text(), path.stat().st_mtime) == (content, pytest.approx(time, abs=1e-3))


def test_an_accepted_change_counts_as_the_older_code(package: Path, tmp_path: Path) -> None:
    folder = tmp_path / "fingerprints"
    older = current("mirrorsym.top")
    fingerprints.update(folder, "mirrorsym.top")
    (package / "deep" / "low.py").write_text("def g():\n    return 1 + 1\n")
    fingerprints._parsed.cache_clear()
    fingerprints.accept(folder, "mirrorsym.top", older)
    assert fingerprints.accepted(folder, "mirrorsym.top") == older
    assert (folder / "mirrorsym.top.txt").read_text() == older
