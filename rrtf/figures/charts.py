"""Every picture of the notebooks: rates, differences, counts, runs, the paper's figures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from statistics import mean, median
from textwrap import fill
from typing import TYPE_CHECKING, Any

from rrtf.figures.style import COLOURS, OUTCOME_COLOURS, PALETTE, canvas, colour

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from rrtf.stats import Estimate


SMOOTHED = 10  # updates of a running mean


def _rows(axis: Axes, names: Iterable[str], *, top: float = 0.6, bottom: float = 0.5) -> None:
    """A line for each name, the first on top."""
    names = list(names)
    axis.set_yticks(range(len(names)), names)
    axis.set_ylim(len(names) - bottom, -top)
    axis.grid(axis="y", visible=False)


def _reach(axis: Axes, y: float, span: Sequence[float], shade: str, *, filled: bool = True) -> None:
    """`span` (value, low, high) in percent, as a dot on its interval."""
    value, *ends = (100 * share for share in span)
    axis.plot(ends, [y, y], color=shade, linewidth=2.2)
    face = shade if filled else "white"
    axis.plot(value, y, "o", markersize=6, color=shade, markerfacecolor=face)


def _note(axis: Axes, text: str, at: tuple[float, float], by: tuple, *, left: bool = False) -> None:
    axis.annotate(
        text, at, by, textcoords="offset points", ha="left" if left else "center",
        va="center" if left else "bottom", fontsize=8, color="#333333",
    )  # fmt: skip


def _line_legend(figure: Figure, shades: Mapping[str, str], **style: Any) -> None:
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=shade, label=name, **style) for name, shade in shades.items()]
    figure.legend(handles=handles, loc="outside upper right", ncols=len(handles))


def intervals(
    panels: Mapping[str, Sequence[tuple[str, float, float, float]]], *, signed: bool = False
) -> Figure:
    """Rates with intervals, one panel per title, one line per (name, value, low, high).

    Values are shares in [0, 1] and shown in percent, the first row on top; where they are
    `signed`, they are differences in points, and zero is marked.
    """
    rows = max(len(lines) for lines in panels.values())
    size = {"width": 2.0 + 2.7 * len(panels), "height": 0.9 + 0.32 * rows}
    figure, _ = canvas(1, len(panels), **size, share_y=True)
    _rows(figure.axes[0], (line[0] for line in next(iter(panels.values()))), top=0.7)
    form, unit = ("+.1f", "difference (points)") if signed else (".1f", "tasks solved (%)")
    for axis, (title, lines) in zip(figure.axes, panels.items(), strict=True):
        if signed:
            axis.axvline(0, color="#333333", linewidth=1)
        for at, (name, *span) in enumerate(lines):
            _reach(axis, at, span, colour(name, at))
            _note(axis, f"{100 * span[0]:{form}}", (100 * span[0], at), (0, 5))
        least, most = (end(lines, key=lambda line: line[1]) for end in (min, max))
        ends = (f"{100 * line[1]:{form}} ({line[0]})" for line in (least, most))
        axis.set(title=f"{title}\n{' to '.join(ends)}", xlabel=unit)
        axis.margins(x=0.12)
        axis.grid(axis="y", visible=False)
    return figure


def differences(
    rows: Sequence[tuple[str, float, float, float, bool]], *, margin: float, title: str = ""
) -> Figure:
    """Paired differences (name, value, low, high, told apart) in points.

    Zero and +-`margin` are marked.
    A dot is filled where the difference is told apart from zero by the verdict of its table, which
    knows how many comparisons were made; an interval alone does not. `title` stands before what
    was found.
    """
    figure, axis = canvas(width=7.0, height=1.25 + 0.34 * len(rows))
    if margin:
        axis.axvspan(-100 * margin, 100 * margin, color="#EFEFEF", zorder=0)
        axis.annotate(
            f"within {100 * margin:g} points", (0, -0.62), ha="center", va="center", fontsize=7.5,
            color="#666666", bbox={"color": "#EFEFEF", "pad": 0.5},
        )  # fmt: skip
    axis.axvline(0, color="#333333", linewidth=1)
    for at, (_, *span, apart) in enumerate(rows):
        _reach(axis, at, span, PALETTE[0], filled=apart)
        _note(axis, f"{100 * span[0]:+.1f}", (100 * span[2], at), (6, 0), left=True)
    _rows(axis, (row[0] for row in rows), top=1)
    found = [f"{name} {100 * value:+.1f}" for name, value, *_, apart in rows if apart]
    said = ", ".join(found) if len(found) <= NAMED else f"{len(found)} of {len(rows)} differences"
    said = f"{said} told apart from zero" if found else "no difference is told apart from zero"
    axis.set_title(fill(f"{title}: {said}" if title else said, FULL_WIDTH))
    axis.set(
        xlabel="difference (points of tasks solved); filled: told apart after Holm's correction"
    )
    axis.margins(x=0.1)
    return figure


NAMED, FULL_WIDTH = 3, 88  # names that a title holds; characters of a title over the whole width


def steps(
    start: tuple[str, float], parts: Sequence[tuple[str, float, float, float]], end: str
) -> Figure:
    """A waterfall from a first rate along (name, difference, low, high) to the last rate.

    Whiskers are the interval of each step on its own.
    """
    figure, axis = canvas(width=7.0, height=3.3)
    level, names = 100 * start[1], [start[0], *(part[0] for part in parts), end]
    axis.bar(0, level, color=COLOURS["base"], width=0.6)
    _note(axis, f"{level:.1f}", (0, level), (0, 4))
    for at, (_, value, low, high) in enumerate(parts, start=1):
        rise = 100 * value
        axis.bar(at, rise, bottom=level, width=0.6, color=PALETTE[2] if rise >= 0 else PALETTE[5])
        axis.plot([at - 1.3, at + 0.3], [level, level], color="#999999", linewidth=0.8)
        axis.plot([at, at], [level + 100 * low, level + 100 * high], color="#222222")
        top = max(level + 100 * high, level + rise, level)
        _note(axis, f"{rise:+.1f}\n[{100 * low:+.1f}, {100 * high:+.1f}]", (at, top), (0, 4))
        level += rise
    last = len(parts) + 1
    axis.plot([last - 1.3, last + 0.3], [level, level], color="#999999", linewidth=0.8)
    axis.bar(last, level, color=COLOURS["rrtf"], width=0.6)
    _note(axis, f"{level:.1f}", (last, level), (0, 4))
    axis.set_xticks(range(last + 1), [name.replace(" (", "\n(") for name in names])
    most = max(parts, key=lambda part: abs(part[1]), default=("", 0.0, 0.0, 0.0))
    said = f"{start[0]} to {end}: {level - 100 * start[1]:+.1f} points"
    said += f", of which {most[0].partition(' (')[0]} {100 * most[1]:+.1f}" * bool(parts)
    axis.set(title=said, ylabel="tasks solved (%)")
    axis.margins(y=0.2)
    axis.set_ylim(bottom=0)
    axis.grid(axis="x", visible=False)
    return figure


def curves(
    lines: Mapping[str, Sequence[tuple[float, float]]],
    *,
    x_label: str,
    y_label: str,
    against: str = "",
) -> Figure:
    """One line per name through its (x, y) points, named at its right end without overlap.

    With `against`, the name of one of them, differences to that line, which is zero then.
    """
    figure, axis = canvas(width=7.0, height=3.6)
    if against in lines:
        zero = dict(lines[against])
        lines = {name: [(x, y - zero[x]) for x, y in points] for name, points in lines.items()}
        y_label = f"{y_label}, above {against}"
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
    widths = []
    for at in (0, -1):
        ys = {name: points[at][1] for name, points in lines.items()}
        widths.append(f"{max(ys.values()) - min(ys.values()):.1f}")
    (first, _), (last, _) = (next(iter(lines.values()))[at] for at in (0, -1))
    said = f"best and worst lie {widths[0]} apart at {x_label} = {first:g}"
    axis.set(title=f"{said}, {widths[1]} at {last:g}", xlabel=x_label, ylabel=y_label)
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


def stacked(counts: Mapping[str, Mapping[str, int]], order: Mapping[str, str]) -> Figure:
    """Shares of answers per name as stacked bars.

    `order` maps each part to its colour, left to right. Parts of 5 % and more carry their number;
    white or black, whichever reads better. Parts that are empty in every row are left out of the
    legend.
    """
    from matplotlib.patches import Patch

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
    patches = [Patch(color=shade, label=part.replace("_", " ").lower())
               for part, shade in used.items()]  # fmt: skip
    figure.legend(handles=patches, loc="outside upper left", ncols=min(len(patches), LEGEND))
    _rows(axis, counts, top=0.5)
    axis.set(title=_widest(counts), xlabel="share of answers (%)", xlim=(0, 100))
    axis.grid(visible=False)
    return figure


def _widest(counts: Mapping[str, Mapping[Any, float]]) -> str:
    """Where the rows differ most, as a title: the part with its smallest and largest share."""
    shares: dict[Any, list[tuple[float, str]]] = {}
    for part in {part: 0 for found in counts.values() for part in found}:
        shares[part] = sorted(
            (100 * found.get(part, 0) / (sum(found.values()) or 1), name)
            for name, found in counts.items()
        )
    if not shares:
        return ""
    part = max(shares, key=lambda one: shares[one][-1][0] - shares[one][0][0])
    (low, least), (high, most) = shares[part][0], shares[part][-1]
    name = str(part).replace("_", " ").lower()
    return f"widest apart in {name}: {low:.0f} % ({least}) to {high:.0f} % ({most})"


LEGEND = 5  # parts in a row of the legend


def _dark(shade: str) -> bool:
    red, green, blue = (int(shade[i : i + 2], 16) for i in (1, 3, 5))
    return 0.299 * red + 0.587 * green + 0.114 * blue < 140


# Centres of the circles, places of the regions' numbers and of the names, for two and three.
CIRCLES = {2: ((-0.44, 0.0), (0.44, 0.0)), 3: ((-0.42, 0.28), (0.42, 0.28), (0.0, -0.44))}
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


def grouped_bars(
    groups: Mapping[str, Mapping[Any, float]], x_label: str, y_label: str, *, share: bool = False
) -> Figure:
    """Bars side by side: for every key of the inner mappings, one bar per group.

    With `share` every group's bars are fractions of the group's total, so that groups of
    different sizes compare.
    """
    keys = list(dict.fromkeys(key for counts in groups.values() for key in counts))
    keys = sorted(keys) if all(isinstance(key, int) for key in keys) else keys
    figure, axes = canvas(width=6.5, height=2.6)
    width = 0.8 / max(1, len(groups))
    for place, (name, counts) in enumerate(groups.items()):
        total = sum(counts.values()) or 1
        heights = [counts.get(key, 0) / (total if share else 1) for key in keys]
        left = [i - 0.4 + (place + 0.5) * width for i in range(len(keys))]
        axes.bar(left, heights, width * 0.92, label=name, color=colour(name, place))
    axes.set_xticks(range(len(keys)), [str(key) for key in keys])
    said = _widest(groups) if share and len(groups) > 1 else ""
    axes.set(title=said, xlabel=x_label, ylabel=f"share of {y_label}" if share else y_label)
    axes.legend()
    return figure


def found_and_chance(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Pairs per detector, leaks and chance apart; the axis is log-like.

    `rows` as `audit.views.detector_rows` makes them.
    """
    figure, axes = canvas(width=7.0, height=0.32 * len(rows) + 0.9)
    for offset, name, shade in ((-0.2, "leaks", PALETTE[5]), (0.2, "chance", PALETTE[7])):
        places = [at + offset for at in range(len(rows))]
        bars = axes.barh(places, [row[name] for row in rows], 0.38, color=shade, label=name)
        axes.bar_label(bars, padding=3, fontsize=8)
    axes.set_xscale("symlog", linthresh=10)
    _rows(axes, (row["detector"] for row in rows), top=0.5)
    leaks, chance = (max(rows, key=lambda row: row[name]) for name in ("leaks", "chance"))
    said = f"most leaks: {leaks['detector']} ({leaks['leaks']})" if leaks["leaks"] else "no leak"
    said += f"; most by chance: {chance['detector']} ({chance['chance']})" * bool(chance["chance"])
    axes.set(title=said, xlabel="pairs of a training row and a held-out task")
    axes.margins(x=0.1)
    axes.legend(loc="upper right")
    return figure


def heat(names: Sequence[str], counts: Sequence[Sequence[int]], label: str) -> Figure:
    """A square matrix (D, D) of counts, each written in its cell; colour is logarithmic."""
    from math import log1p

    figure, axes = canvas(width=5.6, height=4.4)
    top = log1p(max((max(row) for row in counts), default=0)) or 1.0
    axes.imshow([[log1p(n) / top for n in row] for row in counts], cmap="Blues", vmin=0, vmax=1)
    for y, row in enumerate(counts):
        for x, count in enumerate(row):
            ink = "white" if log1p(count) / top > 0.6 else "#333333"
            axes.text(x, y, str(count), ha="center", va="center", fontsize=8, color=ink)
    axes.set_xticks(range(len(names)), list(names), rotation=40, ha="right")
    axes.set_yticks(range(len(names)), list(names))
    both = [(counts[y][x], names[y], names[x]) for y in range(len(names)) for x in range(y)]
    most = max(both, default=(0, "", ""))
    axes.set_title(f"{label}: most by {most[1]} and {most[2]} ({most[0]})" if most[0] else label)
    axes.grid(visible=False)
    return figure


def verdicts(rows: Mapping[str, Mapping[str, str]], *, title: str) -> Figure:
    """A map of verdicts: a row for each program, a column for each grader; `FOOLED` is dark."""
    columns = list(dict.fromkeys(name for row in rows.values() for name in row))
    figure, axis = canvas(width=2.4 + 1.05 * len(columns), height=1.2 + 0.24 * len(rows))
    shades = {"FOOLED": OUTCOME_COLOURS["COMPILE_ERROR"], "error": "#C9CED6"}
    for y, row in enumerate(rows.values()):
        for x, name in enumerate(columns):
            shade = shades.get(row[name], "#E3EEF7")
            axis.add_patch(_tile((x - 0.48, y - 0.45), shade, 1.0))
            said = {"FOOLED": "fooled", "no": ""}.get(row[name], row[name])
            ink = "white" if row[name] == "FOOLED" else "#333333"
            axis.text(x, y, said, ha="center", va="center", fontsize=8, color=ink)
    axis.set_xticks(range(len(columns)), [name.replace(" (", "\n(") for name in columns])
    axis.set_yticks(range(len(rows)), list(rows))
    axis.xaxis.tick_top()
    axis.set(xlim=(-0.5, len(columns) - 0.5), ylim=(len(rows) - 0.5, -0.5), title=title)
    axis.grid(visible=False)
    axis.tick_params(length=0, labelsize=8)
    return figure


def words_and_behaviour(neighbours: Sequence[Any]) -> Figure:
    """A dot per row of `audit.views.nearest`: likeness of words against likeness of behaviour."""
    figure, axes = canvas(width=6.0, height=3.2)
    for same, name in ((False, "other function"), (True, "same function")):
        dots = [n for n in neighbours if (n.agreement == 1.0) == same]
        axes.scatter(
            [n.resemblance for n in dots], [n.agreement for n in dots], s=16,
            alpha=0.9 if same else 0.35, color=PALETTE[5] if same else PALETTE[0],
            label=f"{name} ({len(dots)})", linewidths=0,
        )  # fmt: skip
    same = [n.resemblance for n in neighbours if n.agreement == 1.0]
    few = sum(words < 0.5 for words in same)
    said = f"{few} of {len(same)} rows of the same function share less than half of the words"
    axes.set(title=said, xlabel="words in common (Jaccard)", ylabel="equal outputs")
    axes.set_xlim(-0.02, 1.02)
    axes.legend(loc="lower right")
    return figure


def histograms(
    groups: Mapping[str, Sequence[float]], label: str, *, of: str = "answers", bins: int = 30
) -> Figure:
    """Outlined histograms over common bins, each as a share of its own group (of answers, say)."""
    figure, axes = canvas(width=6.5, height=2.6)
    top = max((value for values in groups.values() for value in values), default=1)
    edges = [top * at / bins for at in range(bins + 1)]
    for place, (name, values) in enumerate(groups.items()):
        weights = [1 / len(values) for _ in values]
        style = {"histtype": "step", "linewidth": 1.5, "color": colour(name, place)}
        axes.hist(values, bins=edges, weights=weights, label=name, **style)
    middles = [f"{name} {median(values):.3g}" for name, values in groups.items() if values]
    axes.set(title=f"median: {', '.join(middles)}", xlabel=label, ylabel=f"share of {of}")
    axes.legend()
    return figure


def paired(names: Sequence[str], cells: Mapping[tuple[str, str], str]) -> Figure:
    """Differences in points of the row over the column, names by rank; blue is told apart.

    `cells`: (better, other) -> text as `evaluate.results.matrix` gives it, with `*` for told
    apart and `=` for equal within the margin; what is neither stays white.
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
    apart, equal = (sum(text.endswith(mark) for text in cells.values()) for mark in "*=")
    axis.set_title(f"{apart} of {len(cells)} pairs told apart, {equal} equal within the margin")
    axis.set_xlabel(f"{side} is {names[-1]}; * told apart, = equal within the margin")
    axis.grid(visible=False)
    axis.tick_params(length=0)
    return figure


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
    _note(axis, f"{alpha:g}", (alpha, len(rows) - 0.4), (10, 0))
    _rows(axis, (row[0] for row in rows), bottom=0.4)
    axis.set(xlabel="p after Holm, from smallest to largest possible", xscale="log",
             xlim=(floor / 2, 1.6))  # fmt: skip
    there = Counter(row[3] for row in rows)
    axis.set_title(
        ", ".join(f"{n} {kind}" for kind, n in there.items()) + f", of {len(rows)} tests"
    )
    _line_legend(figure, {k: v for k, v in SHADES.items() if k in there}, linewidth=3)
    return figure


def data_sizes(rows: Sequence[Mapping[str, Any]], *, stated_batch: int) -> Figure:
    """Best rate with its interval, steps per epoch and implied batch, one line per data size.

    `rows` as `paper.printed.size_rows` makes them; the stated batch is a line.
    """
    figure, _ = canvas(1, 3, width=7.6, height=0.9 + 0.42 * len(rows), share_y=True)
    rates, steps, batches = figure.axes
    _rows(rates, (row["data"] for row in rows), top=0.7, bottom=0.4)
    for at, row in enumerate(rows):
        _reach(rates, at, (row["best %"] / 100, row["low"], row["high"]), PALETTE[0])
        _note(rates, f"{row['best %']:.1f}", (row["best %"], at), (0, 6))
    bars = (steps, "steps per epoch", PALETTE[4]), (batches, "implied batch", PALETTE[5])
    for axis, name, shade in bars:
        values = [row[name] for row in rows]
        axis.barh(range(len(rows)), values, color=shade, height=0.5)
        for at, value in enumerate(values):
            _note(axis, f"{value:,}", (value, at), (4, 0), left=True)
        axis.set(title=name, xlim=(1, 20 * max(values)), xscale="log")
        axis.grid(axis="y", visible=False)
    batches.axvline(stated_batch, color="#333333", linewidth=1, linestyle=":")
    implied = sorted(row["implied batch"] for row in rows)
    said = f"the steps imply batches of {implied[0]:,} to {implied[-1]:,}; stated: {stated_batch:,}"
    figure.suptitle(said, fontsize=10)
    rates.set(title="HumanEval, best point (%)")
    rates.margins(x=0.15)
    return figure


def answers(lines: Mapping[str, Mapping[str, tuple[float, float, float]]]) -> Figure:
    """Question -> whose answer -> (difference, low, high), in points, zero marked.

    Shares in [0, 1]; a hollow dot is an interval that holds zero. Each answerer has one colour.
    """
    figure, axis = canvas(width=7.6, height=1.0 + 0.45 * len(lines))
    names = list(dict.fromkeys(name for line in lines.values() for name in line))
    shades = {name: (PALETTE[1], PALETTE[0])[at % 2] for at, name in enumerate(names)}
    axis.axvline(0, color="#333333", linewidth=1)
    for at, line in enumerate(lines.values()):
        for name, span in line.items():
            y = at + 0.3 * names.index(name) - 0.15
            _reach(axis, y, span, shades[name], filled=span[1] > 0 or span[2] < 0)
            _note(axis, f"{100 * span[0]:+.1f}", (100 * span[2], y), (6, 0), left=True)
    _rows(axis, lines)
    above = [f"{sum(line[name][1] > 0 for line in lines.values() if name in line)} ({name})"
             for name in names]  # fmt: skip
    axis.set_title(f"intervals above zero, of {len(lines)} questions: {', '.join(above)}")
    axis.set(xlabel="difference (points of tasks solved); filled: its own interval excludes zero")
    axis.margins(x=0.1)
    _line_legend(figure, shades, marker="o")
    return figure


def by_update(
    lines: Mapping[str, Sequence[tuple[int, float]]],
    *,
    y_label: str,
    zero: bool = False,
    over: int = SMOOTHED,
) -> Figure:
    """One quantity over the updates, a line per method: the mean of its runs in their range.

    Runs are shown as running means over `over` of their values, short ones over a third.
    """
    figure, axis = canvas(width=7.0, height=3.2)
    for at, (method, runs) in enumerate(_of_methods(lines).items()):
        shade = colour(method, at)
        xs, means, lows, highs = _band([_smooth(points, over) for points in runs])
        axis.fill_between(xs, lows, highs, color=shade, alpha=0.2, linewidth=0)
        axis.plot(xs, means, color=shade, label=method, linestyle=("-", "--")[at % 2])
    falls = [
        f"{name} {first:.3g} to {last:.3g}" for name, (first, last) in ends(lines, over).items()
    ]
    axis.set_title(fill("; ".join(falls), FULL_WIDTH), fontsize=8.5)
    axis.set(xlabel="update", ylabel=y_label)
    if zero:
        axis.set_ylim(bottom=0)
    axis.legend(ncols=3)
    return figure


def ends(
    lines: Mapping[str, Sequence[tuple[int, float]]], over: int = SMOOTHED
) -> dict[str, tuple[float, float]]:
    """Method -> (first, last) of the mean line that `by_update` draws of its runs."""
    found = {}
    for method, runs in _of_methods(lines).items():
        _, means, *_ = _band([_smooth(points, over) for points in runs])
        found[method] = means[0], means[-1]
    return found


def apart_by_update(
    lines: Mapping[str, Sequence[tuple[int, float]]], a: str, b: str, *, y_label: str
) -> Figure:
    """How far two methods lie apart at each update: a - b, mean and range over common seeds.

    For quantities whose lines would lie on each other. The title gives the largest mean difference
    beside the quantity's own mean.
    """
    figure, axis = canvas(width=7.0, height=2.6)
    pairs = zip(*(_of_methods(lines).get(name, []) for name in (a, b)), strict=False)
    gaps = [
        [(x, one - other) for (x, one), (_, other) in zip(*map(_smooth, pair), strict=True)]
        for pair in pairs
    ]
    axis.axhline(0, color="#333333", linewidth=1)
    if gaps:
        xs, means, lows, highs = _band(gaps)
        axis.fill_between(xs, lows, highs, color=PALETTE[0], alpha=0.25, linewidth=0)
        axis.plot(xs, means, color=PALETTE[0])
        own = [y for run in _of_methods(lines)[b] for _, y in run]
        most = max(means, key=abs)
        axis.set_title(
            f"{a} and {b} differ by {most:+.2g} at most; {b} has {mean(own):.2g} on average"
        )
    axis.set(xlabel="update", ylabel=f"{y_label}: {a} - {b}")
    return figure


Points = Sequence[tuple[int, float]]  # (update, value)


def _of_methods(lines: Mapping[str, Points]) -> dict[str, list[Points]]:
    found: dict[str, list[Points]] = {}
    for run, points in lines.items():
        found.setdefault(run.rsplit("-s", 1)[0], []).append(points)
    return found


def _smooth(points: Points, over: int = SMOOTHED) -> list[tuple[int, float]]:
    """Running means over `over` values, or over a third of a short run."""
    ys = [y for _, y in points]
    span = max(1, min(over, len(ys) // 3))
    ends = range(span, len(ys) + 1)
    return [(points[end - 1][0], mean(ys[end - span : end])) for end in ends]


def _band(runs: Sequence[Points]) -> tuple[list, list, list, list]:
    """x, and mean, least and largest y of runs over the same updates."""
    columns = [[y for _, y in column] for column in zip(*runs, strict=False)]
    xs = [x for x, _ in runs[0]][: len(columns)]
    return xs, *([end(column) for column in columns] for end in (mean, min, max))


def hinge(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """L_rank of pairs against p_tea - p_stu: each pair a dot on the line of its score weight.

    `rows` as `explain.hinge_rows` makes them. Right of zero every line is zero.
    """
    figure, axis = canvas(width=6.5, height=2.8)
    gaps = [row["p_tea - p_stu"] for row in rows]
    reach = 1.3 * max([abs(gap) for gap in gaps] + [0.1])
    for at, row in enumerate(rows):
        weight, gap = row["r_tea - r_stu"], row["p_tea - p_stu"]
        shade = OUTCOME_COLOURS.get(row["student"], PALETTE[at % len(PALETTE)])
        axis.plot([-reach, 0, reach], [weight * reach, 0, 0], color=shade, alpha=0.4)
        label = f"{row['student']}, weight {weight:g}"
        axis.plot([gap], [row["L_rank"]], "o", color=shade, label=label, zorder=3)
    axis.axvline(0, color="#999999", linewidth=0.8)
    wrong = sum(gap < 0 for gap in gaps)
    said = f"{wrong} of {len(rows)} pairs are in the wrong order and push; the others are silent"
    axis.set(title=said, xlabel="p_tea - p_stu (nats per token)", ylabel="L_rank of the pair")
    axis.legend(title="student's situation")
    return figure


def loss_curve(points: Sequence[tuple[int, float]], x_label: str, y_label: str) -> Figure:
    """(step, loss) pairs as a line of running means over 1 % of the points."""
    figure, axes = canvas(width=6.5, height=2.6)
    window = max(1, len(points) // 100)
    chunks = [points[i : i + window] for i in range(0, len(points), window)]
    steps = [chunk[-1][0] for chunk in chunks]
    means = [mean(loss for _, loss in chunk) for chunk in chunks]
    axes.plot(steps, means, color=PALETTE[0])
    said = f"from {means[0]:.3g} to {means[-1]:.3g}" if means else ""
    axes.set(title=said, xlabel=x_label, ylabel=y_label)
    return figure


def by_rate(rows: Sequence[Mapping[str, Any]], *, base: float) -> Figure:
    """pass@1 over the learning rate, one line per method and variant; the base as a grey line.

    Rows hold `method`, `variant`, `learning_rate` and `pass@1`.
    """
    figure, axes = canvas(width=6.5, height=3.0)
    lines: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for row in rows:
        key = (row["method"], row["variant"])
        lines.setdefault(key, []).append((row["learning_rate"], row["pass@1"]))
    dashes = ["-", "--", ":", "-."]
    seen: dict[str, int] = {}
    order = list(dict.fromkeys(method for method, _ in lines))
    for (method, variant), points in lines.items():
        place = seen[method] = seen.get(method, -1) + 1
        xs, ys = zip(*sorted(points), strict=True)
        label = f"{method} ({variant})" if variant else method
        axes.plot(
            xs,
            ys,
            dashes[place % 4],
            marker="o",
            color=colour(method, order.index(method)),
            label=label,
        )
    axes.axhline(base, color=colour("base"), linewidth=1, label="base")
    best = max(rows, key=lambda row: row["pass@1"])
    said = f"best: {best['method']} {best['variant']} at {best['learning_rate']:g}"
    axes.set_title(f"{said}, {100 * best['pass@1']:.1f} % (base {100 * base:.1f} %)")
    axes.set(xscale="log", xlabel="learning rate", ylabel="pass@1 on validation")
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def along(lines: Mapping[str, Mapping[float, Estimate]], label: str) -> Figure:
    """pass@1 in percent along an axis, a line with its intervals for each name."""
    figure, axis = canvas(width=6.5, height=3.2)
    for at, (name, points) in enumerate(lines.items()):
        places = sorted(points)
        values, lows, highs = (
            [100 * getattr(points[place], part) for place in places]
            for part in ("value", "low", "high")
        )
        shade = PALETTE[at % len(PALETTE)]
        axis.fill_between(places, lows, highs, color=shade, alpha=0.12, linewidth=0)
        axis.plot(places, values, marker="o", color=shade, label=name)
    axis.set(xlabel=label, ylabel="pass@1, %")
    axis.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def by_kind(
    kinds: Mapping[str, Mapping[str, Estimate]],
    objectives: Iterable[str],
    *,
    base: float,
    title: str = "",
) -> Figure:
    """A map: a row for each kind of data, a column for each objective, in it the share solved.

    In percent, above half the width of its interval; the darker, the further above `base`.
    """
    columns = [name for name in objectives if any(name in row for row in kinds.values())]
    size = {"width": 1.7 + 0.82 * len(columns), "height": 1.1 + 0.5 * len(kinds)}
    figure, axis = canvas(**size)
    best = max(found.value for row in kinds.values() for found in row.values())
    for at, row in enumerate(kinds.values()):
        for name, found in row.items():
            share = max(0.0, (found.value - base) / (best - base)) if best > base else 0.0
            place, ink = columns.index(name), "white" if share > 0.6 else "#222222"
            corner = (place - 0.5, at - 0.5)
            axis.add_patch(_tile(corner, PALETTE[0], share))
            axis.text(place, at - 0.1, f"{100 * found.value:.1f}", ha="center", va="center",
                      color=ink, fontsize=10)  # fmt: skip
            axis.text(place, at + 0.26, f"± {50 * (found.high - found.low):.1f}", ha="center",
                      va="center", color=ink, fontsize=7)  # fmt: skip
    _rows(axis, kinds, top=0.5)
    axis.set_xticks(range(len(columns)), [fill(name, 11) for name in columns])
    axis.set_xlim(-0.5, len(columns) - 0.5)
    axis.tick_params(length=0, labeltop=True, labelbottom=False)
    axis.grid(visible=False)
    axis.spines[:].set_visible(False)
    axis.set_title(fill(title, FULL_WIDTH), pad=10)
    return figure


def _tile(corner: tuple[float, float], shade: str, opacity: float) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle(corner, 1, 1, facecolor=(shade, opacity), edgecolor="white", linewidth=2)
