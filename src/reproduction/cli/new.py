"""``mirrorsym new``: the three things of an experiment, and its test, from templates that run."""

from __future__ import annotations

import importlib
import json
import keyword
import os
import re
import sys
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

import yaml

from reproduction.errors import ConfigError
from reproduction.files import read_yaml, write_atomically
from reproduction.pipeline.config import OUR_EXPERIMENTS, RESERVED, RULES, json_schema, load, merge
from reproduction.pipeline.layout import Layout


@dataclass(frozen=True)
class Places:
    """Where the parts of an experiment lie.

    Args:
        module: the full name of its module.
        code: the module's file.
        test: the file of its test.
        notebook: the notebook of its figure.
        ours: True where it is one of ``reproduction.experiments``.
    """

    module: str
    code: Path
    test: Path
    notebook: Path
    ours: bool

    @classmethod
    def inside(cls, root: Path, name: str) -> Places:
        """Return the places in the project itself."""
        code = root / "src" / "reproduction" / "experiments" / f"{name}.py"
        test = root / "tests" / "reproduction" / f"test_{name}.py"
        return cls(f"{OUR_EXPERIMENTS}{name}", code, test, root / "notebooks" / f"{name}.ipynb", True)

    @classmethod
    def outside(cls, package: Path, name: str) -> Places:
        """Return the places in the folder of another package, or of one that is to be."""
        top = package.resolve()
        parts = [top.name]
        while (top.parent / "__init__.py").is_file():
            top = top.parent
            parts.insert(0, top.name)
        if wrong := [part for part in parts if not part.isidentifier() or keyword.iskeyword(part)]:
            raise ConfigError(f"--outside {package}: {wrong[0]!r} cannot be the name of a package")
        module = ".".join([*parts, name])
        return cls(module, package / f"{name}.py", package / f"test_{name}.py", package / f"{name}.ipynb", False)


def write_experiment(name: str, layout: Layout, outside: Path | None = None) -> list[Path]:
    """Write module, test, notebook and block of config of a new experiment with a figure, remake the schema.

    Args:
        name: of the experiment and of its figure.
        layout: the project's paths.
        outside: the folder of the package that it shall be in; ``reproduction.experiments`` where None.

    Returns:
        What was written.

    Raises:
        ConfigError: if the name cannot be used or is taken, or the configuration cannot be extended.
        FileError: if a file cannot be written.
    """
    places = Places.inside(layout.root, name) if outside is None else Places.outside(outside, name)
    config_file = layout.config / "config.yaml"
    _check_name(name, places, read_yaml(config_file, dict))
    relative = os.path.relpath(layout.root, places.notebook.parent)
    values = {
        "name": name,
        "camel": "".join(part.capitalize() for part in name.split("_")),
        "title": name.replace("_", " ").capitalize(),
        "module": places.module,
        "module_line": "" if places.ours else f"\n    module: {places.module}",
        "notebook_line": "" if places.ours else f"\n    notebook: {os.path.relpath(places.notebook, layout.root)}",
        "results": f"{relative}/results/quick",
        "figures": f"{relative}/paper/figures/quick",
    }
    contents = {
        places.code: _filled("experiment.py", values),
        places.test: _filled("test.py", values),
        places.notebook: _filled("notebook.ipynb", values),
    }
    package = places.code.parent / "__init__.py"
    if not package.is_file():
        contents[package] = ""
    contents[config_file] = extended(config_file, _filled("config.yaml", values))
    schema = layout.config / "schema.json"
    before = {path: path.read_bytes() if path.is_file() else None for path in [*contents, schema]}
    try:
        for path, content in contents.items():
            write_atomically(path, content)
        write_atomically(schema, _schema(layout, places))
    except BaseException:
        _put_back(before)
        raise
    return [*before]


def _put_back(before: dict[Path, bytes | None]) -> None:
    """Leave files as they were; None where there was none."""
    for path, content in before.items():
        if content is None:
            path.unlink(missing_ok=True)
        elif path.read_bytes() != content:
            write_atomically(path, content)


def extended(path: Path, block: str) -> str:
    """Return the text of a YAML file with each mapping of a block added at the end of its own of that name.

    Raises:
        ConfigError: if the file does not hold such mappings as blocks of lines.
    """
    text = path.read_text(encoding="utf-8").rstrip("\n") + "\n"
    wanted = merge(read_yaml(path, dict), yaml.safe_load(block))
    for part in re.split(r"^(?=\w)", block, flags=re.MULTILINE)[1:]:
        head, _, added = part.partition("\n")
        # The mapping's own line, without the braces of an empty one, and its block: lines that are indented or empty.
        own = re.compile(rf"^({head})(?: *\{{\}})?(.*\n)((?:[ \t].*\n|\n)*)", re.MULTILINE)
        if (found := own.search(text)) is not None:
            block_end = found.start(3) + len(found[3].rstrip() + "\n" if found[3].strip() else "")
            text = text[: found.start()] + found[1] + text[found.start(2) : block_end] + added + text[block_end:]
    try:
        fits = yaml.safe_load(text) == wanted
    except yaml.YAMLError:
        fits = False
    if not fits:
        raise ConfigError(f"{path} cannot be extended: its experiments and figures have to be blocks of lines")
    return text


def _check_name(name: str, places: Places, config: dict[str, Any]) -> None:
    taken = name in (*RESERVED, "measures") or name.startswith(RULES)
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,60}", name) or keyword.iskeyword(name) or taken:
        raise ConfigError(
            f"{name!r} cannot name an experiment: take lower-case letters, digits and _, such as my_spins"
        )
    for kind in ("experiments", "figures"):
        if name in (config.get(kind) or {}):
            raise ConfigError(f"config/config.yaml has {name!r} among its {kind} already; take another name")
    for path in (places.code, places.code.with_suffix(""), places.test, places.notebook):
        if path.exists():
            raise ConfigError(f"{path} is there already; take another name")
    if places.ours and not places.code.parent.is_dir():
        raise ConfigError(f"there is no folder {places.code.parent}; give the folder of a package with --outside")


def _filled(name: str, values: dict[str, str]) -> str:
    template = resources.files("reproduction.cli") / "templates" / f"{name}.in"
    return Template(template.read_text(encoding="utf-8")).substitute(values)


def _schema(layout: Layout, places: Places) -> str:
    """The schema with the new experiment's settings, wherever its package lies."""
    depth = len(places.module.split("."))
    sys.path.append(str(places.code.resolve().parents[depth - 1]))
    importlib.invalidate_caches()
    return schema_text(layout)


def schema_text(layout: Layout) -> str:
    """Return the JSON schema of a project's configuration, with the settings of the modules that it names.

    Raises:
        ConfigError: if the configuration cannot be used.
    """
    named: list[str] = []
    if (layout.config / "config.yaml").is_file():
        config = load(layout.config)
        named = [config.module_of(experiment) for experiment in config.experiments]
    return json.dumps(json_schema(named), indent=1) + "\n"
