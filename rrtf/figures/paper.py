"""Pictures of the paper's own figures: what its counts allow, its data sizes, ours beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rrtf.figures.style import PALETTE, canvas

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHADES = {
    "stands": PALETTE[2],
    "left open": PALETTE[1],
    "not shown": PALETTE[5],
    "contradicted": "#222222",
}


def p_ranges(rows: Sequence[tuple[str, float, float, str]], *, alpha: float) -> Figure:
    """(name, smallest p, largest p, verdict) as bars on a logarithmic axis; `alpha` is a line.

    A single p is a dot. The axis ends at a millionth; an arrow says that a bar goes on.
    """
    from matplotlib.lines import Line2D

    floor = 1e-6
    figure, axis = canvas(width=7.6, height=1.0 + 0.27 * len(rows))
    for at, (_, low, high, verdict) in enumerate(rows):
        ends = [max(floor, low), max(floor, high)]
        axis.plot(ends, [at, at], color=SHADES[verdict], linewidth=3, solid_capstyle="butt")
        if low < floor:
            axis.plot(floor, at, "<", color=SHADES[verdict], markersize=7)
        elif ends[0] > 0.8 * ends[1]:
            axis.plot(ends[1], at, "o", color=SHADES[verdict], markersize=6)
    axis.axvline(alpha, color="#333333", linewidth=1)
    axis.annotate(f"{alpha:g}", (alpha, len(rows) - 0.4), (3, 0), textcoords="offset points",
                  fontsize=8, va="bottom")  # fmt: skip
    axis.set_xscale("log")
    axis.set_yticks(range(len(rows)), [row[0] for row in rows])
    axis.set(xlabel="p after Holm, from smallest to largest possible", xlim=(floor / 2, 1.6),
             ylim=(len(rows) - 0.4, -0.6))  # fmt: skip
    axis.grid(axis="y", visible=False)
    there = [name for name in SHADES if any(row[3] == name for row in rows)]
    handles = [Line2D([], [], color=SHADES[name], linewidth=3, label=name) for name in there]
    figure.legend(handles=handles, loc="outside upper right", ncols=len(handles))
    return figure


def data_sizes(rows: Sequence[Mapping[str, Any]], *, stated_batch: int) -> Figure:
    """Best rate with its interval, steps per epoch and implied batch, one line per data size.

    `rows` as `paper.size_rows` makes them; the stated batch is a line.
    """
    figure, _ = canvas(1, 3, width=7.6, height=0.9 + 0.42 * len(rows), share_y=True)
    rates, steps, batches = figure.axes
    for at, row in enumerate(rows):
        rates.plot([100 * row["low"], 100 * row["high"]], [at, at], color=PALETTE[0], linewidth=2.2)
        rates.plot(row["best %"], at, "o", color=PALETTE[0])
        _note(rates, f"{row['best %']:.1f}", (row["best %"], at), (0, 6))
    for axis, name, shade in (
        (steps, "steps per epoch", PALETTE[4]),
        (batches, "implied batch", PALETTE[5]),
    ):
        values = [row[name] for row in rows]
        axis.barh(range(len(rows)), values, color=shade, height=0.5)
        for at, value in enumerate(values):
            _note(axis, f"{value:,}", (value, at), (4, 0), left=True)
        axis.set(title=name, xlim=(1, 20 * max(values)), xscale="log")
    batches.axvline(stated_batch, color="#333333", linewidth=1, linestyle=":")
    rates.set(title="HumanEval, best point (%)", ylim=(len(rows) - 0.4, -0.7))
    rates.set_yticks(range(len(rows)), [row["data"] for row in rows])
    rates.margins(x=0.15)
    for axis in figure.axes:
        axis.grid(axis="y", visible=False)
    return figure


def answers(lines: Mapping[str, Mapping[str, tuple[float, float, float]]]) -> Figure:
    """Question -> whose answer -> (difference, low, high), in points, zero marked.

    Shares in [0, 1]; a hollow dot is an interval that holds zero. Each answerer has one colour.
    """
    from matplotlib.lines import Line2D

    figure, axis = canvas(width=7.6, height=1.0 + 0.45 * len(lines))
    names = list(dict.fromkeys(name for line in lines.values() for name in line))
    shades = {name: (PALETTE[1], PALETTE[0])[at % 2] for at, name in enumerate(names)}
    axis.axvline(0, color="#333333", linewidth=1)
    for at, line in enumerate(lines.values()):
        for name, (value, low, high) in line.items():
            y, clear = at + 0.3 * names.index(name) - 0.15, low > 0 or high < 0
            axis.plot([100 * low, 100 * high], [y, y], color=shades[name], linewidth=2.2)
            face = shades[name] if clear else "white"
            axis.plot(100 * value, y, "o", markersize=6, color=shades[name], markerfacecolor=face)
            _note(axis, f"{100 * value:+.1f}", (100 * high, y), (6, 0), left=True)
    axis.set_yticks(range(len(lines)), list(lines))
    axis.set(xlabel="difference (points of tasks solved)", ylim=(len(lines) - 0.5, -0.6))
    axis.margins(x=0.1)
    axis.grid(axis="y", visible=False)
    handles = [Line2D([], [], color=shades[name], marker="o", label=name) for name in names]
    figure.legend(handles=handles, loc="outside upper right", ncols=len(handles))
    return figure


def _note(axis: Any, text: str, at: tuple[float, float], by: tuple, *, left: bool = False) -> None:
    axis.annotate(
        text, at, by, textcoords="offset points", ha="left" if left else "center",
        va="center" if left else "bottom", fontsize=8, color="#333333",
    )  # fmt: skip
