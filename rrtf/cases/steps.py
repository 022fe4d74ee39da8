"""The half of a replay that runs inside the sandbox: a program's tests, one step at a time.

Its source is compiled by `replay` and sent beside the program, so it imports nothing of this
project. What it reports is for display: verdicts come from the judge, which shares no process
with the program.
"""

import builtins
import contextlib
import copy
import sys
from collections.abc import Callable
from types import CodeType

SHOWN = 300  # characters of a variable that a step shows
WHOLE = 100_000  # characters of a value that is compared
ITEMS = 2_000  # nodes of a list or tree that are shown

_CLOSED = (type(None), bool, int, float, complex, str, bytes, list, tuple, dict, set, frozenset)
_NOTHING = object()
FLIPPED = {  # a relation seen from its other side
    "<": ">", "<=": ">=", ">": "<", ">=": "<=", "in": "holding", "not in": "not holding",
}  # fmt: skip


class Failed(Exception):
    """An assertion was false."""


def shown(value: object, limit: int = WHOLE) -> str:
    """`value` as text of about `limit` characters at most; nodes as the lists they stand for."""
    try:
        text = _text(value, 0)
    except RecursionError:
        text = f"<{type(value).__name__}, nested deeply>"
    return text if len(text) <= limit else f"{text[: limit - 60]} … {text[-50:]}"


def _text(value: object, depth: int) -> str:
    kind = type(value)
    if kind in _CLOSED[:7]:
        return repr(value)
    if kind is list:
        return f"[{_joined(value, depth)}]"
    if kind is tuple:
        return f"({_joined(value, depth)}{',' if len(value) == 1 else ''})"
    if kind is dict:
        pairs = (f"{_text(k, depth + 1)}: {_text(v, depth + 1)}" for k, v in value.items())
        return "{" + ", ".join(pairs) + "}"
    if kind in (set, frozenset):
        inside = "{" + _joined(sorted(value, key=repr), depth) + "}" if value else "set()"
        return inside if kind is set else f"frozenset({inside if value else ''})"
    return _other(value, depth)


def _joined(values, depth: int) -> str:
    return ", ".join([_text(value, depth + 1) for value in values])


def _other(value: object, depth: int) -> str:
    """Instances of other classes: subclasses as their base, nodes as lists, the rest by kind."""
    for base in _CLOSED[:0:-1]:
        if base is not bool and isinstance(value, base):
            return _text(base(value), depth)
    name = type(value).__name__
    if hasattr(value, "next") and hasattr(value, "val"):
        return f"{name}([{', '.join(_chain(value, depth))}])"
    if hasattr(value, "left") and hasattr(value, "right") and hasattr(value, "val"):
        return f"{name}([{', '.join(_tree(value, depth))}])"
    return f"<{name}>"


def _chain(node, depth: int) -> list[str]:
    texts, seen = [], set()
    while node is not None and id(node) not in seen and len(texts) < ITEMS:
        seen.add(id(node))
        texts.append(_text(node.val, depth + 1))
        node = node.next
    return texts if node is None else [*texts, "…"]


def _tree(node, depth: int) -> list[str]:
    """Level by level, as LeetCode writes trees; None for a missing child."""
    texts, level = [], [node]
    while level and len(texts) < ITEMS:
        child = level.pop(0)
        texts.append("None" if child is None else _text(child.val, depth + 1))
        level += [] if child is None else [child.left, child.right]
    while texts and texts[-1] == "None":
        texts.pop()
    return texts


class Recorder:
    """Stands between tests and program: notes what is called, compared and raised."""

    def __init__(self, space: dict, target: str):
        self.space, self.target = space, target
        self.names: dict = {}  # the tests' globals
        self.begin(0, (), {}, False)

    called, returned = None, _NOTHING

    def begin(self, unit: int, names: tuple, variables: dict, asserts: bool) -> tuple:
        """A step of the tests is about to be carried out; what its variables hold."""
        self.asserts = asserts
        self.unit, self.sides, self.relation, self.tolerance = unit, {}, "", 0.0
        self.calling = False
        found = [(n, variables.get(n, self.names.get(n, _NOTHING))) for n in names]
        self.variables = [(n, shown(v, SHOWN)) for n, v in found if v is not _NOTHING]
        return ("at", unit, self.variables)

    def call(self, *args: object, **kwargs: object) -> object:
        """The tested function; its arguments are noted before it can change them.

        In an assertion it gets copies: they are not to change what its answer is compared with.
        """
        if self.asserts:
            with contextlib.suppress(RecursionError):  # a chain too long to be copied
                args, kwargs = copy.deepcopy((args, kwargs))
        texts = [shown(value, 2 * SHOWN) for value in args]
        texts += [f"{name}={shown(value, 2 * SHOWN)}" for name, value in kwargs.items()]
        self.called, self.returned, self.calling = ", ".join(texts), _NOTHING, True
        self.returned = self.function()(*args, **kwargs)
        self.calling = False
        return self.returned

    def function(self):
        """`f` of the program, or the method of a fresh object for `Solution().f`."""
        if self.target.isidentifier():
            return self.space[self.target]
        return eval(self.target, self.space)

    def side(self, which: int, value: object, relation: str) -> object:
        """One side of a comparison: 0 what is tested, 1 what is expected."""
        if not which:
            self.sides = {}
        self.sides[which], self.relation = value, relation
        return value

    def bound(self, value: object) -> object:
        """The tolerance of a comparison."""
        self.tolerance = float(value)
        return value

    def holds(self, value: object) -> None:
        """One assertion was evaluated."""
        if not value:
            raise Failed

    def report(self, error: BaseException, expected=None) -> tuple:
        """What went wrong in the step that began last; `expected()` gives the other side."""
        inside, helper, step = _lines(error)
        how = "value" if isinstance(error, Failed) else "test"
        if self.calling or inside:
            how = "raised"
        elif isinstance(error, AssertionError):
            how = "value"
        if 1 not in self.sides and expected is not None:
            try:
                self.sides[1] = expected()
            except Exception:
                self.sides.pop(1, None)
        self._turn()
        sides = [self.sides.get(0, self.returned), self.sides.get(1, _NOTHING)]
        if how == "raised":
            sides[0] = _NOTHING
        return ("failed", {
            "how": how, "unit": self.unit, "called": self.called, "variables": self.variables,
            "returned": _packed(sides[0]), "expected": _packed(sides[1]),
            "relation": self.relation, "tolerance": self.tolerance,
            "error": type(error).__name__, "message": _message(error),
            "program_line": inside, "tests_line": helper, "step_line": step,
        })  # fmt: skip

    def _turn(self) -> None:
        """Of `expected == value` the right side is what was returned."""
        if len(self.sides) == 2 and self.sides[1] is self.returned is not self.sides[0]:
            self.sides = {0: self.sides[1], 1: self.sides[0]}
            self.relation = FLIPPED.get(self.relation, self.relation)


def _packed(value: object) -> tuple:
    """(text, name of its type), or () where there is no value."""
    return () if value is _NOTHING else (shown(value), type(value).__name__)


def _message(error: BaseException) -> str:
    try:
        return str(error)[:SHOWN]
    except BaseException:
        return ""


def _lines(error: BaseException) -> tuple[int, int, int]:
    """Where it was raised: the innermost line of the program, that of the tests, and the line of
    the step; 0 for none."""
    inside = tests = step = 0
    trace = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        if code.co_filename == "candidate.py":
            inside = trace.tb_lineno
        elif code.co_filename == "tests.py":
            tests, inside = trace.tb_lineno, 0
            step = tests if code.co_name in ("check", "_rrtf_steps") else step
        trace = trace.tb_next
    return inside, tests, step


def open_program(source: str, space: dict) -> tuple:
    """Runs the program's own statements in `space`: () if it loads, else why it does not."""
    try:
        exec(compile(source, "candidate.py", "exec", dont_inherit=True), space)
    except SyntaxError as error:
        return ("unloaded", "compile", type(error).__name__, str(error.msg), error.lineno or 0)
    except BaseException as error:
        line = _lines(error)[0]
        return ("unloaded", "raised", type(error).__name__, _message(error), line)
    return ()


def steps(
    source: str,
    prompt: CodeType | None,
    tests: CodeType,
    names: tuple,
    target: str,
    space: dict,
) -> Callable[[], tuple | None]:
    """A function that carries the tests on by one step at each call and reports on it.

    ("at", unit, variables): a step is about to be carried out; ("failed", what is known);
    ("unloaded", how, error, message, line); ("end",): every test held; None after any other end.
    """
    stopped = open_program(source, space)
    head = target.partition("(")[0]
    if not stopped and not callable(space.get(head)):
        stopped = ("unloaded", "missing", head, "", 0)
    run = None if stopped else _tests(prompt, tests, names, target, space)
    ended = []

    def step():
        if ended:
            return None
        report = stopped or _advance(*run)
        if report[0] != "at":
            ended.append(True)
        return report

    return step


def _advance(recorder: Recorder, tests) -> tuple:
    try:
        return next(tests, ("end",))
    except BaseException as error:
        return recorder.report(error)


def _tests(prompt, tests, names: tuple, target: str, space: dict) -> tuple:
    """(the recorder, a generator that yields one report per step of the tests)."""
    recorder = Recorder(space, target)
    plain = target if target.isidentifier() else "candidate"
    tested = recorder.names
    tested |= {n: v for n, v in space.items() if not hasattr(builtins, n)}
    tested |= {"__name__": "tests", "__builtins__": builtins}
    _run_prompt(prompt, tested, space)
    for name in names:
        if name not in tested and not hasattr(builtins, name) and name in sys.stdlib_module_names:
            tested[name] = __import__(name)
    if "random" in names:
        __import__("random").seed(0)
    tested |= {plain: recorder.call, "_rrtf_case": recorder}
    exec(tests, tested)
    return recorder, tested["_rrtf_steps"]()


def _run_prompt(prompt, tested: dict, space: dict) -> None:
    """Helpers that the prompt defines; of a class the program's own stays, nodes being its."""
    if prompt is None:
        return
    defined: dict = {"__name__": "tests", "__builtins__": builtins}
    try:
        exec(prompt, defined)
    except Exception:
        return
    for name, value in defined.items():
        if isinstance(value, type) and isinstance(space.get(name), type):
            defined[name] = space[name]
    tested |= {n: v for n, v in defined.items() if not n.startswith("__")}
