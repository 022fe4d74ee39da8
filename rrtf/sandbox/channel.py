"""The judge's end of one run: asks the worker for values, keeps the time, notes how it ended."""

import _socket
import builtins
import os
import struct
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from types import FunctionType, MappingProxyType, ModuleType
from typing import NoReturn

from rrtf.sandbox import linked, wire

_TICK = struct.pack("ll", 0, 250_000)  # how often a judge looks up from waiting
PATIENCE = 5  # times the wall limit, for a program that the machine does not let run


class SandboxError(BaseException):
    """The sandbox failed, not the program: to be tried again. No `except Exception` stops it."""


class CandidateError(Exception):
    """An exception of the candidate that has no built-in class."""


class Stopped(Exception):
    """A StopIteration of the candidate, which no `map` takes for its own end.

    Where tests name that one, in `except` or in a call, they mean this one too (`instrument`).
    """

    value = None


class AsyncStopped(Exception):
    """A StopAsyncIteration of the candidate, likewise."""


NOTHING = object()  # in the place of a value that has not come


class Gone(Exception):
    """The worker has ended; nothing more comes from it."""


class Nursery:
    """The line to the workers' zygote, and the channel of the worker that was dismissed last.

    That one is killed before the next is forked; only then its end here is closed, for it would
    wake of that to end itself.
    """

    def __init__(self, line: _socket.socket):
        self.line, self.dismissed = line, -1

    def send(self, message: bytes) -> None:
        """OSError where the zygote is gone."""
        os.write(self.line.fileno(), message)

    def hear(self) -> tuple[bytes, list[int]]:
        """The next message and the descriptors with it; OSError or b'' where the zygote is gone."""
        message, rights, _, _ = self.line.recvmsg(64, _socket.CMSG_SPACE(4))
        return message, [struct.unpack("i", data[:4])[0] for _, _, data in rights]

    def forget(self) -> None:
        """The worker that was dismissed is no more."""
        with suppress(OSError):
            self.send(wire.FORGET)
        self.close()

    def close(self) -> None:
        if self.dismissed >= 0:
            os.close(self.dismissed)
        self.dismissed = -1


class _Known:
    """What values from the worker stand for in the judge."""

    def __init__(self, channel: "Channel"):
        self.channel, self.opaques = channel, {}

    def __call__(self, handle: int, bits: int, kind: str, answers: bool = False) -> object:
        channel = self.channel
        if handle >= wire.LENT:
            return channel.lend.lent[handle - wire.LENT]
        channel.saw_opaque = True
        at, able = (handle, answers), wire.opaque_class(bits & ~wire.TRUE)
        known = self.opaques.get(at)
        if type(known) is not able or known._kind != kind:
            known = self.opaques[at] = able(handle, bits, kind, channel)
        known._bits, known._answers = bits, answers
        return known

    def named(self, kind: str, fields: tuple, values: tuple) -> tuple:
        """A named tuple: of the prompt's class of this name where it has these fields."""
        own = self.channel.kinds.get(kind)
        if own is not None and wire.fields_of(own) == fields:
            return tuple.__new__(own, values)
        return wire.named(kind, fields, values)

    def member(self, kind: str, name: str, value: object) -> object:
        """The member of this name of the prompt's own enumeration."""
        return self.channel.kinds[kind]._member_map_[name]


class _Lent:
    """The tests' own functions and iterators, which a candidate may be given to call."""

    def __init__(self):
        self.lent: list[object] = []
        self.kinds: dict[str, type] = {}

    def place(self, value: object) -> tuple[str, str] | None:
        """Where the candidate finds a function or class of its own: of the library, the prompt.

        Only what the tests have written themselves is lent: a candidate that could call `getattr`
        here would find all that they know.
        """
        if isinstance(value, type) and value.__name__ in self.kinds:
            return "", value.__name__
        bound = not isinstance(getattr(value, "__self__", os), ModuleType)
        if bound or not isinstance(value, _NAMED):
            return None
        module = getattr(getattr(value, "__objclass__", value), "__module__", None)
        known = type(module) is str and module.split(".")[0] in sys.stdlib_module_names
        return (module, value.__qualname__) if known and "<" not in value.__qualname__ else None

    def __call__(self, value: object) -> int:
        steps = hasattr(type(value), "__next__") and not hasattr(value, "read")
        if not steps and not callable(value):
            raise wire.WireError(f"a value of type {type(value).__name__} cannot cross")
        self.lent.append(value)
        return wire.LENT + len(self.lent) - 1


class Channel:
    """The judge's end of one run: asks the worker, keeps the time, notes how it ended."""

    def __init__(self, nursery: Nursery, wall_seconds: float, *, has_input: bool = False):
        """`has_input`: for a program that reads standard input and is run as a whole."""
        self.nursery, self.wall, self.has_input = nursery, wall_seconds, has_input
        self.nonce, self.number = os.urandom(8), 0
        self.waited, self.checked, self.cpu = 0.0, 0.0, 0.0
        self.buffer = b""
        self.ended = ""  # the reason why the worker is gone
        self.status: int | None = None  # its exit status, where it ended itself
        self.lost = ""  # how the sandbox failed: there is no verdict
        self.fatal = ""  # the reason of an event that decides the verdict
        self.raised: Exception | None = None  # the latest exception of the candidate
        self.called, self.came = b"", NOTHING  # the latest call as it was sent, and its value
        self.saw_opaque = False
        self.changes = 0  # how often a call may have changed its arguments
        self.refusal = ""  # the reason why something that the tests wanted was refused
        self.errors: dict[str, type] = {}  # the prompt's classes of exceptions
        self.makes_objects = False  # the candidate is a class: what it makes may be told things
        self.known, self.lend = _Known(self), _Lent()
        self.fd = self._spawn()

    @property
    def kinds(self) -> dict[str, type]:
        """Classes of the prompt, whose objects cross as nodes, tuples and members."""
        return self.lend.kinds

    def _spawn(self) -> int:
        self._tell_nursery(wire.SPAWN, b"\1" if self.has_input else b"")
        while True:
            message, fds = self._hear_nursery()
            if message[1:9] == self.nonce:
                self.nursery.close()
                if message[:1] != wire.SPAWN or not fds:
                    self._lose("no worker could be started")
                end = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM, 0, fds[0])
                for option in (_socket.SO_RCVTIMEO, _socket.SO_SNDTIMEO):
                    end.setsockopt(_socket.SOL_SOCKET, option, _TICK)
                return end.detach()
            for fd in fds:
                os.close(fd)

    def _ask_nursery(self, kind: bytes, more: bytes = b"") -> bytes:
        self._tell_nursery(kind, more)
        while True:
            message, _ = self._hear_nursery()
            if message[1:9] == self.nonce:
                return message[9:] if message[:1] == kind else b""

    def _tell_nursery(self, kind: bytes, more: bytes = b"") -> None:
        try:
            self.nursery.send(kind + self.nonce + more)
        except OSError:
            self._lose("the workers' zygote is gone")

    def _hear_nursery(self) -> tuple[bytes, list[int]]:
        with suppress(OSError):
            message, fds = self.nursery.hear()
            if message:
                return message, fds
        return self._lose("the workers' zygote is gone")

    def _lose(self, why: str) -> NoReturn:
        self.lost = why
        raise SandboxError(why)

    def request(self, value: object) -> None:
        if self.ended:
            raise Gone(self.ended)
        try:
            payload = wire.encode(value, self.lend)
        except wire.WireError:
            payload, _ = self._table(value)
        self._send(payload)

    def _table(self, value: object) -> tuple[bytes, list]:
        try:
            return linked.encode(value, self.kinds, self.lend)
        except wire.WireError as error:
            self.refused(wire.CannotCross)
            raise wire.CannotCross(str(error)) from None

    def refused(self, why: type[wire.CannotCross]) -> None:
        """Something that the tests wanted is not to be had: no pass any more."""
        self.refusal = self.refusal or why.judge_reason

    def _send(self, payload: bytes) -> None:
        self.number += 1
        self._write(wire.HEADER.pack(len(payload), self.nonce, self.number) + payload)

    def _write(self, data: bytes) -> None:
        if self.ended:
            raise Gone(self.ended)
        while data:
            data = data[self._patiently(os.write, data) or 0 :]

    def ask_ahead(self, requests: "Frames", replies: "Frames") -> int:
        """Sends the first requests of a run all at once; `next_value` answers.

        Of the replies those are taken that are `replies`, byte for byte, up to the first that is
        not: their number.
        """
        stream, count, at = replies.of(self.nonce), 0, 0
        with suppress(Gone):  # as whoever asks for the next value will find out
            self._write(requests.of(self.nonce))
            while len(self.buffer) < len(stream) and stream.startswith(self.buffer):
                self._fill()
        for end in replies.ends:
            if self.buffer[at:end] != stream[at:end]:
                break
            count, at = count + 1, end
        self.number, self.buffer = self.number + count, self.buffer[at:]
        return count

    def next_value(self) -> object:
        """The value of the next of the requests that were sent ahead; raises as `ask`."""
        self.number += 1
        return self.value(*self.receive())

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
        if self.lost:
            self._lose(self.lost)  # tests may have caught the first
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
        """Past the wall limit: sleeping ends here, being kept waiting for a CPU does not.

        A program is kept waiting that had at least half of what a process gets here that wants all
        there is, while most of the CPU went to others than this process and itself.
        """
        cpu = self._worker_cpu()
        used, waited = cpu - self.cpu, self.waited - self.checked
        self.cpu, self.checked = cpu, self.waited
        is_over = self.waited > PATIENCE * self.wall
        if used >= 0.05 * waited and not is_over:
            return
        got, took = _try_cpu()
        others = took - got - (self._worker_cpu() - cpu)
        is_kept = others > 0.75 * took and used >= 0.5 * got / took * waited
        if is_over or not is_kept:
            self.end("starved" if is_kept else "wall_time")

    def _worker_cpu(self) -> float:
        answer = self._ask_nursery(wire.CPU)
        return struct.unpack("<d", answer)[0] if answer else 0.0

    def end(self, reason: str) -> None:
        """Ends the worker for `reason` ('': for whatever ended it) and raises Gone."""
        self.close(reason)
        raise Gone(self.ended)

    def close(self, reason: str = "") -> None:
        os.close(self.fd)
        answer = self._ask_nursery(wire.END, b"" if reason else b"\1")
        if not (reason or answer):
            self._lose("the worker was lost")
        self.ended, self.status = (reason, None) if reason else _cause(answer)
        self.fatal = self.fatal or self.ended

    def dismiss(self) -> None:
        """The tests are over: whatever the worker does now does not count."""
        if self.lost:
            self._lose(self.lost)
        if not self.ended:
            self.nursery.close()
            self.nursery.dismissed, self.ended = self.fd, "dismissed"

    def ask(self, *request: object) -> object:
        """The value of one request; raises what the candidate raised."""
        raised = self.raised
        self.request(request)
        try:
            return self._reply()
        finally:
            if request[0] not in ("step", "run"):
                self.raised = raised  # a look at an object is no call that tests expect to fail

    def ask_shown(self, operation: str, target: object, args: tuple, kwargs: dict) -> object:
        """The value of a call; what it did to its arguments is done to `args` and `kwargs`."""
        if self.ended:
            raise Gone(self.ended)
        held = linked.containers((*args, *kwargs.values()), self.kinds)
        if held == [] and operation == "shown":
            operation = "call"  # there is nothing to see
        request = (operation, target, args, kwargs)
        try:
            payload = wire.encode(request, self.lend) if held is not None else b""
        except wire.WireError:
            payload = b""
        if not payload:
            payload, held = self._table(request)
        self.called, self.came = payload, NOTHING
        self._send(payload)
        value = self.came = self._reply(held)
        if isinstance(value, wire.Opaque):  # a function that a call gives is part of the program
            return self.known(value._handle, value._bits, value._kind, answers=True)
        return value

    def last_call(self) -> tuple[str, tuple, dict] | None:
        """(name, arguments as they were) of the latest call by name; None where there is none."""
        _, target, args, kwargs = self._decoded(self.called) if self.called else (None,) * 4
        return (target, args, kwargs) if type(target) is str else None

    def apply(self, owner: wire.Opaque, args: tuple, kwargs: dict) -> object:
        """A call of an object of the candidate, which is told nothing unless it `answers`."""
        told = [x for x in (*args, *kwargs.values()) if not isinstance(x, wire.Opaque)]
        if told and not owner._answers and not self.makes_objects:
            owner._refuse()
        return self.ask_shown("apply", owner, args, kwargs)

    def call(self, function: object, args: tuple, kwargs: dict) -> object:
        """A call of what a name of the program stands for."""
        if not isinstance(function, wire.Opaque):
            return function(*args, **kwargs)
        return self.ask_shown("apply", function, args, kwargs)

    def step(self, owner: wire.Opaque) -> object:
        """The next item of an iterator of the candidate. Slow ones are never asked in advance."""
        if not owner._ahead:
            n = 1 if owner._taken < _ONE_BY_ONE else min(owner._taken, _MOST_AHEAD)
            items = self.ask("step", owner, n)
            if type(items) is not list:
                owner._refuse()
            owner._taken += len(items)
            owner._ahead = items[::-1]
        if not owner._ahead:
            raise StopIteration
        return owner._ahead.pop()

    def run(self, owner: wire.Opaque) -> Iterator[object]:
        """Has a coroutine of the candidate run to its end, as `await` does."""
        return self.ask("run", owner)
        yield

    def _reply(self, objects: Sequence[object] = ()) -> object:
        """What comes back; before that, the tests' own functions answer as often as they are asked.

        `objects` are those of the request that may have been changed.
        """
        kind, payload = self.receive()
        while kind == b"B":
            self._answer(payload)
            kind, payload = self.receive()
        return self.value(kind, payload, objects)

    def _answer(self, payload: bytes) -> None:
        try:
            number, args, kwargs = self._decoded(payload)
            lent = self.lend.lent[number]
        except Exception:
            self.end("protocol_violation")
        try:
            reply = ("value", next(lent) if args is None else lent(*args, **kwargs))
        except (Gone, SandboxError):
            raise
        except Exception as error:
            base = next(b for b in type(error).__mro__ if b.__module__ == "builtins")
            reply = ("raise", base.__name__, str(error))
        try:
            self.request(reply)
        except wire.CannotCross as error:
            self.request(("raise", "TypeError", str(error)))

    def _decoded(self, payload: bytes, objects: Sequence[object] = ()) -> object:
        if payload[:1] == linked.TAG:
            self.changes += bool(objects)
            return linked.decode(payload, self._make, self.known, objects)[0]
        return wire.decode(payload, self.known)

    def value(self, kind: bytes, payload: bytes, objects: Sequence[object] = ()) -> object:
        """What a reply says; `objects` are those of the request that it may have changed."""
        try:
            value = self._decoded(payload, objects)
            if kind == b"V":
                return value
            if kind == b"E":
                self.raised = self._exception(*value)
        except (wire.WireError, TypeError):
            self.end("protocol_violation")
        except MemoryError:
            self.end("output_limit")
        if kind == b"X":
            self.end("early_exit")
        if kind != b"E":
            self.end("protocol_violation")
        raise self.raised

    def _make(self, kind: str) -> object:
        return object.__new__(self.kinds[kind])

    def _exception(
        self,
        reason: str,
        builtin: str,
        message: str,
        names: tuple = (),
        args: tuple | None = None,
        fields: Mapping[str, object] = MappingProxyType({}),
    ) -> Exception:
        """An exception of the nearest class that the judge has, made without code of the tests."""
        if not type(reason) is type(builtin) is type(message) is str or type(names) is not tuple:
            raise TypeError("an exception is described by texts")
        reason = reason[:_LONGEST_REASON] if reason.isidentifier() else "Exception"
        if wire.is_fatal(reason):
            self.fatal = self.fatal or reason
        base = getattr(builtins, builtin, None)
        if not isinstance(base, type) or not issubclass(base, Exception):
            base = CandidateError
        own = next((self.errors[name] for name in names if name in self.errors), base)
        own = own if issubclass(own, base) else base
        args = args if type(args) is tuple else (message,)
        if issubclass(base, StopIteration):
            own, base, fields = Stopped, Stopped, {"value": args[0] if args else None}
        elif issubclass(base, StopAsyncIteration):
            own = base = AsyncStopped
        try:
            error = base.__new__(own, *args)
            base.__init__(error, *args)
        except TypeError:  # its class wants other arguments
            error = CandidateError(message)
        linked.set_fields(error, {n: v for n, v in dict(fields).items() if type(n) is str})
        error.candidate_reason = reason
        return error

    def printed(self, program: str, given: str) -> tuple[str, bytes]:
        """(situation, what it printed) of a whole program with this text as its standard input.

        Where it did not end well, exit status 0, `ended` has the reason; a situation is there
        only for a program that never started.
        """
        situation, reason = self.load(program, None, given.encode("utf-8", "surrogatepass"))
        if situation:
            if not self.ended:
                self.dismiss()
            self.ended = reason
            return situation, b""
        pieces, size = [], 0
        try:
            while size <= MOST_PRINTED:
                pieces.append(self.buffer)
                size, self.buffer = size + len(self.buffer), b""
                self._fill()
            self.end("output_limit")
        except Gone:
            if self.status is not None:  # whatever it was, it decides this test alone
                self.ended, self.fatal = f"exit_{self.status}" if self.status else "", ""
        return "", b"".join(pieces)

    def load(self, program: str, entry_point: str | None, *given: bytes) -> tuple[str, str]:
        """Starts the program: ('', '') or (situation, reason) of why it does not start.

        Without an entry point it is one to be run as a whole, `given` its standard input.
        """
        compiled = False
        try:
            self._send(wire.plain((program, entry_point, *(given or self.kinds))))
            while True:
                kind, payload = self.receive()
                if kind == b"C" and not compiled:
                    compiled = True
                elif kind == b"R" and compiled:
                    return "", ""
                elif kind == b"S":
                    reason = wire.decode(payload, self.known)
                    known = wire.REASONS.get(reason, ("",))[0] == wire.COMPILE_ERROR
                    return wire.COMPILE_ERROR, reason if known else "syntax"
                else:
                    self.value(kind, payload)
        except Gone:
            if not compiled and self.ended == "early_exit":  # nothing of the program has run
                self._lose("a worker could not be set up")
            if not compiled and self.ended not in wire.KILLED:
                return wire.COMPILE_ERROR, "parser"
            return wire.RUNTIME_ERROR, self.ended
        except wire.WireError:
            return wire.RUNTIME_ERROR, "protocol_violation"
        except Exception as error:
            return wire.RUNTIME_ERROR, getattr(error, "candidate_reason", "Exception")


class Frames:
    """The first frames of any run after its program, ready but for the nonce.

    As many as one read takes: so none lies about where a program could get it.
    """

    def __init__(self, payloads: Iterable[bytes]):
        self.pieces, self.ends = [b""], []
        for number, payload in enumerate(payloads, 2):  # 1 was the program
            header = wire.HEADER.pack(len(payload), b"", number)
            end = (self.ends or [0])[-1] + len(header) + len(payload)
            if end > wire.READ:
                break
            self.pieces[-1] += header[:4]
            self.pieces.append(header[12:] + payload)
            self.ends.append(end)

    def of(self, nonce: bytes) -> bytes:
        """The frames of one run."""
        return nonce.join(self.pieces)


def _try_cpu() -> tuple[float, float]:
    """(seconds of computing, seconds that they took) of a process that wants all there is."""
    begun, before = time.monotonic(), time.thread_time()
    while (got := time.thread_time() - before) < 0.01 and time.monotonic() - begun < 0.5:
        pass
    return got, time.monotonic() - begun


def _cause(answer: bytes) -> tuple[str, int | None]:
    """(why a worker ended by itself, its exit status if it has one), from its zygote's STATUS."""
    status, out_of_time, alive = wire.STATUS.unpack(answer)
    if out_of_time:
        return "cpu_time", None
    if alive:
        return "protocol_violation", None  # it closed the channel and went on
    if os.WIFEXITED(status):
        code = os.WEXITSTATUS(status)
        return "protocol_violation" if code == wire.CHANNEL_LOST else "early_exit", code
    number = os.WTERMSIG(status)
    return _SIGNALS.get(number, f"signal_{number}"), None


# What has a name to be found by.
_NAMED = (type(len), type(str.upper), type(str.__add__), FunctionType, type)
_ONE_BY_ONE, _MOST_AHEAD = 64, 1 << 13  # items of an iterator
MOST_PRINTED = 4 << 20  # bytes of what a program prints in one test
_LONGEST_REASON = 100  # characters; a class may have a name of any length
_SIGNALS = {24: "cpu_time", 25: "output_limit", 31: "refused"}  # SIGXCPU, SIGXFSZ, SIGSYS
