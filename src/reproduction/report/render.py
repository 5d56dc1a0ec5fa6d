"""The report as a PDF through typst and as a page of HTML, from what :mod:`reproduction.report.content` gathers."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reproduction.files import write_atomically
from reproduction.formatting import spread
from reproduction.pipeline.config import Config
from reproduction.pipeline.layout import Layout
from reproduction.report.content import gather
from reproduction.report.verdicts import ReportError


def make_paper(config: Config, layout: Layout, sources: Path | None = None) -> list[Path]:
    """Write the numbers, the PDF and the page of a scale, each whole or not at all.

    Args:
        config: the configuration at that scale.
        layout: the project's paths.
        sources: the folder of words, references and layout, below the project's; ``paper`` if nothing else is said.

    Returns:
        ``results/{scale}/report.json``, ``paper/{scale}/paper.pdf`` and ``paper/{scale}/index.html``.

    Raises:
        FileError: if something that it shows is missing, or a file cannot be written.
        ReportError: if claims, template or layout are wrong.
    """
    sources = sources or layout.root / "paper"
    report = gather(config, layout, sources)
    numbers, pdf, page = layout.numbers(config.scale), layout.pdf(config.scale), layout.page(config.scale)
    write_atomically(numbers, json.dumps(report, ensure_ascii=False, indent=1))
    html = render_template(report, sources / "index.html.j2")
    write_atomically(pdf, render_pdf(numbers, sources / "main.typ", layout.root))
    write_atomically(page, with_pictures(html, page.parent))
    return [numbers, pdf, page]


def with_pictures(html: str, folder: Path) -> str:
    """Return a page that carries its pictures: each SVG that it names, relative to a folder, in its place."""

    def inlined(found: re.Match[str]) -> str:
        return f'src="data:image/svg+xml;base64,{base64.b64encode((folder / found[1]).read_bytes()).decode()}"'

    return re.sub(r'src="([^":]+\.svg)"', inlined, html)


def render_pdf(numbers: Path, main: Path, root: Path) -> bytes:
    """Return the PDF: the same bytes for the same inputs, with fonts that come with the compiler, all embedded.

    Args:
        numbers: the file of the report's mapping, below ``root``.
        main: the typst file, below ``root``.
        root: the folder that typst may read.

    Raises:
        ReportError: with the first error of typst, in one sentence.
    """
    import typst

    inside = "/" + numbers.resolve().relative_to(root.resolve()).as_posix()
    for tags in (True, False):
        try:
            compiler = typst.Compiler(
                str(main), root=str(root), ignore_system_fonts=True, sys_inputs={"report": inside}
            )
            made = compiler.compile(format="pdf", pdf_tags=tags)
        except typst.TypstError as error:
            # Tags for screen readers fail on some page breaks (typst 0.15); the pages are the same without them.
            if not tags or "internal error" not in error.message:
                raise ReportError(_explain(error, main)) from None
        else:
            assert isinstance(made, bytes)
            return made
    raise AssertionError("the second attempt returns or raises")


def _explain(error: Any, main: Path) -> str:
    place = re.search(r"┌─ (.+?:\d+):\d+", error.diagnostic or "")
    return f"typst: {place[1] if place else main}: {' '.join(str(error.message).split())}"


def render_template(report: Mapping[str, Any], template: Path) -> str:
    """Return a filled template; what goes into HTML is escaped.

    Raises:
        ReportError: if the template is missing or wrong.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(template.parent),
        autoescape=jinja2.select_autoescape(["html.j2"]),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["spread"] = lambda numbers, scale: spread(*(scale * number for number in numbers))
    try:
        return environment.get_template(template.name).render(report=report)
    except jinja2.TemplateNotFound:
        raise ReportError(f"{template} is missing; run in the project's folder") from None
    except jinja2.TemplateError as error:
        line = f":{error.lineno}" if isinstance(error, jinja2.TemplateSyntaxError) else ""
        raise ReportError(f"{template}{line}: {error}") from None
