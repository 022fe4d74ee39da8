"""Benchmark tasks as functions are tried on them: a few calls, and what should come out.

The calls are those that a task's tests make of its own reference, seen from inside the sandbox.
"""

import ast
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import isclose
from typing import Any

from rrtf.records import Problem

EXAMPLES, LOOKED_AT = 3, 40  # calls of a task's tests that a function is tried on, chosen from
LONGEST = 2000  # characters of the arguments and the result of an example

Call = Callable[..., list]  # `sandbox.call` or its like
_NUMBERS, _ROWS = int | float | complex, list | tuple | set | frozenset
_KNOWN = (
    type(None),
    bool,
    int,
    float,
    complex,
    str,
    bytes,
    list,
    tuple,
    set,
    frozenset,
    dict,
    type,
)


@dataclass(frozen=True, slots=True)
class Exam:
    """A task as functions are tried on it: `examples` are (arguments, what comes out)."""

    problem: Problem
    parameters: tuple[str, ...]
    examples: tuple[tuple[tuple, Any], ...]


def examine(tasks: Sequence[Problem], call: Call) -> list[Exam]:
    """Tasks with examples: what their tests ask of the reference, and what it returns.

    The tests are run once around each reference, inside `call`. A task has no examples where it has
    no reference, or asks with values outside the closed types of the sandbox; functions are then
    tried on its tests at once, which costs a hundred times as much.
    """
    answers = call([_recorder(task) for task in tasks], [()]) if tasks else []
    found = []
    for task, (answer,) in zip(tasks, answers, strict=True):
        calls = answer.value if not answer.error and isinstance(answer.value, list) else []
        names = parameters(task)
        pairs = [(args, out) for args, out in _by_place(calls, names) if _is_plain([*args, out])]
        size = len(pairs[0][0]) if pairs else 0
        names = names or tuple(f"a{at}" for at in range(size))
        found.append(Exam(task, names, tuple(_chosen([p for p in pairs if len(p[0]) == size]))))
    return found


def parsed(source: str) -> ast.Module:
    """The syntax tree of `source`, empty where it is no Python."""
    try:
        return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ast.Module(body=[], type_ignores=[])


def parameters(task: Problem) -> tuple[str, ...]:
    """The names of the arguments of the task's function, as its reference or its prompt says."""
    name = task.entry_point.rpartition(".")[2]
    for source in (task.prompt + task.reference, task.prompt + "pass", task.prompt + "    pass"):
        for node in ast.walk(parsed(source)):
            if isinstance(node, ast.FunctionDef) and node.name == name:
                names = tuple(a.arg for a in [*node.args.posonlyargs, *node.args.args])
                return names[1:] if names[:1] == ("self",) else names
    return ()


# Of long arguments and results nothing is kept: they would only be slow.
_RECORDER = """

def rrtf_examples(found=[]):
    import copy

    def candidate(*places, **names):
        asked = copy.deepcopy((places, names))
        out = {entry_point}(*places, **names)
        if len(found) < {most} and len(repr((asked, out))) <= {longest}:
            found.append((*asked, out))
        return out

    space = dict(globals())
    space[{name!r}] = candidate
    try:
        exec({tests!r}, space)
        if "check" in space:
            space["check"](candidate)
    except Exception:
        pass
    return found
"""


def _recorder(task: Problem) -> tuple[str, str]:
    """A program that returns (arguments by place, by name, result) of each call in the tests."""
    how = {"name": task.entry_point.partition("(")[0], "most": LOOKED_AT, "longest": LONGEST}
    driver = _RECORDER.format(entry_point=task.entry_point, tests=task.tests, **how)
    return (task.prompt + task.reference if task.reference else "") + driver, "rrtf_examples"


def _by_place(
    calls: Sequence[tuple[tuple, dict, Any]], names: Sequence[str]
) -> Iterator[tuple[tuple, Any]]:
    """(arguments, result) of calls whose named arguments have a place."""
    for places, named, out in calls:
        known = {names.index(k) if k in names else k: v for k, v in named.items()}
        known |= dict(enumerate(places))
        if known and set(known) == set(range(len(known))):
            yield tuple(known[at] for at in range(len(known))), out


def _is_plain(value: Any) -> bool:
    """Whether a value holds nothing outside the closed types."""
    if isinstance(value, dict):
        value = [*value, *value.values()]
    return all(map(_is_plain, value)) if isinstance(value, _ROWS) else type(value) in _KNOWN


def _chosen(pairs: Sequence[tuple[tuple, Any]]) -> list[tuple[tuple, Any]]:
    """The shortest calls whose results differ, those that return something first."""
    told = [pair for pair in pairs if pair[1] is not None]
    told.sort(key=lambda pair: (not pair[1], len(repr(pair[0])), _largest(pair[0])))
    results = [repr(out) for _, out in told]
    new = [at for at, out in enumerate(results) if out not in results[:at]]
    rest = [at for at in range(len(told)) if at not in new]
    return [told[at] for at in [*new, *rest][:EXAMPLES]]


def _largest(value: Any) -> float:
    """The largest number inside a value: loops may run as far."""
    if isinstance(value, int | float):
        return abs(value)
    if isinstance(value, dict):
        value = [*value, *value.values()]
    if isinstance(value, list | tuple | set):
        return max(map(_largest, value), default=0)
    return 0


# --- results -----------------------------------------------------------------------------------


def alike(value: Any, expected: Any) -> bool:
    """Whether some test might accept `value` where the reference returns `expected`.

    Numbers agree to a thousandth, sequences and sets as sets, an object of another type with any
    sequence and by its truth. What differs here, differs under any test that compares results.
    """
    if isinstance(value, _NUMBERS) and isinstance(expected, _NUMBERS):
        return value == expected or _near(value, expected)
    if isinstance(value, _ROWS) and isinstance(expected, _ROWS):
        return _inside(value, expected) and _inside(expected, value)
    if isinstance(value, dict) and isinstance(expected, dict):
        return value.keys() == expected.keys() and all(alike(value[k], expected[k]) for k in value)
    if type(value) not in _KNOWN or type(expected) not in _KNOWN:
        return not isinstance(expected, bool) or bool(value) == expected
    return value == expected


def _near(value: Any, expected: Any) -> bool:
    if isinstance(value, complex) or isinstance(expected, complex):
        return abs(value - expected) <= 1e-3 * max(1, abs(expected))
    try:
        return isclose(value, expected, rel_tol=1e-3, abs_tol=1e-3)
    except OverflowError:
        return False


def _inside(value: Any, expected: Any) -> bool:
    """Whether every item of `value` is like one of `expected`."""
    items = list(expected)
    return all(item in items or any(alike(item, other) for other in items) for item in value)
