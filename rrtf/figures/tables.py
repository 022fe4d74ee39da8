"""Tables of the notebooks, as HTML."""

from __future__ import annotations

import re
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
    "font-variant-numeric:tabular-nums}.rrtf-table pre{margin:0;font-size:95%}"
    ".rrtf-table .name{white-space:nowrap}"
    ".rrtf-table pre{white-space:pre-wrap;overflow-wrap:anywhere}"
    ".rrtf-sheet{table-layout:fixed;width:100%}.rrtf-sheet p{margin:0 0 .4em}"
    ".rrtf-sheet>tbody>tr>th{width:5.6em;vertical-align:top;border-bottom:1px solid #e3e3e3}"
    ".rrtf-sheet table{table-layout:fixed;width:100%;border-collapse:collapse;margin:.3em 0}"
    ".rrtf-sheet table td{border:none}</style>"
)


def table(
    rows: Sequence[Mapping[str, Any]], *, caption: str = "", digits: int = 3, height: int = 0
) -> HTML:
    """Rows as an HTML table: columns in order of first appearance, numbers right-aligned.

    Floats are shown with `digits` decimals, texts of several lines as code, None as a dash. A
    table of more than `height` lines, where that is given, scrolls.
    """
    from IPython.display import HTML

    columns = list(dict.fromkeys(name for row in rows for name in row))
    head = "".join(f"<th>{escape(str(name))}</th>" for name in columns)
    body = "".join(
        "<tr>" + "".join(_cell(row.get(name, ""), digits) for name in columns) + "</tr>"
        for row in rows
    )
    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    shown = (
        f'<table class="rrtf-table">{title}<thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table>"
    )
    if height:
        shown = f'<div style="max-height:{1.8 * height:g}em;overflow:auto">{shown}</div>'
    return HTML(TABLE_CSS + shown)


NAME = 32  # characters of a name that is not broken at its hyphens
INTERVAL = re.compile(r"[+-]?[\d.]+ \[[^ ]+ [^ ]+\]")  # `36.7 [33.6, 39.9]`, not broken either


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
    if "\n" in text:
        return f"<td><pre>{text}</pre></td>"
    name = len(text) <= NAME and "-" in text and " " not in text
    whole = name or INTERVAL.fullmatch(text)
    return f'<td class="name">{text}</td>' if whole else f"<td>{text}</td>"


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
    return f'<div style="max-width:34em">{_pre(pieces, SHARED)}</div>'


SHARED, DIFFERS = "#FFE9B8", "#FFC9B3"  # what two texts have in common, and what they have not


def _pre(pieces: Sequence[tuple[str, bool]], shade: str = SHARED) -> str:
    """Code with its marked pieces in colour; nothing for no pieces."""
    inside = "".join(
        f'<mark style="background:{shade};color:inherit">{escape(text)}</mark>'
        if marked
        else escape(text)
        for text, marked in pieces
    )
    return f"<pre>{inside}</pre>" if pieces else ""


def sheet(task: Mapping[str, Any]) -> HTML:
    """One task of `cases.sheets`: what was asked, then every answer beside its first failing test.

    Below the test stand the expected and the returned value side by side, what differs marked.
    """
    from IPython.display import HTML

    reference = f"<p>reference</p>{_code(task['reference'])}" if task["reference"] else ""
    rows = [f"<tr><th>task</th><td>{_code(task['task'])}</td><td>{reference}</td></tr>"]
    rows += [_answer(answer) for answer in task["answers"]]
    return HTML(
        f'{TABLE_CSS}<table class="rrtf-table rrtf-sheet"><caption>{escape(task["title"])}'
        f"</caption><tbody>{''.join(rows)}</tbody></table>"
    )


def _answer(answer: Mapping[str, Any]) -> str:
    right = f"<p>{escape(answer['verdict'])}</p>{_code(answer['test'])}"
    expected, returned = (_pre(answer[side], DIFFERS) for side in ("expected", "returned"))
    said = _code(answer["said"])
    if expected or returned:
        right += (
            "<table><tr><th>expected</th><th>returned</th></tr>"
            f"<tr><td>{expected}</td><td>{returned}{said}</td></tr></table>"
        )
    else:
        right += said
    name, text = escape(answer["name"]).replace("\n", "<br>"), _code(answer["answer"])
    return f"<tr><th>{name}</th><td>{text}</td><td>{right}</td></tr>"


def _code(text: str) -> str:
    return _pre([(text, False)]) if text else ""
