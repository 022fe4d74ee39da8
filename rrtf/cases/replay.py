"""Where an answer fails: its tests run once more in the sandbox, up to the first that fails.

A verdict says how many tests hold, not which. Here the tests are rewritten (compiling runs
nothing) to report step by step, and `executor.call` runs them beside the program, so that
both stay in the sandbox. A program could make this report lie; the verdict, which comes from
the judge, it cannot change.
"""

import ast
import binascii
import inspect
import marshal
import math
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import cache, lru_cache
from typing import Any

from rrtf.cases import steps
from rrtf.cases.rewriting import Unit, rewrite
from rrtf.records import Execution, Outcome, Problem, Response
from rrtf.sandbox import instrument, wire, worker

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


LOADING, RAISED, VALUE, STOPPED, UNKNOWN = "loading", "raised", "value", "stopped", "unknown"
_STEPS_PER_TEST, _MORE_STEPS = 4, 12
LINE, SAID = 160, 600  # characters that are shown of a program's line and of what is said
_PROGRAM = """
def _rrtf_step(state=[]):
    if not state:
        import binascii, builtins, marshal, zlib
        unpack = lambda text: marshal.loads(zlib.decompress(binascii.a2b_base64(text)))
        space = {{"__name__": "steps"}}
        exec(unpack({steps!r}), space)
        state.append(space["steps"](*map(unpack, {given!r}), globals()))
    return state[0]()
"""


_UNSENT = "def _rrtf_step():\n    return ('unsent',)\n"


@dataclass(frozen=True, slots=True)
class Failure:
    """The first test that an answer fails; all fields are texts and numbers for display.

    `how`: the program does not load, a test raises, compares a wrong value, or is stopped (time,
    memory, ...); `unknown` where the tests did not fail a second time. `test` counts from 1, 0 if
    no test was reached. `expected` and `returned` are Python literals where the values are, long
    ones cut around their difference; '' where there is none. `types` are their types' names.
    """

    task_id: str
    source: str
    index: int
    how: str
    test: int
    assertion: str
    called: str
    expected: str
    returned: str
    types: tuple[str, ...]
    tolerance: float
    said: str


def failures(
    problems: Sequence[Problem],
    responses: Sequence[Response],
    executions: Sequence[Execution],
    call: Callable[..., list[tuple]],
) -> list[Failure]:
    """The first failing test of every response whose execution is no PASS, in their order.

    `executions` are parallel to `responses`; `call` is `executor.call` with its options set.
    ValueError for lists that do not match.
    """
    tasks = {problem.task_id: problem for problem in problems}
    chosen = []
    for response, run in zip(responses, executions, strict=True):
        if _key(response) != _key(run):
            raise ValueError(f"response {_key(response)} beside the verdict of {_key(run)}")
        if run.outcome != Outcome.PASS:
            chosen.append((tasks[run.task_id], response, run))
    found: dict[int, Failure] = {}
    by_length: dict[int, list[int]] = {}
    for at, (_, _, run) in enumerate(chosen):
        needed = _STEPS_PER_TEST * run.n_tests + _MORE_STEPS
        by_length.setdefault(4 ** math.ceil(math.log(needed, 4)), []).append(at)
    for length, places in by_length.items():
        programs = [(_program(*chosen[at][:2]), "_rrtf_step") for at in places]
        for at, results in zip(places, call(programs, [()] * length), strict=True):
            found[at] = _failure(*chosen[at], results)
    return [found[at] for at in range(len(chosen))]


def _key(row: Response | Execution) -> tuple[str, str, int]:
    return row.task_id, row.source, row.index


def _program(problem: Problem, response: Response) -> str:
    packed, _ = _prepared(problem.prompt, problem.entry_point, problem.tests)
    text = _PROGRAM.format(steps=_steps(), given=[_packed(response.program), *packed])
    return text if packed and len(text) <= worker.MAX_SOURCE else _UNSENT


def _packed(value: Any) -> str:
    return binascii.b2a_base64(zlib.compress(marshal.dumps(value)), newline=False).decode()


@cache
def _steps() -> str:
    return _packed(compile(inspect.getsource(steps), "steps.py", "exec", dont_inherit=True))


@lru_cache(maxsize=512)
def _prepared(prompt: str, entry_point: str, tests: str) -> tuple[list[str], tuple[Unit, ...]]:
    """(prompt, tests, names, entry point as `steps.steps` takes them, the units of the tests).

    Both are empty for tests too deep to be rewritten.
    """
    try:
        code, units = rewrite(tests, entry_point)
    except (RecursionError, MemoryError):
        return [], ()
    names = instrument.global_names(code)
    used = instrument.helpers(names, prompt) - {entry_point}
    beside = instrument.compile_prompt(prompt) if used else None
    return [_packed(v) for v in (beside, code, tuple(sorted(names)), entry_point)], units


def _failure(
    problem: Problem, response: Response, run: Execution, results: Sequence[Any]
) -> Failure:
    _, units = _prepared(problem.prompt, problem.entry_point, problem.tests)
    begun: list[tuple] = []
    last = None
    for result in results:
        last = result
        if result.error or not _is_begun(result.value, len(units)):
            break
        begun.append(result.value)
    told = _told(last, begun, units, response.program, problem)
    reached = sum(units[unit].asserts for _, unit, _ in begun)
    if begun and not units[begun[-1][1]].asserts:
        reached += 1
    reached = 0 if told["how"] in (LOADING, UNKNOWN) else reached
    return Failure(run.task_id, run.source, run.index, test=reached, **told)


def _is_begun(report: Any, n_units: int) -> bool:
    """Whether it says that a step begins. A program may send anything in the place of a report."""
    match report:
        case ("at", int(unit), list(variables)):
            return 0 <= unit < n_units and all(map(_is_pair, variables))
    return False


def _is_pair(value: Any) -> bool:
    return type(value) is tuple and list(map(type, value)) == [str, str]


def _told(
    last: Any, begun: Sequence[tuple], units: Sequence[Unit], program: str, problem: Problem
) -> dict[str, Any]:
    """Everything of a `Failure` that the last report says."""
    if last is None or last.error:
        return _stopped(last.error if last else "", begun, units)
    match last.value:
        case ("unloaded", "missing", str(name), str(), int()):
            return _blank(LOADING, f"does not define {name}")
        case ("unloaded", str(how), str(error), str(message), int(line)):
            return _blank(LOADING, _raised(error, message, line, program, how))
        case ("failed", dict(found)) if _is_complete(found, len(units)):
            return _failed(found, units, program, problem)
        case ("unsent",):
            return _blank(UNKNOWN, "the tests are too long to run beside the program")
        case ("end",):
            return _blank(UNKNOWN, "all tests held when the program ran a second time")
    return _blank(UNKNOWN, "no test was seen to fail when the program ran a second time")


def _is_complete(found: dict, n_units: int) -> bool:
    types = {name: type(value) for name, value in found.items()}
    values = (found.get("returned"), found.get("expected"))
    return (
        types == _REPORT | {"called": types.get("called")}
        and types["called"] in (str, type(None))
        and 0 <= found["unit"] < n_units
        and all(value == () or _is_pair(value) for value in values)
    )


_REPORT = {
    "how": str, "unit": int, "called": str, "variables": list, "returned": tuple,
    "expected": tuple, "relation": str, "tolerance": float, "error": str, "message": str,
    "program_line": int, "tests_line": int, "step_line": int,
}  # fmt: skip


def _blank(how: str, said: str, **known: Any) -> dict[str, Any]:
    """The fields of a `Failure` of which some are known; a sentence is cut where it is endless."""
    said = said if len(said) <= SAID else said[:SAID] + " …"
    empty = {"assertion": "", "called": "", "expected": "", "returned": "", "types": ()}
    return empty | {"tolerance": 0.0, "how": how, "said": said} | known


def _stopped(reason: str, begun: Sequence[tuple], units: Sequence[Unit]) -> dict[str, Any]:
    known = "signal" if reason.startswith("signal") else reason
    meaning = wire.REASONS.get(known, ("", ""))[1]
    said = f"stopped: {meaning}" if meaning else f"raises {reason}"
    if reason in ("cpu_time", "wall_time"):
        said = f"too slow: {meaning}"
    if not begun:
        return _blank(LOADING, said)
    _, unit, variables = begun[-1]
    values = "\n".join(f"{name} = {value}" for name, value in variables)
    step = units[unit]
    return _blank(STOPPED, said, assertion=step.source, called=values, expected=step.expected)


def _raised(error: str, message: str, line: int, program: str, how: str = "raised") -> str:
    """`IndexError: list index out of range` and the program's line, if it is known."""
    what = f"{error}: {message}" if message else error
    source = _line(program, line)[:LINE]
    where = f"\nline {line}: {source}" if source else ""
    return f"{'does not compile, ' if how == 'compile' else 'raises '}{what}{where}"


def _failed(
    found: Mapping[str, Any], units: Sequence[Unit], program: str, problem: Problem
) -> dict[str, Any]:
    unit, raised = units[found["unit"]], found["how"] == "raised"
    name = problem.entry_point.rpartition(".")[2]
    called = f"{name}({found['called']})" if found["called"] is not None else ""
    wanted, got = found["expected"], found["returned"]
    sides = (wanted[0] if wanted else unit.expected, got[0] if got else "")
    expected, returned = cut(*aligned(*sides))
    sign = found["relation"] or unit.relation
    said = ""
    if raised:
        said = _raised(found["error"], found["message"], found["program_line"], program)
    elif found["how"] == "test":
        said = f"the test cannot use it, {found['error']}: {found['message']}"
    return _blank(
        RAISED if raised else VALUE,
        said,
        assertion=_assertion(unit, found, problem.tests),
        called=called if unit.names else "",
        expected=expected if sign in _EQUAL or not expected else f"{sign} {expected}",
        returned=returned,
        types=(wanted[1], got[1]) if wanted and got and sign in _EQUAL else (),
        tolerance=found["tolerance"],
    )


_EQUAL = ("", "==", "is")


def _assertion(unit: Unit, found: Mapping[str, Any], tests: str) -> str:
    """The source of what failed, and of the line in a helper of the tests where it did.

    A statement that is no step of its own is known by its line only.
    """
    inner, outer = found["tests_line"], found["step_line"]
    parts = [unit.source if not outer or outer in unit.lines else _line(tests, outer)]
    if found["how"] == "value" and inner != outer and inner not in unit.lines:
        parts.append(_line(tests, inner))
    return "\n".join(filter(None, parts))


def _line(text: str, number: int) -> str:
    lines = text.splitlines()
    return lines[number - 1].strip() if 0 < number <= len(lines) else ""
