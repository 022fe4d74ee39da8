"""Every picture and table of the notebooks: values in, a matplotlib Figure or an HTML table out.

One quiet style, one palette that colour-blind readers can tell apart (Okabe and Ito, 2008), one
colour per method wherever it appears.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

from rrtf import similarity

if TYPE_CHECKING:
    from IPython.display import HTML
    from matplotlib.figure import Figure

PALETTE = (
    "#0072B2",  # blue
    "#E69F00",  # orange
    "#009E73",  # green
    "#CC79A7",  # pink
    "#56B4E9",  # sky
    "#D55E00",  # vermilion
    "#F0E442",  # yellow
    "#7F7F7F",  # grey
)
COLOURS = {
    "base": "#A8A8A8",
    "teacher": "#444444",
    "sft": "#E69F00",
    "sft-kept": "#56B4E9",
    "sft-verified": "#009E73",
    "rrhf": "#CC79A7",
    "dpo": "#D55E00",
    "rrtf": "#0072B2",
}
OUTCOME_COLOURS = {
    "COMPILE_ERROR": "#8A2D00",
    "RUNTIME_ERROR": "#E69F00",
    "FAILED_TESTS": "#A6D4EE",
    "PASS": "#0072B2",
}
STYLE = {
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "axes.labelsize": 9,
    "figure.dpi": 110,
    "font.size": 9,
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.8,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "lines.linewidth": 1.5,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
}
TABLE_CSS = (
    "<style>.rrtf-table{border-collapse:collapse;font-size:90%;margin:.4em 0}"
    ".rrtf-table caption{text-align:left;font-weight:600;padding:.2em 0}"
    ".rrtf-table th{text-align:left;border-bottom:1.5px solid #888;padding:.2em .8em .2em 0}"
    ".rrtf-table td{text-align:left;vertical-align:top;border-bottom:1px solid #e3e3e3;"
    "padding:.2em .8em .2em 0}.rrtf-table .number{text-align:right;"
    "font-variant-numeric:tabular-nums}.rrtf-table pre{margin:0;font-size:95%}</style>"
)


def colour(name: str, position: int = 0) -> str:
    """The colour of a method (`rrtf`, also in `rrtf seed 2`), else the palette's `position`."""
    for word in (name, *name.split()):
        if word in COLOURS:
            return COLOURS[word]
    return PALETTE[position % len(PALETTE)]


def canvas(
    n_rows: int = 1,
    n_columns: int = 1,
    *,
    width: float = 7.0,
    height: float = 3.2,
    share_y: bool = False,
) -> tuple[Figure, Any]:
    """An empty figure of `width` x `height` inches in the common style, and its axes.

    The figure is closed for pyplot, so that a notebook shows it once: as a cell's value.
    """
    import matplotlib.pyplot as plt

    plt.rcParams.update(STYLE)
    figure, axes = plt.subplots(
        n_rows, n_columns, figsize=(width, height), layout="constrained", sharey=share_y
    )
    plt.close(figure)
    return figure, axes


def table(rows: Sequence[Mapping[str, Any]], *, caption: str = "", digits: int = 3) -> HTML:
    """Rows as an HTML table: columns in order of first appearance, numbers right-aligned.

    Floats are shown with `digits` decimals, texts of several lines as code, None as a dash.
    """
    from IPython.display import HTML

    columns = list(dict.fromkeys(name for row in rows for name in row))
    head = "".join(f"<th>{escape(str(name))}</th>" for name in columns)
    body = "".join(
        "<tr>" + "".join(_cell(row.get(name, ""), digits) for name in columns) + "</tr>"
        for row in rows
    )
    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    return HTML(
        f'{TABLE_CSS}<table class="rrtf-table">{title}<thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table>"
    )


def _cell(value: Any, digits: int) -> str:
    if value is None or (isinstance(value, float) and value != value):
        return "<td>–</td>"
    if isinstance(value, bool):
        return f"<td>{'yes' if value else 'no'}</td>"
    if isinstance(value, Integral):
        return f'<td class="number">{int(value)}</td>'
    if isinstance(value, Real):
        return f'<td class="number">{float(value):.{digits}f}</td>'
    text = escape(str(value))
    return f"<td><pre>{text}</pre></td>" if "\n" in text else f"<td>{text}</td>"


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

    Parts of 5 % and more carry their number; white or black, whichever reads better.
    """
    figure, axis = canvas(width=7.0, height=1.1 + 0.36 * len(counts))
    for at, found in enumerate(counts.values()):
        left, total = 0.0, sum(found.values())
        for part, shade in order.items():
            share = 100 * found.get(part, 0) / total
            axis.barh(at, share, left=left, color=shade, height=0.72)
            if share >= 5:
                ink = "white" if _dark(shade) else "#222222"
                axis.text(left + share / 2, at, f"{share:.0f}", ha="center", va="center", color=ink)
            left += share
    handles = [(part.replace("_", " ").lower(), shade) for part, shade in order.items()]
    _legend(figure, handles)
    axis.set_yticks(range(len(counts)), list(counts))
    axis.set(xlabel=label, xlim=(0, 100), ylim=(len(counts) - 0.5, -0.5))
    axis.grid(visible=False)
    return figure


def _dark(shade: str) -> bool:
    red, green, blue = (int(shade[i : i + 2], 16) for i in (1, 3, 5))
    return 0.299 * red + 0.587 * green + 0.114 * blue < 140


def _legend(figure: Figure, handles: Sequence[tuple[str, str]]) -> None:
    from matplotlib.patches import Patch

    patches = [Patch(color=shade, label=name) for name, shade in handles]
    figure.legend(handles=patches, loc="outside upper left", ncols=len(patches))


CIRCLES = ((-0.42, 0.28), (0.42, 0.28), (0.0, -0.44))
REGIONS = {
    (0,): (-0.86, 0.44), (1,): (0.86, 0.44), (2,): (0.0, -0.98), (0, 1): (0.0, 0.62),
    (0, 2): (-0.48, -0.24), (1, 2): (0.48, -0.24), (0, 1, 2): (0.0, 0.04),
}  # fmt: skip


def overlap(panels: Mapping[str, tuple[Sequence[str], Mapping[tuple[str, ...], int]]]) -> Figure:
    """Three circles per panel: title -> (three names, solvers -> number of tasks), as Fig 5.

    Areas are not to scale; the numbers speak. `()` counts the tasks that none solves.
    """
    from matplotlib.patches import Circle

    figure, _ = canvas(1, len(panels), width=3.6 * len(panels), height=3.7)
    for axis, (title, (names, counts)) in zip(figure.axes, panels.items(), strict=True):
        total = sum(counts.values())
        by_set = {frozenset(solvers): count for solvers, count in counts.items()}
        for at, ((x, y), name) in enumerate(zip(CIRCLES, names, strict=True)):
            shade = colour(name, at)
            axis.add_patch(Circle((x, y), 0.8, facecolor=shade, alpha=0.22, edgecolor="none"))
            axis.add_patch(Circle((x, y), 0.8, fill=False, edgecolor=shade, linewidth=1.8))
            solved = sum(n for solvers, n in counts.items() if name in solvers)
            place = ((-0.95, 1.22, "center"), (0.95, 1.22, "center"), (0.0, -1.38, "center"))[at]
            axis.text(
                place[0], place[1], f"{name} ({solved})", ha=place[2], va="center", fontsize=9,
                fontweight="bold",
            )  # fmt: skip
        for members, (x, y) in REGIONS.items():
            key = frozenset(names[i] for i in members)
            axis.text(x, y, str(by_set.get(key, 0)), ha="center", va="center", fontsize=10)
        axis.text(1.62, -1.2, f"none: {counts.get((), 0)}", ha="right", fontsize=9)
        axis.set(title=f"{title}, {total} tasks", xlim=(-1.65, 1.65), ylim=(-1.55, 1.4))
        axis.set_aspect("equal")
        axis.axis("off")
    return figure


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
    axes.set_xlabel(x_label)
    axes.set_ylabel(f"share of {y_label}" if share else y_label)
    axes.legend()
    return figure


def found_and_chance(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Pairs per detector of `audit.detector_rows`, leaks and chance apart; the axis is log-like."""
    figure, axes = canvas(width=7.0, height=0.32 * len(rows) + 0.9)
    for offset, name, shade in ((-0.2, "leaks", PALETTE[5]), (0.2, "chance", PALETTE[7])):
        places = [at + offset for at in range(len(rows))]
        bars = axes.barh(places, [row[name] for row in rows], 0.38, color=shade, label=name)
        axes.bar_label(bars, padding=3, fontsize=8)
    axes.set_xscale("symlog", linthresh=10)
    axes.set_yticks(range(len(rows)), [row["detector"] for row in rows])
    axes.set(xlabel="pairs of a training row and a held-out task", ylim=(len(rows) - 0.5, -0.5))
    axes.margins(x=0.1)
    axes.grid(visible=False, axis="y")
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
    axes.set_title(label)
    axes.grid(visible=False)
    return figure


def words_and_behaviour(neighbours: Sequence[Any]) -> Figure:
    """A dot per row of `audit.nearest`: likeness of words against likeness of behaviour."""
    figure, axes = canvas(width=6.0, height=3.2)
    for same, name in ((False, "other function"), (True, "same function")):
        dots = [n for n in neighbours if (n.agreement == 1.0) == same]
        axes.scatter(
            [n.resemblance for n in dots], [n.agreement for n in dots], s=16,
            alpha=0.9 if same else 0.35, color=PALETTE[5] if same else PALETTE[0],
            label=f"{name} ({len(dots)})", linewidths=0,
        )  # fmt: skip
    axes.set(xlim=(-0.02, 1.02), xlabel="words in common (Jaccard)", ylabel="equal outputs")
    axes.legend(loc="lower right")
    return figure


def side_by_side(pairs: Sequence[tuple[str, str, str]], *, run: int = 4) -> HTML:
    """(title, left, right) one under the other, runs of `run` equal words marked on both sides."""
    from IPython.display import HTML

    blocks = []
    for title, left, right in pairs:
        cells = "".join(f"<td>{_marked(side)}</td>" for side in similarity.marked(left, right, run))
        blocks.append(
            f'<table class="rrtf-table"><caption>{escape(title)}</caption><tr>{cells}</tr></table>'
        )
    return HTML(TABLE_CSS + ("".join(blocks) or "<p>No pairs.</p>"))


def _marked(pieces: Sequence[tuple[str, bool]]) -> str:
    inside = "".join(
        f'<mark style="background:#FFE9B8">{escape(text)}</mark>' if shared else escape(text)
        for text, shared in pieces
    )
    return f'<pre style="white-space:pre-wrap;max-width:34em">{inside}</pre>'


def histograms(groups: Mapping[str, Sequence[float]], label: str, *, bins: int = 30) -> Figure:
    """Outlined histograms over common bins, each as a share of its own group."""
    figure, axes = canvas(width=6.5, height=2.6)
    top = max(value for values in groups.values() for value in values)
    edges = [top * at / bins for at in range(bins + 1)]
    for place, (name, values) in enumerate(groups.items()):
        weights = [1 / len(values)] * len(values)
        style = {"histtype": "step", "linewidth": 1.5, "color": colour(name, place)}
        axes.hist(values, bins=edges, weights=weights, label=name, **style)
    axes.set_xlabel(label)
    axes.set_ylabel("share of answers")
    axes.legend()
    return figure


def by_update(
    lines: Mapping[str, Sequence[tuple[int, float]]],
    *,
    y_label: str,
    window: int = 10,
    zero: bool = False,
) -> Figure:
    """One quantity over the updates of several runs, as running means over `window` updates.

    Runs of one method share its colour; single updates are drawn faintly behind the means.
    """
    figure, axis = canvas(width=7.0, height=3.2)
    seen: set[str] = set()
    for at, (run, points) in enumerate(lines.items()):
        method = run.rsplit("-s", 1)[0]
        xs, ys = zip(*points, strict=True)
        shade = colour(method, at)
        first = max(0, min(window, len(ys)) - 1)
        means = [
            sum(ys[max(0, end - window) : end]) / min(window, end)
            for end in range(first + 1, len(ys) + 1)
        ]
        axis.plot(xs, ys, color=shade, alpha=0.12, linewidth=0.7)
        axis.plot(xs[first:], means, color=shade, label=None if method in seen else method)
        seen.add(method)
    axis.set(xlabel="update", ylabel=y_label)
    if zero:
        axis.set_ylim(bottom=0)
    axis.legend(ncols=3)
    return figure


def hinge(rows: Sequence[Mapping[str, Any]], *, margin: float = 0.0) -> Figure:
    """L_rank of pairs against p_tea - p_stu: each pair a dot on the line of its score weight.

    `rows` as `explain.hinge_rows` makes them. Right of `margin` every line is zero.
    """
    figure, axis = canvas(width=6.5, height=2.8)
    gaps = [row["p_tea - p_stu"] for row in rows]
    reach = 1.3 * max([abs(gap) for gap in gaps] + [abs(margin), 0.1])
    for at, row in enumerate(rows):
        weight, gap = row["r_tea - r_stu"], row["p_tea - p_stu"]
        shade = OUTCOME_COLOURS.get(row["student"], PALETTE[at % len(PALETTE)])
        axis.plot(
            [-reach, margin, reach], [weight * (reach + margin), 0, 0], color=shade, alpha=0.4
        )
        label = f"{row['student']}, weight {weight:g}"
        axis.plot([gap], [row["L_rank"]], "o", color=shade, label=label, zorder=3)
    axis.axvline(0, color="#999999", linewidth=0.8)
    axis.set(xlabel="p_tea - p_stu (nats per token)", ylabel="L_rank of the pair")
    axis.legend(title="student's situation")
    return figure


def loss_curve(points: Sequence[tuple[int, float]], x_label: str, y_label: str) -> Figure:
    """(step, loss) pairs as a line of running means over 1 % of the points."""
    figure, axes = canvas(width=6.5, height=2.6)
    window = max(1, len(points) // 100)
    chunks = [points[i : i + window] for i in range(0, len(points), window)]
    steps = [chunk[-1][0] for chunk in chunks]
    axes.plot(steps, [sum(loss for _, loss in c) / len(c) for c in chunks], color=PALETTE[0])
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
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
    for (method, variant), points in lines.items():
        place = seen[method] = seen.get(method, -1) + 1
        xs, ys = zip(*sorted(points), strict=True)
        label = f"{method} ({variant})" if variant else method
        axes.plot(xs, ys, dashes[place % 4], marker="o", color=colour(method), label=label)
    axes.axhline(base, color=colour("base"), linewidth=1, label="base")
    axes.set_xscale("log")
    axes.set_xlabel("learning rate")
    axes.set_ylabel("pass@1 on validation")
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure
