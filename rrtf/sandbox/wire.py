"""Values and frames between judge and worker: a closed set of types, never pickle.

What crosses: None, bool, int, float, complex, str, bytes, list, tuple, dict, set, frozenset, and
those types themselves.
Instances of subclasses become their base value; every other object stays where it is and crosses
as an `Opaque`: its truth value and a handle. Decoding trusts nothing: sizes, counts and depth are
checked before anything is built, and a `WireError` is all that hostile bytes can cause.
"""

import builtins
import errno
import os
from collections.abc import Callable
from struct import Struct, error, pack, unpack

# The worker's copy of this module keeps working when a candidate patches `builtins`.
__builtins__ = dict(vars(builtins))

MAX_FRAME = 4 << 20  # bytes
MAX_DEPTH = 200

# What a judge asks of the workers' zygote, each with the nonce of its run, and the answers.
SPAWN, CPU, END, FORGET, FAILED = b"S", b"C", b"E", b"K", b"!"
STATUS = Struct("<id??")  # wait status, CPU seconds, killed for CPU time, was alive
CHANNEL_LOST = 71  # exit status of a worker whose channel was closed or broken from within

JOB = Struct("<I?")  # length of a job for the court, whether its tests are data
STAYS, LEAVES = bytes(4), b"\xff" * 4  # in place of a row's length: no more; ready for a next job
HEADER = Struct("<I8sI")  # payload length, nonce of the run, sequence number
_COUNT = Struct("<I")
_INT = Struct("<q")
_FLOAT = Struct("<d")
_COMPLEX = Struct("<dd")
_OPAQUE = Struct("<?I")


class WireError(Exception):
    """Bytes that are not a value, or a value that does not fit."""


class Opaque:
    """A value of another type: only its truth and its type's name are known here.

    Compares by identity, so no method of a candidate's class decides an assertion. Where a
    `remote` is attached, iteration, `len`, items, attributes and calls are carried out by the
    worker and give values of the closed set again.
    """

    def __init__(self, handle: int, truth: bool, kind: str, remote=None):
        self._handle, self._truth, self._kind, self._remote = handle, truth, kind, remote

    def __bool__(self):
        return self._truth

    def __repr__(self):
        return f"<opaque {self._kind}>"

    def _ask(self, operation, *arguments):
        if self._remote is None:
            raise TypeError(f"{self!r} has no content here")
        return self._remote(operation, self, *arguments)

    def __iter__(self):
        return iter(self._ask("iter"))

    def __len__(self):
        return self._ask("len")

    def __getitem__(self, key):
        return self._ask("item", key)

    def __call__(self, *args, **kwargs):
        return self._ask("apply", args, kwargs)

    def __getattr__(self, name):
        if name.startswith("_"):
            raise AttributeError(name)
        return self._ask("get", name)

    def __setattr__(self, name, value):
        if name.startswith("_"):
            super().__setattr__(name, value)
        else:
            self._ask("set", name, value)


def encode(value: object, keep: Callable[[object], int] | None = None) -> bytes:
    """`value` as bytes; `keep(obj) -> handle` takes objects outside the closed set.

    WireError if it is nested deeper than MAX_DEPTH or longer than MAX_FRAME, or for an object
    outside the set when there is no `keep`.
    """
    out = bytearray()
    _put(out, value, keep, 0)
    return bytes(out)


def _sequence(out: bytearray, tag: bytes, items, count: int, keep, depth: int) -> None:
    out += tag + _COUNT.pack(count)
    for item in items:
        _put(out, item, keep, depth)
    if len(out) > MAX_FRAME:
        raise WireError("the value is too large")


def _list(out: bytearray, value: list, keep, depth: int) -> None:
    if 8 * len(value) > MAX_FRAME:
        raise WireError("the value is too large")
    kinds = set(map(type, value)) if len(value) > 8 else ()
    try:
        if kinds == {int}:
            out += b"I" + _COUNT.pack(len(value)) + pack(f"<{len(value)}q", *value)
        elif kinds == {float}:
            out += b"D" + _COUNT.pack(len(value)) + pack(f"<{len(value)}d", *value)
        else:
            _sequence(out, b"l", value, len(value), keep, depth)
    except error:  # an integer of more than 64 bits
        _sequence(out, b"l", value, len(value), keep, depth)


def _put(out: bytearray, value: object, keep, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise WireError("the value is nested too deeply")
    kind = type(value)
    depth += 1
    if value is None:
        out += b"N"
    elif kind is bool:
        out += b"T" if value else b"F"
    elif kind is int:
        _put_int(out, value)
    elif kind is str:
        _blob(out, b"s", value.encode("utf-8", "surrogatepass"))
    elif kind is float:
        out += b"f" + _FLOAT.pack(value)
    elif kind is list:
        _list(out, value, keep, depth)
    elif kind is tuple:
        _sequence(out, b"t", value, len(value), keep, depth)
    elif kind is dict:
        flat = [x for pair in value.items() for x in pair]
        _sequence(out, b"d", flat, len(value), keep, depth)
    elif kind is set or kind is frozenset:
        _sequence(out, b"S" if kind is set else b"Z", value, len(value), keep, depth)
    elif kind is bytes:
        _blob(out, b"b", value)
    elif kind is type and value in _TYPES:
        out += b"Y" + _COUNT.pack(_TYPES.index(value))
    elif kind is complex:
        out += b"c" + _COMPLEX.pack(value.real, value.imag)
    else:
        _put_other(out, value, keep, depth)


def _put_int(out: bytearray, value: int) -> None:
    if -(1 << 63) <= value < 1 << 63:
        out += b"q" + _INT.pack(value)
    else:
        if value.bit_length() > 8 * MAX_FRAME:
            raise WireError("the value is too large")
        _blob(out, b"i", value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True))


def _blob(out: bytearray, tag: bytes, data: bytes) -> None:
    if len(data) > MAX_FRAME:
        raise WireError("the value is too large")
    out += tag + _COUNT.pack(len(data)) + data


_TYPES = (bool, int, float, complex, str, bytes, list, tuple, dict, set, frozenset, type(None))

# Descriptors of `type` itself: a metaclass may lie about its classes' names.
_mro = type.__dict__["__mro__"].__get__
type_name = type.__dict__["__name__"].__get__

# Unbound methods of the base types: a subclass's overrides are not called.
_BASES = (
    (int, int.__int__),
    (float, float.__float__),
    (str, str.__str__),
    (list, lambda value: list(list.__iter__(value))),
    (tuple, lambda value: tuple(tuple.__iter__(value))),
    (dict, lambda value: dict(dict.items(value))),
    (set, lambda value: set(set.__iter__(value))),
    (frozenset, lambda value: frozenset(frozenset.__iter__(value))),
    (bytes, lambda value: bytes.__getitem__(value, slice(None))),
    (bytearray, lambda value: bytes(bytearray.__getitem__(value, slice(None)))),
    (complex, complex.__pos__),
)


def _put_other(out: bytearray, value: object, keep, depth: int) -> None:
    kind = type(value)
    for base, reduce in _BASES:
        if any(base is ancestor for ancestor in _mro(kind)):
            return _put(out, reduce(value), keep, depth)
    if kind is Opaque:
        truth, handle, name = value._truth, value._handle, value._kind
    elif keep is None:
        raise WireError(f"a value of type {type_name(kind)} cannot cross")
    else:
        truth, handle, name = _truth(value), keep(value), type_name(kind)
    out += b"o" + _OPAQUE.pack(truth, handle)
    return _blob(out, b"s", str.__str__(name)[:80].encode("utf-8", "replace"))


def _truth(value: object) -> bool:
    try:
        return bool(value)
    except BaseException:  # an exit too: Python's `==` would not have asked for it
        return False


def opaque(value: object, keep: Callable[[object], int]) -> bytes:
    """`value` as an opaque object, whatever its type: for values that are too large to cross."""
    name = type_name(type(value))
    out = bytearray(b"o" + _OPAQUE.pack(_truth(value), keep(value)))
    _blob(out, b"s", name[:80].encode("utf-8", "replace"))
    return bytes(out)


def put(out: bytearray, value: object, keep: Callable[[object], int] | None) -> None:
    """Appends one value to `out`: `encode` for callers that put values together."""
    _put(out, value, keep, 0)


def get(data: bytes, at: int, resolve: Callable | None) -> tuple[object, int]:
    """(the value that begins at `at`, where it ends); errors of any kind for what is no value."""
    return _get(data, at, resolve, 0)


def decode(data: bytes, resolve: Callable[[int, bool, str], object] | None) -> object:
    """The inverse of `encode`; `resolve(handle, truth, kind)` gives what an opaque stands for."""
    try:
        value, end = _get(data, 0, resolve, 0)
    except (error, IndexError, KeyError, TypeError, ValueError, OverflowError) as problem:
        raise WireError(f"malformed value: {problem}") from None
    if end != len(data):
        raise WireError("bytes after the value")
    return value


def _take(data: bytes, at: int, size: int) -> bytes:
    if at + size > len(data):
        raise WireError("the value ends early")
    return data[at : at + size]


def _get(data: bytes, at: int, resolve, depth: int) -> tuple[object, int]:
    if depth > MAX_DEPTH + 1:
        raise WireError("the value is nested too deeply")
    tag = data[at : at + 1]
    at += 1
    if tag in _CONSTANTS:
        return _CONSTANTS[tag], at
    if tag == b"q":
        return _INT.unpack_from(data, at)[0], at + 8
    if tag == b"f":
        return _FLOAT.unpack_from(data, at)[0], at + 8
    if tag == b"c":
        return complex(*_COMPLEX.unpack_from(data, at)), at + 16
    if tag == b"o":
        truth, handle = _OPAQUE.unpack_from(data, at)
        kind, at = _get(data, at + _OPAQUE.size, resolve, MAX_DEPTH)
        return resolve(handle, truth, kind), at
    (count,) = _COUNT.unpack_from(data, at)
    at += 4
    if tag == b"Y":
        return _TYPES[count], at
    if tag in _BLOBS:
        return _BLOBS[tag](_take(data, at, count)), at + count
    if tag in (b"I", b"D"):
        form = f"<{count}{'q' if tag == b'I' else 'd'}"
        return list(unpack(form, _take(data, at, 8 * count))), at + 8 * count
    return _container(tag, data, at, count, resolve, depth + 1)


def _container(tag: bytes, data: bytes, at: int, count: int, resolve, depth: int):
    items = []
    for _ in range(2 * count if tag == b"d" else count):
        item, at = _get(data, at, resolve, depth)
        items.append(item)
    return _CONTAINERS[tag](items), at


_CONSTANTS = {b"N": None, b"T": True, b"F": False}
_BLOBS = {
    b"s": lambda data: data.decode("utf-8", "surrogatepass"),
    b"b": bytes,
    b"i": lambda data: int.from_bytes(data, "little", signed=True),
}
_CONTAINERS = {
    b"l": list,
    b"t": tuple,
    b"d": lambda items: dict(zip(items[::2], items[1::2], strict=True)),
    b"S": set,
    b"Z": frozenset,
}


def write_all(fd: int, data: bytes) -> None:
    """Writes all of `data`; BlockingIOError when the descriptor's own time limit passes."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


COMPILE_ERROR, RUNTIME_ERROR, FAILED_TESTS, PASS = (
    "COMPILE_ERROR",
    "RUNTIME_ERROR",
    "FAILED_TESTS",
    "PASS",
)

REASONS: dict[str, tuple[str, str]] = {
    "": (PASS, "every assertion held"),
    "syntax": (COMPILE_ERROR, "Python's compiler refuses the source"),
    "null_bytes": (COMPILE_ERROR, "the source holds a null byte"),
    "encoding": (COMPILE_ERROR, "the source is not valid Unicode"),
    "source_too_long": (COMPILE_ERROR, "the source is longer than a megabyte"),
    "parser": (COMPILE_ERROR, "the compiler ran out of stack, memory or time"),
    "missing_entry_point": (COMPILE_ERROR, "the program does not define the function asked for"),
    "cpu_time": (RUNTIME_ERROR, "the CPU time of all calls together ran out"),
    "wall_time": (RUNTIME_ERROR, "the program waited longer than the wall limit"),
    "memory": (RUNTIME_ERROR, "an allocation beyond the memory limit"),
    "output_limit": (RUNTIME_ERROR, "a file or the output grew beyond its limit"),
    "quota": (RUNTIME_ERROR, "scratch space, inodes or descriptors ran out"),
    "process_limit": (RUNTIME_ERROR, "no further thread or process could be started"),
    "refused": (RUNTIME_ERROR, "a system call or path outside the sandbox"),
    "early_exit": (RUNTIME_ERROR, "the program ended itself before the tests ended"),
    "signal": (RUNTIME_ERROR, "died of a signal; written with its number, `signal_11`"),
    "protocol_violation": (RUNTIME_ERROR, "the program wrote to, or closed, the value channel"),
    "judge_limit": (RUNTIME_ERROR, "the tests could not be finished on the values it returned"),
    "wrong_value": (FAILED_TESTS, "an assertion was false"),
    "wrong_type": (FAILED_TESTS, "an assertion was false of a value outside the closed types"),
}

FATAL = frozenset(
    ("cpu_time", "wall_time", "output_limit", "early_exit", "protocol_violation", "memory")
)

_OF_ERRNO = {
    **dict.fromkeys((errno.EPERM, errno.EACCES, errno.EROFS, errno.ENOSYS, errno.EXDEV), "refused"),
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE), "quota"),
    errno.EFBIG: "output_limit",
    errno.ENOMEM: "memory",
}


def of_exception(error: BaseException) -> str:
    """The reason an exception of a candidate stands for; its class name where nothing fits.

    Asks `type` rather than the exception, whose class may be anything.
    """
    kind = type(error)
    if issubclass(kind, MemoryError):
        return "memory"
    if issubclass(kind, OSError):
        reason = _OF_ERRNO.get(OSError.errno.__get__(error))
        if reason:
            return reason
    if kind is RuntimeError and error.args == ("can't start new thread",):
        return "process_limit"
    return type.__dict__["__name__"].__get__(kind)


def is_fatal(reason: str) -> bool:
    """Whether one such event decides the verdict, whatever the other assertions say."""
    return reason in FATAL or reason.startswith("signal_")
