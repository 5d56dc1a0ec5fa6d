"""Files of the repository as pages with an address for each line, and where a function stands."""

from __future__ import annotations

import ast
import html
import json
from pathlib import Path, PurePosixPath

from reproduction.files import FileError, write_atomically

FOLDER = "code"
"""Where these pages lie, below the site's folder."""
STYLE = "a11y-high-contrast-light"
"""Of the theme's own styles one whose colours all can read."""
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><style>{style}
body {{ margin: 1rem; font-family: sans-serif; }} pre {{ line-height: 1.35; }} .scroll {{ overflow-x: auto; }}
:target {{ background: #ffe58a; }} a {{ color: #1f4e79; }} .text {{ white-space: pre-wrap; max-width: 60rem; }}
.linenos a {{ color: #5a5a5a; text-decoration: none; }}</style></head>
<body><main><p><a href="{back}">mirrorsym</a></p><h1>{title}</h1>{body}</main></body></html>
"""


class Code:
    """Pages of files, made for those that something links to.

    Args:
        root: the project's folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.files: set[str] = set()
        self._functions: dict[str, tuple[str, int]] = {}

    def link(self, file: str, line: int | None = None) -> str:
        """Return the address of a file, or of a line of it, from the site's folder; its page will be made.

        Raises:
            FileError: if there is no such file.
        """
        if not (self.root / file).is_file():
            raise FileError(f"{self.root / file} is missing, and the page links to it")
        self.files.add(file)
        return f"{FOLDER}/{file}.html" + (f"#L-{line}" if line else "")

    def function(self, name: str) -> str | None:
        """Return the address of a function of the analysis or of an experiment; None where there is no such one."""
        if not self._functions:
            for folder in ("analysis", "experiments"):
                for path in sorted((self.root / "src" / "reproduction" / folder).rglob("*.py")):
                    for node in ast.parse(path.read_text(encoding="utf-8")).body:
                        if isinstance(node, ast.FunctionDef):
                            place = path.relative_to(self.root).as_posix(), node.lineno
                            self._functions.setdefault(node.name, place)
        return self.link(*self._functions[name]) if name in self._functions else None

    def write(self, site: Path) -> None:
        """Write the pages of all files that were linked."""
        for file in sorted(self.files):
            write_atomically(site / FOLDER / f"{file}.html", page(file, (self.root / file).read_text(encoding="utf-8")))


def page(file: str, text: str) -> str:
    """Return a file as a page, its lines numbered; a notebook as its cells."""
    from pygments.formatters.html import HtmlFormatter

    style = HtmlFormatter(style=STYLE).get_style_defs(".highlight")
    body = _notebook(text) if file.endswith(".ipynb") else _highlighted(text, file, numbered=True)
    back = "../" * len(PurePosixPath(FOLDER, file).parent.parts) + "index.html"
    return _PAGE.format(title=html.escape(file), style=style, body=body, back=back)


def _highlighted(text: str, file: str, numbered: bool = False) -> str:
    from pygments import highlight
    from pygments.formatters.html import HtmlFormatter
    from pygments.lexers import get_lexer_for_filename
    from pygments.lexers.special import TextLexer
    from pygments.util import ClassNotFound

    try:
        lexer = get_lexer_for_filename(file)
    except ClassNotFound:
        lexer = TextLexer()
    lines = {"linenos": "inline", "lineanchors": "L", "anchorlinenos": True} if numbered else {}
    shown = highlight(text, lexer, HtmlFormatter(style=STYLE, **lines))
    return f'<div class="scroll" tabindex="0" role="region" aria-label="source">{shown}</div>'


def _notebook(text: str) -> str:
    parts = []
    for cell in json.loads(text)["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "code":
            parts.append(_highlighted(source, "cell.py"))
        else:
            parts.append(f'<p class="text">{html.escape(source)}</p>')
    return "\n".join(parts)
