"""HumanEval+ and MBPP+ as EvalPlus 0.3.1 judges them, written out as tests that stand alone.

A row holds inputs only. The reference gives the expected values (`expected`), and what EvalPlus
decides in code while it compares is decided here per input and written down: the tolerance, and
the few tasks with an oracle of their own. Known to differ: an array that numpy would broadcast to
the shape of the expected value is not close to it here, and a program cannot change the inputs
with which its answer is compared. Contracts are not checked, as EvalPlus does not when evaluating.
"""

import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from rrtf.benchmarks.expected import Reference, Value, values
from rrtf.benchmarks.inputs import mbpp_inputs
from rrtf.benchmarks.literals import literal
from rrtf.records import Problem

PARTS = ("base", "plus")
# Expected values of references are computed under these limits, once.
LIMITS = {"cpu_seconds": 120.0, "wall_seconds": 240.0, "memory_mb": 2048}

# MBPP tasks of which only the set of returned items counts, and whether anything was returned.
SETS = frozenset(
    ("similar_elements", "find_char_long", "common_in_nested_lists", "extract_singly",
     "larg_nnum", "intersection_array", "find_dissimilar", "Diff")
)  # fmt: skip
NOT_NONE = frozenset(("check_str", "text_match_three", "text_starta_endb"))
ANYTHING = "are_equivalent"  # every answer is right
OR_ZERO = "sum_div"
MAX_TESTS = 3_000_000  # bytes, about, of expected values in a task's compiled tests
FLOAT_ATOL = 1e-6  # from the first expected float of a part on, where the task states none

CLOSE = '''def _close(value, expected, tolerance):
    """As numpy.allclose with rtol=1e-07, for values of one type: numbers, or lists of numbers."""
    if type(value) is not type(expected):
        return False
    return _near(value, expected, tolerance)


def _near(value, expected, tolerance):
    if isinstance(expected, (list, tuple)):
        return (
            isinstance(value, (list, tuple))
            and len(value) == len(expected)
            and all(_near(v, e, tolerance) for v, e in zip(value, expected))
        )
    if not all(isinstance(number, (int, float, complex)) for number in (value, expected)):
        return False
    if value == expected:
        return True
    bound = tolerance + 1e-07 * abs(expected)
    return bound != float('inf') and abs(value - expected) <= bound


'''
OMITTED = (
    "# {} of {} inputs are left out, those with the longest expected values: compiled, all of them "
    "exceed {} bytes.\n"
)
POLYNOMIAL = '''def _polynomial(coefficients, x):
    """coefficients[0] + coefficients[1] * x + coefficients[2] * x ** 2 + ..."""
    return sum(c * x**power for power, c in enumerate(coefficients))


'''


def problems(
    rows: Sequence[Mapping],
    source: str,
    *,
    parts: Sequence[str] = PARTS,
    cache: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Problem]:
    """Rows of HumanEval+ (`source` "humaneval+") or MBPP+ ("mbpp+") as problems.

    One test per input of `parts`. `cache`: where expected values are kept. RuntimeError names a
    reference that does not run.
    """
    inputs = [[_inputs(row, part, source) for part in parts] for row in rows]
    references = [
        Reference(row["task_id"], row["prompt"] + row["canonical_solution"], row["entry_point"],
                  tuple(call for part in of_parts for call in part))
        for row, of_parts in zip(rows, inputs, strict=True)
    ]  # fmt: skip
    found = values(references, folder=cache, progress=progress, **LIMITS)
    return [
        Problem(
            row["task_id"],
            row["prompt"],
            row["entry_point"],
            _tests(row, of_parts, expected, source),
            row["canonical_solution"],
            source,
        )
        for row, of_parts, expected in zip(rows, inputs, found, strict=True)
    ]


def _inputs(row: Mapping, part: str, source: str) -> list[tuple]:
    calls = row[f"{part}_input"] or []  # a task without further inputs holds an empty object
    if source == "mbpp+":
        calls = mbpp_inputs(int(row["task_id"].partition("/")[2]), calls)
    return [tuple(call) for call in calls]


def _tests(row: Mapping, parts: list[list[tuple]], found: list[Value], source: str) -> str:
    name, atol = row["entry_point"], row["atol"]
    special = name if source == "mbpp+" else ""
    cases, left, longest = [], iter(found), _longest(found)
    for part in parts:
        tolerance = atol
        for call in part:
            value = next(left)
            if special in NOT_NONE:
                value = Value(repr(value.literal != "None" or bool(value.kind)))
            if value.error or value.kind:
                why = value.error or f"a value of type {value.kind}"
                raise RuntimeError(f"{row['task_id']}: the reference gives {why} for {call!r}")
            before, tolerance = tolerance, tolerance or (FLOAT_ATOL if value.floats else 0)
            if not value.large and _weight(value) <= longest:
                cases.append((literal(call), value.literal, before, tolerance, call))
    zeros = source == "humaneval+" and name == "find_zero"
    text = _zeros(cases, atol) if zeros else _compared(cases, special, name)
    if len(cases) < len(found):
        return OMITTED.format(len(found) - len(cases), len(found), MAX_TESTS) + text
    return text


def _longest(found: Sequence[Value]) -> int:
    """The weight up to which expected values are taken, so that together they fit MAX_TESTS."""
    total = 0
    for weight in sorted(map(_weight, found)):
        total += weight
        if total > MAX_TESTS:
            return weight - 1
    return MAX_TESTS


def _weight(value: Value) -> int:
    """Bytes, about, of a literal when compiled: every item of a list costs instructions."""
    return len(value.literal) + 8 * value.literal.count(",")


def _compared(cases: list[tuple], special: str, name: str) -> str:
    """Tests that compare with the expected value, to a tolerance where there is one.

    They are HumanEval's `check(candidate)`, but bare assertions for a task whose own function has
    that name (Mbpp/56).
    """
    other = _OTHER.get(special)
    tolerant = any(tolerance for _, _, _, tolerance, _ in cases) or other is _surface
    right, head = _right(special), CLOSE if tolerant and special != ANYTHING else ""
    columns = "inputs, expected" + (", tolerance" if tolerant else "")
    columns += ", other" if other else ""
    lines = []
    for inputs, expected, before, tolerance, call in cases:
        line = f"({inputs}, {expected}" + (f", {tolerance!r}" if tolerant else "")
        line += f", {other(call, before)}" if other else ""
        lines.append(f"    {line}),\n")
    if tolerant and special != ANYTHING:
        right += " or tolerance and _close(value, expected, tolerance)"
    loop = f"for {columns} in CASES:\n    value = {{}}(*inputs)\n    assert {right}\n"
    if name == "check":
        loop = loop.format(name)
    else:
        loop = "def check(candidate):\n" + textwrap.indent(loop.format("candidate"), "    ")
    return f"{head}CASES = [\n{''.join(lines)}]\n\n\n{loop}"


def _right(special: str) -> str:
    """The expression that says whether `value` is right, before any tolerance."""
    if special in SETS:
        return "set(value) == set(expected)"
    if special in NOT_NONE:
        return "(value if isinstance(value, bool) else value is not None) == expected"
    return {
        ANYTHING: "[value]",
        OR_ZERO: "value == expected or value == 0",
        "surface_Area": "value == expected or abs(value - other[0]) <= other[1]",
        "digit_distance_nums": "value == expected or value == other",
    }.get(special, "value == expected")


def _surface(call: tuple, tolerance: float) -> str:
    """Mbpp/581 with `height` taken as the distance from the base to the apex, and how near."""
    edge, height = call
    slant = math.hypot(edge / 2, height)
    return literal((round(edge * edge + 2 * edge * slant), tolerance))


def _digits(call: tuple, tolerance: float) -> str:
    """Mbpp/558 with the shorter number filled up with zeros."""
    first, second = map(str, call)
    width = max(len(first), len(second))
    pairs = zip(first.zfill(width), second.zfill(width), strict=True)
    return literal(sum(abs(int(a) - int(b)) for a, b in pairs))


_OTHER = {"surface_Area": _surface, "digit_distance_nums": _digits}


def _zeros(cases: list[tuple], atol: float) -> str:
    """HumanEval/32: any zero of the polynomial is right."""
    lines = "".join(f"    {inputs},\n" for inputs, *_ in cases)
    return (
        f"{POLYNOMIAL}CASES = [\n{lines}]\n\n\ndef check(candidate):\n"
        "    for coefficients, in CASES:\n"
        f"        assert abs(_polynomial(coefficients, candidate(coefficients))) <= {atol!r}\n"
    )
