"""Code goes stale, comments do not: a hash of the parsed source of a module and of what it imports of the package.

The workflow keeps a small file for each version that it saw, ``{module}.{hash}.txt``, and the one of today's code is an
input of the module's rules: another version is another input, and a reverted change is the old input again.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

from mirrorsym.files import FileError, write_atomically

PACKAGE = Path(__file__).parent
ACCEPTED = "accepted.json"


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


def current_file(folder: Path, module: str) -> Path:
    """Return the path of the fingerprint file of today's code."""
    return folder / f"{module}.{accepted(folder, module)[:16]}.txt"


def update(folder: Path, module: str) -> Path:
    """Write the fingerprint file of today's code where it is missing, and return its path.

    Raises:
        FileError: if the folder cannot be written.
    """
    path = current_file(folder, module)
    if not path.is_file():
        write_atomically(path, accepted(folder, module))
    return path


def accepted(folder: Path, module: str) -> str:
    """Return the module's fingerprint, or the older one whose results were accepted as those of today's code."""
    current = fingerprint(module)
    return _accepted(folder).get(module, {}).get(current, current)


def accept(folder: Path, module: str, older: str) -> None:
    """Declare that today's code makes the numbers of the results that code of the fingerprint ``older`` made.

    Raises:
        FileError: if the folder cannot be written.
    """
    known = _accepted(folder)
    known.setdefault(module, {})[fingerprint(module)] = older
    write_atomically(folder / ACCEPTED, json.dumps(known, indent=1))
    update(folder, module)


def imports_of_notebook(notebook: Path) -> list[str]:
    """Return the package modules that the code cells of a notebook import, ``plotting`` among them, sorted."""
    found = {"mirrorsym.plotting"}
    try:
        cells = json.loads(notebook.read_text())["cells"]
    except (ValueError, KeyError, TypeError):
        return sorted(found)  # no notebook: its own job will say so
    for cell in cells:
        if cell.get("cell_type") == "code":
            lines = "".join(cell["source"]).splitlines()
            plain = "\n".join(line for line in lines if not line.lstrip().startswith(("%", "!")))
            with contextlib.suppress(SyntaxError):
                found.update(_imports(ast.parse(plain)))
    return sorted(found)


def _accepted(folder: Path) -> dict[str, dict[str, str]]:
    path = folder / ACCEPTED
    try:
        found: dict[str, dict[str, str]] = json.loads(path.read_text()) if path.is_file() else {}
    except ValueError:
        raise FileError(f"{path} is damaged; delete it") from None
    return found


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
