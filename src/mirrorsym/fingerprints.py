"""Code goes stale, comments do not: a hash of the parsed source of a module and of what it imports of the package.

The workflow keeps one small file per module, ``{module}.txt``, which is an input of its rules. A file whose hash was
seen before gets back the time at which it was first seen, so that a reverted change makes nothing stale.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mirrorsym.files import write_atomically

PACKAGE = Path(__file__).parent
HISTORY = "history.json"


def fingerprint(module: str) -> str:
    """Return the hash of a module such as ``mirrorsym.experiments.sparsity`` and of the package modules it imports.

    Docstrings, comments and layout do not count.
    """
    pending, reached = [module], set()
    while pending:
        name = pending.pop()
        if name not in reached:
            reached.add(name)
            pending.extend(_parsed(_source(name), name)[1])
    texts = [f"{name}\n{_parsed(_source(name), name)[0]}" for name in sorted(reached)]
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()


def update(folder: Path, module: str) -> Path:
    """Bring a module's fingerprint file up to date and return its path.

    Raises:
        FileError: if the folder cannot be written.
    """
    path = folder / f"{module}.txt"
    current = accepted(folder, module)
    if not path.is_file() or path.read_text() != current:
        history = _history(folder)
        seen = history.setdefault(module, {}).setdefault("seen", {})
        first_seen = seen.setdefault(current, time.time())
        write_atomically(folder / HISTORY, json.dumps(history, indent=1))
        write_atomically(path, current)
        os.utime(path, (first_seen, first_seen))
    return path


def accepted(folder: Path, module: str) -> str:
    """Return the module's fingerprint, or the older one whose results were accepted as those of today's code."""
    current = fingerprint(module)
    same_as: str = _history(folder).get(module, {}).get("same_as", {}).get(current, current)
    return same_as


def accept(folder: Path, module: str, older: str) -> None:
    """Declare that today's code makes the numbers of the results that code of the fingerprint ``older`` made.

    Raises:
        FileError: if the folder cannot be written.
    """
    history = _history(folder)
    history.setdefault(module, {}).setdefault("same_as", {})[fingerprint(module)] = older
    write_atomically(folder / HISTORY, json.dumps(history, indent=1))
    update(folder, module)


def _history(folder: Path) -> dict[str, Any]:
    path = folder / HISTORY
    return json.loads(path.read_text()) if path.is_file() else {}


def _source(module: str) -> Path:
    base = PACKAGE.joinpath(*module.split(".")[1:])
    return base / "__init__.py" if base.is_dir() else base.with_suffix(".py")


@functools.cache
def _parsed(path: Path, module: str) -> tuple[str, tuple[str, ...]]:
    """The module's code without docstrings, and the package modules that it imports anywhere."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and ast.get_docstring(
            node
        ):
            node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(tree), tuple(sorted(set(_imports(tree))))


def _imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        yield from (name for name in names if name.startswith("mirrorsym.") and _source(name).is_file())
