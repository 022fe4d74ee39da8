"""A leaderboard's pairs: who is ahead of whom, by how much, and is that more than chance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rrtf.figures.style import canvas

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def paired(names: Sequence[str], cells: Mapping[tuple[str, str], str]) -> Figure:
    """Differences in points of the row over the column, names by rank; blue is told apart.

    `cells`: (better, other) -> text as `leaderboard.matrix` gives it, with `*` for told apart and
    `=` for equal within the margin; what is neither stays white.
    """
    side = len(names)
    figure, axis = canvas(width=2.6 + 0.78 * side, height=1.3 + 0.42 * side)
    shades = {"*": "#CFE3F2", "=": "#E3E3E3"}
    for (row, column), text in cells.items():
        y, x = names.index(row), names.index(column)
        shade = shades.get(text[-1], "white")
        axis.fill([x - 0.5, x + 0.5, x + 0.5, x - 0.5], [y - 0.5, y - 0.5, y + 0.5, y + 0.5], shade)
        weight = "bold" if text.endswith("*") else "normal"
        axis.text(x, y, text, ha="center", va="center", fontsize=8.5, fontweight=weight)
    axis.set_xticks(range(1, side), [str(at) for at in range(2, side + 1)])
    axis.set_yticks(range(side - 1), [f"{at} {name}" for at, name in enumerate(names[:-1], 1)])
    axis.xaxis.tick_top()
    axis.set(xlim=(0.5, side - 0.5), ylim=(side - 1.5, -0.5))
    axis.set_xlabel(f"{side} is {names[-1]}; * told apart, = equal within the margin")
    axis.grid(visible=False)
    axis.tick_params(length=0)
    return figure
