"""Tests that are no code: assertions about one call of the candidate with literals alone.

    assert candidate([1, 2], key=3) == {"a": 1}, "any message"

There is nothing in them to execute, so they are read here, in the caller, and travel as data
(`Case`). Who judges them does what the statement would have done, operator by operator, and needs
no process of its own per problem. A test with anything else in it is not for here: `cases` gives
None, and a judge runs it as code.
"""

import ast
import builtins
from collections.abc import Iterable, Iterator

# How a value and what is expected of it are compared; what each form means stands in `judge`.
EQUAL, UNEQUAL, TRUE, FALSE, IS, IS_NOT, NEAR, NEAR_OR_AT = range(8)

Case = tuple[int, tuple, dict, object, int]  # form, arguments, keywords, expected, line

_MOST_BITS = 1 << 12  # of an integer that stands in the tests as a power or product
_COMPARISONS = {ast.Eq: EQUAL, ast.NotEq: UNEQUAL, ast.Is: IS, ast.IsNot: IS_NOT}
_NUMBERS = (int, float)


class NotData(Exception):
    """The tests hold something that is not read here."""


def cases(tree: ast.Module, entry_point: str) -> list[Case] | None:
    """Every assertion of parsed tests in order, or None unless all of the tests are data.

    `entry_point` is the name that bare assertions call; `check(candidate)` calls its argument.
    """
    try:
        asked = zip(*_statements(tree, entry_point), strict=True)
        found = [(_case(node, name), node.lineno) for node, name in asked]
    except (NotData, TypeError, ValueError, ArithmeticError, RecursionError):
        return None  # TypeError: a list in a set, say; the judge finds out what that means
    return [(*case, line) for case, line in found if case]


def names(tree: ast.Module) -> frozenset[str]:
    """The names that a test which is data binds or looks up at its top level."""
    own = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    for node in tree.body:
        if isinstance(node, ast.Assign):
            own |= {target.id for target in node.targets}
    return frozenset(own)


def _statements(tree: ast.Module, entry_point: str) -> tuple[Iterable[ast.stmt], Iterator[str]]:
    """The statements that may assert, and for each the name by which it calls the candidate."""
    checks = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    if not checks:
        _refuse_if(hasattr(builtins, entry_point))
        body = [node for node in tree.body if not _is_note(node, entry_point)]
        return body, iter([entry_point] * len(body))
    (check, *more), others = checks, [node for node in tree.body if node not in checks]
    _refuse_if(more or not all(_is_note(node, entry_point) for node in others))
    return check.body, iter([_parameter(check, entry_point)] * len(check.body))


def _parameter(check: ast.FunctionDef, entry_point: str) -> str:
    """The name of the one argument of `check`."""
    given = check.args
    more = (check.decorator_list, given.posonlyargs, given.kwonlyargs, given.vararg, given.kwarg)
    _refuse_if(check.name != "check" or check.name == entry_point or any(more) or given.defaults)
    _refuse_if(len(given.args) != 1 or given.args[0].annotation or check.returns)
    name = given.args[0].arg
    _refuse_if(hasattr(builtins, name))
    return name


def _refuse_if(condition: object) -> None:
    if condition:
        raise NotData


def _is_note(node: ast.stmt, entry_point: str) -> bool:
    """A docstring, or a name bound to a literal, like HumanEval's METADATA, that nobody reads."""
    if isinstance(node, ast.Assign):
        for target in node.targets:
            _refuse_if(type(target) is not ast.Name)
            name = target.id
            _refuse_if(name in ("check", entry_point) or name[0] == "_" or hasattr(builtins, name))
        _literal(node.value)
        return True
    return _is_text(node)


def _is_text(node: ast.stmt) -> bool:
    return type(node) is ast.Expr and type(node.value) is ast.Constant


def _case(node: ast.stmt, candidate: str) -> tuple | None:
    """What one statement asserts; None for one that asserts nothing."""
    if type(node) is ast.Pass or _is_text(node):
        return None
    _refuse_if(type(node) is not ast.Assert)
    test = node.test
    if type(test) is ast.Constant and test.value:
        return None
    if type(test) is ast.Call:
        return TRUE, *_call(test, candidate), None
    if type(test) is ast.UnaryOp and type(test.op) is ast.Not:
        return FALSE, *_call(test.operand, candidate), None
    _refuse_if(type(test) is not ast.Compare or len(test.ops) != 1)
    return _comparison(test.left, type(test.ops[0]), test.comparators[0], candidate)


def _comparison(left: ast.expr, operator: type, right: ast.expr, candidate: str) -> tuple:
    if operator in (ast.Lt, ast.LtE):
        form = NEAR if operator is ast.Lt else NEAR_OR_AT
        call, middle = _distance(left)
        return form, *_call(call, candidate), (middle, _literal(right))
    _refuse_if(operator not in _COMPARISONS)
    form = _COMPARISONS[operator]
    if form in (IS, IS_NOT):  # of other literals it hangs on what the interpreter shares
        _refuse_if(type(right) is not ast.Constant)
        _refuse_if(type(right.value) not in (bool, type(None)))
    return form, *_call(left, candidate), _literal(right)


def _distance(node: ast.expr) -> tuple[ast.expr, object]:
    """The parts of `abs(call - literal)`."""
    _refuse_if(type(node) is not ast.Call or type(node.func) is not ast.Name or node.keywords)
    _refuse_if(node.func.id != "abs" or len(node.args) != 1)
    (inner,) = node.args
    _refuse_if(type(inner) is not ast.BinOp or type(inner.op) is not ast.Sub)
    return inner.left, _literal(inner.right)


def _call(node: ast.expr, candidate: str) -> tuple[tuple, dict]:
    """The arguments of a call of the candidate with literals."""
    _refuse_if(type(node) is not ast.Call or type(node.func) is not ast.Name)
    _refuse_if(node.func.id != candidate)
    keywords = {}
    for keyword in node.keywords:
        _refuse_if(keyword.arg is None)
        keywords[keyword.arg] = _literal(keyword.value, ordered=True)
    return tuple([_literal(argument, ordered=True) for argument in node.args]), keywords


def _literal(node: ast.expr, ordered: bool = False) -> object:
    """The value of a literal; NotData for any other expression.

    `ordered`: also sets, whose order hangs on how they came to be, must be as they were.
    """
    kind = type(node)
    if kind is ast.Constant:
        _refuse_if(node.value is ...)
        return node.value
    if kind is ast.List:
        return [_literal(item, ordered) for item in node.elts]
    if kind is ast.Tuple:
        return tuple([_literal(item, ordered) for item in node.elts])
    if kind is ast.Dict:
        _refuse_if(None in node.keys)
        keys = [_literal(key, ordered) for key in node.keys]
        return dict(zip(keys, [_literal(value, ordered) for value in node.values], strict=True))
    if kind is ast.Set:
        _refuse_if(ordered and len(node.elts) > 1)
        return {_literal(item) for item in node.elts}
    _refuse_if(kind not in (ast.UnaryOp, ast.BinOp))
    return _signed(node) if kind is ast.UnaryOp else _arithmetic(node)


def _signed(node: ast.UnaryOp) -> object:
    value = _literal(node.operand)
    _refuse_if(type(value) not in (*_NUMBERS, complex))
    _refuse_if(type(node.op) not in (ast.USub, ast.UAdd))
    return -value if type(node.op) is ast.USub else +value


def _arithmetic(node: ast.BinOp) -> object:
    """Numbers that are written as sums, products, quotients and small powers."""
    left, right, kind = _literal(node.left), _literal(node.right), type(node.op)
    _refuse_if(type(left) not in _NUMBERS or type(right) not in _NUMBERS)
    if kind is ast.Pow and type(left) is type(right) is int:
        _refuse_if(not 0 <= right <= _MOST_BITS or left.bit_length() * right > _MOST_BITS)
        return left**right
    for value in (left, right):
        _refuse_if(type(value) is int and value.bit_length() > _MOST_BITS)
    if kind is ast.Add:
        return left + right
    if kind is ast.Sub:
        return left - right
    _refuse_if(kind not in (ast.Mult, ast.Div))
    return left * right if kind is ast.Mult else left / right
