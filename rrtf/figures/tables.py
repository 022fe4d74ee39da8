"""Tables of the notebooks, as HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

from rrtf import similarity

if TYPE_CHECKING:
    from IPython.display import HTML

TABLE_CSS = (
    "<style>.rrtf-table{border-collapse:collapse;font-size:90%;margin:.4em 0}"
    ".rrtf-table caption{text-align:left;font-weight:600;padding:.2em 0}"
    ".rrtf-table th{text-align:left;border-bottom:1.5px solid #888;padding:.2em .8em .2em 0}"
    ".rrtf-table td{text-align:left;vertical-align:top;border-bottom:1px solid #e3e3e3;"
    "padding:.2em .8em .2em 0}.rrtf-table .number{text-align:right;"
    "font-variant-numeric:tabular-nums}.rrtf-table pre{margin:0;font-size:95%}</style>"
)


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
