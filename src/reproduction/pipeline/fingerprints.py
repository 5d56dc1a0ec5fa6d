"""Code goes stale, comments do not: a hash of the parsed source of a module and of what it imports of the package.

The workflow keeps a small file for each version that it saw, ``{module}.{hash}.txt``, and the one of today's code is an
input of the module's rules: another version is another input, and a reverted change is the old input again.

Parsing takes a second for the whole package, and every job asks. So the workflow also notes, in ``{module}.json``,
which sources a fingerprint was made of and when they were written; the note holds as long as none of them has changed.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

from reproduction.files import FileError, write_atomically

SOURCE = Path(__file__).parents[2]
PACKAGES = ("mirrorsym", "reproduction")
ACCEPTED = "accepted.json"


def fingerprint(module: str) -> str:
    """Return the hash of a module such as ``reproduction.experiments.sparsity`` and of the package modules it imports.

    Docstrings, comments and layout do not count.
    """
    texts = [f"{name}\n{_parsed(_source(name), name)[0]}" for name in _reached(module)]
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()


def noted(folder: Path, module: str) -> str:
    """Return :func:`fingerprint` of a module, from the note in the folder where that is as new as the sources."""
    return _noted(folder, module) or fingerprint(module)


def valid(folder: Path, module: str) -> set[str]:
    """Return the fingerprints whose results count as those of today's code: its own, and an accepted one."""
    return {noted(folder, module), accepted(folder, module)}


def current_file(folder: Path, module: str) -> Path:
    """Return the path of the fingerprint file of today's code."""
    return folder / f"{module}.{accepted(folder, module)[:16]}.txt"


def update(folder: Path, module: str) -> Path:
    """Write the fingerprint file of today's code where it is missing, and return its path.

    Raises:
        FileError: if the folder cannot be written.
    """
    if _noted(folder, module) is None:
        _take_note(folder, module)
    path = current_file(folder, module)
    if not path.is_file():
        write_atomically(path, accepted(folder, module))
    return path


def accepted(folder: Path, module: str) -> str:
    """Return the module's fingerprint, or the older one whose results were accepted as those of today's code."""
    current = noted(folder, module)
    return _accepted(folder).get(module, {}).get(current, current)


def accept(folder: Path, module: str, older: str) -> None:
    """Declare that today's code makes the numbers of the results that code of the fingerprint ``older`` made.

    Raises:
        FileError: if the folder cannot be written.
    """
    known = _accepted(folder)
    known.setdefault(module, {})[noted(folder, module)] = older
    write_atomically(folder / ACCEPTED, json.dumps(known, indent=1))
    update(folder, module)


def imports_of_notebook(notebook: Path) -> list[str]:
    """Return the package modules that the code cells of a notebook import, ``plotting`` among them, sorted."""
    found = {"reproduction.report.plotting"}
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


def _note(folder: Path, module: str) -> Path:
    return folder / f"{module}.json"


def _noted(folder: Path, module: str) -> str | None:
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError, AttributeError):
        note = json.loads(_note(folder, module).read_text())
        if all(_state(SOURCE / source) == state for source, state in note["sources"].items()):
            return str(note["fingerprint"])
    return None


def _take_note(folder: Path, module: str) -> None:
    """Note a module's fingerprint and its sources; their folders too, where a new file may be a module to import."""
    files = {_source(name): _parsed(_source(name), name)[2] for name in _reached(module)}
    states = {path.parent: _state(path.parent) for path in files} | files
    sources = {str(path.relative_to(SOURCE)): state for path, state in states.items()}
    note = json.dumps({"fingerprint": fingerprint(module), "sources": sources}, indent=1)
    with contextlib.suppress(OSError):  # it only saves time
        write_atomically(_note(folder, module), note)


def _state(path: Path) -> list[int | str]:
    """When a file was last written, in nanoseconds, and its size in bytes; what lies in a folder."""
    if path.is_dir():
        return sorted(entry.name for entry in path.iterdir() if entry.name != "__pycache__")
    found = path.stat()
    return [found.st_mtime_ns, found.st_size]


def _reached(module: str) -> list[str]:
    """The module and all of the package that it imports, directly or not, sorted."""
    pending, reached = [module], set()
    while pending:
        name = pending.pop()
        if name not in reached:
            reached.add(name)
            pending.extend(_parsed(_source(name), name)[1])
    return sorted(reached)


def _source(module: str) -> Path:
    base = SOURCE.joinpath(*module.split("."))
    return base / "__init__.py" if base.is_dir() else base.with_suffix(".py")


@functools.cache
def _parsed(path: Path, module: str) -> tuple[str, tuple[str, ...], list[int | str]]:
    """The module's code without docstrings, the package modules that it imports anywhere, and its file's state."""
    state = _state(path)  # before it is read: an edit in between makes the note void, not wrong
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and ast.get_docstring(
            node
        ):
            node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(tree), tuple(sorted(set(_imports(tree)))), state


def _imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        yield from (
            name
            for name in names
            if name.startswith(tuple(f"{package}." for package in PACKAGES)) and _source(name).is_file()
        )
