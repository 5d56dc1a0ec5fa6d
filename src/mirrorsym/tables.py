"""Tables of words, laid out for a terminal."""

from __future__ import annotations

from collections.abc import Container, Sequence


def table(rows: Sequence[Sequence[str]], numbers: Container[int] = ()) -> list[str]:
    """Return a table's lines, its columns two spaces apart.

    Args:
        rows: the cells of each row, as many in each.
        numbers: the columns that are set to the right.
    """
    wide = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if column in numbers else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, wide, strict=True))
        ).rstrip()
        for row in rows
    ]
