"""The judge: one problem's tests, run against a stub of the candidate, assertion by assertion.

A process of its own per problem. It never runs candidate code: `candidate(...)` sends arguments
to the worker and gets a value of the closed set back, always a fresh copy on both sides.

How assertions are counted. Every executed `assert` is one test, in loops each time it is reached,
and a failed one does not end the check. `assert` of a true constant is no test. A statement
outside of assertions whose call of the candidate fails leaves a value that fails every assertion
it enters. When a part of the check cannot be carried through, the number of tests is at least
the number of `assert` statements in the source; so it is defined for programs that never start.
"""

import _socket
import builtins
import os
import random
import struct
import time
import sys
from collections.abc import Iterator

from rrtf.sandbox import counting, reasons, wire

SPAWN, CPU, END, FAILED = b"S", b"C", b"E", b"!"
STATUS = struct.Struct("<id??")
PATIENCE = 5  # times the wall limit, for a program that the machine does not let run
FLUSH_SECONDS = 0.1


# Tests use what the candidate has imported (MBPP: `math.isclose`): standard modules stand here.
_MODULES = frozenset("sys math re cmath collections copy itertools operator string".split())


class SandboxError(Exception):
    """The sandbox failed, not the program: to be tried again."""


class UnusableTests(Exception):
    """The tests themselves cannot be run; no program's fault."""


class CandidateError(Exception):
    """An exception of the candidate that has no built-in class."""


class Gone(Exception):
    """The worker has ended; nothing more comes from it."""


class Channel:
    """The judge's end of one run: asks the worker, keeps the time, notes how it ended."""

    def __init__(self, nursery: _socket.socket, wall_seconds: float):
        self.nursery, self.wall = nursery, wall_seconds
        self.nonce, self.number = os.urandom(8), 0
        self.waited, self.checked, self.cpu = 0.0, 0.0, 0.0
        self.buffer = b""
        self.ended = ""  # the reason why the worker is gone
        self.fatal = ""  # the reason of an event that decides the verdict
        self.raised: Exception | None = None  # the latest exception of the candidate
        self.saw_opaque = False
        self.fd = self._spawn()

    def _spawn(self) -> int:
        os.write(self.nursery.fileno(), SPAWN + self.nonce)
        while True:
            message, rights, _, _ = self.nursery.recvmsg(64, _socket.CMSG_SPACE(4))
            fds = [struct.unpack("i", data[:4])[0] for _, _, data in rights]
            if message[1:9] == self.nonce:
                if message[:1] != SPAWN or not fds:
                    raise SandboxError("no worker could be started")
                return fds[0]
            for fd in fds:
                os.close(fd)
            if not message:
                raise SandboxError("the workers' zygote is gone")

    def _ask_nursery(self, kind: bytes, more: bytes = b"") -> bytes:
        os.write(self.nursery.fileno(), kind + self.nonce + more)
        while True:
            message = self.nursery.recv(64)
            if not message:
                raise SandboxError("the workers' zygote is gone")
            if message[1:9] == self.nonce:
                return message[9:] if message[:1] == kind else b""

    def request(self, value: object) -> None:
        if self.ended:
            raise Gone(self.ended)
        self.number += 1
        payload = wire.encode(value)
        data = wire.HEADER.pack(len(payload), self.nonce, self.number) + payload
        while data:
            data = data[self._patiently(os.write, data) or 0 :]

    def receive(self) -> tuple[bytes, bytes]:
        """(kind, payload) of the next reply; Gone when there will be none."""
        if self.ended:
            raise Gone(self.ended)
        head = wire.HEADER.size
        while len(self.buffer) < head:
            self._fill()
        size, nonce, number = wire.HEADER.unpack_from(self.buffer)
        if nonce != self.nonce or number != self.number or not 0 < size <= wire.MAX_FRAME + 1:
            self.end("protocol_violation")
        parts, have = [self.buffer], len(self.buffer)
        while have < head + size:
            self.buffer = b""
            self._fill()
            parts.append(self.buffer)
            have += len(self.buffer)
        data = b"".join(parts)
        self.buffer = data[head + size :]
        return data[head : head + 1], data[head + 1 : head + size]

    def _fill(self) -> None:
        self.buffer += self._patiently(os.read, 1 << 16) or b""

    def _patiently(self, action, argument):
        """One read or write with the descriptor's own short time limit; None if it passed."""
        start = time.monotonic()
        try:
            result = action(self.fd, argument)
        except BlockingIOError:
            result = None
        except OSError:  # reset or broken pipe: the same as an end of file
            result = b""
        self.waited += time.monotonic() - start
        if result == b"":
            self.end("")
        elif self.waited > self.wall and self.waited - self.checked > min(1.0, self.wall):
            self._check_progress()
        return result

    def _check_progress(self) -> None:
        """Past the wall limit: sleeping ends here, being kept waiting for a CPU does not."""
        answer = self._ask_nursery(CPU)
        cpu = struct.unpack("<d", answer)[0] if answer else 0.0
        idle = cpu - self.cpu < 0.05 * (self.waited - self.checked)
        self.cpu, self.checked = cpu, self.waited
        if idle or self.waited > PATIENCE * self.wall:
            self.end("wall_time")

    def end(self, reason: str) -> None:
        """Ends the worker for `reason` ('': for whatever ended it) and raises Gone."""
        self.close(reason)
        raise Gone(self.ended)

    def close(self, reason: str = "") -> None:
        os.close(self.fd)
        answer = self._ask_nursery(END, b"" if reason else b"\1")
        self.ended = reason or _cause(answer)
        self.fatal = self.fatal or self.ended

    def dismiss(self) -> None:
        """The tests are over: whatever the worker does now does not count."""
        if not self.ended:
            os.close(self.fd)
            self._ask_nursery(END, b"\0")
            self.ended = "dismissed"

    def ask(self, *request: object) -> object:
        """The value of one request; raises what the candidate raised."""
        self.request(request)
        return self.value(*self.receive())

    def value(self, kind: bytes, payload: bytes) -> object:
        try:
            value = wire.decode(payload, self._opaque)
            if kind == b"V":
                return value
            if kind == b"E":
                self.raised = self._exception(*value)
        except (wire.WireError, TypeError):
            self.end("protocol_violation")
        if kind == b"X":
            self.end("early_exit")
        if kind != b"E":
            self.end("protocol_violation")
        raise self.raised

    def _opaque(self, handle: int, truth: bool, kind: str) -> wire.Opaque:
        self.saw_opaque = True
        return wire.Opaque(handle, truth, kind, lambda op, *rest: self.ask(op, *rest))

    def _exception(self, reason: str, builtin: str, message: str) -> Exception:
        if reasons.is_fatal(reason):
            self.fatal = self.fatal or reason
        kind = getattr(builtins, builtin, None)
        usable = isinstance(kind, type) and issubclass(kind, Exception)
        try:
            error = (kind if usable else CandidateError)(message)
        except TypeError:  # UnicodeDecodeError and the like want more arguments
            error = CandidateError(message)
        error.candidate_reason = reason if reason.isidentifier() else "Exception"
        return error

    def load(self, program: str, entry_point: str) -> tuple[str, str]:
        """Starts the program: ('', '') or (situation, reason) of why it does not start."""
        compiled = False
        try:
            self.request((program, entry_point))
            while True:
                kind, payload = self.receive()
                if kind == b"C" and not compiled:
                    compiled = True
                elif kind == b"R" and compiled:
                    return "", ""
                elif kind == b"S":
                    reason = wire.decode(payload, self._opaque)
                    known = reasons.REASONS.get(reason, ("",))[0] == reasons.COMPILE_ERROR
                    return reasons.COMPILE_ERROR, reason if known else "syntax"
                else:
                    self.value(kind, payload)
        except Gone:
            if not compiled:
                return reasons.COMPILE_ERROR, "parser"
            return reasons.RUNTIME_ERROR, self.ended
        except wire.WireError:
            return reasons.RUNTIME_ERROR, "protocol_violation"
        except Exception as error:
            return reasons.RUNTIME_ERROR, getattr(error, "candidate_reason", "Exception")


def _cause(answer: bytes) -> str:
    """The reason for which a worker ended by itself, from its zygote's STATUS."""
    status, _, out_of_time, alive = STATUS.unpack(answer)
    if out_of_time:
        return "cpu_time"
    if alive:
        return "protocol_violation"  # it closed the channel and went on
    if os.WIFEXITED(status):
        return "early_exit"
    number = os.WTERMSIG(status)
    return _SIGNALS.get(number, f"signal_{number}")


_SIGNALS = {24: "cpu_time", 25: "output_limit", 31: "refused"}  # SIGXCPU, SIGXFSZ, SIGSYS


# --- the tests ---------------------------------------------------------------------------------


class Check:
    """A problem's tests, ready to be run against any number of programs."""

    def __init__(self, prompt: str, entry_point: str, tests: str):
        self.prompt, self.entry_point = prompt, entry_point
        try:
            self.code, self.n_asserts, self.has_check = counting.instrument(tests)
        except (SyntaxError, ValueError) as error:
            raise UnusableTests(f"the tests do not compile: {error}") from None
        if not self.n_asserts:
            raise UnusableTests("the tests assert nothing")
        self.names = counting.global_names(self.code)
        self.helpers = counting.helpers(self.names, prompt) - {entry_point}

    def namespace(self, channel: Channel) -> dict:
        """Globals for one run: helpers of the prompt, the stub, stubs for unknown names."""
        space = {"__name__": "tests", "__builtins__": builtins}
        if self.helpers:
            _run_prompt(self.prompt, space)
        for name in self.names:
            if name in _MODULES:
                space.setdefault(name, sys.modules[name])
            elif name not in space and not hasattr(builtins, name):
                space[name] = stub(channel, name)
        space[_plain_name(self.entry_point)] = stub(channel, self.entry_point)
        return space

    def verdict(self, program: str, channel: Channel, seed: int) -> tuple[str, str, int, int]:
        """(situation, reason, assertions passed, assertions)."""
        random.seed(seed)
        situation, reason = channel.load(program, self.entry_point)
        if situation and not channel.ended:
            channel.dismiss()
        space = self.namespace(channel)
        tally = counting.Tally(channel)
        space.update(tally.hooks())
        try:
            exec(self.code, space)
            if self.has_check:
                space["check"](space[_plain_name(self.entry_point)])
        except ImportError as error:
            raise UnusableTests(f"the tests cannot be run here: {error}") from None
        except Exception as error:
            tally.lost(error)
        channel.dismiss()
        n_tests = max(tally.reached, self.n_asserts if tally.incomplete or situation else 0, 1)
        passed = 1 if not tally.reached and not tally.incomplete else tally.passed
        if situation:
            return situation, reason, 0, n_tests
        return (*_judgement(channel, tally, passed, n_tests), passed, n_tests)


def _judgement(channel: Channel, tally, passed: int, n_tests: int) -> tuple[str, str]:
    if channel.fatal:
        return reasons.RUNTIME_ERROR, channel.fatal
    if passed == n_tests and not tally.incomplete:
        return reasons.PASS, ""
    if not tally.passed and tally.all_raised:
        return reasons.RUNTIME_ERROR, tally.first
    return reasons.FAILED_TESTS, tally.first or "wrong_value"


def _plain_name(entry_point: str) -> str:
    return entry_point if entry_point.isidentifier() else "candidate"


def _run_prompt(prompt: str, space: dict) -> None:
    try:
        exec(counting.compile_prompt(prompt), space)
    except Exception as error:
        raise UnusableTests(f"the prompt cannot be run here: {error!r}") from None


def stub(channel: Channel, target: str):
    def candidate(*args, **kwargs):
        return channel.ask("call", target, args, kwargs)

    candidate.in_place = lambda args, kwargs: channel.ask("in_place", target, args, kwargs)
    return candidate


# --- jobs --------------------------------------------------------------------------------------


class _Report:
    """Results for the caller, gathered for a moment so that short programs cost one write."""

    def __init__(self, fd: int):
        self.fd, self.rows, self.since = fd, [], time.monotonic()

    def add(self, row: tuple) -> None:
        self.rows.append(row)
        if time.monotonic() - self.since > FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        for row in self.rows:
            data = wire.encode(row)
            wire.write_all(self.fd, len(data).to_bytes(4, "little") + data)
        self.rows, self.since = [], time.monotonic()


def preside(job: bytes, out: int, nursery: _socket.socket, wall_seconds: float) -> None:
    """Judges every program of a job; results and what went wrong are written to `out`."""
    report = _Report(out)
    parts = _parts(job)
    message = wire.decode(next(parts), None)
    try:
        if message["kind"] == "call":
            inputs = wire.decode(message["inputs"], None)
        else:
            check = Check(message["prompt"], message["entry_point"], message["tests"])
        for index, part in enumerate(parts):
            program = wire.decode(part, None)
            channel = Channel(nursery, wall_seconds)
            if message["kind"] == "call":
                report.add((index, _results(channel, *program, inputs, message["seed"])))
                report.flush()
            else:
                report.add((index, *check.verdict(program, channel, message["seed"])))
    except (SandboxError, UnusableTests) as error:
        report.add((type(error).__name__, str(error)))
    report.flush()


def _parts(job: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(job):
        size = int.from_bytes(job[at : at + 4], "little")
        yield job[at + 4 : at + 4 + size]
        at += 4 + size


def _results(channel: Channel, program: str, entry_point: str, inputs: list, seed: int) -> list:
    """Per input an encoded value, or the reason (str) why there is none."""
    random.seed(seed)
    situation, reason = channel.load(program, entry_point)
    results: list[bytes | str] = []
    size = 0
    try:
        if not situation:
            channel.request(("many", entry_point, inputs))
        while not situation and len(results) < len(inputs):
            kind, payload = channel.receive()
            size += len(payload)
            if size > wire.MAX_FRAME // 2:
                channel.end("output_limit")
            if kind == b"V":
                results.append(payload)
            else:
                results.append(_failure(channel, kind, payload))
    except Gone:
        reason = channel.ended
    channel.dismiss()
    return results + [reason] * (len(inputs) - len(results))


def _failure(channel: Channel, kind: bytes, payload: bytes) -> str:
    try:
        channel.value(kind, payload)
    except Gone:
        raise
    except Exception as error:
        return getattr(error, "candidate_reason", "Exception")
    raise Gone("protocol_violation")
