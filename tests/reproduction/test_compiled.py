"""Compiled kernels are kept by content: what is damaged, of older code or nowhere to be written is compiled anew."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from pathlib import Path

import numba.core.config
import pytest

from reproduction.pipeline import fingerprints
from reproduction.pipeline.caches import use_caches
from reproduction.pipeline.layout import Layout

INNER = "from numba import njit\n\n@njit(cache=True)\ndef number(x):\n    return x + {number}\n"
OUTER = """
from numba import njit
from my_kernels.inner import number

@njit(cache=True)
def twice(x):
    return 2 * number(x)
"""


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], tuple[int, bool]]:
    """Return a call of a kernel as a fresh process would: what it computes, and whether it was compiled for that."""
    package = tmp_path / "my_kernels"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "inner.py").write_text(INNER.format(number=1))
    (package / "outer.py").write_text(OUTER)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("NUMBA_CACHE_LOCATOR_CLASSES", "reproduction.pipeline.compiled.Locator")
    numba.core.config.reload_config()  # numba does so by itself where the environment changed, at its next compilation

    def fresh() -> tuple[int, bool]:
        for name in [name for name in sys.modules if name.startswith("my_kernels")]:
            del sys.modules[name]
        importlib.invalidate_caches()
        fingerprints._parsed.cache_clear()
        twice = importlib.import_module("my_kernels.outer").twice
        return twice(3), not twice.stats.cache_hits

    return fresh


def kept(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "cache").glob("*/*.nb[ic]"))


def test_a_kernel_is_compiled_once(call: Callable[[], tuple[int, bool]]) -> None:
    assert [call(), call()] == [(8, True), (8, False)]


def test_a_kernel_that_another_file_has_is_not_an_old_one(call: Callable[[], tuple[int, bool]], tmp_path: Path) -> None:
    """Numba alone keeps what it compiled into another kernel, and the results of two versions would be mixed."""
    call()
    inner = tmp_path / "my_kernels" / "inner.py"
    inner.write_text(INNER.format(number=2))
    os.utime(inner, (0, 0))
    assert call() == (10, True)
    inner.write_text(INNER.format(number=1))
    assert call() == (8, False)


def test_a_damaged_cache_is_made_anew(call: Callable[[], tuple[int, bool]], tmp_path: Path) -> None:
    call()
    whole = {path: path.read_bytes() for path in kept(tmp_path)}
    assert len(whole) >= 2
    for length in (0, 1, 20, 100, -1):
        for path, content in whole.items():
            path.write_bytes(content[:length])
        assert call() == (8, True)
        assert call() == (8, False)


def test_where_nothing_can_be_written_it_is_compiled_all_the_same(
    call: Callable[[], tuple[int, bool]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cache").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert [call(), call()] == [(8, True), (8, False)]  # in a folder that ends with the process
    assert (tmp_path / "cache").is_file()


@pytest.mark.parametrize("writable", [True, False])
def test_caches_lie_beside_the_results_where_those_can_be_written(
    writable: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("MIRRORSYM_CACHE", "NUMBA_CACHE_DIR", "MPLCONFIGDIR", "NUMBA_CACHE_LOCATOR_CLASSES"):
        monkeypatch.setenv(name, "")  # so that what is set is undone
        monkeypatch.delenv(name)
    if writable:
        (tmp_path / "results").mkdir()
    use_caches(Layout(tmp_path))
    assert os.environ.get("NUMBA_CACHE_DIR") == (str(tmp_path / "results/.cache/numba") if writable else None)
    assert os.environ.get("MPLCONFIGDIR") == (str(tmp_path / "results/.cache/matplotlib") if writable else None)
