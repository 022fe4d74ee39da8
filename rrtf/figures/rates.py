"""Rates and differences with their intervals, and who solves what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import TYPE_CHECKING

from rrtf.figures.style import COLOURS, PALETTE, canvas, colour

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def intervals(
    panels: Mapping[str, Sequence[tuple[str, float, float, float]]],
    *,
    label: str = "tasks solved (%)",
) -> Figure:
    """Rates with intervals, one panel per title, one line per (name, value, low, high).

    Values are shares in [0, 1] and shown in percent, the first row on top.
    """
    rows = max(len(lines) for lines in panels.values())
    figure, _ = canvas(
        1, len(panels), width=2.0 + 2.7 * len(panels), height=0.9 + 0.32 * rows, share_y=True
    )
    for axis, (title, lines) in zip(figure.axes, panels.items(), strict=True):
        for at, (name, value, low, high) in enumerate(lines):
            axis.plot([100 * low, 100 * high], [at, at], color=colour(name, at), linewidth=2.2)
            axis.plot(100 * value, at, "o", color=colour(name, at), markersize=6)
            axis.annotate(
                f"{100 * value:.1f}", (100 * value, at), (0, 5), textcoords="offset points",
                ha="center", fontsize=8, color="#333333",
            )  # fmt: skip
        axis.set(title=title, xlabel=label, ylim=(rows - 0.5, -0.7))
        axis.margins(x=0.12)
        axis.grid(axis="y", visible=False)
    figure.axes[0].set_yticks(range(rows), [line[0] for line in next(iter(panels.values()))])
    return figure


def differences(
    rows: Sequence[tuple[str, float, float, float]], *, margin: float = 0.0, title: str = ""
) -> Figure:
    """Paired differences (name, value, low, high) in points, zero and +-`margin` marked."""
    figure, axis = canvas(width=7.0, height=1.0 + 0.34 * len(rows))
    if margin:
        axis.axvspan(-100 * margin, 100 * margin, color="#EFEFEF", zorder=0)
        axis.annotate(
            f"within {100 * margin:g} points", (0, -0.62), ha="center", va="center", fontsize=7.5,
            color="#666666", bbox={"color": "#EFEFEF", "pad": 0.5},
        )  # fmt: skip
    axis.axvline(0, color="#333333", linewidth=1)
    for at, (_, value, low, high) in enumerate(rows):
        clear = low > 0 or high < 0
        axis.plot([100 * low, 100 * high], [at, at], color=PALETTE[0], linewidth=2.2)
        axis.plot(
            100 * value, at, "o", markersize=6.5, markeredgecolor=PALETTE[0],
            markerfacecolor=PALETTE[0] if clear else "white",
        )  # fmt: skip
        axis.annotate(
            f"{100 * value:+.1f}", (100 * high, at), (6, 0), textcoords="offset points",
            va="center", fontsize=8,
        )  # fmt: skip
    axis.set_yticks(range(len(rows)), [row[0] for row in rows])
    axis.set(title=title, xlabel="difference (points of tasks solved)", ylim=(len(rows) - 0.5, -1))
    axis.margins(x=0.1)
    axis.grid(axis="y", visible=False)
    return figure


def steps(
    start: tuple[str, float], parts: Sequence[tuple[str, float, float, float]], end: str
) -> Figure:
    """A waterfall from a first rate along (name, difference, low, high) to the last rate.

    Whiskers are the interval of each step on its own.
    """
    figure, axis = canvas(width=7.0, height=3.3)
    level, names = 100 * start[1], [start[0], *(part[0] for part in parts), end]
    axis.bar(0, level, color=COLOURS["base"], width=0.6)
    axis.annotate(f"{level:.1f}", (0, level), (0, 4), textcoords="offset points", ha="center")
    for at, (_, value, low, high) in enumerate(parts, start=1):
        rise = 100 * value
        axis.bar(at, rise, bottom=level, width=0.6, color=PALETTE[2] if rise >= 0 else PALETTE[5])
        axis.plot([at - 1.3, at + 0.3], [level, level], color="#999999", linewidth=0.8)
        axis.plot([at, at], [level + 100 * low, level + 100 * high], color="#222222")
        top = max(level + 100 * high, level + rise, level)
        axis.annotate(
            f"{rise:+.1f}\n[{100 * low:+.1f}, {100 * high:+.1f}]", (at, top), (0, 4),
            textcoords="offset points", ha="center", fontsize=8,
        )  # fmt: skip
        level += rise
    last = len(parts) + 1
    axis.plot([last - 1.3, last + 0.3], [level, level], color="#999999", linewidth=0.8)
    axis.bar(last, level, color=COLOURS["rrtf"], width=0.6)
    axis.annotate(f"{level:.1f}", (last, level), (0, 4), textcoords="offset points", ha="center")
    axis.set_xticks(range(last + 1), [name.replace(" (", "\n(") for name in names])
    axis.set(ylabel="tasks solved (%)")
    axis.margins(y=0.2)
    axis.set_ylim(bottom=0)
    axis.grid(axis="x", visible=False)
    return figure


def curves(
    lines: Mapping[str, Sequence[tuple[float, float]]], *, x_label: str, y_label: str
) -> Figure:
    """One line per name through its (x, y) points, named at its right end without overlap."""
    figure, axis = canvas(width=7.0, height=3.6)
    for at, (name, points) in enumerate(lines.items()):
        xs, ys = zip(*points, strict=True)
        axis.plot(xs, ys, "o-", color=colour(name, at), markersize=3, label=name)
    ends = {name: points[-1][1] for name, points in lines.items()}
    low, high = axis.get_ylim()
    for name, at in spread(ends, gap=0.055 * (high - low)).items():
        x, y = lines[name][-1]
        axis.annotate(
            name, (x, y), (1.02, at), textcoords=("axes fraction", "data"), va="center",
            fontsize=8.5, color=colour(name, list(lines).index(name)),
            arrowprops={"arrowstyle": "-", "color": "#BBBBBB", "linewidth": 0.7},
        )  # fmt: skip
    axis.set(xlabel=x_label, ylabel=y_label)
    return figure


def spread(heights: Mapping[str, float], *, gap: float) -> dict[str, float]:
    """Heights moved as little as needed to lie `gap` apart, order kept."""
    order = sorted(heights, key=lambda name: heights[name])
    blocks: list[list[str]] = []
    for name in order:
        blocks.append([name])
        while len(blocks) > 1 and _bottom(blocks[-1], heights, gap) < (
            _bottom(blocks[-2], heights, gap) + gap * len(blocks[-2])
        ):
            blocks[-2:] = [blocks[-2] + blocks[-1]]
    return {
        name: _bottom(block, heights, gap) + gap * at
        for block in blocks
        for at, name in enumerate(block)
    }


def _bottom(block: Sequence[str], heights: Mapping[str, float], gap: float) -> float:
    return sum(heights[name] for name in block) / len(block) - gap * (len(block) - 1) / 2


def stacked(
    counts: Mapping[str, Mapping[str, int]],
    order: Mapping[str, str],
    *,
    label: str = "share of answers (%)",
) -> Figure:
    """Shares per name as stacked bars; `order` maps each part to its colour, left to right.

    Parts of 5 % and more carry their number; white or black, whichever reads better. Parts that
    are empty in every row are left out of the legend.
    """
    used = {
        part: shade for part, shade in order.items() if any(c.get(part) for c in counts.values())
    }
    lines = -(-len(used) // LEGEND)
    figure, axis = canvas(width=7.0, height=0.9 + 0.2 * lines + 0.36 * len(counts))
    for at, found in enumerate(counts.values()):
        left, total = 0.0, sum(found.values())
        for part, shade in order.items():
            share = 100 * found.get(part, 0) / total
            axis.barh(at, share, left=left, color=shade, height=0.72)
            if share >= 5:
                ink = "white" if _dark(shade) else "#222222"
                axis.text(left + share / 2, at, f"{share:.0f}", ha="center", va="center", color=ink)
            left += share
    handles = [(part.replace("_", " ").lower(), shade) for part, shade in used.items()]
    _legend(figure, handles)
    axis.set_yticks(range(len(counts)), list(counts))
    axis.set(xlabel=label, xlim=(0, 100), ylim=(len(counts) - 0.5, -0.5))
    axis.grid(visible=False)
    return figure


LEGEND = 5  # parts in a row of the legend


def _dark(shade: str) -> bool:
    red, green, blue = (int(shade[i : i + 2], 16) for i in (1, 3, 5))
    return 0.299 * red + 0.587 * green + 0.114 * blue < 140


def _legend(figure: Figure, handles: Sequence[tuple[str, str]]) -> None:
    from matplotlib.patches import Patch

    patches = [Patch(color=shade, label=name) for name, shade in handles]
    figure.legend(handles=patches, loc="outside upper left", ncols=min(len(patches), LEGEND))


# Centres of the circles, places of the regions' numbers and of the names, for two and three.
CIRCLES = {
    2: ((-0.44, 0.0), (0.44, 0.0)),
    3: ((-0.42, 0.28), (0.42, 0.28), (0.0, -0.44)),
}
REGIONS: dict[int, dict[tuple[int, ...], tuple[float, float]]] = {
    2: {(0,): (-0.8, 0.0), (1,): (0.8, 0.0), (0, 1): (0.0, 0.0)},
    3: {
        (0,): (-0.86, 0.44), (1,): (0.86, 0.44), (2,): (0.0, -0.98), (0, 1): (0.0, 0.62),
        (0, 2): (-0.48, -0.24), (1, 2): (0.48, -0.24), (0, 1, 2): (0.0, 0.04),
    },
}  # fmt: skip
NAMES = {
    2: ((-0.85, 0.9, "bottom"), (0.85, 0.9, "bottom")),
    3: ((-0.85, 1.16, "bottom"), (0.85, 1.16, "bottom"), (0.0, -1.3, "top")),
}
NAME_WIDTH, TITLE_WIDTH = 20, 42  # characters of a line that fit beside another name, in a panel


def overlap(
    panels: Mapping[str, tuple[Sequence[str], Mapping[tuple[str, ...], int]]], *, columns: int = 2
) -> Figure:
    """Circles of two or three methods per panel, as Fig 5, `columns` panels in a row.

    `panels`: title -> (names, solvers -> number of tasks); `()` counts what none solves. Areas
    are not to scale; the numbers speak. ValueError for another number of names.
    """
    rows = -(-len(panels) // columns)
    wide = min(columns, len(panels))
    figure, _ = canvas(rows, wide, width=3.6 * wide, height=3.6 * rows)
    for axis in figure.axes[len(panels) :]:
        axis.axis("off")
    for axis, (title, (names, counts)) in zip(figure.axes, panels.items(), strict=False):
        if len(names) not in CIRCLES:
            raise ValueError(f"{title}: {len(names)} methods, expected two or three")
        _circles(axis, names, counts)
        shown = f"{title}, {sum(counts.values())} tasks"
        axis.set_title(fill(shown, TITLE_WIDTH))
    return figure


def _circles(axis: Axes, names: Sequence[str], counts: Mapping[tuple[str, ...], int]) -> None:
    from matplotlib.patches import Circle

    by_set = {frozenset(solvers): count for solvers, count in counts.items()}
    shades = _distinct(names)
    for centre, shade in zip(CIRCLES[len(names)], shades, strict=True):
        axis.add_patch(Circle(centre, 0.8, facecolor=shade, alpha=0.22, edgecolor="none"))
        axis.add_patch(Circle(centre, 0.8, fill=False, edgecolor=shade, linewidth=1.8))
    lines = 1
    for name, (x, y, side) in zip(names, NAMES[len(names)], strict=True):
        solved = sum(n for solvers, n in counts.items() if name in solvers)
        text = fill(f"{name} ({solved})", NAME_WIDTH)
        axis.text(x, y, text, ha="center", va=side, fontsize=9, fontweight="bold")
        lines = max(lines, text.count("\n") + 1)
    for members, (x, y) in REGIONS[len(names)].items():
        key = frozenset(names[i] for i in members)
        axis.text(x, y, str(by_set.get(key, 0)), ha="center", va="center", fontsize=10)
    low, high = (-1.5 - 0.16 * lines, 1.2) if len(names) == 3 else (-1.2, 0.95)
    axis.text(1.7, low, f"none: {by_set.get(frozenset(), 0)}", ha="right", va="bottom", fontsize=9)
    axis.set(xlim=(-1.75, 1.75), ylim=(low, high + 0.16 * lines))
    axis.set_aspect("equal")
    axis.axis("off")


def _distinct(names: Sequence[str]) -> list[str]:
    """The methods' colours; a colour that is already taken gives way to the palette's next."""
    found: list[str] = []
    for at, name in enumerate(names):
        free = [shade for shade in (colour(name, at), *PALETTE) if shade not in found]
        found.append(free[0])
    return found
