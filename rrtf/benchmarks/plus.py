"""HumanEval+ and MBPP+ as EvalPlus 0.3.1 judges them, written out as tests that stand alone.

A row holds inputs only. The reference gives the expected values (`expected`), and what EvalPlus
decides in code while it compares is decided here per input and written down: the tolerance, and
the few tasks with an oracle of their own. Known to differ: an array that numpy would broadcast to
the shape of the expected value is not close to it here, and a program cannot change the inputs
with which its answer is compared. Contracts are not checked, as EvalPlus does not when evaluating.
"""

import hashlib
import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from rrtf import config, store
from rrtf.probes import literal
from rrtf.records import Problem
from rrtf.sandbox import executor
from rrtf.sandbox.executor import Limits

MAX_CHUNK = 200_000  # characters of inputs in one program
MAX_VALUE = 300_000  # characters, about, of a value that can be written into a test
MAX_REPLY, MAX_SECONDS = 1_000_000, 10  # what one program gives at once; the next goes on
_WRAPPER = """

_rrtf_function = {entry_point}


def _rrtf_size(value):
    size, waiting = 0, [value]
    while waiting and size <= {largest}:
        value = waiting.pop()
        size += 9
        if isinstance(value, int):
            size += value.bit_length() // 3
        elif isinstance(value, (str, bytes)):
            size += len(value)
        elif isinstance(value, dict):
            waiting += [*value.keys(), *value.values()]
        elif isinstance(value, (list, tuple, set, frozenset)):
            if len(value) > {largest}:
                return len(value)
            waiting += value
    return size


def _rrtf_results():
    import time
    results, total, end = [], 0, time.process_time() + {seconds}
    for inputs in {inputs}:
        if total > {most} or results and time.process_time() > end:
            break
        try:
            value = _rrtf_function(*inputs)
            size = _rrtf_size(value)
            results.append(("value", value) if size <= {largest} else ("large", size))
            total += size if size <= {largest} else 0
        except MemoryError:
            results.append(("large", 0))
        except Exception as error:
            results.append(("error", type(error).__name__))
    return results
"""


@dataclass(frozen=True, slots=True)
class Reference:
    """A program whose values are wanted: for every tuple of `inputs` those of `entry_point`."""

    task_id: str
    program: str
    entry_point: str
    inputs: tuple[tuple, ...]

    def key(self) -> str:
        """The name of its cached values."""
        text = literal((self.program, self.entry_point, self.inputs, _WRAPPER, MAX_VALUE))
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class Value:
    """What one call gave: its literal, or '' and the `kind` of a value that has none.

    `floats`: a float, or a non-empty list or tuple of floats. `error`: what was raised. `large`:
    longer than MAX_VALUE, or than memory.
    """

    literal: str
    kind: str = ""
    floats: bool = False
    error: str = ""
    large: bool = False


def values(
    references: Sequence[Reference], *, progress: Callable[[int, int], None] | None = None
) -> list[list[Value]]:
    """Per reference the values of its inputs, from the cache or computed in the sandbox.

    RuntimeError names a reference that does not get through all of its inputs.
    """
    folder = config.cache_dir() / "expected"
    paths = [folder / f"{reference.key()}.jsonl" for reference in references]
    missing = [at for at, path in enumerate(paths) if not path.exists()]
    computed = _compute([references[at] for at in missing], progress)
    for at, found in zip(missing, computed, strict=True):
        store.write(paths[at], found)
    return [store.read(path, Value) for path in paths]


def _compute(references: Sequence[Reference], progress: Callable | None) -> list[list[Value]]:
    """All references at once, their inputs in chunks; what a chunk leaves over is a new one."""
    found: dict[tuple[int, int], list[Value]] = {}
    waiting = [chunk for at, r in enumerate(references) for chunk in _chunks(at, r.inputs)]
    while waiting:
        programs = [_program(references[at], inputs) for at, _, inputs in waiting]
        how = {"limits": LIMITS, "workers": WORKERS, "progress": progress}
        results = executor.call(programs, [()], **how)
        left = []
        for (at, start, inputs), (result,) in zip(waiting, results, strict=True):
            if type(result.value) is not list or not result.value:
                why = result.error or "a value that is too large"
                raise RuntimeError(f"{references[at].task_id}: inputs {start} and on: {why}")
            found[at, start] = [_value(*pair) for pair in result.value]
            done = len(result.value)
            if done < len(inputs):
                left.append((at, start + done, inputs[done:]))
        waiting = left
    return [
        [v for key in sorted(k for k in found if k[0] == at) for v in found[key]]
        for at in range(len(references))
    ]


def _chunks(at: int, inputs: tuple[tuple, ...]) -> list[tuple[int, int, tuple[tuple, ...]]]:
    """(reference, first input, inputs) of parts whose literals have a bounded length."""
    chunks, start, size = [], 0, 0
    for number, each in enumerate(inputs):
        length = len(literal(each))
        if size + length > MAX_CHUNK and number > start:
            chunks.append((at, start, inputs[start:number]))
            start, size = number, 0
        size += length
    return [*chunks, (at, start, inputs[start:])] if inputs else []


def _program(reference: Reference, inputs: tuple[tuple, ...]) -> tuple[str, str]:
    wrapper = _WRAPPER.format(
        inputs=literal(inputs),
        entry_point=reference.entry_point,
        largest=MAX_VALUE,
        most=MAX_REPLY,
        seconds=MAX_SECONDS,
    )
    return reference.program + wrapper, "_rrtf_results"


def _value(how: str, value: object) -> Value:
    if how == "large":
        return Value("", large=True)
    if how == "error":
        return Value("", error=str(value))
    try:
        return Value(literal(value), floats=_floats(value))
    except ValueError:
        return Value("", kind=type(value).__name__)


def _floats(value: object) -> bool:
    if type(value) in (list, tuple) and value:
        return all(type(item) is float for item in value)
    return type(value) is float


PARTS = ("base", "plus")
# Expected values of references are computed under these limits, once.
LIMITS = Limits(120.0, 240.0, 2048, "landlock+seccomp")
WORKERS = 2

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
    progress: Callable[[int, int], None] | None = None,
) -> list[Problem]:
    """Rows of HumanEval+ (`source` "humaneval+") or MBPP+ ("mbpp+") as problems.

    One test per input of `parts`. RuntimeError names a reference that does not run.
    """
    inputs = [[_inputs(row, part, source) for part in parts] for row in rows]
    references = [
        Reference(row["task_id"], row["prompt"] + row["canonical_solution"], row["entry_point"],
                  tuple(call for part in of_parts for call in part))
        for row, of_parts in zip(rows, inputs, strict=True)
    ]  # fmt: skip
    found = values(references, progress=progress)
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
        "        zero = candidate([*coefficients])  # a program may change what it is given\n"
        f"        assert abs(_polynomial(coefficients, zero)) <= {atol!r}\n"
    )


# Which lists of a task's inputs are tuples, sets or other types (EvalPlus 0.3.1). An input is
# the list of one call's arguments.
_ARGUMENTS = frozenset(
    (2, 116, 132, 143, 222, 261, 273, 394, 399, 421, 424, 429, 470, 560, 579, 596, 616, 630, 726,
     740, 744, 809)
)  # fmt: skip
_ITEMS = frozenset((63, 64, 70, 94, 120, 237, 272, 299, 400, 409, 417, 438, 473, 614, 780))
_ITEMS_OF_FIRST = frozenset((75, 413, 444, 753))
_SECOND = frozenset((106, 750))
_FIRST = frozenset((250, 307, 405, 446, 617, 720, 763, 808))
_ARGUMENTS_AND_ITEMS = frozenset((259, 401, 445))
_EVERYTHING = frozenset((580, 615, 791))


def mbpp_inputs(number: int, calls: Sequence[list]) -> list[list]:
    """The arguments of every call of task `Mbpp/<number>`."""
    convert = _converter(number)
    return [list(convert(call)) for call in calls]


def _converter(number: int) -> Callable[[list], Sequence]:
    if number in _SPECIAL:
        return _SPECIAL[number]
    for tasks, convert in _FORMS:
        if number in tasks:
            return convert
    return lambda call: call


def _all_tuples(value: object) -> object:
    return tuple(map(_all_tuples, value)) if isinstance(value, list) else value


def _tuple_if_list(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


_FORMS: tuple[tuple[frozenset[int], Callable[[list], Sequence]], ...] = (
    (_ARGUMENTS, lambda call: [tuple(a) for a in call]),
    (_ITEMS, lambda call: [[tuple(item) for item in a] for a in call]),
    (_ITEMS_OF_FIRST, lambda call: [[tuple(item) for item in call[0]], *call[1:]]),
    (_SECOND, lambda call: [call[0], tuple(call[1])]),
    (_FIRST, lambda call: [tuple(call[0]), *call[1:]]),
    (_ARGUMENTS_AND_ITEMS, lambda call: [tuple(tuple(item) for item in a) for a in call]),
    (_EVERYTHING, lambda call: [_all_tuples(a) for a in call]),
)

_SPECIAL: dict[int, Callable[[list], Sequence]] = {
    115: lambda call: [[set(i) if isinstance(i, list) and i else {} for i in call[0]]],
    124: lambda call: [float(call[0]), complex(call[1])],
    252: lambda call: [complex(call[0])],
    278: lambda call: [tuple(map(_tuple_if_list, call[0]))],
    722: lambda call: [{k: tuple(v) for k, v in call[0].items()}, *call[1:]],
}
