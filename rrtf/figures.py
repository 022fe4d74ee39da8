"""Every picture and table of the notebooks: values in, a matplotlib Figure or an HTML table out.

One quiet style, one palette that colour-blind readers can tell apart (Okabe and Ito, 2008), one
colour per method wherever it appears.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

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
    "base": "#7F7F7F",
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
    n_rows: int = 1, n_columns: int = 1, *, width: float = 7.0, height: float = 3.2
) -> tuple[Figure, Any]:
    """An empty figure of `width` x `height` inches in the common style, and its axes.

    The figure is closed for pyplot, so that a notebook shows it once: as a cell's value.
    """
    import matplotlib.pyplot as plt

    plt.rcParams.update(STYLE)
    figure, axes = plt.subplots(
        n_rows, n_columns, figsize=(width, height), layout="constrained", squeeze=True
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
