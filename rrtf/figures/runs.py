"""Training: losses over updates, the hinge, learning rates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rrtf.figures.style import OUTCOME_COLOURS, PALETTE, canvas, colour

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def by_update(
    lines: Mapping[str, Sequence[tuple[int, float]]],
    *,
    y_label: str,
    window: int = 10,
    zero: bool = False,
) -> Figure:
    """One quantity over the updates of several runs, as running means over `window` updates.

    For short runs over a third of their updates. Runs of one method share its colour; single
    updates are drawn faintly behind the means.
    """
    figure, axis = canvas(width=7.0, height=3.2)
    seen: set[str] = set()
    for at, (run, points) in enumerate(lines.items()):
        method = run.rsplit("-s", 1)[0]
        xs, ys = zip(*points, strict=True)
        shade = colour(method, at)
        span = max(1, min(window, len(ys) // 3))
        means = [sum(ys[end - span : end]) / span for end in range(span, len(ys) + 1)]
        axis.plot(xs, ys, color=shade, alpha=0.12, linewidth=0.7)
        axis.plot(xs[span - 1 :], means, color=shade, label=None if method in seen else method)
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
