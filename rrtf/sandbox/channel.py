"""The judge's end of one run: asks the worker for values, keeps the time, notes how it ended."""

import _socket
import builtins
import os
import struct
import time
from collections.abc import Sequence

from rrtf.sandbox import linked, wire

PATIENCE = 5  # times the wall limit, for a program that the machine does not let run


class SandboxError(Exception):
    """The sandbox failed, not the program: to be tried again."""


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
        self.kinds: dict[str, type] = {}  # classes of the prompt, whose objects cross as nodes
        self.fd = self._spawn()

    def _spawn(self) -> int:
        os.write(self.nursery.fileno(), wire.SPAWN + self.nonce)
        while True:
            message, rights, _, _ = self.nursery.recvmsg(64, _socket.CMSG_SPACE(4))
            fds = [struct.unpack("i", data[:4])[0] for _, _, data in rights]
            if message[1:9] == self.nonce:
                if message[:1] != wire.SPAWN or not fds:
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
        try:
            payload = wire.encode(value)
        except wire.WireError:
            payload, _ = linked.encode(value, self.kinds)
        self._send(payload)

    def _send(self, payload: bytes) -> None:
        self.number += 1
        self._write(wire.HEADER.pack(len(payload), self.nonce, self.number) + payload)

    def _write(self, data: bytes) -> None:
        while data:
            data = data[self._patiently(os.write, data) or 0 :]

    def request_ahead(self, values: Sequence[object]) -> bool:
        """Sends several requests at once, if they are few and small; `next_value` answers.

        They fit into one read of the worker, so that none lies about where the candidate could
        take it. False where they do not, or where one cannot be encoded: nothing was sent.
        """
        if self.ended:
            return False
        frames, size = [], 0
        try:
            for number, value in enumerate(values, self.number + 1):
                payload = wire.encode(value)
                frames += (wire.HEADER.pack(len(payload), self.nonce, number), payload)
                size += len(payload) + wire.HEADER.size
                if size > _AT_ONCE:
                    return False
        except wire.WireError:
            return False
        self._write(b"".join(frames))
        return True

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
        answer = self._ask_nursery(wire.CPU)
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
        answer = self._ask_nursery(wire.END, b"" if reason else b"\1")
        self.ended = reason or _cause(answer)
        self.fatal = self.fatal or self.ended

    def dismiss(self) -> None:
        """The tests are over: whatever the worker does now does not count."""
        if not self.ended:
            os.close(self.fd)
            self._ask_nursery(wire.END, b"\0")
            self.ended = "dismissed"

    def ask(self, *request: object) -> object:
        """The value of one request; raises what the candidate raised."""
        self.request(request)
        return self.value(*self.receive())

    def ask_mirrored(self, target: str, args: tuple, kwargs: dict) -> object:
        """The value of one call; what it did to its arguments is done to `args` and `kwargs`."""
        if self.ended:
            raise Gone(self.ended)
        payload, objects = linked.encode(("mirrored", target, args, kwargs), self.kinds)
        self._send(payload)
        return self.value(*self.receive(), objects)

    def value(self, kind: bytes, payload: bytes, objects: Sequence[object] = ()) -> object:
        """What a reply says; `objects` are those of the request that it may have changed."""
        try:
            if payload[:1] == linked.TAG:
                value, _ = linked.decode(payload, self._make, self._opaque, objects)
            else:
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

    def _make(self, kind: str) -> object:
        return object.__new__(self.kinds[kind])

    def _opaque(self, handle: int, truth: bool, kind: str) -> wire.Opaque:
        self.saw_opaque = True
        return wire.Opaque(handle, truth, kind, lambda op, *rest: self.ask(op, *rest))

    def _exception(self, reason: str, builtin: str, message: str) -> Exception:
        if not type(reason) is type(builtin) is type(message) is str:
            raise TypeError("an exception is described by three texts")
        reason = reason[:_LONGEST_REASON] if reason.isidentifier() else "Exception"
        if wire.is_fatal(reason):
            self.fatal = self.fatal or reason
        kind = getattr(builtins, builtin, None)
        usable = isinstance(kind, type) and issubclass(kind, Exception)
        try:
            error = (kind if usable else CandidateError)(message)
        except TypeError:  # UnicodeDecodeError and the like want more arguments
            error = CandidateError(message)
        error.candidate_reason = reason
        return error

    def load(self, program: str, entry_point: str) -> tuple[str, str]:
        """Starts the program: ('', '') or (situation, reason) of why it does not start."""
        compiled = False
        try:
            self.request((program, entry_point, *self.kinds))
            while True:
                kind, payload = self.receive()
                if kind == b"C" and not compiled:
                    compiled = True
                elif kind == b"R" and compiled:
                    return "", ""
                elif kind == b"S":
                    reason = wire.decode(payload, self._opaque)
                    known = wire.REASONS.get(reason, ("",))[0] == wire.COMPILE_ERROR
                    return wire.COMPILE_ERROR, reason if known else "syntax"
                else:
                    self.value(kind, payload)
        except Gone:
            if not compiled:
                return wire.COMPILE_ERROR, "parser"
            return wire.RUNTIME_ERROR, self.ended
        except wire.WireError:
            return wire.RUNTIME_ERROR, "protocol_violation"
        except Exception as error:
            return wire.RUNTIME_ERROR, getattr(error, "candidate_reason", "Exception")


def _cause(answer: bytes) -> str:
    """The reason for which a worker ended by itself, from its zygote's STATUS."""
    if not answer:
        raise SandboxError("the worker was lost")
    status, _, out_of_time, alive = wire.STATUS.unpack(answer)
    if out_of_time:
        return "cpu_time"
    if alive:
        return "protocol_violation"  # it closed the channel and went on
    if os.WIFEXITED(status):
        return "protocol_violation" if os.WEXITSTATUS(status) == wire.CHANNEL_LOST else "early_exit"
    number = os.WTERMSIG(status)
    return _SIGNALS.get(number, f"signal_{number}")


_AT_ONCE = 1 << 14  # bytes of requests
_LONGEST_REASON = 100  # characters; a class may have a name of any length
_SIGNALS = {24: "cpu_time", 25: "output_limit", 31: "refused"}  # SIGXCPU, SIGXFSZ, SIGSYS
