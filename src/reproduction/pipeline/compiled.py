"""Numba's cache of compiled kernels, by content: numba imports this where :func:`caches.use_caches` was called.

Numba 0.68 knows a kernel by its own file's path and content: one that is compiled into it, from another file, stays as
it was when that file changes (https://github.com/numba/numba/issues/1833), and a file of the cache that was cut short
ends every run (https://github.com/numba/numba/issues/10434).
"""

from __future__ import annotations

import contextlib
import functools
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba.core.config
from numba.core import caching

from reproduction.errors import UserError
from reproduction.pipeline.fingerprints import fingerprint

_config: Any = numba.core.config


class Locator(caching.UserProvidedCacheLocator):  # type: ignore[misc]
    """Where a kernel's compiled form lies: in a folder that is named after its module and all that it is made of."""

    def __init__(self, function: Callable[..., Any], file: str, folder: Path, stamp: str) -> None:
        super().__init__(function, file)  # type: ignore[no-untyped-call]
        self._stamp = stamp
        self._cache_path = str(folder / f"{function.__module__}.{stamp[:16]}")

    def get_source_stamp(self) -> str:
        return self._stamp

    @classmethod
    def from_function(cls, py_func: Callable[..., Any], py_file: str) -> Any:
        """Return the locator of a function; numba's own for one that is in no file of a module."""
        try:
            stamp = fingerprint(py_func.__module__)
        except (UserError, ImportError, ValueError, OSError):
            return next(filter(None, (own.from_function(py_func, py_file) for own in _numbas_own())), None)
        for folder in (lambda: _config.CACHE_DIR, _users_own, _temporary):
            with contextlib.suppress(OSError):
                found = cls(py_func, py_file, Path(folder() or _users_own()), stamp)
                found.ensure_cache_path()  # type: ignore[no-untyped-call]
                return found
        return None


def _numbas_own() -> list[Any]:
    return list(caching.CacheImpl._locator_classes)


def _users_own() -> str:
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # noqa: PTH111 (a Path needs a home)
    return str(Path(home) / "mirrorsym" / "numba")


@functools.cache
def _temporary() -> str:
    """A folder that is there until this process ends."""
    held = tempfile.TemporaryDirectory(prefix="mirrorsym-", ignore_cleanup_errors=True)
    _held.append(held)
    return held.name


_held: list[tempfile.TemporaryDirectory[str]] = []


def _load(cache: Any, *arguments: Any, load: Callable[..., Any]) -> Any:
    """Load a compiled kernel, or None: where its files are damaged they are made anew."""
    try:
        return load(cache, *arguments)
    except Exception:  # a pickle that is cut short raises almost anything
        with contextlib.suppress(OSError):
            cache.flush()
        return None


def _save(cache: Any, *arguments: Any, save: Callable[..., None]) -> None:
    with contextlib.suppress(OSError):  # a full disk: the next process compiles again
        save(cache, *arguments)


_cache: Any = caching.Cache
_cache.load_overload = functools.partialmethod(_load, load=_cache.load_overload)
_cache.save_overload = functools.partialmethod(_save, save=_cache.save_overload)
