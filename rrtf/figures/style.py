"""One quiet style, one palette that colour-blind readers can tell apart (Okabe and Ito, 2008).

A method has one colour wherever it appears.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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
    "rrtf-verified": "#5B3E99",
}
OUTCOME_COLOURS = {
    "COMPILE_ERROR": "#8A2D00",
    "RUNTIME_ERROR": "#E69F00",
    "FAILED_TESTS": "#A6D4EE",
    "PASS": "#0072B2",
}
KIND_COLOURS = {  # of `cases.sheets.KINDS`: blue runs, yellow to red does not, dark is no program
    "passes": "#0072B2",
    "some tests wrong": "#56B4E9",
    "all tests wrong": "#B5DDF3",
    "wrong type": "#CC79A7",
    "some tests raise": "#F0E442",
    "name error": "#E69F00",
    "type error": "#D55E00",
    "other error": "#F5B78A",
    "too slow": "#009E73",
    "stopped": "#7F7F7F",
    "no program": "#3A3A3A",
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
