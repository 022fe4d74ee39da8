"""Rewrites the source of tests so that every assertion is counted and none ends the check."""

import ast
import builtins
import types

from rrtf.sandbox import mutation

_HOLDS, _MUST, _LOST, _RAISED = "_rrtf_holds", "_rrtf_must", "_rrtf_lost", "_rrtf_raised"
_ERROR, _EXCEPTION = "_rrtf_error", "_rrtf_Exception"
_COMPOUND = (ast.For, ast.While, ast.If, ast.With, ast.Try)


class Poisoned(Exception):
    """A value that a failed call of the candidate should have given was used."""


class Poison:
    """Stands for the value of a statement that failed; every use of it fails."""

    def _fail(self, *_):
        raise Poisoned

    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = __bool__ = __iter__ = __len__ = _fail
    __getattr__ = __getitem__ = __contains__ = __call__ = __float__ = __int__ = __index__ = _fail
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __mod__ = __rmod__ = _fail
    __truediv__ = __rtruediv__ = __neg__ = __abs__ = __round__ = __str__ = __hash__ = _fail


class Tally:
    """What the assertions of one run said."""

    def __init__(self, channel):
        self.channel = channel
        self.passed = self.reached = 0
        self.first = ""  # reason of the first failure
        self.all_raised = True  # every failure so far was an exception of the candidate
        self.incomplete = False

    def hooks(self) -> dict:
        return {
            _HOLDS: self.holds,
            _MUST: self.must,
            _RAISED: self.raised,
            _LOST: self.lost,
            mutation.MIRRORED: mutation.call_mirrored,
            _EXCEPTION: Exception,
        }

    def holds(self, value: object) -> None:
        """One assertion was evaluated."""
        if value:
            self.passed += 1
        else:
            self._failed("wrong_type" if self.channel.saw_opaque else "wrong_value", False)
        self.reached += 1
        self.channel.saw_opaque = False

    def must(self, value: object) -> None:
        """An assertion inside `try`: its failure is the test's own control flow."""
        if not value:
            raise AssertionError
        self.passed += 1
        self.reached += 1

    def raised(self, error: Exception) -> None:
        """The evaluation of an assertion raised."""
        self.reached += 1
        self._note(error)

    def lost(self, error: Exception) -> Poison:
        """A statement outside of assertions raised; what it should have given is lost."""
        if type(error) is AssertionError and error is not self.channel.raised:
            self.reached += 1
            self._failed("wrong_value", False)
        else:
            self.incomplete = True
            self._note(error)
        return Poison()

    def _note(self, error: Exception) -> None:
        reason = getattr(error, "candidate_reason", "")
        if type(error) is Poisoned or self.channel.ended:
            self._failed("", True)
        elif reason:
            self._failed(reason, True)
        else:
            self._failed("wrong_type", False)
        self.channel.saw_opaque = False

    def _failed(self, reason: str, by_candidate: bool) -> None:
        self.first = self.first or reason
        self.all_raised = self.all_raised and by_candidate


def instrument(source: str, entry_point: str = "") -> tuple[types.CodeType, int, bool]:
    """(code, number of assert statements, whether it defines `check`) of tests.

    SyntaxError or ValueError as raised by `compile`.
    """
    tree = compile(source, "tests.py", "exec", ast.PyCF_ONLY_AST, dont_inherit=True)
    mutation.mark(tree, entry_point)
    rewriter = _Rewriter()
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
    names = frozenset(n for n in names if n in prompt and not hasattr(builtins, n))
    code = compile_prompt(prompt) if names else None
    return names & frozenset(code.co_names) if code else frozenset()


def compile_prompt(prompt: str) -> types.CodeType | None:
    """The code of a prompt, which may lack its function's body; None for prose."""
    for source in (prompt, prompt.rstrip() + "\n    pass\n"):
        try:
            return compile(source, "prompt.py", "exec", dont_inherit=True)
        except (SyntaxError, ValueError):
            continue
    return None


class _Rewriter:
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
            return ast.Expr(_call(_MUST, node.test, where), **where)
        body = [ast.Expr(_call(_HOLDS, node.test, where), **where)]
        failed = [ast.Expr(_call(_RAISED, _name(_ERROR, where), where), **where)]
        return _try(body, failed, where)

    def _guarded(self, node: ast.stmt, names: list[str]) -> ast.stmt:
        where = {"lineno": node.lineno, "col_offset": 0}
        lost = _call(_LOST, _name(_ERROR, where), where)
        if names:
            targets = [ast.Name(name, ast.Store(), **where) for name in names]
            return _try([node], [ast.Assign(targets, lost, **where)], where)
        return _try([node], [ast.Expr(lost, **where)], where)


def _name(name: str, where: dict) -> ast.Name:
    return ast.Name(name, ast.Load(), **where)


def _call(name: str, argument: ast.expr, where: dict) -> ast.Call:
    return ast.Call(_name(name, where), [argument], [], **where)


def _try(body: list[ast.stmt], failed: list[ast.stmt], where: dict) -> ast.Try:
    handler = ast.ExceptHandler(_name(_EXCEPTION, where), _ERROR, failed, **where)
    return ast.Try(body, [handler], [], [], **where)
