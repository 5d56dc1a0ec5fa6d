"""The page, built by Sphinx from docs/, the report, the verdicts and what the figures were drawn from."""

from __future__ import annotations

import html
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reproduction.analysis.verdict_file import Verdicts, read_verdicts
from reproduction.errors import UserError
from reproduction.files import FileError, write_atomically
from reproduction.pipeline import store
from reproduction.pipeline.config import Config
from reproduction.pipeline.layout import Layout
from reproduction.report import prose
from reproduction.report.findings import at_any_scale, read_words
from reproduction.report.render import render_template
from reproduction.site.claims import entries, explored
from reproduction.site.code import Code

DOCUMENTS = ("docs/*.md", "*.md", "config/README.md", "claims/README.md", "envs/README.md")
LEFT_OUT = ("README.md",)
"""The start page says what it says, and the gallery is in the report."""
NEEDS = ("sphinx", "myst_parser", "pydata_sphinx_theme", "altair", "vl_convert")
NOT_SHOWN = (".buildinfo", ".doctrees", "objects.inv", "_sources", "webpack-macros.html")
"""What Sphinx and its theme leave in the folder for themselves."""
BACK = (
    '<nav class="small" aria-label="Other pages"><a href="../index.html">mirrorsym: what was found</a> · '
    '<a href="../claims.html">claims</a> · <a href="../explorer/index.html">explorer</a></nav>'
)
"""Leads from the report to the other pages; beside no such pages it has none."""
_LINK = re.compile(r"(?<!!)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s:]+)\)")


class SiteError(UserError, ValueError):
    """The page cannot be made."""


def build(config: Config, layout: Layout, builder: str = "html") -> Path:
    """Build the page of a scale and return its folder; only a whole one takes the place of the one before.

    Args:
        config: the configuration at that scale.
        layout: the project's paths; results, figures and the report are there.
        builder: Sphinx's: "html", or "linkcheck" for the addresses that lead elsewhere, which builds no page.

    Raises:
        FileError: if something that it shows is missing, or a file cannot be written.
        SiteError: if a package is missing, or Sphinx finds something wrong.
    """
    if missing := [name for name in NEEDS if importlib.util.find_spec(name) is None]:
        raise SiteError(f"the page needs {missing[0]}; pip install '.[site]', or use the environment that make makes")
    with tempfile.TemporaryDirectory(prefix="mirrorsym-site-") as folder:
        source, made = Path(folder) / "source", Path(folder) / "made"
        _stage(config, layout, source)
        _sphinx(source, made, builder, layout.root)
        if builder == "html":
            shutil.rmtree(layout.site, ignore_errors=True)
            shutil.copytree(made, layout.site, ignore=shutil.ignore_patterns(*NOT_SHOWN))
    return layout.site


def _sphinx(source: Path, made: Path, builder: str, root: Path) -> None:
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", builder, "-c", str(source)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str((root / "src").resolve()), *filter(None, sys.path)])}
    done = subprocess.run([*command, source, made], env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        said = [line.replace(f"{source}/", "") for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        raise SiteError("Sphinx found what is wrong:\n" + "\n".join(said[-40:]))


def _stage(config: Config, layout: Layout, source: Path) -> None:
    """Put together what Sphinx reads: the documents, the pages that are made, and beside them all that is linked."""
    root, extra, code = layout.root, source / "extra", Code(layout.root)
    shutil.copytree(root / "docs", source / "docs", ignore=shutil.ignore_patterns("*.md"))
    shutil.copy(root / "docs" / "site" / "conf.py", source / "conf.py")
    labels = prose.figure_labels(config.figures)
    verdicts = read_verdicts(layout.claims(config.scale))
    listed = entries(verdicts, config, layout, labels, code)
    made = {
        "index.md": _filled(_start(config, layout, labels, verdicts), root, "index.md.j2"),
        "claims.md": _filled({"claims": listed, "scale": config.scale, "total": len(listed)}, root, "claims.md.j2"),
        "api.md": _api(),
    }
    written = {path.relative_to(root).as_posix(): path for pattern in DOCUMENTS for path in root.glob(pattern)}
    documents = {name: path.read_text(encoding="utf-8") for name, path in written.items() if name not in LEFT_OUT}
    for name, text in (documents | made).items():
        write_atomically(source / name, text if name in made else linked(text, name, documents | made, code))
    _beside(config, layout, extra)
    from reproduction.site.explorer.page import page

    write_atomically(extra / "explorer" / "index.html", page(config, layout, root / "docs" / "site"))
    code.write(extra)


def _start(config: Config, layout: Layout, labels: Mapping[str, str], verdicts: Verdicts) -> dict[str, Any]:
    """What the start page says: the findings, the first one's figure, and which code computed what is shown."""
    words = at_any_scale(read_words(layout.root / "paper" / "findings.yaml"), verdicts).model_dump()
    judged = {claim.id: claim for claim in verdicts.claims}
    for one in words["findings"]:
        one["figures"] = {name: labels[name] for name in (one["figure"], *one["other_figures"])}
        shown_in = [name for figure in one["figures"] for name in config.figures[figure].experiments]
        one["explorer"] = explored(shown_in, config, one["claims"])
        one["claims"] = {name: judged[name] for name in one["claims"] if name in judged}
        one["html"] = re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(one["text"], quote=False))
    first = words["findings"][0]["figure"]
    versions = {store.read(layout.result(config.scale, name)).attrs["code_version"] for name in config.experiments}
    if not (numbers := layout.numbers(config.scale)).is_file():
        raise FileError(f"{numbers} is missing; make it with snakemake --cores all paper")
    alt = json.loads(numbers.read_text(encoding="utf-8"))["figures"][first]["alt"]
    shown = {"label": labels[first], "see": config.figures[first].see, "alt": alt}
    return {"words": words, **shown, "scale": config.scale, "code": ", ".join(sorted(versions))}


def _filled(content: Mapping[str, Any], root: Path, template: str) -> str:
    return render_template(content, root / "docs" / "site" / template)


def linked(text: str, name: str, documents: Mapping[str, str], code: Code) -> str:
    """Return a document with its links to files that are no documents turned to their pages of code.

    Args:
        text: the document, in Markdown.
        name: its own, from the project's folder.
        documents: all of them, by name.
        code: takes note of the files.

    Raises:
        FileError: if a file is missing to which the document links.
    """
    here = Path(name).parent

    def turned(found: re.Match[str]) -> str:
        words, target = found.groups()
        file, _, anchor = target.partition("#")
        path = os.path.normpath(here / file)
        if not file or path in documents or path.endswith(".png"):
            return found[0]
        up = os.path.relpath(".", here)
        if path in LEFT_OUT:
            return f"[{words}]({up}/index.md)"
        line = int(anchor[1:]) if re.fullmatch(r"L\d+", anchor) else None
        return f'<a href="{up}/{code.link(path, line)}">{words}</a>'

    return _LINK.sub(turned, text)


def _api() -> str:
    """The page of the library's public names, by what one does with them."""
    import mirrorsym

    lines = ["# API of the library", "", "`import mirrorsym`; all names are those of the package itself.", ""]
    for verb, modules in mirrorsym._NAMES.items():
        lines += [f"## {verb}", ""]
        for name in " ".join(modules.values()).split():
            kind = "autoclass" if isinstance(getattr(mirrorsym, name), type) else "autofunction"
            lines += [f"```{{eval-rst}}\n.. {kind}:: mirrorsym.{name}"]
            lines += ["   :members:", "```", ""] if kind == "autoclass" else ["```", ""]
    return "\n".join(lines)


def _beside(config: Config, layout: Layout, extra: Path) -> None:
    """Copy the report, the figures with their numbers, and the result files."""
    files = {extra / "report" / path.name: path for path in (layout.page(config.scale), layout.pdf(config.scale))}
    for name, figure in config.figures.items():
        for file in figure.files(name):
            files[extra / "figures" / config.scale / file] = layout.figures(config.scale) / file
    for name in config.experiments:
        result = layout.result(config.scale, name)
        files[extra / "results" / config.scale / result.name] = result
    for target, origin in files.items():
        if not origin.is_file():
            raise FileError(f"{origin} is missing; make it with snakemake --cores all paper")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(origin, target)
    report = extra / "report" / layout.page(config.scale).name
    write_atomically(report, report.read_text(encoding="utf-8").replace("<body>", f"<body>\n{BACK}", 1))
