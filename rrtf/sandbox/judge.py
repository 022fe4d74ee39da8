"""The judge: one problem's tests, run against a stub of the candidate, assertion by assertion.

A process of its own per problem whose tests are code; for tests that are data one that goes on
(`court`). It never runs candidate code: `candidate(...)` sends arguments
to the worker and gets a value of the closed set back, a copy on both sides.

How assertions are counted. Every executed `assert` is one test, in loops each time it is reached,
and a failed one does not end the check. `assert` of a true constant is no test. A statement
outside of assertions whose call of the candidate fails leaves a value that fails every assertion
it enters. What a call does to its arguments is seen at once, as in one process.
When a part of the check cannot be carried through, the number of tests is at least
the number of `assert` statements in the source; so it is defined for programs that never start.
"""

import _socket
import builtins
import itertools
import marshal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib import import_module
from types import CodeType, CoroutineType

from rrtf.sandbox import counting, expectations, wire
from rrtf.sandbox.channel import NOTHING, Channel, Frames, Gone, Nursery, SandboxError

FLUSH_SECONDS = 0.1
MAX_RESULTS = 2 << 20  # bytes of what one program gives to the caller


# Tests use what the candidate has imported (MBPP: `math.isclose`). Standard modules, and what has
# one meaning only among the names of these, come from here and not from the program.
_MODULES = frozenset((
    "sys", "math", "re", "cmath", "collections", "copy", "itertools", "operator", "string",
    "random", "functools", "decimal", "fractions", "datetime", "typing", "statistics", "json",
    "heapq", "bisect", "time", "asyncio",
))  # fmt: skip
_HOMES = ("math", "collections", "itertools", "functools", "decimal", "fractions", "typing", "copy",
          "datetime", "statistics", "heapq", "bisect", "string")  # fmt: skip


class UnusableTests(Exception):
    """The tests themselves cannot be run; no program's fault."""


class Check:
    """A problem's prepared tests, ready to be run against any number of programs."""

    def __init__(self, prepared: dict):
        self.entry_point, self.n_asserts = prepared["entry_point"], prepared["n_asserts"]
        self.cases, self.seed = prepared.get("cases", ()), prepared["seed"]

    def assertions(self, channel: Channel) -> Callable[[counting.Tally], None]:
        """What runs the tests against the program behind `channel`, which starts after this."""
        raise NotImplementedError

    def verdict(self, program: str, channel: Channel) -> tuple:
        """(situation, reason, assertions passed, assertions, *`counting.Failing`)."""
        run = self.assertions(channel)
        situation, reason = channel.load(program, self.entry_point)
        if situation and not channel.ended:
            channel.dismiss()
        tally, came = counting.Tally(channel), counting.window(counting.raising(channel.raised))
        try:
            run(tally)
        except SystemExit as error:
            if error.code:
                tally.lost(AssertionError())
        except Exception as error:
            if isinstance(error, ImportError) and not hasattr(error, "candidate_reason"):
                raise UnusableTests(f"the tests cannot be run here: {error}") from None
            tally.lost(error)
        channel.dismiss()
        n_tests = max(tally.reached, self.n_asserts if tally.incomplete or situation else 0, 1)
        if situation:
            return situation, reason, 0, n_tests, *counting.NONE_FAILED[:-1], came
        passed = tally.passed
        if not tally.reached and not tally.incomplete:  # it may have been about an exception
            passed = 1 if channel.raised else 0
            tally.first = tally.first or "no_assertion"
            n_tests = n_tests if passed else max(n_tests, self.n_asserts)
            tally.all_raised = False
        judged = _judgement(channel, tally, passed, n_tests)
        return *judged, passed, n_tests, *(tally.failing if judged[1] else counting.NONE_FAILED)


class CodeCheck(Check):
    """Tests that are code."""

    def __init__(self, prepared: dict):
        super().__init__(prepared)
        self.code = marshal.loads(prepared["code"])
        self.prompt = marshal.loads(prepared["prompt"]) if prepared["prompt"] else None
        self.name, self.lacking = prepared["name"], prepared["lacking"]
        self.draws, self.wants_pytest = prepared["draws"], prepared["wants_pytest"]
        self.has_check, self.is_class = prepared["has_check"], prepared["is_class"]

    def assertions(self, channel: Channel) -> Callable[[counting.Tally], None]:
        """Runs the code, then its `check` if it has one."""
        if self.draws:
            import_module("random").seed(self.seed)
        if self.wants_pytest:
            sys.modules["pytest"] = expectations
        space = self._namespace(channel)
        channel.makes_objects = self.is_class

        def run(tally: counting.Tally) -> None:
            space.update(tally.hooks())
            exec(self.code, space)
            if self.has_check:
                found = space["check"](space[self.name])
                if isinstance(found, CoroutineType):
                    import_module("asyncio").run(found)

        return run

    def _namespace(self, channel: Channel) -> dict:
        """Globals for one run: helpers of the prompt, the stub, standard and deferred names."""
        space = {"__name__": "tests", "__builtins__": builtins}
        if self.prompt:
            _run_prompt(self.prompt, space)
            _know_classes(channel, space, self.entry_point)
        for name in self.lacking:
            if name not in space:
                space[name] = _standing_for(name, channel)
        space[self.name] = stub(channel, self.entry_point)
        return space


class DataCheck(Check):
    """Tests that are data: one call of the candidate each, compared with a literal."""

    def __init__(self, prepared: dict):
        super().__init__(prepared)
        self.asked = [("call", self.entry_point, case[1], case[2]) for case in self.cases]
        self.requests = Frames(_crossing(self.asked))
        self.replies = Frames(itertools.takewhile(bool, map(_passing, self.cases)))

    def assertions(self, channel: Channel) -> Callable[[counting.Tally], None]:
        """Asks for all values, then compares, case by case."""

        def run(tally: counting.Tally) -> None:
            ahead = len(self.requests.ends) == len(self.cases)
            if ahead:
                tally.passed = tally.reached = channel.ask_ahead(self.requests, self.replies)
            left = list(zip(self.asked, self.cases, strict=True))[tally.reached :]
            for request, (form, _, _, expected, line) in left:
                tally.case, channel.came = (request, _EXPECTED[form], expected, line), NOTHING
                try:
                    value = channel.next_value() if ahead else channel.ask(*request)
                    channel.came = value
                    tally.holds(_HOLDS[form](value, expected))
                except Exception as error:
                    tally.raised(error)

        return run


class OutputCheck(Check):
    """Programs run as a whole, anew for each test: a text in, the text they print out.

    Every run is a worker of its own with all that a program may use; one that ends with another
    exit status than 0 has failed its test, one that meets a limit is not run again.
    """

    def verdict(self, program: str, channel: Channel) -> tuple:
        """As of any check; the expected texts stay here."""
        tally, n_tests = counting.Tally(channel), len(self.cases)
        for number, (_, (given,), _, expected, line) in enumerate(self.cases):
            if number:
                channel = tally.channel = Channel(channel.nursery, channel.wall, has_input=True)
            tally.case = (("call", "program", (given,), {}), _EXPECTED[0], expected, line)
            situation, printed = channel.printed(program, given)
            if situation == wire.COMPILE_ERROR:
                return situation, channel.ended, 0, n_tests, *counting.NONE_FAILED
            if channel.ended:
                tally.ended(channel.ended)
            else:
                channel.came = printed.decode(errors="replace")
                tally.holds(expectations.is_same_output(channel.came, expected))
            if channel.fatal:
                break
        judged = _judgement(channel, tally, tally.passed, n_tests)
        failing = tally.failing if judged[1] else counting.NONE_FAILED
        return *judged, tally.passed, n_tests, *failing


class Calls(Check):
    """No tests: of every input what the program's function gives for it, or why it gives nothing.

    A program is (source, entry point).
    """

    def __init__(self, prepared: dict):
        self.inputs = wire.decode(prepared["inputs"], None)

    def verdict(self, program: tuple[str, str], channel: Channel) -> tuple[list]:
        """Per input an encoded value, or the reason (str)."""
        situation, reason = channel.load(*program)
        results: list[bytes | str] = []
        size = 0
        try:
            if not situation:
                channel.request(("many", program[1], self.inputs))
            while not situation and len(results) < len(self.inputs):
                kind, payload = channel.receive()
                size += len(payload)
                if size > MAX_RESULTS:
                    channel.end("output_limit")
                results.append(payload if kind == b"V" else _failure(channel, kind, payload))
        except Gone:
            reason = channel.ended
        channel.dismiss()
        return (results + [reason] * (len(self.inputs) - len(results)),)


def _failure(channel: Channel, kind: bytes, payload: bytes) -> str:
    try:
        channel.value(kind, payload)
    except Gone:
        raise
    except Exception as error:
        return getattr(error, "candidate_reason", "Exception")
    raise Gone("protocol_violation")


def _check(message: dict) -> Check:
    if "inputs" in message:
        return Calls(message)
    if "cases" not in message:
        return CodeCheck(message)
    return (OutputCheck if message["reads_input"] else DataCheck)(message)


def _crossing(requests: list[tuple]) -> Iterator[bytes]:
    """Requests for a worker, up to one that cannot cross."""
    with suppress(wire.WireError):
        for request in requests:
            wire.encode(request)
            yield wire.plain(request)


def _passing(case: tuple) -> bytes | None:
    """The reply with which a case certainly holds, so that nobody needs to decode it."""
    form, _, _, expected, _ = case
    _, value = _EXPECTED[form](expected)
    with suppress(Exception):
        data = wire.encode(form == 2 if value is NOTHING else value)
        if _HOLDS[form](wire.decode(data, None), expected):
            return b"V" + data
    return None


# What the forms of `assertions` mean, by number; the last two: of what, and how near.
_HOLDS: tuple[Callable[[object, object], object], ...] = (
    lambda value, expected: value == expected,
    lambda value, expected: value != expected,
    lambda value, expected: value,
    lambda value, expected: not value,
    lambda value, expected: value is expected,
    lambda value, expected: value is not expected,
    lambda value, expected: abs(value - expected[0]) < expected[1],
    lambda value, expected: abs(value - expected[0]) <= expected[1],
)


# What a form expects: (what is said before the value, the value).
_EXPECTED: tuple[Callable[[object], tuple[str, object]], ...] = (
    lambda expected: ("", expected),
    lambda expected: ("!= ", expected),
    lambda expected: ("a true value", NOTHING),
    lambda expected: ("a false value", NOTHING),
    lambda expected: ("", expected),
    lambda expected: ("is not ", expected),
    lambda expected: (f"within {expected[1]!r} of ", expected[0]),
    lambda expected: (f"within {expected[1]!r} of ", expected[0]),
)


def _judgement(channel: Channel, tally, passed: int, n_tests: int) -> tuple[str, str]:
    if channel.fatal:
        return wire.RUNTIME_ERROR, channel.fatal
    if passed == n_tests and not tally.incomplete and not channel.refusal:
        return wire.PASS, ""
    if not tally.passed and tally.all_raised:
        return wire.RUNTIME_ERROR, tally.first
    return wire.FAILED_TESTS, tally.first or channel.refusal or "wrong_value"


def _run_prompt(prompt: CodeType, space: dict) -> None:
    try:
        exec(prompt, space)
    except Exception as error:
        raise UnusableTests(f"the prompt cannot be run here: {error!r}") from None


def _know_classes(channel: Channel, space: dict, entry_point: str) -> None:
    """Classes that the prompt defines: their objects cross by name and fields.

    The class that is tested is none of them: what it makes stays with the candidate.
    """
    for name, value in space.items():
        if isinstance(value, type) and value.__module__ == space["__name__"]:
            if issubclass(value, BaseException):
                channel.errors[name] = value
            elif name != entry_point and (type(value) is type or wire.is_enumeration(value)):
                channel.kinds[name] = value


def _standing_for(name: str, channel: Channel) -> object:
    """What a name means that the tests lack: a standard one, or what the program has by it."""
    if name in _MODULES:
        return import_module(name)
    home = next((home for home in map(import_module, _HOMES) if name in vars(home)), None)
    if home:
        return getattr(home, name)
    return wire.Deferred(channel, lambda: channel.ask("name", name))


def stub(channel: Channel, target: str) -> Callable:
    """A function that asks the worker, and shows what becomes of the arguments."""

    def candidate(*args, **kwargs):
        return channel.ask_shown("shown", target, args, kwargs)

    return candidate


class _Report:
    """Results for the caller, gathered for a moment so that short programs cost one write."""

    def __init__(self, fd: int):
        self.fd, self.rows, self.since = fd, [], time.monotonic()

    def add(self, row: tuple) -> None:
        self.rows.append(row)
        if time.monotonic() - self.since > FLUSH_SECONDS:
            self.flush()

    def flush(self, mark: bytes = b"") -> None:
        """Sends the rows, then `mark`."""
        rows = [wire.encode(row) for row in self.rows]
        parts = [len(data).to_bytes(4, "little") + data for data in rows]
        wire.write_all(self.fd, b"".join(parts) + mark)
        self.rows, self.since = [], time.monotonic()


def preside(
    job: bytes,
    out: int,
    line: _socket.socket,
    wall_seconds: float,
    stays: Callable[[], bool] = lambda: False,
) -> bool:
    """Judges every program of a job; results and what went wrong are written to `out`.

    After them stands whether this process `stays` for another job, which is also returned.
    """
    report, sound, nursery = _Report(out), False, Nursery(line)
    messages, programs = marshal.loads(job)
    at, check = -1, None
    try:
        for index, (number, program) in enumerate(programs):
            if number != at:  # the job's problems follow each other
                at, check = number, _check(messages.pop(0))
            channel = Channel(nursery, wall_seconds, has_input=isinstance(check, OutputCheck))
            report.add((index, *check.verdict(program, channel)))
            if isinstance(check, Calls):
                report.flush()
        sound = True
    except (SandboxError, UnusableTests) as error:
        report.add((type(error).__name__, str(error)))
    nursery.forget()
    stays_on = sound and stays()
    report.flush(wire.STAYS if stays_on else wire.LEAVES)
    return stays_on
