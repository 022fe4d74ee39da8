"""Prepares tests, in the caller: reads those that are data, rewrites those that are code.

Of rewritten tests every assertion is counted and none ends the check. Compiling runs nothing of
them. A judge, fresh from its fork, would need four times as long.
"""

import ast
import builtins
import marshal
import re
import types
from functools import lru_cache

from rrtf.sandbox import assertions, counting, mutation

_COMPOUND = (ast.For, ast.While, ast.If, ast.With, ast.Try)


@lru_cache(maxsize=512)
def prepare(prompt: str, entry_point: str, tests: str) -> dict:
    """A problem as its judge wants it, of types that marshal takes: its tests as data or as code.

    `cases` are the assertions of tests that are data (see `assertions`). For all others: `code` and
    `prompt` are marshalled code (the prompt's only where the tests use what it binds), `names` all
    names that the tests may look up, `name` that of the candidate among them. ValueError for tests
    that do not compile or assert nothing.
    """
    try:
        tree = compile(tests, "tests.py", "exec", ast.PyCF_ONLY_AST, dont_inherit=True)
        prepared = _as_data(tree, prompt, entry_point) or _as_code(tree, prompt, entry_point)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ValueError(f"the tests do not compile: {error}") from None
    if not prepared["n_asserts"]:
        raise ValueError("the tests assert nothing")
    return {"entry_point": entry_point} | prepared


def _as_data(tree: ast.Module, prompt: str, entry_point: str) -> dict | None:
    """Tests that are data, or None for those that are code or call what the prompt binds."""
    name = plain_name(entry_point)
    cases = assertions.cases(tree, name)
    if cases is None or helpers((assertions.names(tree) | {name}) - {entry_point}, prompt):
        return None
    return {"cases": cases, "n_asserts": len(cases)}


def _as_code(tree: ast.Module, prompt: str, entry_point: str) -> dict:
    """Tests that are code, rewritten and compiled."""
    code, n_asserts, has_check = instrument(tree, entry_point)
    names = global_names(code)
    used = helpers(names, prompt) - {entry_point}
    return {
        "name": plain_name(entry_point),
        "code": marshal.dumps(code),
        "prompt": marshal.dumps(compile_prompt(prompt)) if used else b"",
        "names": tuple(sorted(names)),
        "n_asserts": n_asserts,
        "has_check": has_check,
    }


def plain_name(entry_point: str) -> str:
    """The name under which bare assertions call the candidate: `Solution().f` has none."""
    return entry_point if entry_point.isidentifier() else "candidate"


def instrument(source: str | ast.Module, entry_point: str = "") -> tuple[types.CodeType, int, bool]:
    """(code, number of assert statements, whether it defines `check`) of tests.

    A tree is changed. SyntaxError or ValueError as raised by `compile`.
    """
    tree = source
    if isinstance(source, str):
        tree = compile(source, "tests.py", "exec", ast.PyCF_ONLY_AST, dont_inherit=True)
    mutation.mark(tree, entry_point)
    rewriter = Rewriter()
    bare = not any(isinstance(s, ast.FunctionDef) and s.name == "check" for s in tree.body)
    tree.body = rewriter.block(tree.body, guard=bare, top=True)
    return compile(tree, "tests.py", "exec", dont_inherit=True), rewriter.asserts, not bare


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

    def block(
        self, body: list[ast.stmt], *, guard: bool, top: bool = False, handled: bool = False
    ) -> list[ast.stmt]:
        """`guard`: failures of other statements are noted; `handled`: inside a `try`."""
        new: list[ast.stmt] = []
        for statement in body:
            new.append(self._statement(statement, guard=guard, top=top, handled=handled))
        return new

    def _statement(self, node: ast.stmt, *, guard: bool, top: bool, handled: bool) -> ast.stmt:
        if isinstance(node, ast.Assert):
            return self._assertion(node, handled)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            check = top and node.name == "check"
            node.body = self.block(node.body, guard=check)
            return node
        if isinstance(node, _COMPOUND):
            self._descend(node, guard, handled)
            return self._guarded(node, []) if guard else node
        if guard and isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            return self._guarded(node, [])
        if guard and isinstance(node, ast.Assign | ast.AugAssign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = [t for t in targets if isinstance(t, ast.Name)]
            for target in targets:
                if isinstance(target, ast.Tuple | ast.List):
                    names += [t for t in target.elts if isinstance(t, ast.Name)]
            return self._guarded(node, [n.id for n in names])
        return node

    def _descend(self, node: ast.stmt, guard: bool, handled: bool) -> None:
        if isinstance(node, ast.Try):
            inside = bool(node.handlers) or handled
            node.body = self.block(node.body, guard=guard and not inside, handled=inside)
            for handler in node.handlers:
                handler.body = self.block(handler.body, guard=guard, handled=handled)
            node.finalbody = self.block(node.finalbody, guard=guard, handled=handled)
        else:
            node.body = self.block(node.body, guard=guard, handled=handled)
        node.orelse = self.block(getattr(node, "orelse", []), guard=guard, handled=handled)

    def _assertion(self, node: ast.Assert, handled: bool) -> ast.stmt:
        if isinstance(node.test, ast.Constant) and node.test.value:
            return ast.copy_location(ast.Pass(), node)
        self.asserts += 1
        where = {"lineno": node.lineno, "col_offset": 0}
        if handled:
            return ast.Expr(_call(counting.MUST, node.test, where), **where)
        body = [ast.Expr(_call(counting.HOLDS, node.test, where), **where)]
        failed = [ast.Expr(_call(counting.RAISED, _name(counting.ERROR, where), where), **where)]
        return _try(body, failed, where)

    def _guarded(self, node: ast.stmt, names: list[str]) -> ast.stmt:
        where = {"lineno": node.lineno, "col_offset": 0}
        lost = _call(counting.LOST, _name(counting.ERROR, where), where)
        if names:
            targets = [ast.Name(name, ast.Store(), **where) for name in names]
            return _try([node], [ast.Assign(targets, lost, **where)], where)
        return _try([node], [ast.Expr(lost, **where)], where)


def _name(name: str, where: dict) -> ast.Name:
    return ast.Name(name, ast.Load(), **where)


def _call(name: str, argument: ast.expr, where: dict) -> ast.Call:
    return ast.Call(_name(name, where), [argument], [], **where)


def _try(body: list[ast.stmt], failed: list[ast.stmt], where: dict) -> ast.Try:
    handler = ast.ExceptHandler(_name(counting.EXCEPTION, where), counting.ERROR, failed, **where)
    return ast.Try(body, [handler], [], [], **where)
