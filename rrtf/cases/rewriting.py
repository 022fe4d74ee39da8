"""Tests rewritten to be carried out step by step, with a report before and after each step.

Compiling runs nothing of them. `steps` has the functions that the rewritten tests call.
"""

import ast
import symtable
from dataclasses import dataclass
from types import CodeType
from typing import Any

from rrtf.cases import steps


@dataclass(frozen=True, slots=True)
class Unit:
    """One step of the tests: an assertion or another statement that calls something."""

    source: str
    names: tuple[str, ...]
    expected: str  # of an assertion, where it stands in the source
    relation: str  # of what is returned to what is expected
    asserts: bool
    lines: range  # of the tests, from 1


def rewrite(tests: str, entry_point: str) -> tuple[CodeType, tuple[Unit, ...]]:
    """(code that defines the generator `_rrtf_steps`, the units it reports by number from 0).

    SyntaxError for tests that do not compile.
    """
    tree = ast.parse(tests, "tests.py")
    plain = entry_point if entry_point.isidentifier() else "candidate"
    writer = _Rewriter(tests, {plain, "candidate"})
    checked = any(isinstance(s, ast.FunctionDef) and s.name == "check" for s in tree.body)
    first, body = [], []
    for node in tree.body:
        outside = isinstance(node, ast.ImportFrom) and any(a.name == "*" for a in node.names)
        (first if outside or _future(node) else body).append(node)
    body = writer.block([_unannotated(node) for node in body])
    if checked:
        body.append(ast.parse(f"yield from check({plain})").body[0])
    body.append(ast.parse("if False:\n    yield").body[0])
    names = [s.get_name() for s in symtable.symtable(tests, "", "exec").get_symbols()
             if s.is_assigned() or s.is_imported() or s.is_namespace()]  # fmt: skip
    shared = [ast.Global(sorted(set(names)))] if names else []
    function = ast.parse("def _rrtf_steps():\n    pass").body[0]
    function.body = [*shared, *body]
    module = ast.fix_missing_locations(ast.Module([*first, function], []))
    return compile(module, "tests.py", "exec", dont_inherit=True), tuple(writer.units)


def _future(node: ast.stmt) -> bool:
    return isinstance(node, ast.ImportFrom) and node.module == "__future__"


def _unannotated(node: ast.stmt) -> ast.stmt:
    """`x: int = 1` as `x = 1`, because a name that is declared global takes no annotation."""
    if isinstance(node, ast.AnnAssign) and node.value is not None:
        return ast.copy_location(ast.Assign([node.target], node.value), node)
    return ast.copy_location(ast.Pass(), node) if isinstance(node, ast.AnnAssign) else node


class _Rewriter:
    """Puts a report before every step and one behind a step that fails."""

    def __init__(self, tests: str, tested: set[str]):
        self.lines, self.tested = tests.encode().split(b"\n"), tested
        self.units: list[Unit] = []
        self.bound = {node.id for node in ast.walk(ast.parse(tests)) if _stored(node)}

    def block(self, body: list[ast.stmt]) -> list[ast.stmt]:
        """The statements with their steps marked; functions but `check` stay as they are."""
        new: list[ast.stmt] = []
        for node in body:
            if isinstance(node, ast.Assert):
                if not (isinstance(node.test, ast.Constant) and node.test.value):
                    new += self._assertion(node)
            elif isinstance(node, ast.FunctionDef) and node.name == "check":
                node.body = [*self.block(node.body), *ast.parse("if False:\n    yield").body]
                new.append(node)
            elif isinstance(node, ast.For | ast.While | ast.If | ast.With):
                node.body = self.block(node.body)
                node.orelse = self.block(node.orelse) if getattr(node, "orelse", None) else []
                new.append(node)
            elif isinstance(node, ast.Assign | ast.AugAssign | ast.Expr | ast.Try) and _calls(node):
                new += self._step(node, node, None)
            else:
                new.append(node)
        return new

    def _step(
        self, node: ast.stmt, action: ast.stmt, expected: ast.expr | None, says: str = "", sign=""
    ) -> list[ast.stmt]:
        """The statement with a report before it and, where it raises, one in its place.

        `expected` is evaluated there if the other side of the comparison raised.
        """
        names = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)} & self.bound
        names -= {n.id for n in ast.walk(node) if _stored(n)} | self.tested
        if expected is not None and _is_literal(expected):
            says = ast.unparse(expected)
        self.units.append(
            Unit(
                self._source(node),
                tuple(sorted(names)),
                says,
                sign,
                isinstance(node, ast.Assert),
                range(node.lineno, node.end_lineno + 1),
            )
        )
        unit = f"{len(self.units) - 1}, {tuple(sorted(names))!r}, locals()"
        begin = f"_rrtf_case.begin({unit}, {isinstance(node, ast.Assert)})"
        lines = ast.parse(
            f"yield {begin}\ntry:\n    pass\n"
            "except BaseException as _rrtf_error:\n"
            "    yield _rrtf_case.report(_rrtf_error)\n    return\n"
        ).body
        for part in (part for line in lines for part in ast.walk(line)):
            if hasattr(part, "lineno"):
                ast.copy_location(part, node)
        guarded = lines[1]
        guarded.body = [action]
        if expected is not None:
            late = ast.parse("lambda: None", mode="eval").body
            late.body = expected
            guarded.handlers[0].body[0].value.value.args.append(ast.copy_location(late, node))
        return lines

    def _source(self, node: ast.stmt) -> str:
        """A statement as it is written; columns count bytes."""
        lines = self.lines[node.lineno - 1 : node.end_lineno]
        lines[-1] = lines[-1][: node.end_col_offset]
        lines[0] = lines[0][node.col_offset :]
        return b"\n".join(lines).decode(errors="replace").rstrip()

    def _assertion(self, node: ast.Assert) -> list[ast.stmt]:
        """An assertion as a step that notes what is compared."""
        refused = isinstance(node.test, ast.UnaryOp) and isinstance(node.test.op, ast.Not)
        marked, expected, sign = self._sides(node.test)
        says = "" if sign else "a false value" if refused else "a true value"
        action = ast.copy_location(ast.Expr(_hook("holds", marked)), node)
        return self._step(node, action, expected, says, sign)

    def _sides(self, test: ast.expr) -> tuple[ast.expr, ast.expr | None, str]:
        """(the expression with both sides of its comparison noted, the other side if it can be
        had without the tested one, how the tested side is to relate to it)."""
        match test:
            case ast.Compare(left=left, ops=[op], comparators=[right]):
                if _is_near(test):
                    noted = self._note(_distance(left), "left", "right", "==")
                    return ast.Compare(left, [op], [_hook("bound", right)]), *noted
                return test, *self._note(test, "left", "comparators", _SIGNS[type(op)])
            case ast.Call(args=[a, b, *_]) if self._mentions(a) != self._mentions(b):
                return test, *self._note(test, 0, 1, "==")
            case ast.BoolOp(op=op, values=values):
                last = len(values) if isinstance(op, ast.And) else 1
                parts = [self._sides(value) for value in values[:last]]
                test.values = [part[0] for part in parts] + values[last:]
                return (test, *parts[0][1:]) if last == 1 else (test, None, parts[0][2])
        return test, None, ""

    def _note(
        self, node: ast.AST, a: str | int, b: str | int, sign: str
    ) -> tuple[ast.expr | None, str]:
        """Has both sides noted, the tested one as 0; gives the other and the relation to it."""
        left, right = _part(node, a), _part(node, b)
        swapped = self._mentions(right) and not self._mentions(left)
        sign = steps.FLIPPED.get(sign, sign) if swapped else sign
        for place, side, number in ((a, left, swapped), (b, right, not swapped)):
            _put(node, place, _hook("side", ast.Constant(int(number)), side, ast.Constant(sign)))
        other = left if swapped else right
        return None if self._mentions(other) else other, sign

    def _mentions(self, node: ast.AST) -> bool:
        return any(isinstance(n, ast.Name) and n.id in self.tested for n in ast.walk(node))


_SIGNS = {
    ast.Eq: "==", ast.NotEq: "!=", ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=",
    ast.Is: "is", ast.IsNot: "is not", ast.In: "in", ast.NotIn: "not in",
}  # fmt: skip


def _is_near(test: ast.Compare) -> bool:
    """Whether it asks that a distance be small."""
    return isinstance(test.ops[0], ast.Lt | ast.LtE) and _distance(test.left) is not None


def _hook(name: str, *arguments: ast.expr) -> ast.Call:
    owner = ast.Attribute(ast.Name("_rrtf_case", ast.Load()), name, ast.Load())
    return ast.Call(owner, list(arguments), [])


def _part(node: Any, place: str | int) -> ast.expr:
    part = node.args[place] if isinstance(place, int) else getattr(node, place)
    return part[0] if isinstance(part, list) else part


def _put(node: Any, place: str | int, value: ast.expr) -> None:
    if isinstance(place, int):
        node.args[place] = value
    else:
        setattr(node, place, [value] if place == "comparators" else value)


def _distance(node: ast.expr) -> ast.BinOp | None:
    """The subtraction in `abs(a - b)`."""
    match node:
        case ast.Call(
            func=ast.Name(id="abs") | ast.Attribute(attr="fabs"), args=[ast.BinOp() as b]
        ):
            return b if isinstance(b.op, ast.Sub) else None
    return None


def _stored(node: ast.AST) -> bool:
    return isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)


def _calls(node: ast.AST) -> bool:
    return any(isinstance(n, ast.Call) for n in ast.walk(node))


def _is_literal(node: ast.expr) -> bool:
    try:
        ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return False
    return True
