"""The candidate's process: loads one program, answers calls, knows no tests.

Everything here runs beside foreign code that may read and patch all of it. Nothing it sends is
a verdict: replies are values, and the judge believes no more than that.
"""

import builtins
import contextlib
import functools
import itertools
import marshal
import operator
import os
import sys
import time
import types

from rrtf.sandbox import linked, wire
from rrtf.sandbox.wire import of_exception

__builtins__ = dict(vars(builtins))  # keeps working when a candidate patches `builtins`

MAX_SOURCE = 1 << 20  # bytes
MOST_TEXT = 1 << 16  # bytes of what an exception carries
AT_ONCE, IN_ADVANCE = 1 << 12, 1e-3  # items of a container's iterator; seconds for others' items


class _Keeper:
    """What the judge knows by handle: every object once."""

    def __init__(self):
        self.kept: list[object] = []
        self.handles: dict[int, int] = {}
        self.kinds: frozenset[str] = frozenset()  # classes whose objects cross as nodes
        self.in_table = False

    def __call__(self, value: object) -> int:
        if self.kinds and not self.in_table and linked.kind_of(value, self.kinds):
            raise linked.Linked
        handle = self.handles.setdefault(id(value), len(self.kept))
        if handle == len(self.kept):
            self.kept.append(value)
        return handle


class _Connection:
    """One frame in, one frame out, each with the nonce of the run and its number."""

    def __init__(self, fd: int, nonce: bytes):
        self.fd, self.nonce, self.number = fd, nonce, 0
        self.rest = b""
        self.keep = _Keeper()
        self.space: dict = {}  # the program's names
        self.shared: list | None = None  # where the latest request is a table, its objects
        self.lent: dict[int, object] = {}

    def receive(self) -> object:
        head, data = wire.HEADER.size, self.rest
        while len(data) < head:
            data += self._read(wire.READ)
        size, _, self.number = wire.HEADER.unpack_from(data)
        if len(data) < head + size:
            parts, missing = [data], head + size - len(data)
            while missing > 0:
                parts.append(self._read(1 << 16))
                missing -= len(parts[-1])
            data = b"".join(parts)
        self.rest, data, self.shared = data[head + size :], data[head : head + size], None
        if data[:1] == wire.PLAIN:
            return marshal.loads(data[1:])
        if data[:1] != linked.TAG:
            return wire.decode(data, self)
        value, self.shared = linked.decode(data, self._make, self)
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

    def __call__(self, handle: int, bits: int, kind: str) -> object:
        """What a handle stands for: an object of the program, or one lent by the tests."""
        if handle < wire.LENT:
            return self.keep.kept[handle]
        if handle not in self.lent:
            self.lent[handle] = _lent(self, handle, bits)
            self.keep.handles[id(self.lent[handle])] = handle
        return self.lent[handle]

    def named(self, kind: str, fields: tuple, values: tuple) -> tuple:
        """A named tuple: of the program's class of this name where it has these fields."""
        own = self.space.get(kind)
        if isinstance(own, type) and wire.fields_of(own) == fields:
            return tuple.__new__(own, values)
        return wire.named(kind, fields, values)

    def member(self, kind: str, name: str, value: object) -> object:
        """A member of the program's enumeration, else of one like it."""
        try:
            return self.space[kind].__members__[name]
        except Exception:
            return __import__("enum").Enum(kind, {name: value})[name]

    def placed(self, module: str, name: str) -> object:
        """A function or class of the standard library, or ('') of the program."""
        if not module:
            return self.space[name]
        __import__(module)
        return functools.reduce(getattr, name.split("."), sys.modules[module])

    def ask_tests(self, number: int, args: tuple | None, kwargs: dict) -> object:
        """The value of a function that the tests lent (`args` None: the next of an iterator)."""
        self.send(b"B", (number, args, kwargs))
        while True:
            kind, *rest = request = self.receive()
            if kind == "value":
                return rest[0]
            if kind == "raise":
                name, message = rest
                raise getattr(builtins, name, RuntimeError)(message)
            _answer(self, self.space, request)

    def send(self, kind: bytes, value: object = None, known: list | None = None) -> None:
        """`known`: objects that the request brought, when they are to be shown with the value."""
        try:
            payload = self._encode(value, known)
        except Exception:
            payload = wire.opaque(value, self.keep)
        header = wire.HEADER.pack(len(payload) + 1, self.nonce, self.number)
        wire.write_all(self.fd, header + kind + payload)

    def _encode(self, value: object, known: list | None) -> bytes:
        if known is None:
            try:
                return wire.encode(value, self.keep)
            except linked.Linked:
                pass
        self.keep.in_table = True
        try:
            return linked.encode(value, self.keep.kinds, self.keep, known or ())[0]
        finally:
            self.keep.in_table = False

    def changed(self, held: list, before: list[tuple], value: object) -> bool:
        """Whether a call did anything to the containers it was given, or gives one of them back."""
        for container, items in zip(held, before, strict=True):
            now = linked.content(container)
            if len(now) != len(items) or not all(map(operator.is_, now, items)):
                return True
        inside = linked.containers((value,), self.keep.kinds)
        return inside is None or not {*map(id, inside)}.isdisjoint(map(id, held))


def _lent(link: _Connection, handle: int, bits: int) -> object:
    """A function, or an iterator, that asks the tests."""
    number = handle - wire.LENT
    if bits & wire.STEPS:
        return iter(lambda: link.ask_tests(number, None, {}), link)  # which no item is

    def function(*args, **kwargs):
        return link.ask_tests(number, args, kwargs)

    return function


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
    if entry_point is None:
        return _run_whole(link, code, *kinds)
    module = types.ModuleType("candidate")
    sys.modules["candidate"] = module
    space = link.space = module.__dict__
    link.keep.kinds = frozenset(kinds)
    if not _guarded(link, lambda: exec(code, space)):
        return None
    if not (found := chosen(space, entry_point)):
        return link.send(b"S", "missing_entry_point")
    if found != entry_point:
        space[entry_point] = lambda *args, **named: _call(space, found, args, named)
    link.send(b"R")
    while True:
        request = link.receive()
        _answer(link, space, request)


def chosen(space: dict, entry_point: str) -> str:
    """Which of the alternatives `A or B` a program defines: the first, or '' where none."""
    names = entry_point.split(" or ")
    for name in names:
        owner, _, method = name.partition("(")
        found = space.get(owner)
        if callable(found) and (not names[1:] or not method or hasattr(found, method[2:])):
            return name
    return ""


def _run_whole(link: _Connection, code: types.CodeType, given: bytes) -> None:
    """Runs a program with this standard input as Python itself would, and ends with its status.

    From here on the channel is what it prints; nothing in it is read as anything else.
    """
    wire.write_all(0, given)
    os.lseek(0, 0, os.SEEK_SET)
    link.send(b"R")
    os.dup2(link.fd, 1)
    module = sys.modules["__main__"] = types.ModuleType("__main__")
    module.__builtins__, builtins.exit, builtins.quit = builtins, sys.exit, sys.exit
    try:
        exec(code, module.__dict__)
        status = 0
    except SystemExit as error:
        said = error.code
        status = 0 if said is None else said & 0xFF if isinstance(said, int) else 1
    except BaseException:
        status = 1
    try:
        if "threading" in sys.modules:
            sys.modules["threading"]._shutdown()
        __import__("atexit")._run_exitfuncs()
        sys.stdout.flush()
    except BaseException:
        status = status or 120  # as Python says of output that is lost
    os._exit(status)


def _guarded(link: _Connection, action, *arguments) -> list:
    """[the value of a call]; what it raises is sent. Exits at once where the candidate asks to."""
    result = []
    try:
        result.append(action(*arguments))
    except SystemExit:
        link.send(b"X")
        os._exit(0)
    except BaseException as error:
        link.send(b"E", _describe(error))
    return result


_mro = type.__dict__["__mro__"].__get__
_BUILTIN_ERRORS = frozenset(
    value for value in vars(builtins).values() if isinstance(value, type(Exception))
)


_ATTRIBUTES = {"filename", "name", "path"}  # of built-in exceptions


def _describe(error: BaseException) -> tuple:
    """(reason, the nearest built-in exception, the message, classes, arguments, attributes)."""
    kinds = _mro(type(error))
    builtin = next(base for base in kinds if base in _BUILTIN_ERRORS)
    try:
        message = str(error)[:200]
    except BaseException:
        message = ""
    names = tuple(wire.type_name(kind) for kind in kinds[: kinds.index(builtin)])[:16]
    fields: dict[str, object] = {}
    with contextlib.suppress(BaseException):  # a slot of the candidate's may be anything
        held = [vars(base) for base in _mro(builtin)]
        own = {n: at[n].__get__(error) for at in held for n in _ATTRIBUTES & at.keys()}
        own |= linked.fields(error)
        fields = {name: value for name, value in own.items() if _is_small(value)}
    args = BaseException.args.__get__(error)
    args = args if _is_small(args) else (message,)
    return of_exception(error), builtin.__name__, message, names, args, fields


def _is_small(value: object) -> bool:
    try:
        return len(wire.encode(value)) <= MOST_TEXT
    except Exception:
        return False


def _answer(link: _Connection, space: dict, request: tuple) -> None:
    operation, *rest = request
    if operation == "many":
        target, inputs = rest
        for arguments in inputs:
            _answer(link, space, ("call", target, arguments, {}))
        return
    held, is_table = [], link.shared is not None
    if operation in ("shown", "apply"):
        held = link.shared or linked.containers((*rest[1], *rest[2].values()), frozenset())
    before = [] if is_table else [linked.content(container) for container in held]
    result = _guarded(link, _OPERATIONS[operation], space, *rest)
    if result and held and (is_table or link.changed(held, before, result[0])):
        link.send(b"V", result[0], held)
    elif result:
        link.send(b"V", result[0])


def _resolve_name(space: dict, target: str):
    """`f`, or `Solution().f` with a fresh object; what `serve` chose of alternatives has a name."""
    if target.isidentifier() or target in space:
        if target not in space and not hasattr(builtins, target):
            raise NameError(f"name {target!r} is not defined")
        return space[target] if target in space else getattr(builtins, target)
    return eval(target, space)


def _call(space: dict, target: str, args: tuple, kwargs: dict) -> object:
    return _resolve_name(space, target)(*args, **kwargs)


def _step(space: dict, owner, n: int) -> list:
    """The next items, at most `n`: of a container's iterator many, of others few at a time."""
    if type(owner) in _PASSIVE:
        return list(itertools.islice(owner, max(n, AT_ONCE)))
    failed = _FAILED.pop(id(owner), None)
    if failed is not None:
        raise failed
    items: list = []
    end = _clock() + IN_ADVANCE
    try:
        while len(items) < n and (not items or _clock() < end):
            items.append(next(owner))
    except StopIteration:
        pass
    except BaseException as error:
        if not items or isinstance(error, SystemExit):
            raise
        _FAILED[id(owner)] = error  # for when the items before it have been taken
    return items


_clock = time.perf_counter
_FAILED: dict[int, BaseException] = {}
_PASSIVE = frozenset(
    type(iter(value))
    for value in ([], (), {}, {}.values(), {}.items(), set(), "", "\u0100", b"", range(1))
)


def _run(space: dict, owner) -> object:
    import asyncio

    return asyncio.run(owner)


_OPERATIONS = {
    "call": _call,
    "shown": _call,
    "apply": lambda space, owner, args, kwargs: owner(*args, **kwargs),
    "name": _resolve_name,
    "get": lambda space, owner, name: getattr(owner, name),
    "set": lambda space, owner, name, value: setattr(owner, name, value),
    "iter": lambda space, owner: iter(owner),
    "step": _step,
    "run": _run,
    "len": lambda space, owner: len(owner),
    "text": lambda space, owner, exactly: repr(owner) if exactly else str(owner),
}
