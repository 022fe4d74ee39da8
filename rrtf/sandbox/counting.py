"""What rewritten tests call while they run: every assertion is counted and none ends the check."""

import operator
from collections.abc import Callable

from rrtf.sandbox.channel import AsyncStopped, Stopped
from rrtf.sandbox.wire import CannotCross, Opaque

# Names under which `instrument` has the tests call what stands here.
HOLDS, MUST, LOST, RAISED = "_rrtf_holds", "_rrtf_must", "_rrtf_lost", "_rrtf_raised"
ERROR, EXCEPTION = "_rrtf_error", "_rrtf_Exception"
STOPPED = {"StopIteration": "_rrtf_Stopped", "StopAsyncIteration": "_rrtf_AsyncStopped"}
COMPARED, BEFORE, FIXED = "_rrtf_compared", "_rrtf_before", "_rrtf_fixed"
NEXT = "_rrtf_next"


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
            COMPARED: self.compared,
            BEFORE: lambda value: (fixed(value), self.channel.changes),
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
        self.channel.saw_opaque = False

    def must(self, value: object) -> None:
        """An assertion inside `try`: its failure is the test's own control flow."""
        if not value:
            raise AssertionError
        self.passed += 1
        self.reached += 1

    def raised(self, error: Exception) -> None:
        """The evaluation of an assertion raised."""
        self.reached += 1
        self._note(error)

    def lost(self, error: Exception) -> Poison:
        """A statement outside of assertions raised; what it should have given is lost."""
        if type(error) is AssertionError and error is not self.channel.raised:
            self.reached += 1
        else:
            self.incomplete = True
        self._note(error)
        return Poison()

    def compared(self, form: str, before: tuple, left: object, right: Callable) -> object:
        """A comparison whose right side was computed, and fixed, before its left side.

        Where that has changed an argument, the comparison must hold for what is there now as well.
        """
        (fixed_right, changes), compare = before, _COMPARISONS[form]
        held = bool(compare(left, fixed_right))
        return bool(compare(left, right())) if held and changes != self.channel.changes else held

    def _why(self) -> str:
        other = "wrong_type" if self.channel.saw_opaque else "wrong_value"
        return self.channel.refusal or other

    def _note(self, error: Exception) -> None:
        reason = getattr(error, "candidate_reason", "")
        if type(error) is Poisoned or self.channel.ended:
            self._failed("", True)
        elif reason:
            self._failed(reason, True)
        elif isinstance(error, CannotCross):
            self._failed(error.judge_reason, False)
        elif type(error) in (AssertionError, Exception):
            self._failed(self._why(), False)
        else:
            self._failed("cannot_cross" if self.channel.saw_opaque else "wrong_type", False)
        self.channel.saw_opaque = False

    def _failed(self, reason: str, by_candidate: bool) -> None:
        self.first = self.first or reason
        self.all_raised = self.all_raised and by_candidate


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
}
