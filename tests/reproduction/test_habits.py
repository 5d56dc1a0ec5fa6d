"""What holds the habits together: the hooks of pre-commit run what `make lint` runs, text is UTF-8 everywhere."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]


def test_the_hooks_of_pre_commit_are_the_checks_of_make_lint() -> None:
    (recipe,) = re.findall(r"^lint:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    checks = [line.strip().lstrip("@").replace("$(BIN)", ".venv/bin") for line in recipe.splitlines()]
    (local,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    hooks = [re.sub(r"^bash -c '(.*)'$", r"\1", hook["entry"]) for hook in local["hooks"]]
    assert hooks == checks


def texts_in_the_locales_encoding(source: str) -> Iterator[int]:
    """The lines of calls that read or write text without saying in which encoding."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            modes = [one.value for one in node.args[1:] if isinstance(one, ast.Constant) and isinstance(one.value, str)]
            plain = isinstance(node.func, ast.Name)  # gzip.open, Image.open and others are no text
            text = name in ("read_text", "write_text") or (
                name == "open" and plain and not any("b" in m for m in modes)
            )
            if text and not any(keyword.arg == "encoding" for keyword in node.keywords):
                yield node.lineno


def test_text_is_utf_8_whatever_the_locale_is() -> None:
    assert list(texts_in_the_locales_encoding("open('a', 'rb'); open('b'); p.read_text(errors='x')")) == [1, 1]
    found = {
        f"{path.relative_to(ROOT)}:{line}"
        for path in (ROOT / "src").rglob("*.py")
        for line in texts_in_the_locales_encoding(path.read_text(encoding="utf-8"))
    }
    assert {place for place in found if "/memory.py" not in place} == set()  # it reads numbers of /proc
    for path in [ROOT / "Snakefile", *(ROOT / "workflow" / "rules").iterdir(), *(ROOT / "profiles").rglob("*.yaml")]:
        assert path.read_bytes().isascii(), f"Snakemake reads {path} in the locale's encoding"
