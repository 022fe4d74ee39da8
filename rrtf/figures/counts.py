"""Counts and distributions: depths, leaks, lengths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rrtf.figures.style import PALETTE, canvas, colour

if TYPE_CHECKING:
    from matplotlib.figure import Figure


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
    axes.set_xlabel(label)
    axes.set_ylabel(f"share of {of}")
    axes.legend()
    return figure
