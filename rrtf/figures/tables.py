"""Tables of the notebooks, as HTML."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from math import floor, isfinite, log10
from numbers import Integral, Real
from typing import Any

from rrtf import similarity
from rrtf.figures.style import OUTCOME_COLOURS

TABLE_CSS = (  # three times the class: JupyterLab aligns cells to the right by a longer selector
    "<style>.rrtf-table{border-collapse:collapse;font-size:90%;margin:.4em 0}"
    ".rrtf-table caption{text-align:left;font-weight:600;padding:.2em 0;white-space:pre-line}"
    ".rrtf-table.rrtf-table.rrtf-table :is(td,th){text-align:left;vertical-align:top;"
    "padding:.2em .8em .2em 0;border-bottom:1px solid #e3e3e3}"
    ".rrtf-table.rrtf-table.rrtf-table thead th{border-bottom:1.5px solid #888}"
    ".rrtf-table.rrtf-table.rrtf-table .number{text-align:right;"
    "font-variant-numeric:tabular-nums}.rrtf-table pre{margin:0;font-size:95%}"
    ".rrtf-table .name{white-space:nowrap}.rrtf-table .long{min-width:16rem}"
    ".rrtf-table pre{white-space:pre-wrap;overflow-wrap:anywhere}"
    ".rrtf-sheet{table-layout:fixed;width:100%}.rrtf-sheet p{margin:0 0 .4em}"
    ".rrtf-sheet>tbody>tr>th{width:5.6em}"
    ".rrtf-sheet table{table-layout:fixed;width:100%;border-collapse:collapse;margin:.3em 0}"
    ".rrtf-table.rrtf-table.rrtf-table table td{border:none}</style>"
)
_CELL = re.compile(r"<(?P<kind>t[dh])(?P<rest>(?: class=\"(?P<name>\w+)\")?>)")


@dataclass(frozen=True, slots=True, repr=False)
class HTML:
    """Markup that a notebook shows as such; pages of the command line take `data`."""

    data: str

    def __repr__(self) -> str:
        return "<HTML>"

    def _repr_html_(self) -> str:
        return self.data


def _html(text: str) -> HTML:
    """Our markup with its style; alignment also in the cells, where sheets of style are removed.

    GitHub and a notebook that JupyterLab does not trust yet keep nothing else.
    """

    def aligned(cell: re.Match) -> str:
        side = "right" if cell["name"] == "number" else "left"
        return f'<{cell["kind"]} style="text-align:{side}"{cell["rest"]}'

    return HTML(TABLE_CSS + _CELL.sub(aligned, text))


def answer(sentence: str) -> HTML:
    """What a stage found, in one sentence; the page and the index begin with it."""
    return HTML(f'<p class="rrtf-answer">{escape(sentence)}</p>')


def table(
    rows: Sequence[Mapping[str, Any]],
    *,
    caption: str = "",
    digits: int | None = None,
    height: int = 0,
) -> HTML:
    """Rows as an HTML table: columns in order of first appearance, numbers right-aligned.

    A column of floats is shown with `digits` decimals, without that with those that its values
    carry, at most three digits of its largest. A column with texts of several lines is code; None
    is a dash. A table of more than `height` lines, where that is given, scrolls.
    """
    columns = list(dict.fromkeys(name for row in rows for name in row))
    shapes = {name: _shape([row.get(name) for row in rows], digits) for name in columns}
    head = "".join(
        f'<th class="number">{escape(str(name))}</th>' if callable(shapes[name])
        else f"<th>{escape(str(name))}</th>"
        for name in columns
    )  # fmt: skip
    body = "".join(
        "<tr>" + "".join(_cell(row.get(name, ""), shapes[name]) for name in columns) + "</tr>"
        for row in rows
    )
    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    shown = (
        f'<table class="rrtf-table">{title}<thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table>"
    )
    if height:
        shown = f'<div style="max-height:{1.8 * height:g}em;overflow:auto">{shown}</div>'
    return _html(shown)


Shape = Callable[[float], str] | str  # how the numbers of a column are written, or `code`, or ``


def _shape(values: Sequence[Any], digits: int | None) -> Shape:
    """How the cells of a column are shown."""
    if any(isinstance(value, str) and "\n" in value for value in values):
        return "code"
    numbers = [abs(float(v)) for v in values if isinstance(v, Real) and not isinstance(v, bool)]
    if not numbers:
        return ""
    numbers = [v for v in numbers if isfinite(v) and v]
    if numbers and max(numbers) < TINY and digits is None:
        return lambda value: _scientific(value) if value else "0"
    size = floor(log10(max(numbers, default=1)))
    most = min(3, max(0, 2 - size)) if digits is None else digits
    exact = (n for n in range(most) if all(abs(round(v, n) - v) <= 1e-9 * v for v in numbers))
    places = next(exact, most) if digits is None else digits
    least = 0.5 * 10**-places
    tiny = digits is None
    return lambda v: f"{v:.{places}f}" if not tiny or not 0 < abs(v) < least else _scientific(v)


TINY = 0.001  # a column below it, learning rates say, is in powers of ten


def _scientific(value: float) -> str:
    mantissa, power = f"{value:.1e}".split("e")
    return f"{mantissa.removesuffix('.0')}e{int(power)}"


LONG = 60  # characters of a text whose column is not squeezed
NAME = 32  # characters of a name that is not broken at its hyphens
INTERVAL = re.compile(r"[+-]?[\d.]+ \[[^ ]+ [^ ]+\]")  # `36.7 [33.6, 39.9]`, not broken either


def _cell(value: Any, shape: Shape) -> str:
    if value is None or (isinstance(value, float) and value != value):
        return "<td>–</td>"
    if isinstance(value, bool):
        return f"<td>{'yes' if value else 'no'}</td>"
    if isinstance(value, Integral):
        return f'<td class="number">{int(value)}</td>'
    if isinstance(value, Real):
        return f'<td class="number">{shape(float(value)) if callable(shape) else value}</td>'
    text = escape(str(value))
    if shape == "code":
        return f"<td><pre>{text}</pre></td>"
    name = len(text) <= NAME and "-" in text and " " not in text
    kind = "name" if name or INTERVAL.fullmatch(text) else "long" if len(text) > LONG else ""
    return f'<td class="{kind}">{text}</td>' if kind else f"<td>{text}</td>"


def sliders(rows: Sequence[Mapping[str, Any]]) -> HTML:
    """The loss of a group with a slider for each score and log-probability (`sliders.js`).

    `rows` as `explain.response_rows` makes them. Without a script it shows nothing.
    """
    names = ("source", "outcome", "r", "|y|", "p")
    told = [{n: row[n] for n in names} | {"shade": OUTCOME_COLOURS[row["outcome"]]} for row in rows]
    data = escape(json.dumps(told))
    script = files("rrtf.figures").joinpath("sliders.js").read_text(encoding="utf-8")
    return _html(f'<div class="rrtf-sliders" data-rows="{data}"></div><script>{script}</script>')


def side_by_side(pairs: Sequence[tuple[str, str, str]], *, run: int = 4) -> HTML:
    """(title, left, right) one under the other, runs of `run` equal words marked on both sides."""
    blocks = []
    for title, left, right in pairs:
        cells = "".join(f"<td>{_marked(side)}</td>" for side in similarity.marked(left, right, run))
        blocks.append(
            f'<table class="rrtf-table"><caption>{escape(title)}</caption><tr>{cells}</tr></table>'
        )
    return _html("".join(blocks) or "<p>No pairs.</p>")


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
    reference = f"<p>reference</p>{_code(task['reference'])}" if task["reference"] else ""
    rows = [f"<tr><th>task</th><td>{_code(task['task'])}</td><td>{reference}</td></tr>"]
    rows += [_answer(answer) for answer in task["answers"]]
    return _html(
        f'<table class="rrtf-table rrtf-sheet"><caption>{escape(task["title"])}'
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
