"""Where what was measured goes in a guide: between two comments."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from reproduction.files import write_atomically

END = "<!-- end -->"


def write_measured(guide: Path, begin: str, lines: Iterable[str]) -> None:
    """Replace what stands between a comment and the next :data:`END` in a guide.

    Args:
        guide: a file of docs/.
        begin: the comment, which names the command that measures.
        lines: what is measured.

    Raises:
        ValueError: if the guide has no such comment, or none that ends it.
    """
    before, found, rest = guide.read_text(encoding="utf-8").partition(begin)
    _, ends, after = rest.partition(END)
    if not found or not ends:
        raise ValueError(f"{guide} lacks the line {begin if not found else END}, between which what is measured goes")
    write_atomically(guide, before + begin + "\n\n" + "\n".join(lines) + "\n\n" + END + after)
