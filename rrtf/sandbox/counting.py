"""What rewritten tests call while they run: every assertion is counted and none ends the check."""

from collections.abc import Callable

# Names under which `instrument` has the tests call what stands here.
HOLDS, MUST, LOST, RAISED = "_rrtf_holds", "_rrtf_must", "_rrtf_lost", "_rrtf_raised"
ERROR, EXCEPTION, MIRRORED = "_rrtf_error", "_rrtf_Exception", "_rrtf_mirrored"


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
            MIRRORED: call_mirrored,
            EXCEPTION: Exception,
        }

    def holds(self, value: object) -> None:
        """One assertion was evaluated."""
        if value:
            self.passed += 1
        else:
            self._failed("wrong_type" if self.channel.saw_opaque else "wrong_value", False)
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
            self._failed("wrong_value", False)
        else:
            self.incomplete = True
            self._note(error)
        return Poison()

    def _note(self, error: Exception) -> None:
        reason = getattr(error, "candidate_reason", "")
        if type(error) is Poisoned or self.channel.ended:
            self._failed("", True)
        elif reason:
            self._failed(reason, True)
        else:
            self._failed("wrong_type", False)
        self.channel.saw_opaque = False

    def _failed(self, reason: str, by_candidate: bool) -> None:
        self.first = self.first or reason
        self.all_raised = self.all_raised and by_candidate


def call_mirrored(function: Callable, *args: object, **kwargs: object) -> object:
    """Calls a stub so that the arguments change in place; any other function as it is."""
    mirrored = getattr(function, "mirrored", None) if type(function) is _FUNCTION else None
    return mirrored(args, kwargs) if mirrored else function(*args, **kwargs)


_FUNCTION = type(call_mirrored)
