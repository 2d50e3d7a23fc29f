"""Tables of the evaluations as they are printed.

for line in table(["captions", "clips"], [["the chosen", "55"]]): print(line)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

#: So wide is the first column at least, so that the tables of one evaluation stand below each other.
FIRST_COLUMN = 40
#: Of many that are left out so many are named.
_TOLD = 20


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines with aligned columns, the first to the left."""
    widths = [max(len(row[at]) for row in [header, *rows]) for at in range(len(header))]
    widths[0] = max(widths[0], FIRST_COLUMN)
    aligned = (
        [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        for row in [header, *rows]
    )
    return ["  ".join(cells).rstrip() for cells in aligned]


def left_out(why: Mapping[str, str]) -> list[str]:
    """A line for each of what is left out, for the first few; one that counts the rest."""
    lines = [f"left out: {name}: {reason}" for name, reason in list(why.items())[:_TOLD]]
    rest = len(why) - len(lines)
    return [*lines, f"left out: {rest:,} more"] if rest else lines
