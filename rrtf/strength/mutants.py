"""Small faults put into a program on purpose, one at a time: what its tests should notice.

Nothing is executed here. A mutant is the reference but for one change of a kind that
`rrtf.strength.faults` knows; comments and layout are lost.
"""

import ast
import random
import types
import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rrtf import config, similarity
from rrtf.strength.faults import OPERATORS

_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
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
        _Change(operator, holder, field, index, node, new)
        for definition in _needed(tree, entry_point)
        for holder, field, index, node in _places(definition)
        for operator, rule in OPERATORS.items()
        for new in rule(node, field)
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
        if isinstance(node, _DEFINITIONS):
            defined[node.name] = node  # of several the last is the one that is called
        elif isinstance(node, ast.Assign):
            defined |= {t.id: node for t in node.targets if isinstance(t, ast.Name)}
    name = entry_point.partition("(")[0]
    if name not in defined:
        raise ValueError(f"the program does not define {entry_point}")
    return similarity.needed(
        {name},
        tree.body,
        defines=lambda node: [other for other, by in defined.items() if by is node],
        reads=lambda node: [n.id for n in ast.walk(node) if isinstance(n, ast.Name)],
    )


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
