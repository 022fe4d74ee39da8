"""Which calls in a test change arguments that the test looks at later, and how it sees the change.

The worker has copies of all arguments, so `f(xs)` cannot change the test's `xs` by itself: a
program cannot spoil the inputs of later calls, nor what its answer is compared with in the same
statement. But where later statements look at `xs`, other than to hand it to the same function
again, the test wants to see the change. Such a call is `mirrored`: it brings back what became of
every list, dict, set and node that it was given, aliases and all, as a run in one process would
show it. An input handed over twice with no look between is a shared input: it stays as it is.
"""

import ast
import builtins
from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple

from rrtf.sandbox import counting

_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
_LOOPS = (ast.For, ast.While, ast.AsyncFor)
_SIMPLE = (ast.Assign, ast.AugAssign, ast.AnnAssign, ast.Expr, ast.Assert, ast.Return, ast.Delete)

Position = tuple[int, int]


def mark(tree: ast.Module, entry_point: str = "") -> None:
    """Turns `f(xs)` into a mirrored call wherever later statements look at `xs`.

    Calls of built-in functions are left alone unless one is the `entry_point`.
    """
    scan = _Scan(entry_point)
    try:
        scan.visit(tree, _Place(tree, None, (0, 0), False), "")
    except RecursionError:
        return  # an expression of a thousand terms: nothing in it is mirrored
    for call in scan.calls:
        if any(scan.looked_at(call, name) for name in call.names):
            node = call.node
            where = {"lineno": node.lineno, "col_offset": node.col_offset}
            node.args.insert(0, node.func)
            node.func = ast.Name(counting.MIRRORED, ast.Load(), **where)


class _Place(NamedTuple):
    """Where an expression stands: its function, outermost loop, the end of its statement."""

    scope: ast.AST
    loop: ast.stmt | None
    end: Position  # (0, 0): in the head of a compound statement
    bare: bool  # the statement is one call, whose value nobody sees


class _Call(NamedTuple):
    """A call by name whose arguments reach objects that have names."""

    node: ast.Call
    names: frozenset[str]
    place: _Place

    @property
    def start(self) -> Position:
        return self.node.lineno, self.node.col_offset

    @property
    def end(self) -> Position:
        return max(self.place.end, (self.node.end_lineno, self.node.end_col_offset))


class _Scan:
    """All such calls of a module, and every place where a name is read or bound."""

    def __init__(self, entry_point: str):
        self.entry_point = entry_point
        self.calls: list[_Call] = []
        # name -> (position, place, the function that it is handed to); name -> (position, place)
        self.reads: dict[str, list[tuple[Position, _Place, str]]] = defaultdict(list)
        self.binds: dict[str, list[tuple[Position, _Place]]] = defaultdict(list)

    def visit(self, node: ast.AST, place: _Place, callee: str) -> None:
        """`callee`: the function to which the value of `node` is handed."""
        kind = type(node)
        if kind is ast.Constant:
            return
        if kind is ast.Name:
            position = (node.lineno, node.col_offset)
            if type(node.ctx) is ast.Load:
                self.reads[node.id].append((position, place, callee))
            else:
                self.binds[node.id].append((max(position, place.end), place))
            return
        if kind is ast.arg:
            self.binds[node.arg].append(((node.lineno, node.col_offset), place))
        elif isinstance(node, ast.stmt | ast.Lambda):
            place, callee = _inside(node, place), ""
        elif kind is ast.Call and type(node.func) is ast.Name:
            callee = self._call(node, place)
        elif not isinstance(node, ast.keyword | ast.Starred | ast.List | ast.Tuple | ast.Dict):
            callee = ""
        for child in ast.iter_child_nodes(node):
            self.visit(child, place, callee)

    def _call(self, node: ast.Call, place: _Place) -> str:
        name = node.func.id
        if name == self.entry_point or not hasattr(builtins, name):
            names = frozenset(n for a in [*node.args, *node.keywords] for n in _roots(a))
            if names:
                bare = place.bare and place.end == (node.end_lineno, node.end_col_offset)
                place = _Place(place.scope, place.loop, place.end, bare)
                self.calls.append(_Call(node, names, place))
        return name

    def looked_at(self, call: _Call, name: str) -> bool:
        """Whether later statements look at what the call may have done to `name`."""
        place, callee = call.place, call.node.func.id
        reads = [r for r in self.reads[name] if r[2] != callee]
        if any(self._from_outside(name, where, place) for _, where, _ in reads):
            return True
        bound = [at for at, where in self.binds[name] if where.scope is place.scope]
        until = min((at for at in bound if at > call.end), default=_NEVER)
        looks = [at for at, _, _ in reads]
        in_loop = place.loop is not None and not any(
            where.loop is place.loop for _, where in self.binds[name]
        )
        again = [
            at for at, r, _ in reads if in_loop and r.loop is place.loop and r.end != place.end
        ]
        if not again and not any(call.end <= at < until for at in looks):
            return False
        return place.bare or not (
            (in_loop and not again) or self._shared(call, name, looks, bound, until)
        )

    def _from_outside(self, name: str, where: _Place, place: _Place) -> bool:
        """Whether `where` is in another function, which has no such name and may run any time."""
        own = any(bound.scope is where.scope for _, bound in self.binds[name])
        return where.scope is not place.scope and not own

    def _shared(
        self, call: _Call, name: str, looks: list[Position], bound: list[Position], until: Position
    ) -> bool:
        """Whether the same function gets `name` before or after this with no look between."""
        since = max((at for at in bound if at < call.start), default=(0, 0))
        for other in self.calls:
            if other is call or other.node.func.id != call.node.func.id or name not in other.names:
                continue
            if other.place.scope is not call.place.scope or other.place.bare:
                continue
            first, second = sorted((call, other), key=lambda c: c.start)
            here = first.start >= since and second.start < until
            if here and not any(first.end <= at < second.start for at in looks):
                return True
        return False


_NEVER = (1 << 31, 0)


def _inside(node: ast.AST, place: _Place) -> _Place:
    if isinstance(node, _SCOPES):
        return _Place(node, None, (0, 0), False)
    if isinstance(node, _SIMPLE):
        bare = isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
        return _Place(place.scope, place.loop, (node.end_lineno, node.end_col_offset), bare)
    loop = node if isinstance(node, _LOOPS) and place.loop is None else place.loop
    return _Place(place.scope, loop, (0, 0), False)


def _roots(node: ast.AST) -> Iterator[str]:
    """Names whose objects, or parts of them, an argument hands over."""
    if isinstance(node, ast.Name):
        yield node.id
    elif isinstance(node, ast.keyword | ast.Starred | ast.Attribute | ast.Subscript):
        if not (isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Slice)):
            yield from _roots(node.value)
    elif isinstance(node, ast.List | ast.Tuple | ast.Set):
        for item in node.elts:
            yield from _roots(item)
    elif isinstance(node, ast.Dict):
        for item in node.values:
            yield from _roots(item)
    elif isinstance(node, ast.IfExp):
        yield from _roots(node.body)
        yield from _roots(node.orelse)
    elif isinstance(node, ast.NamedExpr):
        yield from _roots(node.target)
