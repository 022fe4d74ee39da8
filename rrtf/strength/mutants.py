"""Small faults put into a program on purpose, one at a time: what its tests should notice.

Nothing is executed here. A mutant is the reference but for one change of a kind of `OPERATORS`;
comments and layout are lost.
"""

import ast
import random
import types
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from rrtf import config, similarity

_CONDITIONS = ("test", "ifs")  # fields of `if`, `while`, `x if c else y`, comprehensions
# What an operator of arithmetic, and of comparison, is changed for.
_ARITHMETIC = {
    ast.Add: (ast.Sub,), ast.Sub: (ast.Add,), ast.Mult: (ast.Add,),
    ast.Div: (ast.FloorDiv, ast.Mult), ast.FloorDiv: (ast.Div, ast.Mod), ast.Mod: (ast.FloorDiv,),
    ast.Pow: (ast.Mult,), ast.BitAnd: (ast.BitOr,), ast.BitOr: (ast.BitAnd,),
    ast.BitXor: (ast.BitOr,), ast.LShift: (ast.RShift,), ast.RShift: (ast.LShift,),
}  # fmt: skip
_COMPARISON = {
    ast.Lt: (ast.LtE, ast.Gt), ast.LtE: (ast.Lt, ast.GtE), ast.Gt: (ast.GtE, ast.Lt),
    ast.GtE: (ast.Gt, ast.LtE), ast.Eq: (ast.NotEq,), ast.NotEq: (ast.Eq,),
    ast.In: (ast.NotIn,), ast.NotIn: (ast.In,), ast.Is: (ast.IsNot,), ast.IsNot: (ast.Is,),
}  # fmt: skip
_TWINS = (
    *(("min", "max"), ("any", "all"), ("upper", "lower"), ("lstrip", "rstrip")),
    *(("startswith", "endswith"), ("find", "rfind"), ("ljust", "rjust"), ("keys", "values")),
    *(("isupper", "islower"), ("isalpha", "isalnum"), ("floor", "ceil"), ("append", "extend")),
    *(("union", "intersection"), ("issubset", "issuperset"), ("add", "discard")),
)
_TWIN = dict(_TWINS) | {right: left for left, right in _TWINS} | {"isdigit": "isalnum"}
_WRAPPERS = frozenset(("sorted", "reversed", "set", "frozenset", "abs", "round", "int"))
_METHODS = frozenset(("lower", "upper", "strip", "lstrip", "rstrip", "title", "capitalize"))
_SYMMETRIC = frozenset(("min", "max", "gcd", "lcm", "isclose"))


def _with(node: ast.AST, **changes: object) -> ast.AST:
    return type(node)(**(dict(ast.iter_fields(node)) | changes))


def _number(value: complex) -> ast.expr:
    if isinstance(value, int | float) and value < 0:
        return ast.UnaryOp(ast.USub(), ast.Constant(-value))
    return ast.Constant(value)


def _plus(node: ast.expr, step: int) -> ast.expr:
    return ast.BinOp(node, ast.Add() if step > 0 else ast.Sub(), ast.Constant(abs(step)))


def _name_of(function: ast.expr) -> str:
    """`max`, or `lower` of `text.lower`."""
    return getattr(function, "id", "") or getattr(function, "attr", "")


def _arithmetic(node: ast.AST, _: str) -> Iterator[ast.AST]:
    if isinstance(node, ast.BinOp | ast.AugAssign):
        for other in _ARITHMETIC.get(type(node.op), ()):
            yield _with(node, op=other())


def _comparison(node: ast.AST, _: str) -> Iterator[ast.AST]:
    if isinstance(node, ast.Compare):
        for at, operation in enumerate(node.ops):
            for other in _COMPARISON[type(operation)]:
                yield _with(node, ops=[*node.ops[:at], other(), *node.ops[at + 1 :]])


def _boolean(node: ast.AST, _: str) -> Iterator[ast.AST]:
    """`and` for `or`, the other way, and one operand left out."""
    if isinstance(node, ast.BoolOp):
        yield _with(node, op=ast.Or() if isinstance(node.op, ast.And) else ast.And())
        for at in range(len(node.values)):
            rest = node.values[:at] + node.values[at + 1 :]
            yield rest[0] if len(rest) == 1 else _with(node, values=rest)


def _negation(node: ast.AST, field: str) -> Iterator[ast.AST]:
    """A `not` or a sign removed, a condition negated."""
    if isinstance(node, ast.UnaryOp):
        if not isinstance(node.operand, ast.Constant):
            yield node.operand
    elif field in _CONDITIONS and not isinstance(node, ast.Compare):
        yield ast.UnaryOp(ast.Not(), node)


def _condition(node: ast.AST, field: str) -> Iterator[ast.AST]:
    """A condition that always holds or never does."""
    if field in _CONDITIONS and not isinstance(node, ast.Constant):
        yield ast.Constant(True)
        yield ast.Constant(False)


def _constant(node: ast.AST, _: str) -> Iterator[ast.AST]:
    if not isinstance(node, ast.Constant):
        return
    value = node.value
    if isinstance(value, bool):
        yield ast.Constant(not value)
    elif isinstance(value, int | float):
        yield _number(value + 1)
        yield _number(value - 1)
    elif isinstance(value, str | bytes):
        other = "x" if isinstance(value, str) else b"x"
        yield ast.Constant(value + other if value else other)
        if value:
            yield ast.Constant(value[:0])


def _bounds(node: ast.AST, _: str) -> Iterator[ast.AST]:
    """Off by one in slices, indices and ranges; a bound of a slice left out."""
    if isinstance(node, ast.Slice):
        for name in ("lower", "upper", "step"):
            if getattr(node, name):
                yield _with(node, **{name: None})
        for name in ("lower", "upper"):
            bound = getattr(node, name)
            if bound and not isinstance(bound, ast.Constant):
                yield _with(node, **{name: _plus(bound, 1)})
                yield _with(node, **{name: _plus(bound, -1)})
    elif isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Name | ast.BinOp):
        yield _with(node, slice=_plus(node.slice, -1))
    elif isinstance(node, ast.Call) and _name_of(node.func) == "range":
        for at, bound in enumerate(node.args[:2]):
            if not isinstance(bound, ast.Constant | ast.Starred):
                for step in (1, -1):
                    changed = [*node.args[:at], _plus(bound, step), *node.args[at + 1 :]]
                    yield _with(node, args=changed)
        if len(node.args) == 1:
            yield _with(node, args=[ast.Constant(1), *node.args])


def _arguments(node: ast.AST, _: str) -> Iterator[ast.AST]:
    """The first two arguments swapped; the last of several, or a named one, left out."""
    if not isinstance(node, ast.Call):
        return
    if len(node.args) > 1 and not any(isinstance(a, ast.Starred) for a in node.args):
        if _name_of(node.func) not in _SYMMETRIC:
            yield _with(node, args=[node.args[1], node.args[0], *node.args[2:]])
        yield _with(node, args=node.args[:-1])
    for at in range(len(node.keywords)):
        yield _with(node, keywords=node.keywords[:at] + node.keywords[at + 1 :])


def _function(node: ast.AST, _: str) -> Iterator[ast.AST]:
    """Another function of the same kind (`min` for `max`), or none around its argument."""
    if not isinstance(node, ast.Call):
        return
    name = _name_of(node.func)
    if name in _TWIN:
        field = "id" if isinstance(node.func, ast.Name) else "attr"
        yield _with(node, func=_with(node.func, **{field: _TWIN[name]}))
    if isinstance(node.func, ast.Name) and name in _WRAPPERS and node.args:
        yield node.args[0]
    if isinstance(node.func, ast.Attribute) and name in _METHODS and not node.args:
        yield node.func.value


def _return(node: ast.AST, _: str) -> Iterator[ast.AST]:
    """Nothing is returned; of a truth value: always one."""
    if isinstance(node, ast.Return) and node.value:
        yield _with(node, value=ast.Constant(None))
        negated = isinstance(node.value, ast.UnaryOp) and isinstance(node.value.op, ast.Not)
        if negated or isinstance(node.value, ast.Compare | ast.BoolOp):
            yield _with(node, value=ast.Constant(True))
            yield _with(node, value=ast.Constant(False))


def _deletion(node: ast.AST, _: str) -> Iterator[ast.AST]:
    """A statement that does nothing. A first assignment stays: later lines need its name."""
    kinds = ast.AugAssign | ast.Expr | ast.If | ast.For | ast.While | ast.Delete | ast.Raise
    if isinstance(node, kinds | ast.Break | ast.Continue):
        yield ast.Pass()
    elif isinstance(node, ast.Assign):
        used = {n.id for n in ast.walk(node.value) if isinstance(n, ast.Name)}
        if all(not isinstance(t, ast.Name) or t.id in used for t in node.targets):
            yield ast.Pass()


def _assignment(node: ast.AST, _: str) -> Iterator[ast.AST]:
    """`x = y` for `x += y`."""
    if isinstance(node, ast.AugAssign):
        yield ast.Assign([node.target], node.value, lineno=node.lineno)


def _jump(node: ast.AST, _: str) -> Iterator[ast.AST]:
    if isinstance(node, ast.Break | ast.Continue):
        yield ast.Continue() if isinstance(node, ast.Break) else ast.Break()


OPERATORS: dict[str, Callable[[ast.AST, str], Iterator[ast.AST]]] = {
    rule.__name__.removeprefix("_"): rule
    for rule in (_arithmetic, _comparison, _boolean, _negation, _condition, _constant, _bounds,
                 _arguments, _function, _return, _deletion, _assignment, _jump)
}  # fmt: skip


_PASSED_OVER = frozenset(
    ("annotation", "returns", "decorator_list", "format_spec", "type_comment", "type_params")
)


@dataclass(frozen=True, slots=True)
class Mutant:
    """A program with one fault: what `operator` did in `line` of the reference, as `change`."""

    program: str
    operator: str
    line: int
    change: str


@dataclass(frozen=True, slots=True)
class _Change:
    """`new` instead of the child `old` of `holder`, which is its `field`, or an item of it."""

    operator: str
    holder: ast.AST
    field: str
    index: int | None
    old: ast.AST
    new: ast.AST

    def put(self, node: ast.AST) -> None:
        if self.index is None:
            setattr(self.holder, self.field, node)
        else:
            getattr(self.holder, self.field)[self.index] = node


def mutants(
    program: str, entry_point: str, *, limit: int, seed: int, first_line: int = 1
) -> list[Mutant]:
    """At most `limit` distinct mutants of a program, in the order of their lines.

    Changed are the definitions that the entry point needs, from `first_line` on (a prompt above
    it is given, not the answer's to get wrong); not imports, docstrings, annotations. Every
    mutant compiles, and to other bytecode than the program and each other mutant. Where there
    are more than `limit`, operators take turns, so that none crowds out the rest; a larger limit
    adds mutants and keeps the others. ValueError if the program does not parse or does not
    define its entry point.
    """
    try:
        tree = ast.parse(program)
        changes = [c for c in _changes(tree, entry_point) if _line(c.old) >= first_line]
        seen = {_bytecode(ast.unparse(tree))}
    except (SyntaxError, RecursionError, MemoryError) as error:
        raise ValueError(f"the program does not parse: {error}") from None
    found: list[Mutant] = []
    draw = random.Random(config.derive_seed(seed, "mutants", program))
    for change in _in_turns(changes, draw):
        if len(found) >= limit:
            break
        change.put(change.new)
        text = ast.unparse(tree)
        change.put(change.old)
        code = _bytecode(text)
        if code and code not in seen:
            seen.add(code)
            found.append(Mutant(text, change.operator, _line(change.old), _told(change)))
    return sorted(found, key=lambda mutant: (mutant.line, mutant.operator, mutant.program))


def _changes(tree: ast.Module, entry_point: str) -> list[_Change]:
    return [
        _Change(operator, *place, new)
        for definition in _needed(tree, entry_point)
        for place in _places(definition)
        for operator, rule in OPERATORS.items()
        for new in rule(place[-1], place[1])
    ]


def _in_turns(changes: Sequence[_Change], draw: random.Random) -> Iterator[_Change]:
    """One change of each operator, then a second of each, ...; drawn within an operator."""
    queues: dict[str, list[_Change]] = defaultdict(list)
    for change in changes:
        queues[change.operator].append(change)
    rows = list(queues.values())
    for queue in rows:
        draw.shuffle(queue)
    draw.shuffle(rows)
    for turn in range(max(map(len, rows), default=0)):
        yield from (queue[turn] for queue in rows if turn < len(queue))


def _needed(tree: ast.Module, entry_point: str) -> list[ast.stmt]:
    """The top-level definitions that the entry point uses, itself among them."""
    defined: dict[str, ast.stmt] = {}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            defined[node.name] = node  # of several the last is the one that is called
        elif isinstance(node, ast.Assign):
            defined |= {t.id: node for t in node.targets if isinstance(t, ast.Name)}
    name = entry_point.partition("(")[0]
    if name not in defined:
        raise ValueError(f"the program does not define {entry_point}")

    def defines(node: ast.stmt) -> list[str]:
        return [other for other, by in defined.items() if by is node]

    return similarity.needed({name}, tree.body, defines=defines, reads=similarity.names)


def _places(holder: ast.AST) -> Iterator[tuple[ast.AST, str, int | None, ast.AST]]:
    """(holder, field, index in the field, node) of all that may be changed below `holder`."""
    for field, value in ast.iter_fields(holder):
        if field in _PASSED_OVER:
            continue
        for index, node in enumerate(value if isinstance(value, list) else [value]):
            if isinstance(node, ast.AST) and not _is_given(node, holder):
                yield holder, field, index if isinstance(value, list) else None, node
                yield from _places(node)


def _is_given(node: ast.AST, holder: ast.AST) -> bool:
    """Imports, docstrings, the literal text of an f-string."""
    if isinstance(node, ast.Constant):
        return isinstance(holder, ast.JoinedStr | ast.Expr)
    text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    return text or isinstance(node, ast.Import | ast.ImportFrom)


def _line(node: ast.AST) -> int:
    """Where a node stands; what has no line of its own (a comprehension) stands at its first."""
    return getattr(node, "lineno", 0) or min(map(_line, ast.iter_child_nodes(node)), default=0)


def _told(change: _Change) -> str:
    """`x < y -> x <= y`; of a statement its first line."""
    sides = []
    for node in (change.old, change.new):
        first, *rest = ast.unparse(node).strip().splitlines()
        sides.append(f"{first} ..." if rest else first)
    return " -> ".join(sides)


def _bytecode(source: str) -> tuple | None:
    """What the source compiles to, lines left out; None if it does not."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return _facts(compile(source, "mutant.py", "exec", dont_inherit=True))
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return None


def _facts(code: types.CodeType) -> tuple:
    constants = [
        _facts(c) if isinstance(c, types.CodeType) else (type(c).__name__, repr(c))
        for c in code.co_consts
    ]
    names = (code.co_name, code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
    counts = (code.co_argcount, code.co_kwonlyargcount, code.co_flags, code.co_exceptiontable)
    return (code.co_code, *names, *counts, *constants)
