"""The same program in another hand: other names, another style, the same behaviour.

Changes of syntax trees, made for planting leaks. None of them is safe for every program (`x += y`
is not always `x = x + y`), so whoever uses them runs the tests of the task afterwards.
"""

import ast
import builtins
import textwrap

NAMES = (
    *("data", "other", "current", "found", "rest", "amount", "piece", "spot", "extra", "flag"),
    *("pool", "mark", "seen", "limit", "step", "inner", "outer", "left_part", "right_part"),
)
_FUNCTION = ast.FunctionDef | ast.AsyncFunctionDef


def renamed(code: str) -> tuple[str, dict[str, str]]:
    """(the module with other names for its functions, parameters and variables, old -> new).

    Docstrings go as well. Names of modules, builtins, classes, methods and attributes stay.
    SyntaxError for code that does not parse.
    """
    tree = _without_docstrings(ast.parse(code))
    names = _own_names(tree)
    taken = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)} | set(names)
    free = (f"{name}{number or ''}" for number in range(len(names) + 1) for name in NAMES)
    new = {name: next(n for n in free if n not in taken) for name in names}
    return ast.unparse(_Renamer(new).visit(tree)), new


def restyled(code: str) -> str:
    """The module with other statements for the same steps, docstrings left out.

    Comparisons and branches are turned round, comprehensions become loops, results get a name
    before they are returned, `x += y` is written out.
    """
    tree = _without_docstrings(ast.parse(code))
    return ast.unparse(ast.fix_missing_locations(_Restyler().visit(tree)))


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        if isinstance(node, _FUNCTION | ast.ClassDef | ast.Module) and ast.get_docstring(node):
            rest = node.body[1:]
            node.body = rest if rest or isinstance(node, ast.Module) else [ast.Pass()]
    return tree


def _own_names(tree: ast.Module) -> list[str]:
    """Names that the module gives itself, in order of appearance."""
    methods = {
        member.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
        for member in node.body
        if isinstance(member, _FUNCTION)
    }
    found: dict[str, None] = {}
    for node in ast.walk(tree):
        if isinstance(node, _FUNCTION) and node.name not in methods:
            found[node.name] = None
        elif isinstance(node, ast.arg):
            found[node.arg] = None
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found[node.id] = None
    imported = {alias.asname or alias.name.partition(".")[0]
                for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)
                for alias in node.names}  # fmt: skip
    fixed = imported | methods | {"self", "cls"} | set(dir(builtins))
    return [name for name in found if name not in fixed and not name.startswith("__")]


class _Renamer(ast.NodeTransformer):
    def __init__(self, new: dict[str, str]):
        self.new = new

    def visit_Name(self, node: ast.Name) -> ast.Name:
        node.id = self.new.get(node.id, node.id)
        return node

    def visit_arg(self, node: ast.arg) -> ast.arg:
        node.arg = self.new.get(node.arg, node.arg)
        return self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        node.name = self.new.get(node.name, node.name)
        return self.generic_visit(node)

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_Call(self, node: ast.Call) -> ast.Call:
        if isinstance(node.func, ast.Name) and node.func.id in self.new:
            for keyword in node.keywords:
                keyword.arg = self.new.get(keyword.arg, keyword.arg)
        return self.generic_visit(node)

    def visit_Global(self, node: ast.Global) -> ast.Global:
        node.names = [self.new.get(name, name) for name in node.names]
        return node

    visit_Nonlocal = visit_Global


_TURNED = {ast.Lt: ast.Gt, ast.Gt: ast.Lt, ast.LtE: ast.GtE, ast.GtE: ast.LtE}
_SAME_TURNED = ast.Eq | ast.NotEq


class _Restyler(ast.NodeTransformer):
    """Statements become lists of statements; `count` numbers the names it needs."""

    def __init__(self) -> None:
        self.count = 0

    def fresh(self) -> str:
        self.count += 1
        return f"outcome{self.count}"

    def visit_Compare(self, node: ast.Compare) -> ast.expr:
        self.generic_visit(node)
        (operator, *more), (right, *_) = node.ops, node.comparators
        if more or not (isinstance(operator, _SAME_TURNED) or type(operator) in _TURNED):
            return node
        turned = _TURNED.get(type(operator), type(operator))()
        return ast.Compare(right, [turned], [node.left])

    def visit_If(self, node: ast.If) -> ast.If:
        self.generic_visit(node)
        if node.orelse:
            return ast.If(_negated(node.test), node.orelse, node.body)
        return node

    def visit_AugAssign(self, node: ast.AugAssign) -> ast.stmt:
        self.generic_visit(node)
        if not isinstance(node.target, ast.Name):
            return node
        read = ast.Name(node.target.id, ast.Load())
        return ast.Assign([node.target], ast.BinOp(read, node.op, node.value))

    def visit_Return(self, node: ast.Return) -> list[ast.stmt] | ast.stmt:
        self.generic_visit(node)
        if node.value is None or isinstance(node.value, ast.Constant | ast.Name):
            return node
        name = self.fresh()
        kept = ast.Return(ast.Name(name, ast.Load()))
        if isinstance(node.value, ast.IfExp):
            choice = node.value
            sides = [[_assigned(name, side)] for side in (choice.orelse, choice.body)]
            return [ast.If(_negated(choice.test), *sides), kept]
        return [*self._spelled_out(name, node.value), kept]

    def visit_Assign(self, node: ast.Assign) -> list[ast.stmt] | ast.stmt:
        self.generic_visit(node)
        if len(node.targets) != 1 or not isinstance(node.targets[0], ast.Name):
            return node
        if not isinstance(node.value, ast.ListComp):
            return node
        name = self.fresh()  # the target itself may stand inside the comprehension
        read = ast.Name(name, ast.Load())
        return [*self._spelled_out(name, node.value), ast.Assign(node.targets, read)]

    def _spelled_out(self, name: str, value: ast.expr) -> list[ast.stmt]:
        """`name = value`, a comprehension of lists as a loop."""
        if not isinstance(value, ast.ListComp) or any(g.is_async for g in value.generators):
            return [_assigned(name, value)]
        append = ast.Attribute(ast.Name(name, ast.Load()), "append", ast.Load())
        body: list[ast.stmt] = [ast.Expr(ast.Call(append, [value.elt], []))]
        for generator in reversed(value.generators):
            for test in reversed(generator.ifs):
                body = [ast.If(test, body, [])]
            body = [ast.For(generator.target, generator.iter, body, [])]
        return [_assigned(name, ast.List([], ast.Load())), *body]


def _assigned(name: str, value: ast.expr) -> ast.Assign:
    return ast.Assign([ast.Name(name, ast.Store())], value)


def _negated(test: ast.expr) -> ast.expr:
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        return test.operand
    return ast.UnaryOp(ast.Not(), test)


WRAPPER = "settle_batch"
_BODY = """
    collected = []
    for entry in batch:
        collected.append({entry_point}(*entry))
    return collected, len(collected)
"""


def beside(code: str, entry_point: str) -> str:
    """A longer program, whose function WRAPPER calls the one that `code` defines."""
    return f"{code}\n\n\ndef {WRAPPER}(batch):" + _BODY.format(entry_point=entry_point)


def inside(code: str, entry_point: str) -> str:
    """The same, but all of `code` stands inside of WRAPPER."""
    body = _BODY.format(entry_point=entry_point)
    return f"def {WRAPPER}(batch):\n{textwrap.indent(code, '    ')}\n{body}"
