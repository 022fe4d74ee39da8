"""The functions that a row's code defines, each cut out so that it can be called alone.

Answers of instruction data end in calls, prints and questions to the user. Of a module only what a
function needs is kept: the imports, assignments, functions and classes that its names lead to.
Nothing is executed here.
"""

import ast
import hashlib
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from rrtf import similarity

MOST = 8  # arguments of a function that takes any number
_FUNCTIONS = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef

# What answers use without importing it, as the harnesses of contests provide it.
PRELUDE = """\
import collections
import functools
import heapq
import itertools
import math
import re
import string
from collections import *
from typing import *
"""
_ANSWER = "rrtf_answer"
# The row's source gets names of its own, so that a wrapper may bear the name of its function.
_LOADED = """
rrtf_space = dict(globals(), __name__="row", print=lambda *texts, **how: None)
exec({source!r}, rrtf_space)


def {answer}(*arguments):
    return eval({name!r}, rrtf_space)(*arguments)
"""
# Classes that tests make objects of stay in reach.
_SHOWN = """

globals().update({name: rrtf_space[name] for name in rrtf_space.keys() - globals().keys()})


"""
# One call may take a moment, all that take longer a while; what is known already ends at once.
_TIMED = """

class {unheard}(Exception):
    pass


def rrtf_timed(*arguments, _state=[0, 0]):
    import signal

    def stop(number, frame):
        _state[1] += 1
        raise {unheard}

    _state[0] += 1
    if _state[0] <= {after} or _state[1] >= {slow_calls}:
        raise {unheard}
    signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, {seconds})
    try:
        return {answer}(*arguments)
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
"""
UNHEARD = "Unheard"  # the error of a call that took too long, or came after too many of those
SECONDS, SLOW_CALLS = 0.05, 12


@dataclass(frozen=True, slots=True)
class Function:
    """A function or method (`name`, as `f` or `Stack().push`) with the `source` it needs.

    It can be called with `least` to `most` arguments by place. `key` is equal for functions that
    are the same code but for names, docstrings, annotations and layout.
    """

    name: str
    source: str
    least: int
    most: int
    key: str


@lru_cache(maxsize=1 << 15)
def functions(code: str) -> tuple[Function, ...]:
    """Every function, named lambda and method of `code`; what stands inside another as if outside.

    Left out: stubs, coroutines, what needs keyword arguments, methods of classes that cannot be
    made without arguments. Code that does not parse has none.
    """
    try:
        tree = ast.parse(textwrap.dedent(code))
        return tuple(_found(tree.body))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ()


def _found(body: Sequence[ast.stmt], around: Sequence[ast.stmt] = ()) -> Iterator[Function]:
    """The functions of a body; `around` are the statements outside, whose names it also sees."""
    known = [*around, *body]
    for node in body:
        if isinstance(node, ast.FunctionDef):
            yield from _function(node.name, node, known, bound=0)
            yield from _found(node.body, known)
        elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Lambda):
            for target in node.targets:
                if isinstance(target, ast.Name):
                    yield from _function(target.id, _named(target.id, node.value), known, bound=0)
        elif isinstance(node, ast.ClassDef) and _is_made_of_nothing(node):
            for member in node.body:
                if isinstance(member, ast.FunctionDef) and not member.name.startswith("__"):
                    bound = int("staticmethod" not in map(ast.unparse, member.decorator_list))
                    name = f"{node.name}().{member.name}"
                    yield from _function(name, member, known, bound=bound)


def _named(name: str, value: ast.Lambda) -> ast.FunctionDef:
    """A named lambda as the function it is."""
    function = ast.parse(f"def {name}(): pass").body[0]
    function.args, function.body = value.args, [ast.Return(value.body)]
    return ast.fix_missing_locations(function)


def _function(
    name: str, node: ast.FunctionDef, body: Sequence[ast.stmt], *, bound: int
) -> Iterator[Function]:
    given = node.args
    places = [*given.posonlyargs, *given.args][bound:]
    most = len(places) if not given.vararg else MOST
    required = [a for a, default in zip(given.kwonlyargs, given.kw_defaults, strict=True)
                if default is None]  # fmt: skip
    canonical = [*similarity.canonical_functions(ast.unparse(node)).values()]
    if required or not most or not canonical or _is_property(node):
        return
    owner = name.partition("(")[0]
    needed = _needed(owner, body)
    others = [ast.unparse(s) for s in needed if "().".join((owner, "")) in name or s is not node]
    key = hashlib.sha256("\n".join([*canonical, *others]).encode()).hexdigest()[:24]
    source = "\n".join(map(ast.unparse, needed))
    yield Function(name, source, max(0, len(places) - len(given.defaults)), most, key)


def _is_property(node: ast.FunctionDef) -> bool:
    return any("property" in ast.unparse(d) or "setter" in ast.unparse(d)
               for d in node.decorator_list)  # fmt: skip


def _is_made_of_nothing(node: ast.ClassDef) -> bool:
    """Whether `node()` needs no arguments, as far as its own `__init__` says."""
    for member in node.body:
        if isinstance(member, ast.FunctionDef) and member.name == "__init__":
            places = [*member.args.posonlyargs, *member.args.args][1:]
            required = [d for d in member.args.kw_defaults if d is None]
            return len(places) <= len(member.args.defaults) and not required
    return True


def _needed(name: str, body: Sequence[ast.stmt]) -> list[ast.stmt]:
    """The statements that `name` leads to, in their order; star imports always."""
    binds = [_bound(statement) for statement in body]
    wanted, kept, queue = set(), set(), [name]
    kept |= {at for at, names in enumerate(binds) if "*" in names}
    while queue:
        wanted.add(one := queue.pop())
        for at in (at for at, names in enumerate(binds) if one in names and at not in kept):
            kept.add(at)
            read = {n.id for n in ast.walk(body[at]) if isinstance(n, ast.Name)}
            queue += sorted(read - wanted)
    return [body[at] for at in sorted(kept)]


def _bound(statement: ast.stmt) -> set[str]:
    """The names that a top-level statement binds; `*` for a star import."""
    if isinstance(statement, _FUNCTIONS):
        return {statement.name}
    if isinstance(statement, ast.Import | ast.ImportFrom):
        return {alias.asname or alias.name.partition(".")[0] for alias in statement.names}
    if isinstance(statement, ast.If) and "__name__" in ast.unparse(statement.test):
        return set()
    inside = [n for n in ast.walk(statement) if isinstance(n, ast.Import | ast.ImportFrom)]
    stored = {n.id for n in ast.walk(statement)
              if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}  # fmt: skip
    return stored.union(*map(_bound, inside))


def to_call(function: Function, *, after: int = 0) -> tuple[str, str]:
    """(program, entry point) for `sandbox.call`; its first `after` calls end at once.

    A call of more than SECONDS raises UNHEARD, and so does every one after SLOW_CALLS of these.
    """
    limits = {"seconds": SECONDS, "slow_calls": SLOW_CALLS, "unheard": UNHEARD}
    return _loaded(function, "") + _TIMED.format(
        after=after, answer=_ANSWER, **limits
    ), "rrtf_timed"


# What a function returns to calls of its own, as (whether it returned, what).
_ASKED = """

def rrtf_asked():
    from math import inf, nan

    found = []
    for arguments in {calls!r}:
        try:
            found.append((True, rrtf_timed(*arguments)))
        except Exception:
            found.append((False, None))
    return found
"""


def to_ask(function: Function, calls: Sequence[tuple]) -> tuple[str, str]:
    """(program, entry point) that returns what `function` returned to each of its own calls."""
    return asked(_loaded(function, ""), _ANSWER, calls)


def asked(program: str, answer: str, calls: Sequence[tuple]) -> tuple[str, str]:
    """The same for `answer`, an expression that names a function of `program`."""
    limits = {"seconds": SECONDS, "slow_calls": SLOW_CALLS, "unheard": UNHEARD, "after": 0}
    timed = _TIMED.format(answer=answer, **limits)
    return program + timed + _ASKED.format(calls=list(calls)), "rrtf_asked"


def as_answer(
    function: Function,
    entry_point: str,
    parameters: Sequence[str],
    order: Sequence[int],
    prompt: str,
) -> str:
    """A program in which `function` stands for a task's `entry_point` (`f`, `Solution().f`).

    `parameters` are the names by which tests may pass arguments; the function's argument i is the
    task's argument `order[i]`. `prompt` is what the task's programs begin with, if it stands alone.
    """
    owner, _, method = entry_point.partition("().")
    passed = ", ".join(parameters[at] for at in order)
    head = ", ".join((*(("self",) if method else ()), *parameters))
    wrapper = f"def {method or owner}({head}):\n    return {_ANSWER}({passed})\n"
    if method:
        wrapper = f"class {owner}:\n" + textwrap.indent(wrapper, "    ")
    return _loaded(function, prompt) + _SHOWN + wrapper


def _loaded(function: Function, prompt: str) -> str:
    text = _LOADED.format(source=function.source, name=function.name, answer=_ANSWER)
    return f"{PRELUDE}{prompt}\n{text}"
