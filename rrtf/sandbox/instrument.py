"""Prepares tests, in the caller: reads those that are data, rewrites those that are code.

Of rewritten tests every assertion is counted and none ends the check. Compiling runs nothing of
them. A judge, fresh from its fork, would need four times as long.
"""

import ast
import builtins
import copy
import marshal
import re
import types
from collections.abc import Iterator
from functools import lru_cache

from rrtf.records import STDIN
from rrtf.sandbox import assertions, counting

_WITH = (ast.With, ast.AsyncWith)
_TRY = (ast.Try, ast.TryStar)
_LOOPS = (ast.For, ast.AsyncFor, ast.While)
_COMPOUND = (*_LOOPS, ast.If, ast.Match, *_WITH, *_TRY)

EITHER = "# of a function, or of a method of the class Solution\n"  # first line of such tests


@lru_cache(maxsize=512)
def prepare(prompt: str, entry_point: str, tests: str) -> dict:
    """A problem as its judge wants it, of types that marshal takes: its tests as data or as code.

    `cases` are the assertions of tests that are data (see `assertions`). For all others: `code` and
    `prompt` are marshalled code (the prompt's only where the tests use what it binds), `lacking`
    the names that the tests use and do not bind, `name` that of the candidate, `draws` says whether
    they use `random`, `is_class` whether the prompt has the candidate as a class. Where the tests
    begin with EITHER, the entry point names both (`worker.chosen` takes one). ValueError for
    tests that do not compile or assert nothing.
    """
    try:
        tree = compile(tests, counting.TESTS, "exec", ast.PyCF_ONLY_AST, dont_inherit=True)
        if entry_point == STDIN:
            prepared = _as_texts(tree)
        else:
            prepared = _as_data(tree, prompt, entry_point) or _as_code(tree, prompt, entry_point)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ValueError(f"the tests do not compile: {error}") from None
    if not prepared["n_asserts"]:
        raise ValueError("the tests assert nothing")
    if tests.startswith(EITHER):
        name = entry_point.rpartition(".")[2]
        entry_point = f"Solution().{name} or {name}"
    return {"entry_point": entry_point} | prepared


def _as_data(tree: ast.Module, prompt: str, entry_point: str) -> dict | None:
    """Tests that are data, or None for those that are code or call what the prompt binds."""
    name = plain_name(entry_point)
    cases = assertions.cases(tree, name)
    if cases is None or helpers((assertions.names(tree) | {name}) - {entry_point}, prompt):
        return None
    return {"cases": cases, "n_asserts": len(cases), "reads_input": False}


def _as_texts(tree: ast.Module) -> dict:
    """Tests of a whole program: what it reads, and what it then prints."""
    cases = assertions.cases(tree, "candidate") or ()
    for form, given, named, expected, _ in cases:
        texts = len(given) == 1 and not named and type(given[0]) is type(expected) is str
        if form != assertions.EQUAL or not texts:
            cases = ()
    if not cases:
        raise ValueError(f"of {STDIN}: expected lines `assert candidate('read') == 'printed'`")
    return {"cases": cases, "n_asserts": len(cases), "reads_input": True}


def _as_code(tree: ast.Module, prompt: str, entry_point: str) -> dict:
    """Tests that are code, rewritten and compiled."""
    lacking = _lacking(tree)
    code, n_asserts, has_check = instrument(tree, entry_point)
    names = global_names(code)
    used = helpers(names, prompt) - {entry_point}
    return {
        "name": plain_name(entry_point),
        "code": marshal.dumps(code),
        "prompt": marshal.dumps(compile_prompt(prompt)) if used else b"",
        "lacking": tuple(sorted(lacking - {entry_point, plain_name(entry_point)})),
        "draws": "random" in names,
        "wants_pytest": "pytest" in names,
        "n_asserts": n_asserts,
        "has_check": has_check,
        "is_class": bool(re.search(rf"^class {re.escape(entry_point)}\b", prompt, re.MULTILINE)),
    }


def _lacking(tree: ast.Module) -> set[str]:
    """Names that are read, but bound nowhere in the tests and by no built-in."""
    used, bound = set(), set()
    for node in _walk(tree):
        if isinstance(node, ast.Name):
            (bound if _binds(node) else used).add(node.id)
        elif isinstance(node, ast.alias):
            bound.add((node.asname or node.name).partition(".")[0])
        else:
            bound |= {n for n in (getattr(node, "name", None), getattr(node, "arg", None)) if n}
    return {name for name in used - bound if not hasattr(builtins, name)}


def plain_name(entry_point: str) -> str:
    """The name under which bare assertions call the candidate: `Solution().f` has none."""
    return entry_point if entry_point.isidentifier() else "candidate"


def instrument(source: str | ast.Module, entry_point: str = "") -> tuple[types.CodeType, int, bool]:
    """(code, number of assert statements, whether it defines `check`) of tests.

    A tree is changed. SyntaxError or ValueError as raised by `compile`.
    """
    tree = source
    if isinstance(source, str):
        tree = compile(source, counting.TESTS, "exec", ast.PyCF_ONLY_AST, dont_inherit=True)
    parameters = {s.args.args[0].arg for s in tree.body if _is_check(s) and s.args.args}
    _keep_meaning(tree, parameters | {plain_name(entry_point)})
    n_asserts, has_check = rewrite(tree, plain_name(entry_point))
    return compile(tree, counting.TESTS, "exec", dont_inherit=True), n_asserts, has_check


def rewrite(tree: ast.Module, candidate: str) -> tuple[int, bool]:
    """Has every assertion of `tree` counted: (their number, whether it defines `check`).

    Without a `check`, functions `test_...` and the methods of a `unittest.TestCase` are called
    behind the rest. Where nothing asserts, comparisons that are printed are assertions.
    """
    has_check = any(map(_is_check, tree.body))
    if not has_check:
        tree.body = [node for node in tree.body if not _is_runner(node, candidate)]
        called = {_id(node.func) for node in _walk(tree) if isinstance(node, ast.Call)}
        tree.body += [call for node in tree.body for call in _calls_of(node, called)]
    if not any(isinstance(node, ast.stmt) and asserts(node) for node in _walk(tree)):
        tree.body = [_as_assertions(node) for node in tree.body]
    rewriter = Rewriter()
    tree.body = rewriter.block(tree.body, guard=not has_check, top=True)
    return rewriter.asserts, has_check


def _is_runner(node: ast.stmt, candidate: str) -> bool:
    """`unittest.main()` and the like, or an import of the candidate from its own file."""
    if isinstance(node, ast.ImportFrom):
        return {alias.name for alias in node.names} == {candidate}
    return isinstance(node, ast.Expr) and _last_name(node.value) == "main"


def _calls_of(node: ast.stmt, called: set[str]) -> list[ast.stmt]:
    """What runs a test function, or each test of a class."""
    name = getattr(node, "name", "")
    texts = []
    if isinstance(node, ast.FunctionDef) and name.startswith("test") and name not in called:
        texts = [f"{name}()"]
    elif isinstance(node, ast.ClassDef) and any("TestCase" in ast.unparse(b) for b in node.bases):
        own = [s.name for s in node.body if isinstance(s, ast.FunctionDef)]
        tests = [f"{name}({test!r}).debug()" for test in own if test.startswith("test")]
        texts = [f"{name}.setUpClass()", *tests]
    return ast.parse("\n".join(texts)).body


def _as_assertions(node: ast.stmt) -> ast.stmt:
    """`print(f(1) == 2, ...)` as one assertion of all that is compared."""
    if not isinstance(node, ast.Expr) or _last_name(node.value) != "print":
        return node
    compared = [each for each in node.value.args if isinstance(each, ast.Compare)]
    if not compared:
        return node
    test = ast.copy_location(ast.BoolOp(ast.And(), compared), node)
    return ast.copy_location(ast.Assert(test if len(compared) > 1 else compared[0]), node)


def asserts(node: ast.stmt) -> bool:
    """Whether a statement can end a test: an `assert`, `self.assertEqual(...)` or its like."""
    return isinstance(node, ast.Assert) or _is_expectation(node) or fails(node)


def _is_expectation(node: ast.stmt) -> bool:
    """A method of `unittest`, or a block of which an exception is expected."""
    if isinstance(node, _WITH):
        names = {_last_name(item.context_expr) for item in node.items}
        return any(name == "raises" or name.startswith("assertRaises") for name in names)
    name = _last_name(node.value) if isinstance(node, ast.Expr) else ""
    return name.startswith("assert") and name[6:7].isupper()


def fails(node: ast.stmt) -> bool:
    """Whether a statement says that a test has failed, by being reached."""
    if isinstance(node, ast.Assert):
        return isinstance(node.test, ast.Constant) and not node.test.value
    if isinstance(node, ast.Raise):
        return node.exc is not None
    return isinstance(node, ast.Expr) and _last_name(node.value) in ("fail", "exit")


def _last_name(node: ast.expr) -> str:
    """`g` of `a.f.g(...)` and `g(...)`; '' for what is no call of a name."""
    func = getattr(node, "func", None)
    return getattr(func, "attr", _id(func)) if func is not None else ""


def _is_check(node: ast.stmt) -> bool:
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == "check"


def _keep_meaning(tree: ast.Module, candidates: set[str]) -> None:
    """Changes what would mean something else with the candidate in another process.

    `StopIteration` in an `except` or an argument means the candidate's as well, `next` ends with
    one that `map` does not swallow, and what an answer is compared with in the same comparison is
    computed, and copied, before the call: a program that changes its argument cannot spoil it.
    """
    steps, own, asserted = [], False, []
    for node in _walk(tree):
        if isinstance(node, ast.Assert):
            asserted.append(node)
        elif isinstance(node, ast.ExceptHandler) and node.type:
            node.type = _with_stopped(node.type)
        elif isinstance(node, ast.Call):
            if _id(node.func) == "next":
                steps.append(node.func)
            node.args = [_with_stopped(argument) for argument in node.args]
        elif isinstance(node, ast.Compare) and len(node.ops) == 1:
            _compare_before(node, candidates)
        elif getattr(node, "name", "") == "next" or (_id(node) == "next" and _binds(node)):
            own = True
    for name in () if own else steps:
        name.id = counting.NEXT
    for node in asserted:
        _keep_sides(node)


def _id(node: ast.AST) -> str:
    return getattr(node, "id", "")


def _with_stopped(node: ast.expr) -> ast.expr:
    named = {n.id for n in (*getattr(node, "elts", ()), node) if isinstance(n, ast.Name)}
    more = [_name(hook, {}) for name, hook in counting.STOPPED.items() if name in named]
    if not more:
        return node
    both = [*(node.elts if isinstance(node, ast.Tuple) else [node]), *more]
    return ast.fix_missing_locations(ast.copy_location(ast.Tuple(both, ast.Load()), node))


def _compare_before(node: ast.Compare, candidates: set[str]) -> None:
    """`f(x) == right` and `left == f(x)`, the other side computed before the call."""
    form, sides = type(node.ops[0]).__name__, (node.left, node.comparators[0])
    (calls, plain), (calls_right, plain_right) = (_content(side, candidates) for side in sides)
    if calls == calls_right or form.startswith("Is"):
        return
    left, right = sides
    if calls and plain and "Name" in plain_right:
        again = ast.parse("lambda: 0", mode="eval").body
        again.body = copy.deepcopy(right)
        before = ast.Call(_name(counting.BEFORE, {}), [ast.Constant(form), right], [])
        given = [ast.Constant(form), before, left, again]
        node.left = ast.Call(_name(counting.COMPARED, {}), given, [])
        node.ops, node.comparators = [ast.Is()], [ast.Constant(True)]
    elif calls_right and "Name" in plain:
        node.left = _call(counting.FIXED, left, {})
    ast.fix_missing_locations(node)


def _keep_sides(node: ast.Assert) -> None:
    """`assert left == right`, compared by a hook that keeps both sides in case it fails."""
    test = node.test
    if not isinstance(test, ast.Compare) or len(test.ops) != 1:
        return
    left, right = test.left, test.comparators[0]
    if _id(getattr(left, "func", None)) == counting.COMPARED:
        return
    fixed = _id(getattr(left, "func", None)) == counting.FIXED
    swapped = isinstance(right, ast.Call | ast.Name) and (fixed or isinstance(left, _VALUES))
    given = [ast.Constant(type(test.ops[0]).__name__), ast.Constant(swapped), left, right]
    call = ast.Call(_name(counting.SIDES, {}), given, [])
    node.test = ast.fix_missing_locations(ast.copy_location(call, test))


_VALUES = (ast.Constant, ast.UnaryOp, ast.List, ast.Tuple, ast.Dict, ast.Set)


def _content(node: ast.expr, candidates: set[str]) -> tuple[bool, set[str]]:
    """Whether an expression calls the candidate by name; the kinds of its nodes, none if it has
    some that cannot be moved."""
    kinds, calls = set(), False
    for part in _walk(node):
        kinds.add(type(part).__name__)
        calls |= isinstance(part, ast.Call) and _id(part.func) in candidates
    return calls, set() if kinds & {"NamedExpr", "Await", "Yield", "YieldFrom"} else kinds


def _walk(node: ast.AST) -> Iterator[ast.AST]:
    """The node and all below it but constants, of which tests may have very many."""
    waiting = [node]
    while waiting:
        node = waiting.pop()
        yield node
        for name in node._fields:
            value = getattr(node, name, None)
            for child in value if type(value) is list else (value,):
                if type(child) is not ast.Constant and isinstance(child, ast.AST):
                    waiting.append(child)


def _binds(node: ast.Name) -> bool:
    return not isinstance(node.ctx, ast.Load)


def global_names(code: types.CodeType) -> frozenset[str]:
    """Names that `code` and the functions in it may look up (attributes are among them)."""
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names |= global_names(constant)
    return frozenset(n for n in names if not n.startswith("_rrtf_"))


def helpers(names: frozenset[str], prompt: str) -> frozenset[str]:
    """Which of `names` the prompt's top level may bind, found without running it."""
    names = frozenset(n for n in names if not hasattr(builtins, n) and _is_word(n, prompt))
    code = compile_prompt(prompt) if names else None
    return names & frozenset(code.co_names) if code else frozenset()


def _is_word(name: str, text: str) -> bool:
    return name in text and re.search(rf"(?<!\w){name}(?!\w)", text) is not None


def compile_prompt(prompt: str) -> types.CodeType | None:
    """The code of a prompt, which may lack its function's body; None for prose."""
    for source in (prompt, prompt.rstrip() + "\n    pass\n"):
        try:
            return compile(source, "prompt.py", "exec", dont_inherit=True)
        except (SyntaxError, ValueError):
            continue
    return None


class Rewriter:
    """Walks statements only: expressions are left as they are."""

    def __init__(self):
        self.asserts = 0
        self.loops: list[bool] = []  # around a statement: whether leaving one by `break` is right

    def block(
        self, body: list[ast.stmt], *, guard: bool, top: bool = False, handled: bool = False
    ) -> list[ast.stmt]:
        """`guard`: failures of other statements are noted; `handled`: inside a `try`."""
        new: list[ast.stmt] = []
        for statement in body:
            new += self._statement(statement, guard=guard, top=top, handled=handled)
        return new

    def _statement(
        self, node: ast.stmt, *, guard: bool, top: bool, handled: bool
    ) -> list[ast.stmt]:
        if isinstance(node, ast.Assert):
            return [self._assertion(node, handled)]
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            check = top and _is_check(node)
            node.body = self.block(node.body, guard=check)
            return [node]
        if _is_expectation(node):
            return self._expectation(node, handled)
        self.asserts += fails(node)
        if isinstance(node, _COMPOUND):
            _count_ways_out(node)
            self._descend(node, guard, handled)
            return [self._guarded(node, []) if guard else node]
        if isinstance(node, ast.Break) and self.loops[-1]:
            return [_held(), node]
        if guard and isinstance(node, ast.Expr | ast.Raise) and not _is_plain(node):
            return [self._guarded(node, [])]
        if guard and isinstance(node, ast.Assign | ast.AugAssign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = [t for t in targets if isinstance(t, ast.Name)]
            for target in targets:
                if isinstance(target, ast.Tuple | ast.List):
                    names += [t for t in target.elts if isinstance(t, ast.Name)]
            return [self._guarded(node, [n.id for n in names])]
        return [node]

    def _descend(self, node: ast.stmt, guard: bool, handled: bool) -> None:
        loop = isinstance(node, _LOOPS)
        if loop:
            self.loops.append(_can_fail(node.orelse))
        if isinstance(node, ast.Match):
            for case in node.cases:
                case.body = self.block(case.body, guard=guard, handled=handled)
        elif isinstance(node, _WITH):  # its manager wants to see what is raised
            node.body = self.block(node.body, guard=False, handled=True)
        elif isinstance(node, _TRY):
            inside = bool(node.handlers) or handled
            node.body = self.block(node.body, guard=guard and not inside, handled=inside)
            for handler in node.handlers:
                handler.body = self.block(handler.body, guard=guard, handled=handled)
            node.finalbody = self.block(node.finalbody, guard=guard, handled=handled)
        else:
            node.body = self.block(node.body, guard=guard, handled=handled)
        if loop:
            self.loops.pop()
        if getattr(node, "orelse", None):
            node.orelse = self.block(node.orelse, guard=guard, handled=handled)

    def _assertion(self, node: ast.Assert, handled: bool) -> ast.stmt:
        if isinstance(node.test, ast.Constant) and node.test.value:
            return ast.copy_location(ast.Pass(), node)
        self.asserts += 1
        where = {"lineno": node.lineno, "col_offset": 0}
        if handled:
            return ast.Expr(_call(counting.MUST, node.test, where), **where)
        return self._counted([ast.Expr(_call(counting.HOLDS, node.test, where), **where)], where)

    def _expectation(self, node: ast.stmt, handled: bool) -> list[ast.stmt]:
        self.asserts += 1
        if isinstance(node, _WITH):
            self._descend(node, False, True)
        body = [node, _held()]
        return body if handled else [self._counted(body, {"lineno": node.lineno, "col_offset": 0})]

    def _counted(self, body: list[ast.stmt], where: dict) -> ast.stmt:
        failed = [ast.Expr(_call(counting.RAISED, _name(counting.ERROR, where), where), **where)]
        return _try(body, failed, where)

    def _guarded(self, node: ast.stmt, names: list[str]) -> ast.stmt:
        where = {"lineno": node.lineno, "col_offset": 0}
        lost = _call(counting.LOST, _name(counting.ERROR, where), where)
        if names:
            targets = [ast.Name(name, ast.Store(), **where) for name in names]
            return _try([node], [ast.Assign(targets, lost, **where)], where)
        return _try([node], [ast.Expr(lost, **where)], where)


def _is_plain(node: ast.stmt) -> bool:
    """Of an expression: whether it is no call, so that nothing of it can fail a test."""
    return isinstance(node, ast.Expr) and not isinstance(node.value, ast.Call)


def _can_fail(body: list[ast.stmt]) -> bool:
    return any(isinstance(n, ast.stmt) and fails(n) for node in body for n in _walk(node))


def _count_ways_out(node: ast.stmt) -> None:
    """Where one branch says that a test has failed, the end of another is an assertion that held.

    Not the end of an `except` that also catches that failure.
    """
    if isinstance(node, ast.If):
        ways = [(node.body, node.body), (node.orelse, node.orelse)]
    elif isinstance(node, ast.Match):
        if _can_fail([node]) and not _is_wildcard(node.cases[-1]):
            node.cases += ast.parse("match 0:\n    case _:\n        pass").body[0].cases
        ways = [(case.body, case.body) for case in node.cases]
    elif isinstance(node, _TRY):
        ways = [(node.body + node.orelse, node.orelse)] if node.handlers else []
        ways += [(h.body, h.body) for h in node.handlers if not _catches_failures(h)]
    else:
        return
    if any(_can_fail(body) for body, _ in ways):
        for body, end in ways:
            if not any(isinstance(n, ast.stmt) and asserts(n) for b in body for n in _walk(b)):
                end.append(_held())


def _is_wildcard(case: ast.match_case) -> bool:
    return isinstance(case.pattern, ast.MatchAs) and not case.pattern.pattern and not case.guard


def _catches_failures(handler: ast.ExceptHandler) -> bool:
    names = {_id(n) for n in _walk(handler.type)} if handler.type else {"BaseException"}
    return not names.isdisjoint(("AssertionError", "Exception", "BaseException"))


def _held() -> ast.stmt:
    return ast.parse(f"{counting.HOLDS}(True)").body[0]


def _name(name: str, where: dict) -> ast.Name:
    return ast.Name(name, ast.Load(), **where)


def _call(name: str, argument: ast.expr, where: dict) -> ast.Call:
    return ast.Call(_name(name, where), [argument], [], **where)


def _try(body: list[ast.stmt], failed: list[ast.stmt], where: dict) -> ast.Try:
    handler = ast.ExceptHandler(_name(counting.EXCEPTION, where), counting.ERROR, failed, **where)
    return ast.Try(body, [handler], [], [], **where)
