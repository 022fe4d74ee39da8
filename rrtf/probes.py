"""What does a function do? Fixed inputs to call it with, and outputs in a comparable form.

Two programs that return the same on all probes are taken for the same function, whatever their
words. Nothing is executed here: `executor.call` does that.
"""

import ast
import copy
import math
import random
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from rrtf import config, similarity

Kinds = tuple[str, ...]  # the types of a function's arguments, as Python annotations
Call = dict[int | str, Any]  # arguments by place or by name
Outputs = tuple[str, ...]  # fingerprints of what a function returned, one per probe

FAILED = "error"  # which exception it was is style, so all look alike

# Hand-written edge cases. Numbers that stand alone are positive, because most tasks about one
# number say so, and two right answers may differ outside the domain that their task defines.
PROBES: dict[str, tuple[Any, ...]] = {
    "list[int]": (
        [], [0], [7], [1, 2, 3, 4, 5, 6], [3, 1, 2], [-3, -3, 4, 4, 12], [10, -10, 5, 15, 20],
        [9, 7, 5, 3, 1], [2, 2, 2], [0, -1, 8, 8, 16, 3], [25, 24, 6, 12, -7], [1, -1, 1, -1, 30],
    ),
    "list[str]": (
        [], ["a"], [""], ["apple", "tea", "apple", "noon"], ["stats", "eye", "", "tree"],
        ["Zoe", "adam", "Eve"], ["b", "a", "c", "a"], ["level", "queen", "owl", "radar", "to"],
        ["one two", "x1", "42"], ["kite", "Kite", "KITE"], ["xray", "is", "a", "sun"],
        ["banana", "fig", "grape", "elephant", "ice", "under"],
    ),
    "str": (
        "", "a", "Anna saw a level", "The 3 trees and 12 eggs", "zebra", "noon", "b7 R2D2 b7",
        "aaa bbb", "x", "Tea for two, and two for tea", "A b C d E f", "stone under the violet sea",
    ),
    "int": (1, 2, 3, 5, 10, 12, 16, 36, 45, 60, 97, 123),
    "dict[str, int]": (
        {}, {"a": 1}, {"apple": 4, "tea": 9, "noon": 4}, {"b": 0, "a": 0}, {"level": 12},
        {"x": 3, "yy": 2, "zzz": 1}, {"Tom": 5, "Anna": 10, "eye": 5}, {"owl": 7, "fig": 8},
        {"sun": 1, "sea": 2, "tea": 3, "art": 4, "ice": 5}, {"k": 6, "kite": 6, "Red": 0},
        {"stats": 11, "pop": 2, "to": 9, "a": 7}, {"zebra": 3, "banana": 3, "cat": 1, "dog": 10},
    ),
}  # fmt: skip
N_FIXED = 12
WORDS = (*dict.fromkeys(" ".join(PROBES["str"]).split()), "", "radar", "Paris", "eye")


def argument_kinds(code: str, entry_point: str, tests: str = "") -> list[Kinds]:
    """The argument types to try a program with: from its tests, else annotations, else all.

    `tests` is any source that calls `entry_point`, or `candidate`; calls with literal arguments
    count. Without such calls and without annotations a function of one argument is tried with
    every type, one of several with none. Types that no probe has give [].
    """
    functions = [
        node
        for node in ast.walk(similarity.parsed(code))
        if isinstance(node, ast.FunctionDef) and node.name == entry_point
    ]
    if not functions:
        return []
    arguments = functions[-1].args.args
    called = _direct_calls(similarity.parsed(tests), ("candidate", entry_point))
    calls = [tuple(call.values()) for call in called if all(isinstance(at, int) for at in call)]
    if len({len(call) for call in calls}) == 1:
        kinds = tuple(
            _merged([_kind(value) for value in column]) for column in zip(*calls, strict=True)
        )
    elif any(argument.annotation for argument in arguments):
        kinds = tuple(_annotated(argument.annotation) for argument in arguments)
    else:
        return [(kind,) for kind in PROBES] if len(arguments) == 1 else []
    return [kinds] if kinds and all(kind in PROBES for kind in kinds) else []


def _kind(value: Any) -> str:
    """`list[int]` for [1, 2], `list` for [], '' where no probe can have the type."""
    if isinstance(value, list):
        inside = {type(item).__name__ for item in value}
        return f"list[{inside.pop()}]" if len(inside) == 1 else "" if inside else "list"
    if isinstance(value, dict):
        inside = {(type(k).__name__, type(v).__name__) for k, v in value.items()}
        return (
            "dict[{}, {}]".format(*inside.pop()) if len(inside) == 1 else "" if inside else "dict"
        )
    return type(value).__name__


def _merged(kinds: Sequence[str]) -> str:
    """One type for the arguments of all calls: `[]` and `{}` fit any list and dict."""
    full = {kind for kind in kinds if kind not in ("list", "dict")}
    fits = len(full) == 1 and all(next(iter(full)).startswith(kind) for kind in kinds)
    return full.pop() if fits else ""


def _annotated(annotation: ast.expr | None) -> str:
    text = ast.unparse(annotation) if annotation else ""
    return text.replace("typing.", "").replace("List", "list").replace("Dict", "dict")


def probe_inputs(kinds: Kinds, *, n_random: int, seed: int) -> list[tuple[Any, ...]]:
    """The argument tuples a function is probed with: N_FIXED by hand, then `n_random` drawn.

    Of several arguments each goes through its fixed values with another stride, so that equal
    types do not always get equal values.
    """
    strides = (1, 5, 7, 11)
    fixed = [
        tuple(PROBES[kind][(at * strides[i % 4] + i) % N_FIXED] for i, kind in enumerate(kinds))
        for at in range(N_FIXED)
    ]
    draw = random.Random(config.derive_seed(seed, "probes", *kinds))
    return fixed + [tuple(_random_value(kind, draw) for kind in kinds) for _ in range(n_random)]


def _random_value(kind: str, draw: random.Random) -> Any:
    size = draw.randrange(9)
    if kind == "list[int]":
        return [draw.randint(-10, 25) for _ in range(size)]
    if kind == "list[str]":
        return [draw.choice(WORDS) for _ in range(size)]
    if kind == "str":
        return " ".join(draw.choice(WORDS) for _ in range(size))
    if kind == "int":
        return draw.randint(1, 200)
    return {word: draw.randint(0, 12) for word in draw.sample(WORDS, size)}


def literal_calls(tests: str, entry_point: str) -> list[Call]:
    """The calls of the function, or of `candidate`, whose arguments the tests write out.

    Also those of a loop over a written list: `for inputs, expected in CASES: candidate(*inputs)`.
    """
    tree, names = similarity.parsed(tests), ("candidate", entry_point)
    found = _direct_calls(tree, names)
    lists = {
        target.id: node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for loop in ast.walk(tree):
        if isinstance(loop, ast.For):
            rows = lists.get(loop.iter.id) if isinstance(loop.iter, ast.Name) else loop.iter
            found += _evaluated(_unpacked(loop, rows, names))
    return found


def _direct_calls(tree: ast.Module, names: Sequence[str]) -> list[Call]:
    return _evaluated(
        dict(enumerate(node.args)) | {keyword.arg: keyword.value for keyword in node.keywords}
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) in names
    )


def _evaluated(calls: Iterable[dict[int | str, ast.expr]]) -> list[Call]:
    """Those of the calls whose arguments are all literals, as values."""
    found = []
    for call in calls:
        try:
            found.append({name: ast.literal_eval(node) for name, node in call.items()})
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            continue
    return found


def _unpacked(
    loop: ast.For, rows: ast.expr | None, names: Sequence[str]
) -> Iterator[dict[int | str, ast.expr]]:
    """The arguments of `f(*row)` in a loop over `rows`, where these are written out."""
    tuples = ast.List | ast.Tuple
    starred = {
        ast.unparse(node.args[0])
        for node in ast.walk(loop)
        if isinstance(node, ast.Call) and ast.unparse(node.func) in names and len(node.args) == 1
    }
    columns = loop.target.elts if isinstance(loop.target, tuples) else [loop.target]
    places = [at for at, node in enumerate(columns) if f"*{ast.unparse(node)}" in starred]
    for row in rows.elts if places and isinstance(rows, tuples) else ():
        cells = row.elts if isinstance(loop.target, tuples) and isinstance(row, tuples) else [row]
        for cell in cells[places[0] : places[0] + 1]:
            if isinstance(cell, tuples):
                yield dict(enumerate(cell.elts))


def varied_calls(
    calls: Sequence[Call], programs: Sequence[str], *, count: int, seed: int
) -> list[Call]:
    """`count` calls like the first of `calls` and those of its form, with other arguments.

    Every argument is that of one of the calls, most of them varied within their types (EvalPlus
    makes inputs so). Numbers and strings that stand in `programs` are mixed in, because
    differences hide at constants. [] without calls.
    """
    alike = [call for call in calls if call.keys() == calls[0].keys()]
    pool = _constants(programs)
    draw = random.Random(seed)
    return [
        {name: _varied(draw.choice(alike)[name], pool, draw) for name in calls[0]}
        for _ in range(count if calls else 0)
    ]


def _constants(programs: Sequence[str]) -> list[Any]:
    nodes = [node for program in programs for node in ast.walk(similarity.parsed(program))]
    values = dict.fromkeys(node.value for node in nodes if isinstance(node, ast.Constant))
    return [v for v in values if isinstance(v, int | float | str) and not isinstance(v, bool)]


def _varied(value: Any, pool: Sequence[Any], draw: random.Random) -> Any:
    """A value of the same type; about a third of the time the value itself."""
    if draw.random() < 0.3:
        return value
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return _varied_number(value, pool, draw)
    if isinstance(value, str):
        words = [word for word in pool if isinstance(word, str) and len(word) < 20]
        at = draw.randrange(len(value) + 1)
        choices = [value[::-1], value[at:], value[:at], value.swapcase(), value + value]
        return draw.choice([*choices, value[:at] + draw.choice(words or [" "]) + value[at:]])
    if isinstance(value, list | tuple):
        return type(value)(_varied_items(list(value), pool, draw))
    if isinstance(value, dict):
        return {k: _varied(v, pool, draw) for k, v in value.items() if draw.random() < 0.8}
    return copy.deepcopy(value)


def _varied_number(value: float, pool: Sequence[Any], draw: random.Random) -> float:
    """Close by, smaller, or at a constant of the program; positive stays positive."""
    near = [n + step for n in pool if isinstance(n, type(value)) for step in (-1, 0, 1)]
    near = [n for n in near if abs(n) <= max(100, abs(value)) and (n > 0 or value <= 0)]
    other = value // 2 if isinstance(value, int) else value / 2
    return draw.choice([value + 1, value + 1, other, *near[:12]]) or value


def _varied_items(items: list, pool: Sequence[Any], draw: random.Random) -> list:
    kind = draw.randrange(5)
    if kind == 0:
        return items[::-1]
    if kind == 1:
        return items[draw.randrange(len(items) + 1) :]
    if kind == 2:
        return items + items[: draw.randrange(len(items) + 1)]
    if kind == 3:
        return draw.sample(items, len(items))
    return [_varied(item, pool, draw) for item in items]


def fingerprint(value: Any) -> str:
    """A text that is equal for values that Python calls equal (floats: to nine digits).

    Dicts and sets are written in sorted order, `True` like 1 and 3.0 like 3.
    """
    if isinstance(value, float) and math.isfinite(value) and value == int(value):
        value = int(value)
    if isinstance(value, int):
        return str(int(value)) if value.bit_length() < 1000 else hex(value)
    if isinstance(value, float):
        return f"{value:.9g}"
    if isinstance(value, list | tuple):
        inside = ", ".join(map(fingerprint, value))
        return f"[{inside}]" if isinstance(value, list) else f"({inside})"
    if isinstance(value, set | frozenset):
        return "{" + ", ".join(sorted(map(fingerprint, value))) + "}"
    if isinstance(value, dict):
        items = sorted(f"{fingerprint(k)}: {fingerprint(v)}" for k, v in value.items())
        return "{" + ", ".join(items) + "}"
    return repr(value)


def is_telling(outputs: Outputs) -> bool:
    """Whether outputs say anything: neither all errors nor one constant value."""
    return len(set(outputs) - {FAILED}) > 1


def agreement(left: Outputs, right: Outputs) -> float:
    """Share of probes on which two functions return the same, in [0, 1]."""
    return sum(a == b for a, b in zip(left, right, strict=True)) / len(left)


_DECIMAL_BITS = 14_000  # beyond some 4,300 digits Python reads and writes no decimal numbers


def literal(value: object) -> str:
    """An expression without imports that evaluates to what equals `value`, whatever the hash seed.

    A `Counter` is written as a dict, a named tuple as a tuple: they equal these. ValueError for
    what is no bool, int, float, complex, str, bytes, list, tuple, dict, set, frozenset, type of
    these, or None.
    """
    kind = next((base for base in (dict, tuple) if isinstance(value, base)), type(value))
    if kind is float:
        return repr(value) if math.isfinite(value) else f"float({str(value)!r})"
    if kind is int:
        return repr(value) if value.bit_length() < _DECIMAL_BITS else hex(value)
    if value is None or kind in (bool, str, bytes):
        return repr(value)
    if kind is complex:
        return f"complex({literal(value.real)}, {literal(value.imag)})"
    if kind is list:
        return f"[{', '.join(map(literal, value))}]"
    if kind is tuple:
        return f"({', '.join(map(literal, value))}{',' if len(value) == 1 else ''})"
    if kind is dict:
        return f"{{{', '.join(f'{literal(k)}: {literal(v)}' for k, v in value.items())}}}"
    if kind is set:
        return f"{{{', '.join(sorted(map(literal, value)))}}}" if value else "set()"
    if kind is frozenset:
        return f"frozenset({literal(set(value))})"
    if any(value is known for known in TYPES):
        return value.__name__
    raise ValueError(f"a value of type {kind.__name__} cannot be written as a literal")


TYPES = (bool, int, float, complex, str, bytes, list, tuple, dict, set, frozenset)
