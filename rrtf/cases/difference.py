"""Two values as texts, with the part in which they differ.

Texts are Python literals where the values are. Nothing here runs code: literals are read by
`ast.literal_eval`, everything else is compared as it is written.
"""

import ast
import math
import re
from collections.abc import Sequence
from difflib import SequenceMatcher

LONG = 600  # characters from which a text is cut
KEPT, ENDS = 100, 24  # of an equal part: characters beside the difference, at the far end
MIDDLE = 300  # of a differing part
CLOSE = 1e-6  # relative difference of numbers that count as equal beside others that do not

Pieces = list[tuple[str, bool]]

_STRING = r"""'(?:[^'\\\n]|\\.)*'|"(?:[^"\\\n]|\\.)*\""""
_NUMBER = r"(?<![\w.])-?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?"
_TOKEN = re.compile(rf"({_STRING})|({_NUMBER})|(\w+)|(.)", re.DOTALL)
_INSIDE = re.compile(r"\\.|.", re.DOTALL)


def aligned(expected: str, returned: str) -> tuple[str, str]:
    """The texts with equal keys of dicts in equal places, where both are literals.

    Order does not count in a dict, so a difference of order only must not be marked.
    """
    try:
        a, b = ast.literal_eval(expected), ast.literal_eval(returned)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return expected, returned
    try:
        return expected, repr(_in_order_of(a, b)) if _has_dict(b) else returned
    except RecursionError:
        return expected, returned


def _has_dict(value: object) -> bool:
    if isinstance(value, dict):
        return True
    return isinstance(value, list | tuple) and any(map(_has_dict, value))


def _in_order_of(model: object, value: object) -> object:
    if isinstance(model, dict) and isinstance(value, dict):
        keys = [key for key in model if key in value] + [key for key in value if key not in model]
        return {key: _in_order_of(model.get(key), value[key]) for key in keys}
    if isinstance(value, list | tuple) and isinstance(model, list | tuple):
        rest = [None] * (len(value) - len(model))
        both = zip([*model, *rest], value, strict=False)
        return type(value)(_in_order_of(m, v) for m, v in both)
    return value


def cut(expected: str, returned: str) -> tuple[str, str]:
    """Texts of more than LONG characters, shortened where they are equal, around the difference."""
    if max(len(expected), len(returned)) <= LONG:
        return expected, returned
    start = _common(expected, returned)
    end = _common(expected[start:][::-1], returned[start:][::-1])
    return _shortened(expected, start, end), _shortened(returned, start, end)


def _common(a: str, b: str) -> int:
    """The length of the common beginning."""
    for at, (x, y) in enumerate(zip(a, b, strict=False)):
        if x != y:
            return at
    return min(len(a), len(b))


def _shortened(text: str, start: int, end: int) -> str:
    before, middle, after = text[:start], text[start : len(text) - end], text[len(text) - end :]
    if len(before) > 2 * KEPT:
        before = before[:ENDS] + _gap(len(before) - ENDS - KEPT) + before[-KEPT:]
    if len(middle) > 2 * MIDDLE:
        middle = middle[:MIDDLE] + _gap(len(middle) - 2 * MIDDLE) + middle[-MIDDLE:]
    if len(after) > 2 * KEPT:
        after = after[:KEPT] + _gap(len(after) - ENDS - KEPT) + after[-ENDS:]
    return before + middle + after


def _gap(length: int) -> str:
    return f" … {length} characters … "


def marked(expected: str, returned: str, *, tolerance: float = 0.0) -> tuple[Pieces, Pieces]:
    """Both texts in pieces of (text, whether it differs).

    Strings are compared by character, everything else by word and number. Numbers that differ by
    at most `tolerance`, or by a millionth, are not marked beside others that differ by more.
    """
    a, b = _tokens(expected), _tokens(returned)
    matcher = SequenceMatcher(None, a, b, autojunk=False)
    blocks = [(i, j, k, n) for tag, i, j, k, n in matcher.get_opcodes() if tag != "equal"]
    if matcher.ratio() < 0.5:
        blocks = _one_block(a, b)
    apart = [pair for block in blocks for pair in _apart(a, b, block, tolerance)] or [
        pair for block in blocks for pair in _whole(block)
    ]
    return _pieces(a, {i for i, _ in apart}), _pieces(b, {j for _, j in apart})


def _tokens(text: str) -> list[str]:
    found = []
    for match in _TOKEN.finditer(text):
        string = match.group(1)
        found += _INSIDE.findall(string) if string else [match.group()]
    return found


def _one_block(a: Sequence[str], b: Sequence[str]) -> list[tuple[int, int, int, int]]:
    """Everything between the common beginning and the common end."""
    start = end = 0
    shorter = min(len(a), len(b))
    while start < shorter and a[start] == b[start]:
        start += 1
    while end < shorter - start and a[-1 - end] == b[-1 - end]:
        end += 1
    block = (start, len(a) - end, start, len(b) - end)
    return [block] if block[0] < block[1] or block[2] < block[3] else []


def _whole(block: tuple[int, int, int, int]) -> list[tuple[int, int]]:
    """(place in the one or -1, place in the other or -1) of everything in a block."""
    i, j, k, n = block
    return [(at, -1) for at in range(i, j)] + [(-1, at) for at in range(k, n)]


def _apart(
    a: Sequence[str], b: Sequence[str], block: tuple[int, int, int, int], tolerance: float
) -> list[tuple[int, int]]:
    i, j, k, n = block
    if j - i != n - k:
        return _whole(block)
    pairs = zip(range(i, j), range(k, n), strict=True)
    return [(x, y) for x, y in pairs if a[x] != b[y] and not _close(a[x], b[y], tolerance)]


def _close(a: str, b: str, tolerance: float) -> bool:
    try:
        return math.isclose(float(a), float(b), rel_tol=CLOSE, abs_tol=tolerance)
    except ValueError:
        return False


def _pieces(tokens: Sequence[str], apart: set[int]) -> Pieces:
    pieces: Pieces = []
    for at, token in enumerate(tokens):
        differs = at in apart
        if pieces and pieces[-1][1] == differs:
            pieces[-1] = (pieces[-1][0] + token, differs)
        else:
            pieces.append((token, differs))
    return pieces
