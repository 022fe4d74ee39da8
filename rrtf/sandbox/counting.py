"""What rewritten tests call while they run: every assertion is counted and none ends the check.

Of the first that fails it is noted which it was, what it expected and what came. The texts are made
here, by the judge, and stay on its side: no code of a candidate has a part in them.
"""

import operator
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress

from rrtf.sandbox import wire
from rrtf.sandbox.channel import NOTHING, AsyncStopped, Stopped
from rrtf.sandbox.wire import CannotCross, Opaque

# Names under which `instrument` has the tests call what stands here.
HOLDS, MUST, LOST, RAISED = "_rrtf_holds", "_rrtf_must", "_rrtf_lost", "_rrtf_raised"
ERROR, EXCEPTION = "_rrtf_error", "_rrtf_Exception"
STOPPED = {"StopIteration": "_rrtf_Stopped", "StopAsyncIteration": "_rrtf_AsyncStopped"}
COMPARED, BEFORE, FIXED = "_rrtf_compared", "_rrtf_before", "_rrtf_fixed"
NEXT, SIDES = "_rrtf_next", "_rrtf_sides"


TESTS = "tests.py"  # the name under which tests are compiled
Failing = tuple[int, int, str, str, str]  # test, line, call, expected, got: fields of `Execution`
NONE_FAILED: Failing = (0, 0, "", "", "")


class Poisoned(Exception):
    """A value that a failed call of the candidate should have given was used."""


class Poison:
    """Stands for the value of a statement that failed; every use of it fails."""

    def _fail(self, *_):
        raise Poisoned

    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = __bool__ = __iter__ = __len__ = _fail
    __getattr__ = __getitem__ = __contains__ = __call__ = __float__ = __int__ = __index__ = _fail
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __mod__ = __rmod__ = _fail
    __truediv__ = __rtruediv__ = __neg__ = __abs__ = __round__ = __str__ = __hash__ = _fail


class Tally:
    """What the assertions of one run said."""

    def __init__(self, channel):
        self.channel = channel
        self.passed = self.reached = 0
        self.first = ""  # reason of the first failure
        self.failing = NONE_FAILED  # which assertion that was
        self.sides: tuple | None = None  # of the comparison at hand: (relation, expected, got)
        self.case: tuple | None = (
            None  # of tests that are data: (request, form's words, expected, line)
        )
        self.all_raised = True  # every failure so far was an exception of the candidate
        self.incomplete = False

    def hooks(self) -> dict:
        return {
            HOLDS: self.holds,
            MUST: self.must,
            RAISED: self.raised,
            LOST: self.lost,
            EXCEPTION: Exception,
            STOPPED["StopIteration"]: Stopped,
            STOPPED["StopAsyncIteration"]: AsyncStopped,
            SIDES: self.compare,
            COMPARED: self.compared,
            BEFORE: self.before,
            FIXED: fixed,
            NEXT: following,
        }

    def holds(self, value: object) -> None:
        """One assertion was evaluated."""
        if value:
            self.passed += 1
        else:
            self._failed(self._why(), False)
        self.reached += 1
        self.sides = None
        self.channel.saw_opaque = False

    def must(self, value: object) -> None:
        """An assertion inside `try`: its failure is the test's own control flow."""
        if not value:
            raise AssertionError
        self.passed += 1
        self.reached += 1

    def raised(self, error: Exception) -> None:
        """The evaluation of an assertion raised."""
        self._note(error)
        self.reached += 1

    def ended(self, reason: str) -> None:
        """The program ended instead of giving a value."""
        self._failed(reason, True)
        self.reached += 1

    def lost(self, error: Exception) -> Poison:
        """A statement outside of assertions raised; what it should have given is lost."""
        self._note(error)
        if type(error) is AssertionError and error is not self.channel.raised:
            self.reached += 1
        else:
            self.incomplete = True
        return Poison()

    def compare(self, form: str, swapped: bool, left: object, right: object) -> object:
        """A comparison of which both sides are kept; `swapped`: the left one is expected."""
        self.sides = (_relation(form, swapped), *((left, right) if swapped else (right, left)))
        return _COMPARISONS[form](left, right)

    def before(self, form: str, value: object) -> tuple[object, int]:
        """The right side of a comparison, before the candidate is called on the left."""
        value = fixed(value)
        self.sides = (_relation(form, False), value, NOTHING)
        return value, self.channel.changes

    def compared(self, form: str, before: tuple, left: object, right: Callable) -> object:
        """A comparison whose right side was computed, and fixed, before its left side.

        Where that has changed an argument, the comparison must hold for what is there now as well.
        """
        (fixed_right, changes), compare = before, _COMPARISONS[form]
        self.sides = (_relation(form, False), fixed_right, left)
        held = bool(compare(left, fixed_right))
        return bool(compare(left, right())) if held and changes != self.channel.changes else held

    def _why(self) -> str:
        other = "wrong_type" if self.channel.saw_opaque else "wrong_value"
        return self.channel.refusal or other

    def _note(self, error: Exception) -> None:
        reason = getattr(error, "candidate_reason", "")
        if type(error) is Poisoned or self.channel.ended:
            self._failed("", True, error)
        elif reason:
            self._failed(reason, True, error)
        elif isinstance(error, CannotCross):
            self._failed(error.judge_reason, False, error)
        elif type(error) in (AssertionError, Exception):
            self._failed(self._why(), False, error)
        else:
            opaque = self.channel.saw_opaque
            self._failed("cannot_cross" if opaque else "wrong_type", False, error)
        self.channel.saw_opaque = False

    def _failed(self, reason: str, by_candidate: bool, error: Exception | None = None) -> None:
        if self.failing is NONE_FAILED:
            self.failing = (self.reached + 1, *NONE_FAILED[1:])
            with suppress(Exception):  # what is shown of a failure decides nothing
                self.failing = (self.reached + 1, *self._described(error))
        self.first = self.first or reason
        self.all_raised = self.all_raised and by_candidate

    def _described(self, error: Exception | None) -> tuple[int, str, str, str]:
        """(line of the tests, the call, what was expected of it, what came)."""
        relation, wanted, got = self.sides or ("", NOTHING, NOTHING)
        if self.case:
            (_, *called), words, expected, line = self.case
            relation, wanted = words(expected)
        else:
            called, line = self.channel.last_call(), _line_of(error)
        got = self.channel.came if got is NOTHING else got
        expected = relation + (shown(wanted) if wanted is not NOTHING else "")
        if self.channel.ended:
            came = f"stopped: {self.channel.ended}"
        else:
            came = raising(error) or ("" if got is NOTHING else shown(got))
        return line, window(_call_text(*called)) if called else "", *_beside(expected, came)


def following(iterator: object, *otherwise: object) -> object:
    """`next`, at the end of a candidate's iterator with an exception that no `map` swallows."""
    if not isinstance(iterator, Opaque):
        return next(iterator, *otherwise)
    try:
        return next(iterator)
    except StopIteration:
        if otherwise:
            return otherwise[0]
    iterator._remote.raised = Stopped()
    raise iterator._remote.raised


def fixed(value: object, seen: dict[int, object] | None = None) -> object:
    """A copy of containers as they are now: a program that changes its argument cannot reach it."""
    kind = type(value)
    if kind not in (list, tuple, dict, set):
        return value
    if kind in (list, tuple) and set(map(type, value)) <= _UNCHANGING:
        return kind(value)
    seen = {} if seen is None else seen
    if id(value) in seen or kind is set:
        return seen.get(id(value), value.copy() if kind is set else value)
    new = seen[id(value)] = {} if kind is dict else []
    if kind is dict:
        new.update((key, fixed(item, seen)) for key, item in value.items())
        return new
    new.extend(fixed(item, seen) for item in value)
    return new if kind is list else tuple(new)


_UNCHANGING = frozenset((int, float, complex, bool, str, bytes, type(None)))
_COMPARISONS = {
    "Eq": operator.eq,
    "NotEq": operator.ne,
    "Lt": operator.lt,
    "LtE": operator.le,
    "Gt": operator.gt,
    "GtE": operator.ge,
    "In": lambda a, b: a in b,
    "NotIn": lambda a, b: a not in b,
    "Is": operator.is_,
    "IsNot": operator.is_not,
}
_SIGNS = {"Eq": "", "Is": "", "NotEq": "!= ", "IsNot": "is not ", "In": "in ", "NotIn": "not in ",
          "Lt": "< ", "LtE": "<= ", "Gt": "> ", "GtE": ">= "}  # fmt: skip
_SWAPPED = {"Lt": "> ", "LtE": ">= ", "Gt": "< ", "GtE": "<= ", "In": "holding ",
            "NotIn": "not holding "}  # fmt: skip


def _relation(form: str, swapped: bool) -> str:
    return _SWAPPED.get(form, _SIGNS[form]) if swapped else _SIGNS[form]


def _line_of(error: Exception | None) -> int:
    """The line of the tests that is being run, or where they raised `error`; 0 for neither."""
    frame = sys._getframe(1)
    while frame:
        if frame.f_code.co_filename == TESTS:
            return frame.f_lineno
        frame = frame.f_back
    at, line = getattr(error, "__traceback__", None), 0
    while at:
        line = at.tb_lineno if at.tb_frame.f_code.co_filename == TESTS else line
        at = at.tb_next
    return line


LONGEST, LEAD = 400, 120  # characters of a text, and of it before the first difference
_READ, _NAME = 1 << 12, 100  # characters of a value that are looked at, of a type's name
_DEEP, _BITS = 20, 1 << 12


def shown(value: object) -> str:
    """A value as Python writes it, its beginning where it is long; sets and dicts in order.

    Of what is not of the closed set the type's name. No method of the value is called, and what
    is looked at is bounded, however large it is and however often it holds one thing.
    """
    return _text(value, [_READ], 0)


def _text(value: object, left: list[int], depth: int) -> str:
    """`left` holds one number: of characters still to be written."""
    kind = type(value)
    base = next((b for b in (list, tuple, dict, set, frozenset) if issubclass(kind, b)), None)
    if left[0] <= 0 or depth > _DEEP:
        return "…"
    if base:
        return _container(value, base, left, depth)
    if value is None or kind in (bool, int, float, complex, str, bytes):
        text = _scalar(value, left[0])
    elif isinstance(value, Opaque):
        name = value._kind  # as the candidate's process gave it
        text = f"<{name[:_NAME] if name.isidentifier() else 'object'}>"
    elif wire.is_enumeration(kind):
        text = f"{kind.__name__}.{value._name_}"
    elif found := wire.standard(kind):
        parts = wire.BY_CLASS[found[0]].parts(value, found[1]) or ()
        return found[0] + _container(parts, tuple, left, depth)
    elif kind.__module__ == "tests" and not issubclass(kind, type):  # of the prompt, of the tests
        fields = object.__getattribute__(value, "__dict__")
        return kind.__name__ + _container(fields, dict, left, depth)
    else:
        text = value.__name__ if kind is type else f"<{kind.__name__}>"
    left[0] -= len(text)
    return text


def _scalar(value: object, room: int) -> str:
    if type(value) in (str, bytes):
        return repr(value[:room])
    return repr(value) if type(value) is not int or value.bit_length() < _BITS else "<int>"


def _container(value: object, base: type, left: list[int], depth: int) -> str:
    items = []
    for item in dict.items(value) if base is dict else base.__iter__(value):
        if left[0] <= 0:
            items.append("…")
            break
        left[0] -= 2
        both = item if base is dict else (item,)
        items.append(": ".join([_text(side, left, depth + 1) for side in both]))
    if base in (list, tuple):
        inner = ", ".join(items)
        return f"[{inner}]" if base is list else f"({inner}{',' * (len(items) == 1)})"
    inner = f"{{{', '.join(sorted(items))}}}" if items or base is dict else "set()"
    return inner if base is not frozenset else f"frozenset({inner * bool(items)})"


def raising(error: Exception | None) -> str:
    """How an exception of the candidate came: `raises IndexError('pop from empty list')`."""
    reason = getattr(error, "candidate_reason", "")
    return f"raises {reason}({', '.join(map(shown, error.args))})" if reason else ""


def _call_text(name: str, args: tuple, kwargs: dict) -> str:
    given = [*map(shown, args), *(f"{key}={shown(value)}" for key, value in kwargs.items())]
    return f"{name.rpartition('.')[2]}({', '.join(given)})"


def _beside(*texts: str) -> Iterator[str]:
    """Texts cut to LONGEST, around the first difference where that is further in."""
    places = enumerate(zip(*texts, strict=False))
    at = next((at for at, both in places if len({*both}) > 1), min(map(len, texts)))
    return (window(text, max(0, at - LEAD)) for text in texts)


def window(text: str, start: int = 0) -> str:
    """At most LONGEST characters of a text, from `start` where it is longer."""
    if len(text) <= LONGEST:
        return text
    text = "… " * bool(start) + text[start:]
    return text if len(text) <= LONGEST else text[: LONGEST - 2] + " …"
