"""What the documents tell people to type is there: commands, their options, targets of make and of snakemake."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import yaml

from benchmarks.guides import END, write_measured
from reproduction.cli.user import cli
from reproduction.pipeline.config import SCALES, load

ROOT = Path(__file__).parents[2]
DOCUMENTS = [
    *(path for path in ROOT.glob("*.md") if path.name != "CHANGELOG.md"),
    *(ROOT / "docs").glob("*.md"),
    ROOT / "config" / "README.md",
    ROOT / "envs" / "README.md",
]
CONFIG = load(ROOT / "config")
TARGETS = {*CONFIG.figures, *(f"collect_{name}" for name in CONFIG.experiments), "all", "cifar10", "claims", "paper"}


def typed(text: str, word: str) -> Iterator[list[str]]:
    """The words of each command in code that begins with ``word``, without what a shell or the reader adds."""
    blocks = re.findall(r"^```(?:\w*)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    inline = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE))
    for line in [line for block in blocks for line in block.splitlines()] + inline:
        for part in re.split(r"\s#|[;|&>]|\$\(", line):
            words = part.split()
            if words[:1] == [word]:
                yield words[1:]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_commands_that_documents_name_are_there(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    for words in typed(text, "mirrorsym"):
        if not words or words[0].startswith("-"):
            continue
        command = cli.commands.get(words[0])
        assert command is not None, f"mirrorsym {words[0]}"
        options = {name for one in command.params if isinstance(one, click.Option) for name in one.opts}
        given = {word.partition("=")[0] for word in words[1:] if word.startswith("--")}
        assert given <= options | {"--help"}, f"mirrorsym {' '.join(words)}"
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for words in typed(text, "make"):
        for target in (word for word in words[:1] if re.fullmatch(r"[\w-]+", word)):
            assert re.search(rf"^{re.escape(target)}:", makefile, re.MULTILINE), f"make {target}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_snakemakes_targets_and_settings_that_documents_name_are_there(document: Path) -> None:
    for words in typed(document.read_text(encoding="utf-8"), "snakemake"):
        rest = iter(words)
        for word in rest:
            if word.startswith("-"):
                if word in ("--cores", "--profile", "--directory", "--sdm", "--report", "-s", "-j", "--cluster-cancel"):
                    next(rest, None)
                if word == "--config":
                    for setting in rest:
                        name, _, value = setting.partition("=")
                        assert name in type(CONFIG).model_fields, " ".join(words)
                        assert name != "scale" or value in (*SCALES, "…"), " ".join(words)
            else:
                assert word in TARGETS or not re.fullmatch(r"(?!my_)[a-z]\w+", word), " ".join(words)


def test_a_command_that_is_not_there_is_noticed() -> None:
    assert list(typed("`mirrorsym nothing --x` and\n```\nmake none # why\n```\n", "mirrorsym")) == [["nothing", "--x"]]
    assert list(typed("```\nA=1 x; make none # why\n```\n", "make")) == [["none"]]


def test_the_forge_runs_what_decides() -> None:
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))["jobs"]
    assert [step["run"] for step in jobs["run"]["steps"] if "run" in step][-2:] == [".ci/run", "make site"]


def test_what_is_measured_goes_between_its_own_comments(tmp_path: Path) -> None:
    guide, first, second = tmp_path / "guide.md", "<!-- first -->", "<!-- second -->"
    guide.write_text(f"a\n{first}\nold\n{END}\nb\n{second}\nkept\n{END}\nc\n", encoding="utf-8")
    for _ in range(2):
        write_measured(guide, first, ["| 1 |", "| 2 |"])
    written = guide.read_text(encoding="utf-8")
    assert written == f"a\n{first}\n\n| 1 |\n| 2 |\n\n{END}\nb\n{second}\nkept\n{END}\nc\n"
    with pytest.raises(ValueError, match="lacks the line <!-- third -->"):
        write_measured(guide, "<!-- third -->", [])
    assert guide.read_text(encoding="utf-8") == written
