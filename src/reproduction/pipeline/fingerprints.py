"""Code goes stale, words do not: a hash of the parsed source of a module and of what it imports.

Followed are imports anywhere in a source, and from there on, into ``mirrorsym``, ``reproduction`` and the module's own
top-level package, which need not be ours and may be a single file. A name taken from a package, not from a module in
it, counts with the package's ``__init__`` and with what that imports; one that is imported when it is used first is
found by the import for type checkers that stands there. Not followed are other libraries, imports for type checkers
alone, and modules whose name is made at run time. So a training depends on its experiment and all below it, never on
what runs it; claims on their models, the statistics, the theory and how results are read, and not on the configuration,
because ``reproduction.analysis`` imports none of it.

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
import importlib.util
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from reproduction.files import FileError, write_atomically

SOURCE = Path(__file__).parents[2]
PACKAGES = ("mirrorsym", "reproduction")
ACCEPTED = "accepted.json"
FORMER = {"reproduction.experiments.": "mirrorsym.experiments."}
"""How modules were called before; results made under those names can be accepted as those of today's code."""


def fingerprint(module: str) -> str:
    """Return the hash of a module such as ``reproduction.experiments.sparsity`` and of the modules that it imports.

    It is the same under every Python. Layout, comments, strings that stand alone, the ``description=`` of calls and
    imports for type checkers do not count.

    Raises:
        FileError: if the module has no source.
    """
    texts = [f"{name}\n{_parsed(_source(name), name).form}" for name in reached(module)]
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()


def noted(folder: Path, module: str) -> str:
    """Return :func:`fingerprint` of a module, from the note in the folder where that is as new as the sources."""
    return _noted(folder, module) or fingerprint(module)


def valid(folder: Path, module: str) -> set[str]:
    """Return the fingerprints whose results count as those of today's code: its own, and an accepted one."""
    return {noted(folder, module), accepted(folder, module)}


def current_file(folder: Path, module: str) -> Path:
    """Return the path of the fingerprint file of today's code; an accepted one may have the module's former name."""
    end = f".{accepted(folder, module)[:16]}.txt"
    formerly = [folder / f"{module.replace(new, old, 1)}{end}" for new, old in FORMER.items() if module.startswith(new)]
    return next((path for path in formerly if path.is_file()), folder / f"{module}{end}")


def update(folder: Path, module: str) -> Path:
    """Write the fingerprint file of today's code where it is missing, and return its path.

    Raises:
        FileError: if the folder cannot be written, or the module has no source.
    """
    if _noted(folder, module) is None:
        _take_note(folder, module)
    path, content = current_file(folder, module), accepted(folder, module)
    if not holds(path, content):
        write_atomically(path, content)
    return path


def holds(path: Path, content: str) -> bool:
    """True where a file is there with this content; a small file that is damaged is written anew."""
    try:
        return path.read_bytes() == content.encode()
    except OSError:
        return False


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


def imports_of_notebook(notebook: Path, experiments: Iterable[str] = ()) -> list[str]:
    """Return the modules that the code cells of a notebook import, sorted.

    Args:
        notebook: its file; where it holds no notebook, its own job will say so.
        experiments: modules of the experiments that it shows; imports of their packages count as those of ours do.
    """
    followed = {*PACKAGES, *map(_package, experiments)}
    found: set[str] = set()
    with contextlib.suppress(ValueError, KeyError, TypeError):
        for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
            if cell.get("cell_type") == "code":
                lines = "".join(cell["source"]).splitlines()
                plain = "\n".join(line for line in lines if not line.lstrip().startswith(("%", "!")))
                with contextlib.suppress(SyntaxError):
                    found.update(_found(_imports(_Computing().visit(ast.parse(plain)), ""), followed))
    return sorted(found)


def _accepted(folder: Path) -> dict[str, dict[str, str]]:
    path = folder / ACCEPTED
    try:
        found: dict[str, dict[str, str]] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except ValueError:
        raise FileError(f"{path} is damaged; delete it") from None
    return found


def _noted(folder: Path, module: str) -> str | None:
    with contextlib.suppress(OSError, ImportError, ValueError, TypeError, KeyError, AttributeError):
        note = json.loads((folder / f"{module}.json").read_text(encoding="utf-8"))
        if all(_state(_place(source)) == state for source, state in note["sources"].items()):
            return str(note["fingerprint"])
    return None


def _take_note(folder: Path, module: str) -> None:
    """Note a module's fingerprint and its sources; their folders too, where a new file may be a module to import."""
    files = {_file(name): _parsed(_source(name), name).state for name in reached(module)}
    folders = {file.rpartition("/")[0] for file in files} - {""}
    sources = {folder: _state(_place(folder)) for folder in folders} | files
    note = json.dumps({"fingerprint": fingerprint(module), "sources": sources}, indent=1)
    with contextlib.suppress(OSError):  # it only saves time
        write_atomically(folder / f"{module}.json", note)


def _state(path: Path) -> list[int | str]:
    """When a file was last written, in nanoseconds, and its size in bytes; what lies in a folder."""
    if path.is_dir():
        return sorted(entry.name for entry in path.iterdir() if entry.name != "__pycache__")
    found = path.stat()
    return [found.st_mtime_ns, found.st_size]


def _package(module: str) -> str:
    return module.partition(".")[0]


def _place(path: str) -> Path:
    """Where a file or folder of a top-level package lies, such as ``mirrorsym/mirrors.py``."""
    package = path.partition("/")[0].removesuffix(".py")
    if package in PACKAGES:
        return SOURCE / path
    spec = importlib.util.find_spec(package)
    places = [*(spec.submodule_search_locations or ()), spec.origin or ""] if spec else [""]
    return Path(places[0]).parent / path


def _file(module: str) -> str:
    base = module.replace(".", "/")
    return f"{base}/__init__.py" if _place(f"{base}/__init__.py").is_file() else f"{base}.py"


def _source(module: str) -> Path:
    return _place(_file(module))


def state_of(modules: Iterable[str]) -> dict[str, list[int | str]]:
    """Return when the sources of modules were written last, and their sizes."""
    return {name: _state(_source(name)) for name in modules}


def reached(module: str) -> list[str]:
    """Return the module and all that it imports of the packages that count, directly or not, sorted.

    Raises:
        FileError: if the module has no source.
    """
    if not _source(module).is_file():
        raise FileError(f"the source of the module {module} is not found; is it installed, or on PYTHONPATH?")
    followed = {*PACKAGES, _package(module)}
    pending, found = [module], set()
    while pending:
        name = pending.pop()
        if name not in found:
            found.add(name)
            pending += _found(_parsed(_source(name), name).imports, followed)
            if _package(name) not in PACKAGES:  # of ours, what lies around a module computes nothing
                pending += _found([(name[:end], "") for end, letter in enumerate(name) if letter == "."], followed)
    return sorted(found)


def _found(imports: Iterable[tuple[str, str]], followed: set[str]) -> Iterator[str]:
    """The modules that imports run, as far as they belong to the packages that count."""
    for base, name in imports:
        if _package(base) not in followed:
            continue
        if name and _source(f"{base}.{name}").is_file():
            yield f"{base}.{name}"
        elif _source(base).is_file():
            yield base
            lazy = _parsed(_source(base), base).lazy
            yield from _found([lazy[key] for key in lazy if name in ("", "*", key)], followed)


class _Parsed(NamedTuple):
    """A module's source: what it computes, what it imports anywhere, which names it imports when asked, its file."""

    form: str
    imports: list[tuple[str, str]]
    lazy: dict[str, tuple[str, str]]
    state: list[int | str]


@functools.cache
def _parsed(path: Path, module: str) -> _Parsed:
    state = _state(path)  # before it is read: an edit in between makes the note void, not wrong
    tree = ast.parse(path.read_bytes())
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    everything = list(_imports(tree, package))
    computing = _Computing().visit(tree)
    imports = list(_imports(computing, package))
    lazy = {name: (base, name) for base, name in everything if package == module and (base, name) not in imports}
    return _Parsed(_form(computing), imports, lazy, state)


def _imports(tree: ast.AST, package: str) -> Iterator[tuple[str, str]]:
    """What is imported, as (module, ""), or as (module, name) where the name is a module in it or what it defines."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            with contextlib.suppress(ImportError):  # beyond the package: it fails when it runs
                base = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
                yield from ((base, alias.name) for alias in node.names)


class _Computing(ast.NodeTransformer):
    """Leaves out what computes nothing: words, and what type checkers alone read."""

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        words = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return None if words else self.generic_visit(node)

    def visit_Pass(self, node: ast.Pass) -> None:
        """Leave it out: it stands where words may stand alone."""

    def visit_If(self, node: ast.If) -> ast.AST | list[ast.stmt]:
        self.generic_visit(node)
        return node.orelse if "TYPE_CHECKING" in (getattr(node.test, name, "") for name in ("id", "attr")) else node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        node.keywords = [keyword for keyword in node.keywords if keyword.arg != "description"]
        return self.generic_visit(node)

    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.AST:
        """Leave out empty pieces, which Python 3.12 adds."""
        node.values = [piece for piece in node.values if getattr(piece, "value", None) != ""]
        return self.generic_visit(node)


def _form(node: Any) -> str:
    """The tree as text without what is empty, which is where Pythons differ; a constant's value is never left out."""
    if isinstance(node, list):
        return f"[{','.join(map(_form, node))}]"
    if not isinstance(node, ast.AST):
        return ascii(node)
    if isinstance(node, ast.Constant):
        return ascii(node.value)
    fields = ((name, value) for name, value in ast.iter_fields(node) if name != "ctx" and value not in (None, [], ""))
    return f"{type(node).__name__}({','.join(f'{name}={_form(value)}' for name, value in fields)})"
