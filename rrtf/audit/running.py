"""The detector `execution`: does any function of a training row pass a benchmark task's tests?

Words, names and style do not matter to it. Every function of every row is tried on every task that
takes as many arguments, in two steps. First it is called with a few arguments that the task's tests
use, those of all tasks in one process, and what it returns is compared with what the reference
returns, loosely: nothing that could pass is lost by order, type of container or rounding. Then
whatever agreed is judged by all of the task's tests, as any response is.

What it cannot see: rows without a function, or whose code does not parse; functions that need a
project, a package, the network or standard input; a solution that is wrong. And tests that are too
weak say "passes" of programs that do something else.
"""

import ast
import hashlib
import marshal
import textwrap
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import permutations
from math import isclose
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from rrtf import probes, similarity, store
from rrtf.audit.detectors import EXECUTION
from rrtf.audit.rows import Row
from rrtf.records import Execution, Leak, Outcome, Problem, Response
from rrtf.sandbox.wire import Opaque

EXAMPLES, LOOKED_AT = 3, 40  # calls of a task's tests that a function is tried on, chosen from
LONGEST = 2000  # characters of the arguments and the result of an example

Call = Callable[..., list]  # `executor.call` or its like
_NUMBERS, _ROWS = int | float | complex, list | tuple | set | frozenset
_KNOWN = (*probes.TYPES, type(None), type)


@dataclass(frozen=True, slots=True)
class Exam:
    """A task as functions are tried on it: `examples` are (arguments, what comes out).

    `fields` as from `_fields`, where there are no examples.
    """

    problem: Problem
    parameters: tuple[str, ...]
    examples: tuple[tuple[tuple, Any], ...]
    fields: frozenset[str] = frozenset()


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
        placed = list(_by_place(calls, names))
        pairs = [(args, out) for args, out in placed if _is_plain([*args, out])]
        size = len(pairs[0][0]) if pairs else 0
        names = names or tuple(f"a{at}" for at in range(size))
        examples = tuple(_chosen([p for p in pairs if len(p[0]) == size]))
        found.append(
            Exam(task, names, examples, frozenset() if examples else _fields(task, placed))
        )
    return found


def _fields(task: Problem, calls: Sequence[tuple[tuple, Any]]) -> frozenset[str]:
    """The attributes of the objects that a task's tests pass, where it takes one to pass them.

    That is so where only objects are passed, of classes that the task defines without any operator,
    and different results are wanted: who reads no attribute returns the same of all. Else none.
    """
    wanted = {repr(out) for args, out in calls
              if args and all(type(a) is Opaque for a in args) and _is_plain([out])}  # fmt: skip
    owner = task.entry_point.partition("(")[0]
    sources = (task.prompt + task.reference, task.tests)
    classes = [node for source in sources for node in ast.walk(similarity.parsed(source))
               if isinstance(node, ast.ClassDef) and node.name != owner]  # fmt: skip
    inside = [node for one in classes for node in ast.walk(one)]
    methods = {node.name for node in inside if isinstance(node, ast.FunctionDef)}
    bases = {ast.unparse(base) for one in classes for base in [*one.bases, *one.decorator_list]}
    if len(wanted) < 2 or bases - {"object"} or any(m.startswith("__") for m in methods - _MADE):
        return frozenset()
    stored = {n.attr for n in inside if isinstance(n, ast.Attribute)
              and isinstance(n.ctx, ast.Store)}  # fmt: skip
    return frozenset(stored | methods - _MADE)


_MADE = {"__init__"}
_READERS = {"getattr", "hasattr", "vars", "attrgetter", "methodcaller", "eval", "exec"}


@lru_cache(maxsize=1 << 15)
def reads(source: str) -> frozenset[str]:
    """The attributes that a program reads; `*` among them where it may read others too."""
    nodes = list(ast.walk(similarity.parsed(source)))
    names = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    names |= {node.id for node in nodes if isinstance(node, ast.Name) and node.id in _READERS}
    special = any(name.startswith("__") or name in _READERS for name in names)
    special |= any(isinstance(node, ast.MatchClass) for node in nodes)
    return frozenset({*names, "*"} if special else names)


def parameters(task: Problem) -> tuple[str, ...]:
    """The names of the arguments of the task's function, as its reference or its prompt says."""
    name = task.entry_point.rpartition(".")[2]
    for source in (task.prompt + task.reference, task.prompt + "pass", task.prompt + "    pass"):
        for node in ast.walk(similarity.parsed(source)):
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
        is_counter = isinstance(out, dict) and type(out).__module__ == "collections"
        told = dict(out) if is_counter else out
        if len(found) < {most} and len(repr((asked, told))) <= {longest}:
            found.append((*asked, told))
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


def alike(value: Any, expected: Any) -> bool:
    """Whether some test might accept `value` where the reference returns `expected`.

    Numbers agree to a thousandth, sequences and sets as sets, an object of another type with any
    sequence and by its truth. What differs here, differs under any test that compares results.
    """
    if isinstance(value, Foreign):
        return _stands_for(value, expected)
    if isinstance(value, _NUMBERS) and isinstance(expected, _NUMBERS):
        return value == expected or _near(value, expected)
    if isinstance(value, _ROWS) and isinstance(expected, _ROWS):
        return _inside(value, expected) and _inside(expected, value)
    if isinstance(value, dict) and isinstance(expected, dict):
        return value.keys() == expected.keys() and all(alike(value[k], expected[k]) for k in value)
    if type(value) not in _KNOWN or type(expected) not in _KNOWN:
        return not isinstance(expected, bool) or bool(value) == expected
    return value == expected


def _stands_for(value: "Foreign", expected: Any) -> bool:
    """Whether a test that takes the items, or asks for truth, might accept it."""
    if isinstance(expected, bool) or value.items is None:
        return not isinstance(expected, bool) or value.truth == expected
    if isinstance(expected, str):
        text = "".join(item for item in value.items if isinstance(item, str))
        return bool(value.items) and {*text} == {*expected}
    if isinstance(expected, dict):
        return bool(value.items) or not expected
    return isinstance(expected, _ROWS) and alike(value.items, expected)


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


MOST = 8  # arguments of a function that takes any number
_FUNCTIONS = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef

# What answers use without importing it, as the harnesses of contests provide it.
PRELUDE = """\
import collections
import functools
import heapq
import itertools
import math
import re
import string
from collections import *
from typing import *
"""
_ANSWER = "rrtf_answer"
# The row's source gets names of its own, so that a wrapper may bear the name of its function.
_LOADED = """
rrtf_space = dict(globals(), __name__="row", print=lambda *texts, **how: None)
exec({source!r}, rrtf_space)
rrtf_named = compile({name!r}, "row", "eval")


def {answer}(*arguments):
    return eval(rrtf_named, rrtf_space)(*arguments)
"""
# Classes that tests make objects of stay in reach.
_SHOWN = """

globals().update({name: rrtf_space[name] for name in rrtf_space.keys() - globals().keys()})


"""
# One call may take a moment, all that take longer a while; what is known already ends at once.
_TIMED = """

class {unheard}(Exception):
    pass


def rrtf_timed(*arguments, _state=[0, 0]):
    import signal

    def stop(number, frame):
        _state[1] += 1
        raise {unheard}

    _state[0] += 1
    if _state[0] <= {after} or _state[1] >= {slow_calls}:
        raise {unheard}
    signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, {seconds})
    try:
        return {answer}(*arguments)
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
"""
UNHEARD = "Unheard"  # the error of a call that took too long, or came after too many of those
SECONDS, SLOW_CALLS = 0.05, 12


@dataclass(frozen=True, slots=True)
class Function:
    """A function or method (`name`, as `f` or `Stack().push`) with the `source` it needs.

    It can be called with `least` to `most` arguments by place. `key` is equal for functions that
    are the same code but for names, docstrings, annotations and layout.
    """

    name: str
    source: str
    least: int
    most: int
    key: str


@lru_cache(maxsize=1 << 15)
def functions_in(code: str) -> tuple[Function, ...]:
    """Every function, named lambda and method of `code`; what stands inside another as if outside.

    Left out: stubs, coroutines, what needs keyword arguments, methods of classes that cannot be
    made without arguments. Code that does not parse has none.
    """
    try:
        return tuple(_found(similarity.parsed(textwrap.dedent(code)).body))
    except (ValueError, RecursionError, MemoryError):  # too long an integer, or nested too deep
        return ()


def _found(body: Sequence[ast.stmt], around: Sequence[ast.stmt] = ()) -> Iterator[Function]:
    """The functions of a body; `around` are the statements outside, whose names it also sees."""
    known = [*around, *body]
    names = Counter(node.name for node in body if isinstance(node, ast.FunctionDef))
    for node in body:
        if isinstance(node, ast.FunctionDef):
            others = known  # and none that has its name: one of several answers
            if names[node.name] > 1:
                others = [s for s in known if s is node or getattr(s, "name", "") != node.name]
            yield from _function(node.name, node, others, bound=0)
            yield from _found(node.body, known)
        elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Lambda):
            for target in node.targets:
                if isinstance(target, ast.Name):
                    yield from _function(target.id, _named(target.id, node.value), known, bound=0)
        elif isinstance(node, ast.ClassDef) and _is_made_of_nothing(node):
            for member in node.body:
                if isinstance(member, ast.FunctionDef) and not member.name.startswith("__"):
                    bound = int("staticmethod" not in map(ast.unparse, member.decorator_list))
                    name = f"{node.name}().{member.name}"
                    yield from _function(name, member, known, bound=bound)


def _named(name: str, value: ast.Lambda) -> ast.FunctionDef:
    """A named lambda as the function it is."""
    function = ast.parse(f"def {name}(): pass").body[0]
    function.args, function.body = value.args, [ast.Return(value.body)]
    return ast.fix_missing_locations(function)


def _function(
    name: str, node: ast.FunctionDef, body: Sequence[ast.stmt], *, bound: int
) -> Iterator[Function]:
    given = node.args
    places = [*given.posonlyargs, *given.args][bound:]
    most = len(places) if not given.vararg else MOST
    required = [a for a, default in zip(given.kwonlyargs, given.kw_defaults, strict=True)
                if default is None]  # fmt: skip
    canonical = [*similarity.canonical_functions(ast.unparse(node)).values()]
    if required or not most or not canonical or _is_property(node):
        return
    owner = name.partition("(")[0]
    needed = similarity.needed({owner, "*"}, body, defines=_bound, reads=similarity.names)
    others = [ast.unparse(s) for s in needed if "().".join((owner, "")) in name or s is not node]
    key = hashlib.sha256("\n".join([*canonical, *others]).encode()).hexdigest()[:24]
    source = "\n".join(map(ast.unparse, needed))
    yield Function(name, source, max(0, len(places) - len(given.defaults)), most, key)


def _is_property(node: ast.FunctionDef) -> bool:
    return any("property" in ast.unparse(d) or "setter" in ast.unparse(d)
               for d in node.decorator_list)  # fmt: skip


def _is_made_of_nothing(node: ast.ClassDef) -> bool:
    """Whether `node()` needs no arguments, as far as its own `__init__` says."""
    for member in node.body:
        if isinstance(member, ast.FunctionDef) and member.name == "__init__":
            places = [*member.args.posonlyargs, *member.args.args][1:]
            required = [d for d in member.args.kw_defaults if d is None]
            return len(places) <= len(member.args.defaults) and not required
    return True


def _bound(statement: ast.stmt) -> set[str]:
    """The names that a top-level statement binds; `*` for a star import."""
    if isinstance(statement, _FUNCTIONS):
        return {statement.name}
    if isinstance(statement, ast.Import | ast.ImportFrom):
        return {alias.asname or alias.name.partition(".")[0] for alias in statement.names}
    if isinstance(statement, ast.If) and "__name__" in ast.unparse(statement.test):
        return set()
    inside = [n for n in ast.walk(statement) if isinstance(n, ast.Import | ast.ImportFrom)]
    stored = {n.id for n in ast.walk(statement)
              if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}  # fmt: skip
    return stored.union(*map(_bound, inside))


def to_call(function: Function, *, after: int = 0) -> tuple[str, str]:
    """(program, entry point) for `executor.call`; its first `after` calls end at once.

    A call of more than SECONDS raises UNHEARD, and so does every one after SLOW_CALLS of these.
    """
    return _loaded(function, "") + _timed(_ANSWER, after), "rrtf_timed"


def _timed(answer: str, after: int) -> str:
    limits = {"seconds": SECONDS, "slow_calls": SLOW_CALLS, "unheard": UNHEARD}
    return _TIMED.format(after=after, answer=answer, **limits)


# All calls in one: a mark for each, and of those that returned what they had returned right then.
_SWEPT = """

def rrtf_seen(*arguments):
    from collections.abc import Iterable
    from itertools import islice
    from marshal import dumps, loads
    from types import BuiltinFunctionType, FunctionType, MethodType

    value = {answer}(*arguments)
    home = type(value).__module__
    if isinstance(value, dict) and home == "collections":
        value = dict(value)
    try:
        data = dumps(value, {unshared})
        return ({returned!r}, loads(data)) if len(data) <= {most} else ({unheard_mark!r}, None)
    except ValueError:
        pass
    if isinstance(value, type | BuiltinFunctionType | FunctionType | MethodType):
        return {foreign!r}, (True, [])
    items = None
    if isinstance(value, Iterable) and home in ("builtins", "collections", "itertools"):
        try:
            data = dumps(list(islice(value, {items})), {unshared})
            items = loads(data) if len(data) <= {most} else None
        except Exception as error:
            if type(error) is {unheard}:
                raise
    return {foreign!r}, (bool(value), items)

{timed}

def rrtf_swept(calls):
    from marshal import loads

    marks, values = [], []
    for arguments in loads(calls):
        try:
            mark, value = rrtf_timed(*arguments)
        except {unheard}:
            mark = {unheard_mark!r}
        except Exception:
            mark = {raised!r}
        marks.append(mark)
        if mark in {with_value!r}:
            values.append(value)
    return "".join(marks), values
"""
_RETURNED, _FOREIGN, _RAISED, _UNHEARD = "=~!?"
_UNSHARED = 2  # the newest format of `marshal` in which nothing is one object twice
_MOST, _ITEMS = 8192, 1000  # bytes of a value, more than LONGEST makes; items of an iterator


@dataclass(frozen=True, slots=True)
class Foreign:
    """A result that is no plain value: its truth, and the items it gives, if these are known.

    A function has none. It equals no plain value; `items` None: it may.
    """

    truth: bool
    items: Sequence | None


def to_sweep(function: Function) -> tuple[str, str]:
    """(program, entry point): given marshalled calls, it makes them all and tells in one value.

    That value is (marks, values), a mark for each call: it returned, plainly or not (`Foreign`),
    raised, or was UNHEARD, as is a value too large to be any example's; the values are of the calls
    that returned, in order. The whole fails where a call leaves the process.
    """
    names = {"returned": _RETURNED, "foreign": _FOREIGN, "raised": _RAISED}
    names |= {"unheard_mark": _UNHEARD, "with_value": _RETURNED + _FOREIGN, "unheard": UNHEARD}
    numbers = {"unshared": _UNSHARED, "most": _MOST, "items": _ITEMS}
    program = _SWEPT.format(answer=_ANSWER, timed=_timed("rrtf_seen", 0), **names, **numbers)
    return _loaded(function, "") + program, "rrtf_swept"


# What a function returns to calls of its own, as (whether it returned, what).
_ASKED = """

def rrtf_asked():
    from math import inf, nan

    found = []
    for arguments in {calls!r}:
        try:
            found.append((True, rrtf_timed(*arguments)))
        except Exception:
            found.append((False, None))
    return found
"""


def asked(program: str, answer: str, calls: Sequence[tuple]) -> tuple[str, str]:
    """(program, entry point) that returns what `answer` returns to each of `calls`.

    `answer` is an expression that names a function of `program`.
    """
    return program + _timed(answer, 0) + _ASKED.format(calls=list(calls)), "rrtf_asked"


def as_answer(
    function: Function,
    entry_point: str,
    parameters: Sequence[str],
    order: Sequence[int],
    prompt: str,
) -> str:
    """A program in which `function` stands for a task's `entry_point` (`f`, `Solution().f`).

    `parameters` are the names by which tests may pass arguments; the function's argument i is the
    task's argument `order[i]`. `prompt` is what the task's programs begin with, if it stands alone.
    """
    owner, _, method = entry_point.partition("().")
    passed = ", ".join(parameters[at] for at in order)
    head = ", ".join((*(("self",) if method else ()), *parameters))
    wrapper = f"def {method or owner}({head}):\n    return {_ANSWER}({passed})\n"
    if method:
        wrapper = f"class {owner}:\n" + textwrap.indent(wrapper, "    ")
    return _loaded(function, prompt) + _SHOWN + wrapper


def _loaded(function: Function, prompt: str) -> str:
    text = _LOADED.format(source=function.source, name=function.name, answer=_ANSWER)
    return f"{PRELUDE}{prompt}\n{text}"


BATCH = 256  # functions that are called, and saved, together
FURTHER = 32  # calls that tell the same function from one that weak tests let through
ROUNDS = 3  # calls that may hang in one function before the rest of its calls is given up
_ORDERED = 3  # arguments that are also tried in every other order
_DECIDE = ("rrtf.audit.running", "rrtf.sandbox")  # whose code decides what is promised

Judge = Callable[[Sequence[Problem], Sequence[Response]], list[Execution]]


@dataclass(frozen=True, slots=True)
class Promise:
    """The function with this key returned what the task's examples expect of it."""

    key: str
    task_id: str
    order: tuple[int, ...]


def passes_tests(
    rows: Sequence[Row],
    benchmark: str,
    tasks: Sequence[Problem],
    *,
    call: Call,
    judge: Judge,
    shards: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Leak]:
    """A leak for each row and task where a function of the row passes all of the task's tests.

    `call` is `executor.call`, `judge` takes problems and responses as `execution.execute`, both
    with their options bound; programs run only inside them. With the folder `shards` every batch of
    functions that was called is saved and found again. The evidence names the function and the
    tests it passes, the score is the share of `further` calls on which it agrees with the
    reference: tests can be weak. `progress(done, total)` counts batches.
    """
    owners: defaultdict[str, dict[str, str]] = defaultdict(dict)  # key -> row -> name there
    known: dict[str, Function] = {}
    for row in rows:
        for function in functions_in(row.code):
            known.setdefault(function.key, function)
            owners[function.key].setdefault(row.task_id, function.name)
    exams = {exam.problem.task_id: exam for exam in examine(tasks, call)}
    functions = list(known.values())
    promises = promising(functions, [*exams.values()], call=call, shards=shards, progress=progress)
    tried = [(exams[p.task_id].problem, known[p.key], p.order) for p in promises]
    asked = {promise.task_id for promise in promises}
    members = [exam.problem for name, exam in exams.items() if name in asked]
    verdicts = judge(members, as_responses(tried))
    passed = [(p, v) for p, v in zip(promises, verdicts, strict=True) if v.outcome is Outcome.PASS]
    shares = further([(known[p.key], exams[p.task_id], p.order) for p, _ in passed], call)
    leaks: dict[tuple[str, str], Leak] = {}
    for (promise, verdict), share in zip(passed, shares, strict=True):
        for row_id, name in owners[promise.key].items():
            told = f"{name} passes {verdict.n_passed} of {verdict.n_tests} tests"
            leak = Leak(row_id, benchmark, promise.task_id, EXECUTION, share, told)
            place = row_id, promise.task_id
            if place not in leaks or leaks[place].score < share:
                leaks[place] = leak
    return list(leaks.values())


def as_responses(tried: Sequence[tuple[Problem, Function, Sequence[int]]]) -> list[Response]:
    """What a judge is given: each function, with its order of arguments, as an answer to a task."""
    responses = []
    for index, (task, function, order) in enumerate(tried):
        names = parameters(task) or tuple(f"a{at}" for at in range(function.most))
        alone = task.prompt if similarity.parsed(task.prompt).body else ""  # where it is a program
        program = as_answer(function, task.entry_point, names, order, alone)
        responses.append(Response(task.task_id, "row", index, "", program))
    return responses


def promising(
    functions: Sequence[Function],
    exams: Sequence[Exam],
    *,
    call: Call,
    shards: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Promise]:
    """The functions and tasks worth a judge, with the order of arguments that agreed.

    Tasks without examples are promised to every function that takes as many arguments and may read
    the attributes that it takes to pass them.
    """
    groups: defaultdict[tuple[int, int], list[Function]] = defaultdict(list)
    for function in functions:
        groups[function.least, function.most].append(function)
    batches = [
        (span, members[at : at + BATCH])
        for span, members in sorted(groups.items())
        for at in range(0, len(members), BATCH)
    ]
    trials = {span: _trials(exams, *span) for span in groups}

    def work(left: Sequence[int], put: store.Put) -> None:
        for number in left:
            span, members = batches[number]
            put(number, list(_tried(members, trials[span], call)))

    def key(batch: tuple[tuple[int, int], list[Function]]) -> list:
        programs = [to_call(function) for function in batch[1]]
        return [*map(store.version, _DECIDE), programs, repr(trials[batch[0]])]

    found = store.through_shards(
        shards, batches, key=key, kind=Promise, work=work, progress=progress
    )
    return found + [
        Promise(function.key, exam.problem.task_id, tuple(range(len(exam.parameters))))
        for exam in exams
        if not exam.examples
        for function in functions
        if function.least <= len(exam.parameters) <= function.most
        and (not exam.fields or reads(function.source) & {*exam.fields, "*"})
    ]


Trial = tuple[str, tuple[int, ...], list[tuple[tuple, Any]]]  # task, order, examples so ordered


def _trials(exams: Sequence[Exam], least: int, most: int) -> list[Trial]:
    """What functions of `least` to `most` arguments are tried on."""
    found = []
    for exam in exams:
        size = len(exam.examples[0][0]) if exam.examples else -1
        if least <= size <= most:
            straight = tuple(range(size))
            for order in permutations(straight) if size <= _ORDERED else [straight]:
                turned = [(tuple(args[at] for at in order), out) for args, out in exam.examples]
                found.append((exam.problem.task_id, order, turned))
    return found


def _tried(functions: Sequence[Function], trials: Sequence[Trial], call: Call) -> Iterator[Promise]:
    """What one batch promises: the first order in which a function agrees on a task's examples."""
    inputs = {repr(args): args for _, _, examples in trials for args, _ in examples}
    inputs = dict(sorted(inputs.items(), key=lambda item: not _marshalled([item[1]])))
    place = {text: at for at, text in enumerate(inputs)}
    asked = [(name, order, [(place[repr(args)], out) for args, out in examples])
             for name, order, examples in trials]  # fmt: skip
    called = _called(functions, list(inputs.values()), call)
    for function, results in zip(functions, called, strict=True):
        kept = set()
        for task_id, order, examples in asked:
            if task_id not in kept and _agree([(results[at], out) for at, out in examples]):
                kept.add(task_id)
                yield Promise(function.key, task_id, order)


def _agree(pairs: Sequence[tuple[Any, Any]]) -> bool:
    """Whether at least one example agrees and no other one differs, as far as calls ended."""
    heard = [(result, out) for result, out in pairs if result.error != UNHEARD]
    return bool(heard) and all(not r.error and alike(r.value, out) for r, out in heard)


def further(passed: Sequence[tuple[Function, Exam, tuple[int, ...]]], call: Call) -> list[float]:
    """How often each function agrees with the reference on FURTHER calls that no test makes.

    They are varied from the examples (`probes.varied_calls`); where the reference fails or takes
    too long, nothing is asked. In [0, 1]; 1 where nothing could be asked.
    """
    programs = []
    for function, exam, order in passed:
        task, examples = exam.problem, [dict(enumerate(args)) for args, _ in exam.examples]
        varied = probes.varied_calls(
            examples, [task.reference, function.source], count=FURTHER if examples else 0, seed=1
        )
        calls = [tuple(one[at] for at in sorted(one)) for one in varied]
        turned = [tuple(one[at] for at in order) for one in calls]
        source = task.prompt + task.reference if task.reference else ""
        programs.append(asked(source, task.entry_point, calls))
        programs.append(asked(_loaded(function, ""), _ANSWER, turned))
    answers = [found[0] for found in call(programs, [()])] if programs else []
    return [_share(*answers[at : at + 2]) for at in range(0, len(answers), 2)]


def _share(theirs: Any, ours: Any) -> float:
    """Of the calls to which the reference returned something, those that agree."""
    if theirs.error or not isinstance(theirs.value, list):
        return 1.0
    mine = ours.value if not ours.error and isinstance(ours.value, list) else []
    mine = mine + [(False, None)] * (len(theirs.value) - len(mine))
    same = [
        fine and alike(value, expected)
        for (told, expected), (fine, value) in zip(theirs.value, mine, strict=True)
        if told
    ]
    return sum(same) / len(same) if same else 1.0


_GIVEN_UP = SimpleNamespace(value=None, error=UNHEARD)  # in place of a result
_FIXED = {_UNHEARD: _GIVEN_UP, _RAISED: SimpleNamespace(value=None, error="Exception")}


def _called(functions: Sequence[Function], inputs: Sequence[tuple], call: Call) -> list[list]:
    """Every function on every input: in one sweep where that works, else call by call.

    Inputs that `marshal` cannot write come last: no sweep is asked for these.
    """
    plain = sum(bool(_marshalled([arguments])) for arguments in inputs)
    results = _swept(functions, inputs[:plain], call)
    for known in {0, plain} - {len(inputs)}:
        waiting = [at for at, found in enumerate(results) if len(found) == known]
        found = _one_by_one([functions[at] for at in waiting], inputs[known:], call)
        for at, more in zip(waiting, found, strict=True):
            results[at] += more
    return results


def _marshalled(calls: Sequence[tuple]) -> bytes:
    """The calls as a worker reads them; empty where they hold what cannot be written so."""
    try:
        return marshal.dumps(list(calls), _UNSHARED)
    except ValueError:
        return b""


def _swept(functions: Sequence[Function], inputs: Sequence[tuple], call: Call) -> list[list]:
    """What `to_sweep` tells of each function, as a list of results, empty where it failed."""
    if not inputs or not functions:
        return [[] for _ in functions]
    answers = call([to_sweep(function) for function in functions], [(_marshalled(inputs),)])
    return [_told(answer.value, len(inputs)) for (answer,) in answers]


def _told(value: Any, count: int) -> list:
    """The `count` results in what a sweep returned; none if it is anything else: rows may forge."""
    match value:
        case (str(marks), list(values)) if (
            len(marks) == count
            and sum(map(marks.count, _RETURNED + _FOREIGN)) == len(values)
            and {*marks} <= {_RETURNED, _FOREIGN, *_FIXED}
        ):
            returned = iter(values)
            return [_FIXED.get(mark) or _returned(mark, next(returned)) for mark in marks]
    return []


def _returned(mark: str, value: Any) -> SimpleNamespace:
    match value:
        case (bool(truth), None | list() as items) if mark == _FOREIGN:
            value = Foreign(truth, items)
    return SimpleNamespace(value=value, error="")


def _one_by_one(functions: Sequence[Function], inputs: Sequence[tuple], call: Call) -> list[list]:
    """Every function on every input; after a call that ends the process with the ones after it."""
    results: list[list] = [[] for _ in functions]
    waiting = list(range(len(functions))) if inputs else []
    for _ in range(ROUNDS):
        programs = [to_call(functions[at], after=len(results[at])) for at in waiting]
        for at, found in zip(waiting, call(programs, inputs) if programs else (), strict=True):
            known = len(results[at])
            results[at] += found[known : max(known + 1, _ended(found))]
        waiting = [at for at in waiting if len(results[at]) < len(inputs)]
    return [known + [_GIVEN_UP] * (len(inputs) - len(known)) for known in results]


def _ended(found: Sequence[Any]) -> int:
    """How many results there are until a call that ended the process, that one counted."""
    last = found[-1].error
    if not last or last[0].isupper():  # the name of an exception: it went on after it
        return len(found)
    at = len(found)
    while at and found[at - 1].error == last:
        at -= 1
    return at + 1
