"""Values and frames between judge and worker: a closed set of types, never pickle.

What crosses: None, bool, int, float, complex, str, bytes, list, tuple, dict, set, frozenset, those
types themselves, and the standard library's values that `STANDARD` lists; named tuples with their
fields, and of classes that both sides know members of enumerations. Instances of subclasses become
their base value; every other object stays where it is and crosses as an `Opaque`: a handle and
what can be said of it in a few bits. Decoding trusts nothing: sizes, counts and depth are checked
before anything is built, and a `WireError` is all that hostile bytes can cause.
"""

import builtins
import collections
import errno
import marshal
import operator
import os
from collections.abc import Callable
from functools import lru_cache
from struct import Struct, error, pack, unpack
from typing import NamedTuple

# The worker's copy of this module keeps working when a candidate patches `builtins`.
__builtins__ = dict(vars(builtins))

MAX_FRAME = 64 << 20  # bytes
MAX_BLOB = 4 << 20  # of one text, integer or string of bytes
MAX_DEPTH = 200
READ = 1 << 14  # a worker reads so much at once

# What a judge asks of the workers' zygote, each with the nonce of its run, and the answers.
SPAWN, CPU, END, FORGET, FAILED = b"S", b"C", b"E", b"K", b"!"
STATUS = Struct("<i??")  # wait status, killed for CPU time, was alive
CHANNEL_LOST = 71  # exit status of a worker whose channel was closed or broken from within
NOT_SET_UP = 72  # of one that never came to its program

LENT = 1 << 31  # handles from here on are functions and iterators of the tests
# Length of a job for the court, how many problems' data it is (0: code), runs of each program.
JOB = Struct("<III")
STAYS, LEAVES = bytes(4), b"\xff" * 4  # in place of a row's length: no more; ready for a next job
HEADER = Struct("<I8sI")  # payload length, nonce of the run, sequence number
_COUNT = Struct("<I")
_INT = Struct("<q")
_FLOAT = Struct("<d")
_COMPLEX = Struct("<dd")
_OPAQUE = Struct("<HI")


class WireError(Exception):
    """Bytes that are not a value, or a value that does not fit."""


class CannotCross(Exception):
    """What a test wants of a value cannot be had: the value stays with the candidate."""

    judge_reason = "cannot_cross"


class WrongType(CannotCross):
    """A value of the closed set is compared with one outside of it, whose class compares itself."""

    judge_reason = "wrong_type"


# What is said of an object that does not cross: its truth, what its class can do, and that it is
# a plain value, but too large or too deep.
TRUE, CALLS, ITERATES, STEPS, SIZED, AWAITS, COMPARES, CONTAINS, LARGE = (1 << n for n in range(9))


class Opaque:
    """A value of another type: only what its bits say and its type's name are known here.

    No method of a candidate's class decides an assertion and none is told what a test expects:
    comparisons go by identity, or raise where the class has its own. Through a `remote` a test may
    ask for items, length, text and attributes, and call the object: with arguments only where it
    `answers`, as the result of a call does. What comes back is of the closed set again.
    """

    def __init__(self, handle: int, bits: int, kind: str, remote=None):
        self._handle, self._bits, self._kind, self._remote = handle, int(bits), kind, remote
        self._answers, self._ahead, self._taken = False, [], 0

    def __bool__(self):
        return bool(self._bits & TRUE)

    def __repr__(self):
        return self._ask("text", True) if self._remote else f"<opaque {self._kind}>"

    def __str__(self):
        return self._ask("text", False) if self._remote else repr(self)

    def __eq__(self, other):
        if self is not other and self._bits & COMPARES:
            alike = self._bits & LARGE and type(other).__name__ == self._kind != "int"
            self._refuse(WrongType if type(other) in CLOSED and not alike else CannotCross)
        return self is other or NotImplemented

    def __hash__(self):
        return self._refuse(CannotCross) if self._bits & COMPARES else id(self)

    @property
    def __class__(self):
        return _BY_NAME.get(self._kind, Opaque) if self._bits & LARGE else type(self)

    def _refuse(self, why=CannotCross):
        if self._remote:
            self._remote.refused(why)
        raise why(f"an object of type {self._kind} stays where it is")

    def _ask(self, operation, *arguments):
        if self._remote is None:
            raise TypeError(f"an object of type {self._kind} has no content here")
        return self._remote.ask(operation, self, *arguments)

    def __getattr__(self, name):
        if name.startswith("_"):
            raise AttributeError(name)
        return self._ask("get", name)

    def __setattr__(self, name, value):
        if name.startswith("_"):
            super().__setattr__(name, value)
        elif self._remote and self._remote.makes_objects:
            self._ask("set", name, value)
        else:
            self._refuse()


# What the class of an `Opaque` has beside, for each of its bits.
_ABILITIES = {
    CALLS: {"__call__": lambda self, *args, **kwargs: self._remote.apply(self, args, kwargs)},
    ITERATES: {"__iter__": lambda self: self._ask("iter")},
    STEPS: {"__iter__": lambda self: self, "__next__": lambda self: self._remote.step(self)},
    SIZED: {"__len__": lambda self: self._ask("len")},
    CONTAINS: {"__contains__": lambda self, item: self._refuse()},
    AWAITS: {"__await__": lambda self: self._remote.run(self),
             "send": lambda self, value: next(self._remote.run(self)),
             "throw": lambda self, *_: self._refuse(), "close": lambda self: None},
}  # fmt: skip


@lru_cache(maxsize=1 << len(_ABILITIES))
def opaque_class(bits: int) -> type:
    """The class of objects that can do what these bits say."""
    able = {}
    for bit, methods in _ABILITIES.items():
        able |= methods if bits & bit else {}
    return type("Opaque", (Opaque,), able)


class Deferred:
    """What comes of a name that the tests lack: asked of the program where it enters a call of it.

    MBPP's `Node(1)` is such. Until then it is a note of what is to be made, `make`, and of what is
    to be done to it, so a program hears of nothing that is not an argument. It decides nothing: an
    attribute of one that has been handed over can be looked at, all else is refused.
    """

    def __init__(self, remote, make: Callable[[], object], owner=None):
        self._remote, self._make, self._owner = remote, make, owner
        self._made, self._value, self._deeds, self._fields = False, None, [], {}

    def _real(self) -> object:
        if not self._made:
            self._made = True
            self._value = self._make()
        while self._deeds:
            self._deeds.pop(0)._real()
        return self._value

    def __call__(self, *args, **kwargs):
        call = Deferred(self._remote, lambda: self._remote.call(self._real(), args, kwargs))
        if self._owner is not None:
            self._owner._deeds.append(call)
        return call

    def __getattr__(self, name):
        if name.startswith("_"):
            raise AttributeError(name)
        if name in self._fields and not self._made:
            return self._fields[name]
        return Deferred(self._remote, lambda: self._remote.ask("get", self._real(), name), self)

    def __setattr__(self, name, value):
        if name.startswith("_"):
            return super().__setattr__(name, value)
        self._fields[name] = value
        change = Deferred(self._remote, lambda: self._remote.ask("set", self._value, name, value))
        return self._deeds.append(change)

    def _handed_over(self) -> bool:
        return self._made or (self._owner is not None and self._owner._handed_over())

    def _seen(self) -> object:
        if not self._handed_over():
            self._remote.refused(CannotCross)
            raise CannotCross("the tests use a name that they do not define")
        return self._real()

    def __hash__(self):
        return hash(self._seen())


def _looking(name: str) -> Callable:
    return lambda self, *more: getattr(operator, name)(self._seen(), *more)


for _name in ("eq", "ne", "lt", "le", "gt", "ge", "contains", "getitem", "add", "sub", "mul"):
    setattr(Deferred, f"__{_name}__", _looking(_name))
for _kind in (bool, len, iter, str, repr, int, float, abs):
    setattr(Deferred, f"__{_kind.__name__}__", lambda self, kind=_kind: kind(self._seen()))


def encode(value: object, keep: Callable[[object], int] | None = None) -> bytes:
    """`value` as bytes; `keep(obj) -> handle` takes objects outside the closed set.

    WireError if it is nested deeper than MAX_DEPTH or longer than MAX_FRAME, or for an object
    outside the set when there is no `keep`.
    """
    out = bytearray()
    _put(out, value, keep, 0)
    if len(out) > MAX_FRAME:
        raise WireError("the value is too large")
    return bytes(out)


PLAIN = b"M"  # the first byte of such a frame


def plain(value: object) -> bytes:
    """A value of Python's own plain types as a frame for the worker, which trusts its judge.

    No judge reads such a frame. In this version of the format objects are not shared.
    """
    return PLAIN + marshal.dumps(value, 2)


def _sequence(out: bytearray, tag: bytes, items, count: int, keep, depth: int) -> None:
    out += tag + _COUNT.pack(count)
    for item in items:
        _put(out, item, keep, depth)
    if len(out) > MAX_FRAME:
        raise WireError("the value is too large")


def _list(out: bytearray, value: list, keep, depth: int) -> None:
    kinds = set(map(type, value)) if len(value) > 8 else ()
    if (8 if kinds in ({int}, {float}) else 1) * len(value) > MAX_FRAME:
        raise WireError("the value is too large")
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
        if value.bit_length() > 8 * MAX_BLOB:
            raise WireError("the value is too large")
        _blob(out, b"i", value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True))


def _blob(out: bytearray, tag: bytes, data: bytes) -> None:
    if len(data) > MAX_BLOB:
        raise WireError("the value is too large")
    out += tag + _COUNT.pack(len(data)) + data


_TYPES = (bool, int, float, complex, str, bytes, list, tuple, dict, set, frozenset, type(None))
_BY_NAME = {kind.__name__: kind for kind in _TYPES}

# Descriptors of `type` itself: a metaclass may lie about its classes' names.
_mro = type.__dict__["__mro__"].__get__
_home = type.__dict__["__module__"].__get__
_own = type.__dict__["__dict__"].__get__
type_name = type.__dict__["__name__"].__get__

# Unbound methods of the base types: a subclass's overrides are not called.
_BASES = {
    int: int.__int__,
    float: float.__float__,
    str: str.__str__,
    list: lambda value: list(list.__iter__(value)),
    tuple: lambda value: tuple(tuple.__iter__(value)),
    dict: lambda value: dict(dict.items(value)),
    set: lambda value: set(set.__iter__(value)),
    frozenset: lambda value: frozenset(frozenset.__iter__(value)),
    bytes: lambda value: bytes.__getitem__(value, slice(None)),
    complex: complex.__pos__,
}


class Standard(NamedTuple):
    """A class of the standard library: what its values are made of, and how they are made.

    `parts(value, base)` has plain parts, or is None for a value that cannot cross. `build` is for
    values that do not change; the others are filled: `refill(empty(), *parts)`.
    """

    parts: Callable
    build: Callable | None = None
    empty: Callable | None = None
    refill: Callable | None = None


def _numbers(*names: str) -> Callable:
    return lambda value, base: tuple([getattr(base, name).__get__(value) for name in names])


def _of(module: str, name: str) -> Callable:
    """A class that is imported when it is needed; its parts are whole numbers, or a text."""

    def build(*parts):
        if not all(type(part) in (int, str) for part in parts):
            raise WireError(f"{name} is made of plain parts")
        return getattr(__import__(module), name)(*parts)

    return build


def _moment(name: str, *fields: str) -> Standard:
    """Of `datetime`, with a time zone that is none or a fixed distance."""

    def parts(value, base):
        zone = base.tzinfo.__get__(value)
        if zone is not None and type_name(type(zone)) != "timezone":
            return None
        return *_numbers(*fields)(value, base), base.fold.__get__(value), zone

    def build(*given):
        *numbers, fold, zone = given
        return _of("datetime", name)(*numbers).replace(fold=fold, tzinfo=zone)

    return Standard(parts, build)


def _pairs(value, base) -> tuple:
    return tuple(dict.items(value))


def _refill(value: dict, *pairs) -> None:
    dict.clear(value)
    dict.update(value, pairs)


def _refill_default(value, factory, *pairs) -> None:
    value.default_factory = factory if factory in _TYPES else None
    _refill(value, *pairs)


_CLOCK = ("hour", "minute", "second", "microsecond")
STANDARD: dict[tuple[str, str], Standard] = {
    ("builtins", "range"): Standard(_numbers("start", "stop", "step"), _of("builtins", "range")),
    ("builtins", "dict_keys"): Standard(
        lambda value, base: tuple(base.__iter__(value)), lambda *keys: dict.fromkeys(keys).keys()
    ),
    ("builtins", "dict_values"): Standard(
        lambda value, base: tuple(base.__iter__(value)),
        lambda *values: dict(enumerate(values)).values(),
    ),
    ("builtins", "dict_items"): Standard(
        lambda value, base: tuple(base.__iter__(value)), lambda *pairs: dict(pairs).items()
    ),
    ("builtins", "bytearray"): Standard(
        lambda value, base: (bytes(base.__getitem__(value, slice(None))),), None, bytearray,
        lambda value, data: bytearray.__setitem__(value, slice(None), data),
    ),
    ("decimal", "Decimal"): Standard(
        lambda value, base: (base.__str__(value),), _of("decimal", "Decimal")
    ),
    ("fractions", "Fraction"): Standard(
        _numbers("numerator", "denominator"), _of("fractions", "Fraction")
    ),
    ("datetime", "date"): Standard(_numbers("year", "month", "day"), _of("datetime", "date")),
    ("datetime", "datetime"): _moment("datetime", "year", "month", "day", *_CLOCK),
    ("datetime", "time"): _moment("time", *_CLOCK),
    ("datetime", "timedelta"): Standard(
        _numbers("days", "seconds", "microseconds"), _of("datetime", "timedelta")
    ),
    ("datetime", "timezone"): Standard(
        lambda value, base: (base.utcoffset(value, None),),
        lambda away: __import__("datetime").timezone(away),
    ),
    ("collections", "deque"): Standard(
        lambda value, base: (base.maxlen.__get__(value), *base.__iter__(value)), None,
        collections.deque, lambda value, most, *items: value.__init__(items, most),
    ),
    ("collections", "Counter"): Standard(_pairs, None, collections.Counter, _refill),
    ("collections", "OrderedDict"): Standard(
        lambda value, base: tuple(base.items(value)), None, collections.OrderedDict,
        lambda value, *pairs: (value.clear(), value.update(pairs)),
    ),
    ("collections", "defaultdict"): Standard(
        lambda value, base: (_factory(value, base), *_pairs(value, base)), None,
        collections.defaultdict, _refill_default,
    ),
}  # fmt: skip
CLOSED = frozenset((*_TYPES, *(kind.empty for kind in STANDARD.values() if kind.empty), range))
BY_CLASS = {name: kind for (_, name), kind in STANDARD.items()}


def _factory(value, base) -> type | None:
    found = base.default_factory.__get__(value)
    return found if any(found is kind for kind in _TYPES) else None


def standard(kind: type) -> tuple[str, type] | None:
    """(name, class) of the first ancestor that `STANDARD` lists, if it comes before a base type."""
    for base in _mro(kind):
        if base in _BASES:
            return None
        if (_home(base), type_name(base)) in STANDARD:
            return type_name(base), base
    return None


def named(kind: str, fields: tuple, values: tuple) -> tuple:
    """A named tuple of a class that nobody here has defined."""
    return tuple.__new__(_tuple_class(kind, fields), values)


@lru_cache(maxsize=64)
def _tuple_class(kind: str, fields: tuple[str, ...]) -> type:
    if len(set(fields)) != len(fields) or not all(f.isidentifier() and f[0] != "_" for f in fields):
        raise WireError("a named tuple with impossible fields")
    shown = ", ".join(f"{field}={{!r}}" for field in fields)
    own = {field: property(operator.itemgetter(at)) for at, field in enumerate(fields)}
    own |= {"_fields": fields, "_asdict": lambda self: dict(zip(fields, self, strict=True))}
    own |= {"__slots__": (), "__repr__": lambda self: f"{kind}({shown.format(*self)})"}
    own |= {"_replace": lambda self, **new: named(
        kind, fields, [new.get(f, v) for f, v in zip(fields, self, strict=True)])}  # fmt: skip
    return type(kind, (tuple,), own)


def fields_of(kind: type) -> tuple[str, ...] | None:
    """The fields of a class of named tuples."""
    found = next((own["_fields"] for base in _mro(kind) if "_fields" in (own := _own(base))), None)
    plain = type(found) is tuple and all(type(name) is str for name in found)
    return found if plain and tuple in _mro(kind) and len(found) <= 64 else None


def is_enumeration(kind: type) -> bool:
    """Whether a class is one of `enum`."""
    return "_member_map_" in _own(kind)


def _put_other(out: bytearray, value: object, keep, depth: int) -> None:
    kind = type(value)
    if issubclass(kind, Deferred):
        return _put(out, value._real(), keep, depth - 1)
    if issubclass(kind, Opaque):
        out += b"o" + _OPAQUE.pack(value._bits, value._handle)
        return _blob(out, b"s", value._kind[:80].encode("utf-8", "replace"))
    known = next((n for n in map(type_name, _mro(kind)) if n in getattr(keep, "kinds", ())), "")
    fields = fields_of(kind)
    if fields is not None and len(fields) == tuple.__len__(value):
        out += b"n"
        return _put(out, (type_name(kind), fields, tuple(tuple.__iter__(value))), keep, depth)
    if known and is_enumeration(kind):
        out += b"m"
        plain = object.__getattribute__(value, "__dict__")
        return _put(out, (known, plain["_name_"], plain["_value_"]), keep, depth)
    found = standard(kind)
    parts = STANDARD[_home(found[1]), found[0]].parts(value, found[1]) if found else None
    if parts is not None:
        out += b"x"
        _blob(out, b"s", found[0].encode())
        return _put(out, parts, keep, depth)
    for base in _mro(kind):
        if base in _BASES:
            return _put(out, _BASES[base](value), keep, depth)
    place = keep.place(value) if hasattr(keep, "place") else None
    if place:
        out += b"g"
        return _put(out, place, keep, depth)
    if keep is None:
        raise WireError(f"a value of type {type_name(kind)} cannot cross")
    out += opaque(value, keep)
    return None


def _truth(value: object) -> bool:
    try:
        return bool(value)
    except BaseException:  # an exit too: Python's `==` would not have asked for it
        return False


_METHODS = (
    (CALLS, ("__call__",)), (ITERATES, ("__iter__", "__getitem__")), (STEPS, ("__next__",)),
    (SIZED, ("__len__",)), (COMPARES, ("__eq__", "__ne__")), (CONTAINS, ("__contains__",)),
)  # fmt: skip


def _bits(value: object) -> int:
    kind = type(value)
    found = TRUE * _truth(value) | AWAITS * (type_name(kind) == "coroutine")
    for base in _mro(kind)[:-1]:
        for bit, names in _METHODS:
            if any(_own(base).get(name) is not None for name in names):
                found |= bit
    return found | LARGE * (kind in _TYPES)


def opaque(value: object, keep: Callable[[object], int]) -> bytes:
    """`value` as an opaque object, whatever its type: for values that are too large to cross."""
    out = bytearray(b"o" + _OPAQUE.pack(_bits(value), keep(value)))
    _blob(out, b"s", type_name(type(value))[:80].encode("utf-8", "replace"))
    return bytes(out)


def put(out: bytearray, value: object, keep: Callable[[object], int] | None) -> None:
    """Appends one value to `out`: `encode` for callers that put values together."""
    _put(out, value, keep, 0)


def get(data: bytes, at: int, resolve: Callable | None) -> tuple[object, int]:
    """(the value that begins at `at`, where it ends); errors of any kind for what is no value."""
    return _get(data, at, resolve, 0)


def decode(data: bytes, resolve: Callable[[int, bool, str], object] | None) -> object:
    """The inverse of `encode`; `resolve(handle, bits, kind)` gives what an opaque stands for.

    Where it has them, `resolve.named(kind, fields, values)` makes named tuples,
    `resolve.member(kind, name, value)` members of enumerations, and `resolve.placed(module, name)`
    finds functions; `keep.kinds` and `keep.place` are their counterparts.
    """
    try:
        value, end = _get(data, 0, resolve, 0)
    except (WireError, MemoryError):
        raise
    except Exception as problem:  # of any kind: values are made by many classes
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
        bits, handle = _OPAQUE.unpack_from(data, at)
        kind, at = _get(data, at + _OPAQUE.size, resolve, MAX_DEPTH)
        return resolve(handle, bits, kind), at
    if tag in (b"x", b"n", b"m", b"g"):
        name, at = _get(data, at, resolve, MAX_DEPTH) if tag == b"x" else ("", at)
        parts, at = _get(data, at, resolve, depth + 1)
        return assemble(tag, name, parts, resolve), at
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


def assemble(tag: bytes, name: str, parts: tuple, resolve: object) -> object:
    """A standard value (tag `x`), named tuple (`n`), enumeration's member (`m`), function (`g`)."""
    if tag == b"n":
        return getattr(resolve, "named", named)(*parts)
    if tag in (b"m", b"g"):
        return (resolve.member if tag == b"m" else resolve.placed)(*parts)
    kind = BY_CLASS[name]
    if kind.build:
        return kind.build(*parts)
    value = kind.empty()
    kind.refill(value, *parts)
    return value


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
    "starved": (RUNTIME_ERROR, "the machine let the program compute too little, and too long"),
    "memory": (RUNTIME_ERROR, "an allocation beyond the memory limit"),
    "output_limit": (RUNTIME_ERROR, "a file or the output grew beyond its limit"),
    "quota": (RUNTIME_ERROR, "scratch space, inodes or descriptors ran out"),
    "process_limit": (RUNTIME_ERROR, "no further thread or process could be started"),
    "refused": (RUNTIME_ERROR, "a system call or path outside the sandbox"),
    "exit": (RUNTIME_ERROR, "a program ended with this exit status; written with it, `exit_1`"),
    "early_exit": (RUNTIME_ERROR, "the program ended itself before the tests ended"),
    "signal": (RUNTIME_ERROR, "died of a signal; written with its number, `signal_11`"),
    "protocol_violation": (RUNTIME_ERROR, "the program wrote to, or closed, the value channel"),
    "judge_limit": (RUNTIME_ERROR, "the tests could not be finished on the values it returned"),
    "judge_killed": (RUNTIME_ERROR, "the judge was killed from outside, more than once"),
    "wrong_value": (FAILED_TESTS, "an assertion was false"),
    "wrong_type": (FAILED_TESTS, "an assertion was false of a value outside the closed types"),
    "cannot_cross": (FAILED_TESTS, "the tests want of a value what only the program could tell"),
    "no_assertion": (FAILED_TESTS, "the tests ended without reaching an assertion"),
    "unusable_tests": (
        FAILED_TESTS,
        "the tests cannot be run; written with why",
    ),
}

# How a program ends for which the machine has no CPU, or that somebody else kills, be it the kernel
# for want of memory; or it itself.
KILLED = frozenset(("signal_9", "signal_15", "judge_killed", "starved"))

FATAL = frozenset((
    "cpu_time", "wall_time", "starved", "output_limit", "early_exit", "protocol_violation",
    "memory",
))  # fmt: skip

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


def unusable(why: str) -> tuple[str, str, int, int]:
    """What is said of every program of tests that cannot be run."""
    return FAILED_TESTS, f"unusable_tests: {' '.join(why.split())[:200]}", 0, 1


def is_unusable(reason: str) -> bool:
    """Whether a verdict's reason says that there was nothing to judge by."""
    return reason.startswith("unusable_tests")


def is_fatal(reason: str) -> bool:
    """Whether one such event decides the verdict, whatever the other assertions say."""
    return reason in FATAL or reason.startswith("signal_")
