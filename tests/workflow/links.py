"""The pages of a folder: what they point to, and whether it is there."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote


class Page(HTMLParser):
    """The addresses in a page, and the places in it that have one."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.places: set[str] = set()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {key: value or "" for key, value in attrs}
        self.places |= {given[key] for key in ("id", "name") if key in given}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        elif tag in ("img", "script", "link") and (given.get("src") or given.get("href")):
            self.loaded.append(given.get("src") or given["href"])


def broken(site: Path) -> list[str]:
    """Return the links of all pages below a folder that lead to no file or place in it, and loads from elsewhere."""
    pages = {path.resolve(): Page(path) for path in site.rglob("*.html")}
    found = []
    for path, page in pages.items():
        here = path.relative_to(site.resolve())
        found += [f"{here} loads {link}" for link in page.loaded if link.startswith(("http:", "https:", "//"))]
        for link in [*page.links, *page.loaded]:
            if link.startswith(("http:", "https:", "data:", "mailto:", "javascript:")):
                continue
            file, _, anchor = link.partition("#")
            anchor = anchor.partition("?")[0]  # what follows is the state of a view
            target = (path.parent / unquote(file.partition("?")[0])).resolve() if file else path
            inside = target == path or (target.is_file() and target.is_relative_to(site.resolve()))
            if not inside or (anchor and target in pages and unquote(anchor) not in pages[target].places):
                found.append(f"{here} -> {link}")
    return found
