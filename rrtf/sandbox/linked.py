"""Linked objects between judge and worker: a table of nodes and containers, each with a number.

`wire` copies values as trees. Where identity matters (nodes of a list or tree, containers whose
mutation the tests look at) a frame is a table instead: every node, list, dict and set once, its
content naming others by number. So cycles, long chains and aliases cross as they are, and a reply
that repeats the numbers of its request says what became of the objects that the judge holds.
Nodes are structure only: the name of a class and its fields. Building one calls no `__init__`,
and a `WireError` is all that a hostile table can cause.
"""

import builtins
import contextlib
from collections.abc import Callable, Mapping, Sequence
from struct import pack, unpack

from rrtf.sandbox import wire
from rrtf.sandbox.wire import WireError

__builtins__ = dict(vars(builtins))  # the worker's copy outlives what a candidate patches

TAG = b"G"  # the first byte of such a frame
MAX_ENTRIES = 1 << 18
MAX_FIELDS = 64

_NODE, _LIST, _DICT, _SET, _OTHER = b"nldsx"  # the last: a container that `wire.STANDARD` lists
_mro = type.__dict__["__mro__"].__get__
_CONTAINERS = {
    list: (_LIST, list.__iter__),
    dict: (_DICT, dict.items),
    set: (_SET, set.__iter__),
}


class Linked(Exception):
    """Raised where a value turns out to hold nodes, so that it must cross as a table."""


def container(value: object) -> type | None:
    """The mutable standard type that `value` is an instance of, or None."""
    kind = type(value)
    if kind in _CONTAINERS or kind in _ATOMS:
        return kind if kind in _CONTAINERS else None
    found = wire.standard(kind)
    if found:
        return found[1] if _filled(found[1]) else None
    return next((base for base in _mro(kind) if base in _CONTAINERS), None)


def _filled(base: type) -> wire.Standard | None:
    """How a container of this class is filled, if it is none of the built-in ones."""
    found = wire.STANDARD.get((base.__module__, base.__name__))
    return found if found and found.refill else None


def containers(value: object, kinds: Mapping[str, object] | frozenset[str]) -> list | None:
    """The mutable containers in a value, in an order that its copy has too.

    None where it must cross as a table: it holds nodes, or the same container twice.
    """
    found, seen, waiting = [], set(), [value]
    while waiting:
        value = waiting.pop()
        kind = type(value)
        base = kind if kind is list or kind is tuple else container(value)
        if base is None:
            items = _inside(value)
        else:
            items = value if base is list or base is tuple else content(value)
        if base is not None and base is not tuple:
            if id(value) in seen:
                return None
            seen.add(id(value))
            found.append(value)
        elif base is None and kinds and kind_of(value, kinds) and not wire.is_enumeration(kind):
            return None
        if not set(map(type, items)) <= _ATOMS:
            waiting += [item for item in items if type(item) not in _ATOMS]
    return found


def content(value: object) -> tuple:
    """What a container holds, its keys first."""
    base = container(value)
    if base is list or base is set:
        return tuple(base.__iter__(value))
    if base is dict:
        return (*dict.keys(value), *dict.values(value))
    return tuple(_filled(base).parts(value, base))


def _inside(value: object) -> tuple:
    """The items of tuples and frozen sets of any class; of other objects there are none."""
    base = next((base for base in (tuple, frozenset) if base in _mro(type(value))), None)
    return tuple(base.__iter__(value)) if base else ()


def kind_of(value: object, kinds: Mapping[str, object] | frozenset[str]) -> str:
    """Under which of `kinds` an object crosses as a node, by the names of its classes; or ''."""
    return next((n for n in map(wire.type_name, _mro(type(value))) if n in kinds), "")


def fields(node: object) -> dict[str, object]:
    """The attributes of one object: of its `__dict__` and of its slots."""
    found: dict[str, object] = {}
    for base in _mro(type(node)):
        slots = type.__getattribute__(base, "__dict__").get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            try:
                found[name] = object.__getattribute__(node, name)
            except AttributeError:
                continue  # a slot without a value, or `__dict__` itself
    found.pop("__dict__", None)
    with contextlib.suppress(AttributeError):
        found.update(dict.items(object.__getattribute__(node, "__dict__")))
    return {n: v for n, v in found.items() if type(n) is str and _is_field(n)}


def _is_field(name: str) -> bool:
    return name.isidentifier() and not name.startswith("__")


class _Table:
    """The entries met so far, in the order of their numbers."""

    def __init__(self, kinds, keep: Callable[[object], int] | None, known: Sequence[object]):
        self.kinds, self.keep = kinds, keep
        self.objects = list(known)
        self.numbers = {id(value): number for number, value in enumerate(known)}
        self.layouts: dict[tuple[str, ...], int] = {}
        self.tags, self.forms, self.contents = bytearray(), [], bytearray()

    def fill(self) -> None:
        """Writes the content of every entry; those found on the way are written after it."""
        at = 0
        while at < len(self.objects):
            value = self.objects[at]
            at += 1
            base = container(value)
            if base is None:
                self._put_node(value)
            elif base not in _CONTAINERS:
                self._put_form(_OTHER, (base.__name__,))
                self.put(self.contents, tuple(_filled(base).parts(value, base)), 0)
            else:
                tag, items = _CONTAINERS[base]
                self.tags.append(tag)
                self.forms.append(0)
                self._put_items(tag, list(items(value)))
            if len(self.contents) > wire.MAX_FRAME or len(self.objects) > MAX_ENTRIES:
                raise WireError("the value is too large")

    def _put_node(self, node: object) -> None:
        found = fields(node)
        if len(found) > MAX_FIELDS:
            raise WireError("an object with too many fields")
        self._put_form(_NODE, (kind_of(node, self.kinds), *found))
        for value in found.values():
            self.put(self.contents, value, 0)

    def _put_form(self, tag: int, form: tuple[str, ...]) -> None:
        self.tags.append(tag)
        self.forms.append(self.layouts.setdefault(form, len(self.layouts)))

    def _put_items(self, tag: int, items: list) -> None:
        kinds = set(map(type, items)) if tag == _LIST else ()
        if kinds in ({int}, {float}):
            self.contents += wire.encode(items)
            return
        self.contents += bytes((tag,)) + len(items).to_bytes(4, "little")
        for item in items:
            if tag == _DICT:
                self.put(self.contents, item[0], 0)
                self.put(self.contents, item[1], 0)
            else:
                self.put(self.contents, item, 0)

    def put(self, out: bytearray, value: object, depth: int) -> None:
        """A value as a field or item: entries by number, the rest as `wire` has it."""
        kind = type(value)
        if depth > wire.MAX_DEPTH:
            raise WireError("the value is nested too deeply")
        if kind in _ATOMS:
            wire.put(out, value, None)
        elif (fields := wire.fields_of(kind)) is not None:
            out += b"n"
            self.put(out, (wire.type_name(kind), fields, tuple(tuple.__iter__(value))), depth + 1)
        elif base := next((b for b in (tuple, frozenset) if b in _mro(kind)), None):
            items = tuple(base.__iter__(value))
            out += (b"t" if base is tuple else b"Z") + len(items).to_bytes(4, "little")
            for item in items:
                self.put(out, item, depth + 1)
        elif container(value) or (kind_of(value, self.kinds) and not wire.is_enumeration(kind)):
            number = self.numbers.setdefault(id(value), len(self.objects))
            if number == len(self.objects):
                self.objects.append(value)
            out += b"R" + number.to_bytes(4, "little")
        else:
            wire.put(out, value, self.keep)


_ATOMS = frozenset((type(None), bool, int, float, complex, str, bytes))


def encode(
    value: object,
    kinds: Mapping[str, object] | frozenset[str],
    keep: Callable[[object], int] | None = None,
    known: Sequence[object] = (),
) -> tuple[bytes, list[object]]:
    """(`value` as a table and what is built of it, the objects of the table by number).

    `kinds` are the names of classes whose objects cross as nodes. `known` come first, whether or
    not the value holds them. WireError where `wire.encode` has one, or for too many entries.
    """
    table, last = _Table(kinds, keep, known), bytearray()
    table.put(last, value, 0)
    table.fill()
    head = wire.encode(list(table.layouts))
    data = b"".join(
        (TAG, len(table.tags).to_bytes(4, "little"), bytes(table.tags),
         pack(f"<{len(table.forms)}I", *table.forms), head, bytes(table.contents), bytes(last))
    )  # fmt: skip
    if len(data) > wire.MAX_FRAME:
        raise WireError("the value is too large")
    return data, table.objects


def decode(
    data: bytes,
    make: Callable[[str], object],
    resolve: Callable[[int, bool, str], object] | None,
    originals: Sequence[object] = (),
) -> tuple[object, list[object]]:
    """(the value, its objects by number); the inverse of `encode`.

    `make(kind)` gives an empty object of a class. The first entries are `originals`, which get
    their new content once everything has been read.
    """
    try:
        return _decode(data, make, resolve, originals)
    except (WireError, MemoryError):
        raise
    except Exception as problem:
        raise WireError(f"malformed table: {problem}") from None


def _decode(data: bytes, make, resolve, originals):
    count = int.from_bytes(data[1:5], "little")
    if count > MAX_ENTRIES or 5 + 5 * count > len(data) or count < len(originals):
        raise WireError("a table of a wrong size")
    tags, forms = data[5 : 5 + count], unpack(f"<{count}I", data[5 + count : 5 + 5 * count])
    head, at = wire.get(data, 5 + 5 * count, None)
    layouts = [_layout(form) for form in head]
    objects = list(originals)
    for number in range(count):
        _shell(number, tags[number], layouts[forms[number]][0] if layouts else "", objects, make)
    reader, contents = _Reader(data, resolve, objects), []
    for tag, form in zip(tags, forms, strict=True):
        if tag == _OTHER:
            content, at = reader.get(at, 0)
            contents.append(content)
        elif tag == _NODE:
            values = []
            for _ in layouts[form][1]:
                value, at = reader.get(at, 0)
                values.append(value)
            contents.append(dict(zip(layouts[form][1], values, strict=True)))
        else:
            content, at = reader.content(at, tag)
            contents.append(content)
    value, at = reader.get(at, 0)
    if at != len(data):
        raise WireError("bytes after the value")
    _settle(objects, tags, contents)
    return value, objects


def _layout(form: object) -> tuple[str, tuple[str, ...]]:
    kind, *names = form
    if len(names) > MAX_FIELDS or not all(type(n) is str and _is_field(n) for n in names):
        raise WireError("a node with impossible fields")
    return kind, tuple(names)


def _shell(number: int, tag: int, kind: str, objects: list, make: Callable[[str], object]) -> None:
    """The object of one entry, still empty; an original one must be of the kind it was."""
    if tag == _OTHER:
        base = wire.BY_CLASS[kind].empty
    else:
        base = {_LIST: list, _DICT: dict, _SET: set, _NODE: None}[tag]
    if number >= len(objects):
        objects.append(make(kind) if base is None else base())
    elif container(objects[number]) is not base:
        raise WireError("an object that has changed its type")


class _Reader:
    """Values of a table whose objects exist already."""

    def __init__(self, data: bytes, resolve, objects: list[object]):
        self.data, self.resolve, self.objects = data, resolve, objects

    def get(self, at: int, depth: int) -> tuple[object, int]:
        tag = self.data[at : at + 1]
        if tag == b"R":
            return self.objects[int.from_bytes(self.data[at + 1 : at + 5], "little")], at + 5
        if tag == b"n":
            parts, at = self.get(at + 1, depth + 1)
            return wire.assemble(b"n", "", parts, self.resolve), at
        if tag not in (b"t", b"Z"):
            return wire.get(self.data, at, self.resolve)
        if depth > wire.MAX_DEPTH:
            raise WireError("the value is nested too deeply")
        items, at = self._items(at, 1, depth + 1)
        return (tuple if tag == b"t" else frozenset)(items), at

    def content(self, at: int, tag: int) -> tuple[object, int]:
        """The list of a list's or set's items, or the dict itself."""
        first = self.data[at]
        if tag == _LIST and first in b"ID":
            return wire.get(self.data, at, None)
        if first != tag:
            raise WireError("content of another type than its entry")
        items, at = self._items(at, 2 if tag == _DICT else 1, 0)
        return (dict(zip(items[::2], items[1::2], strict=True)) if tag == _DICT else items), at

    def _items(self, at: int, times: int, depth: int) -> tuple[list, int]:
        count = times * int.from_bytes(self.data[at + 1 : at + 5], "little")
        items, at = [], at + 5
        for _ in range(count):
            item, at = self.get(at, depth)
            items.append(item)
        return items, at


def _settle(objects: list, tags: bytes, contents: list) -> None:
    """Gives every object its content: nodes first, because a set may hash them by their fields."""
    for value, tag, content in zip(objects, tags, contents, strict=True):
        if tag == _NODE:
            set_fields(value, content)
    for value, tag, content in zip(objects, tags, contents, strict=True):
        if tag == _LIST:
            list.__setitem__(value, slice(None), content)
        elif tag == _OTHER:
            _filled(container(value)).refill(value, *content)
        elif tag != _NODE:
            base = dict if tag == _DICT else set
            base.clear(value)
            base.update(value, content)


def set_fields(node: object, content: Mapping[str, object]) -> None:
    """Gives an object its fields, but for those that would hide what its class defines."""
    try:
        held = object.__getattribute__(node, "__dict__")
    except AttributeError:
        held = None
    if type(held) is dict:
        held.clear()
    for name, value in content.items():
        defined = _defined(type(node), name)
        if type(held) is not dict or type(defined) is _SLOT:
            object.__setattr__(node, name, value)
        elif not callable(defined) and not hasattr(type(defined), "__get__"):
            held[name] = value


def _defined(kind: type, name: str) -> object:
    """What the class or one of its ancestors has under this name."""
    held = (type.__getattribute__(base, "__dict__") for base in _mro(kind))
    return next((own[name] for own in held if name in own), None)


class _Slotted:
    __slots__ = ("slot",)


_SLOT = type(_Slotted.slot)
