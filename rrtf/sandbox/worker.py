"""The candidate's process: loads one program, answers calls, knows no tests.

Everything here runs beside foreign code that may read and patch all of it. Nothing it sends is
a verdict: replies are values, and the judge believes no more than that.
"""

import builtins
import itertools
import os
import sys
import types

from rrtf.sandbox import linked, wire
from rrtf.sandbox.wire import of_exception

__builtins__ = dict(vars(builtins))  # keeps working when a candidate patches `builtins`

MAX_SOURCE = 1 << 20  # bytes
MAX_ITEMS = 1 << 18  # of an iterator that the judge asks to see


class _Connection:
    """One frame in, one frame out, each with the nonce of the run and its number."""

    def __init__(self, fd: int, nonce: bytes):
        self.fd, self.nonce, self.number = fd, nonce, 0
        self.rest = b""
        self.kept: list[object] = []  # what the judge knows by handle
        self.space: dict = {}  # the program's names
        self.kinds: frozenset[str] = frozenset()  # classes whose objects cross as nodes
        self.shared: list[object] = []  # the latest request's objects, by number

    def receive(self) -> object:
        head, data = wire.HEADER.size, self.rest
        while len(data) < head:
            data += self._read(1 << 16)
        size, _, self.number = wire.HEADER.unpack_from(data)
        if len(data) < head + size:
            parts, missing = [data], head + size - len(data)
            while missing > 0:
                parts.append(self._read(1 << 16))
                missing -= len(parts[-1])
            data = b"".join(parts)
        self.rest = data[head + size :]
        if data[head : head + 1] == linked.TAG:
            return self._table(data[head : head + size])
        return wire.decode(data[head : head + size], self._resolve)

    def _table(self, data: bytes) -> object:
        value, self.shared = linked.decode(data, self._make, self._resolve)
        return value

    def _make(self, kind: str) -> object:
        """An empty object of the class that the program has under this name, else a plain one."""
        try:
            return object.__new__(self.space[kind])
        except Exception:
            return object.__new__(type(kind, (), {}))

    def _read(self, size: int) -> bytes:
        data = os.read(self.fd, size)
        if not data:
            raise EOFError
        return data

    def _resolve(self, handle: int, truth: bool, kind: str) -> object:
        return self.kept[handle]

    def keep(self, value: object) -> int:
        self.kept.append(value)
        return len(self.kept) - 1

    def _keep_other(self, value: object) -> int:
        if self.kinds and linked.kind_of(value, self.kinds):
            raise linked.Linked
        return self.keep(value)

    def send(self, kind: bytes, value: object = None, *, mirrored: bool = False) -> None:
        """`mirrored`: with what has become of the objects that the request brought."""
        try:
            payload = self._encode(value, mirrored)
        except Exception:
            payload = wire.opaque(value, self.keep)
        header = wire.HEADER.pack(len(payload) + 1, self.nonce, self.number)
        wire.write_all(self.fd, header + kind + payload)

    def _encode(self, value: object, mirrored: bool) -> bytes:
        if not mirrored:
            try:
                return wire.encode(value, self._keep_other)
            except linked.Linked:
                pass
        known = self.shared if mirrored else ()
        return linked.encode(value, self.kinds, self.keep, known)[0]


def compile_program(source: str) -> tuple[types.CodeType | None, str]:
    """(code, '') or (None, the reason it does not compile)."""
    try:
        size = len(source.encode())
    except UnicodeEncodeError:
        return None, "encoding"
    if size > MAX_SOURCE:
        return None, "source_too_long"
    if "\0" in source:
        return None, "null_bytes"
    try:
        return compile(source, "candidate.py", "exec", dont_inherit=True), ""
    except (SyntaxError, ValueError):
        return None, "syntax"
    except (RecursionError, MemoryError, OverflowError):
        return None, "parser"


def serve(fd: int, nonce: bytes) -> None:
    """Reads one program from `fd`, loads it, then answers calls until the judge hangs up."""
    link = _Connection(fd, nonce)
    source, entry_point, *kinds = link.receive()
    code, reason = compile_program(source)
    if code is None:
        return link.send(b"S", reason)
    link.send(b"C")
    module = types.ModuleType("candidate")
    sys.modules["candidate"] = module
    space = link.space = module.__dict__
    link.kinds = frozenset(kinds)
    if not _guarded(link, lambda: exec(code, space)):
        return None
    if not callable(space.get(entry_point.partition("(")[0])):
        return link.send(b"S", "missing_entry_point")
    link.send(b"R")
    while True:
        request = link.receive()
        _answer(link, space, request)


def _guarded(link: _Connection, action) -> bool:
    """Runs `action`; what it raises is sent. Exits at once where the candidate asks to."""
    try:
        action()
        return True
    except SystemExit:
        link.send(b"X")
        os._exit(0)
    except BaseException as error:
        link.send(b"E", _describe(error))
        return False


_mro = type.__dict__["__mro__"].__get__
_BUILTIN_ERRORS = frozenset(
    value for value in vars(builtins).values() if isinstance(value, type(Exception))
)


def _describe(error: BaseException) -> tuple[str, str, str]:
    """(reason, the nearest built-in exception, the message)."""
    builtin = next(base for base in _mro(type(error)) if base in _BUILTIN_ERRORS)
    try:
        message = str(error)[:200]
    except BaseException:
        message = ""
    return of_exception(error), builtin.__name__, message


def _answer(link: _Connection, space: dict, request: tuple) -> None:
    operation, *rest = request
    if operation == "many":
        target, inputs = rest
        for arguments in inputs:
            _answer(link, space, ("call", target, arguments, {}))
        return
    result = []
    if _guarded(link, lambda: result.append(_OPERATIONS[operation](space, *rest))):
        link.send(b"V", result[0], mirrored=operation == "mirrored")


def _resolve_name(space: dict, target: str):
    """`f`, or `Solution().f` with a fresh object."""
    if target.isidentifier():
        return space[target] if target in space else getattr(builtins, target)
    return eval(target, space)


def _call(space: dict, target: str, args: tuple, kwargs: dict) -> object:
    return _resolve_name(space, target)(*args, **kwargs)


_OPERATIONS = {
    "call": _call,
    "mirrored": _call,
    "apply": lambda space, owner, args, kwargs: owner(*args, **kwargs),
    "get": lambda space, owner, name: getattr(owner, name),
    "set": lambda space, owner, name, value: setattr(owner, name, value),
    "iter": lambda space, owner: list(itertools.islice(owner, MAX_ITEMS)),
    "len": lambda space, owner: len(owner),
    "item": lambda space, owner, key: owner[key],
}
