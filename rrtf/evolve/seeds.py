"""Instruction rows as people have them: read from any fields, turned into problems with a head."""

import ast
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rrtf import prompts, similarity
from rrtf.evolve.asking import task_text
from rrtf.prompts import code_of
from rrtf.records import Instruction, Problem

# Under which names the parts of a row are found, the first that is there.
FIELDS = {
    "instruction": prompts.QUESTIONS,
    "input": ("input", "context"),
    "output": prompts.ANSWERS,
}
_NO_INPUT = re.compile(r"\W*(?:no ?input|none|n/?a|empty)?\W*", re.IGNORECASE)
_KINDS = (ast.FunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign)


def guess_fields(row: Mapping, renamed: Mapping[str, str] | None = None) -> dict[str, str]:
    """{`instruction`, `input`, `output`: the row's name of it}, of those it has.

    `renamed` maps their names to ours and goes before any guess; ValueError for a name that is
    none of ours, or where there is no instruction.
    """
    told = {ours: theirs for theirs, ours in (renamed or {}).items()}
    if strange := set(told) - set(FIELDS):
        raise ValueError(f"--rename to {sorted(strange)[0]!r}: expected {', '.join(FIELDS)}")
    found = {}
    for ours, names in FIELDS.items():
        name = told.get(ours) or next((n for n in names if row.get(n) is not None), None)
        if name is not None:
            found[ours] = name
    if "instruction" not in found:
        raise ValueError(
            f"no field with a task's text: expected {', '.join(FIELDS['instruction'])}; it has "
            f"{', '.join(map(str, row)) or 'no fields'} (--rename THEIRS=instruction names another)"
        )
    return found


def read_seeds(
    rows: Iterable[tuple[str, Any]], *, source: str, renamed: Mapping[str, str] | None = None
) -> tuple[list[Instruction], dict[str, str]]:
    """(the rows as seeds, the field names they were read by) of (`file:line`, row) pairs.

    A row keeps its `task_id` or `id`, else it is called `source/number`; one that has a family
    already keeps that. ValueError names the place of what is no object, has no task, or has a
    value that is no text, and of an id that comes twice; or `source` where there are no rows.
    """
    found: list[Instruction] = []
    names: dict[str, str] = {}
    places: dict[str, str] = {}
    for number, (where, row) in enumerate(rows, start=1):
        try:
            if not isinstance(row, Mapping):
                raise ValueError(f"expected an object, found {type(row).__name__}")
            row = _spoken(row)
            names = (guess_fields(row, renamed) if len(names) < len(FIELDS) else {}) | names
            seed = _seed(row, names, f"{source}/{number}", source)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None
        if seed.task_id in places:
            first = places[seed.task_id]
            raise ValueError(f"{where}: {seed.task_id!r} is the id of {first} too")
        places[seed.task_id] = where
        found.append(seed)
    if not found:
        raise ValueError(f"{source}: no rows in it")
    return found, names


def _spoken(row: Mapping) -> Mapping:
    """A row of messages with its first question and answer as fields of their own."""
    for name in ("messages", "conversations"):
        if isinstance(row.get(name), list):
            said = dict(reversed(prompts.turns(row[name])))  # of each role what it says first
            return {"instruction": said.get("user"), "output": said.get("assistant"), **row}
    return row


def _seed(row: Mapping, names: Mapping[str, str], task_id: str, source: str) -> Instruction:
    values = {ours: row.get(theirs) for ours, theirs in names.items()}
    for ours, value in values.items():
        if value is None and ours != "instruction":
            values[ours] = ""
        elif not isinstance(value, str):
            raise ValueError(f"{names[ours]}: expected text, found {type(value).__name__}")
    if not values["instruction"].strip():
        raise ValueError(f"{names['instruction']}: empty, expected the text of a task")
    if _NO_INPUT.fullmatch(values.get("input", "")):
        values["input"] = ""
    own = row.get("task_id") if row.get("task_id") is not None else row.get("id")
    task_id = str(own) if isinstance(own, str | int) and str(own) else task_id
    told = ("seed_id", "parent_id", "operator", "generator", "prompt_version", "source")
    family = {name: row[name] for name in told if isinstance(row.get(name), str) and row[name]}
    family = {"seed_id": task_id, "source": source} | family
    depth = row.get("depth") if isinstance(row.get("depth"), int) else 0
    return Instruction(task_id=task_id, **values, **family, depth=depth)


@dataclass(frozen=True, slots=True)
class Function:
    """The function a program is about: its head (imports, signature, docstring) and the rest."""

    name: str
    head: str
    body: str
    parameters: tuple[int, int | None]  # fewest and most positional arguments; None: any number


def function_of(program: str, task: str) -> Function:
    """The function that a function-level program is about, with `task` as its docstring.

    Of several functions the one that no other calls, the last of these. Definitions it needs
    beside it follow its body; statements that only run (examples, prints) are left out.
    ValueError says why there is none.
    """
    if not prompts.parses(program):
        raise ValueError("the code does not parse as Python 3")
    body = ast.parse(program).body
    node = main_function(body)
    others = _needed(node, body)
    imports = _imports(body, similarity.names(node, *others))
    if similarity.names(*_signature_parts(node)) & {name for n in others for name in _defines(n)}:
        raise ValueError("the signature needs a definition of its own")
    lines = program.splitlines(keepends=True)
    signature, own, indent = _parts(node, lines)
    text = textwrap.indent(_escaped(task), indent).lstrip()
    head = "".join(f"{ast.unparse(n)}\n" for n in imports) + ("\n\n" if imports else "")
    head += f'{signature}{indent}"""{text}\n{indent}"""\n'
    rest = "".join(f"\n\n{_source(n, lines).rstrip()}\n" for n in others)
    found = Function(node.name, head, own.rstrip() + "\n" + rest, _arity(node.args))
    if not prompts.parses(found.head + found.body):
        raise ValueError("the function cannot be told from what surrounds it")
    return found


def as_problem(row: Instruction, tests: str = "") -> Problem:
    """The row in HumanEval form: its function's head as prompt, the body as reference.

    A row whose answer is no function keeps its text as the prompt and its code as the reference,
    without an entry point: it can be read and audited, not executed.
    """
    family = row.source, row.parent_id, row.operator, row.depth
    try:
        found = function_of(code_of(row.output), task_text(row))
    except ValueError:
        return Problem(row.task_id, task_text(row), "", tests, code_of(row.output), *family)
    return Problem(row.task_id, found.head, found.name, tests, found.body, *family)


def main_function(body: Sequence[ast.stmt]) -> ast.FunctionDef:
    """The function that the others serve; ValueError where the code is not function-level."""
    functions = [node for node in body if isinstance(node, ast.FunctionDef)]
    if not functions:
        classes = any(isinstance(node, ast.ClassDef) for node in body)
        raise ValueError("a class, no function" if classes else "the code defines no function")
    called = {name for f in functions for name in similarity.names(*f.body) if name != f.name}
    free = [node for node in functions if node.name not in called]
    taking = [node for node in free or functions if _arity(node.args) != (0, 0)]
    if not taking:
        raise ValueError("the function takes no argument")
    node = taking[-1]
    if any(isinstance(part, ast.Yield | ast.YieldFrom) for part in _own_nodes(node)):
        raise ValueError("the function is a generator")
    if not any(isinstance(p, ast.Return) and p.value is not None for p in _own_nodes(node)):
        raise ValueError("the function returns nothing")
    return node


def _own_nodes(node: ast.FunctionDef) -> Iterable[ast.AST]:
    """What stands in a function, but not in the functions inside it."""
    waiting = list(node.body)
    while waiting:
        part = waiting.pop()
        yield part
        if not isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef):
            waiting += ast.iter_child_nodes(part)


def _signature_parts(node: ast.FunctionDef) -> list[ast.AST]:
    return [node.args, *node.decorator_list, *([node.returns] if node.returns else [])]


def _needed(node: ast.FunctionDef, body: Sequence[ast.stmt]) -> list[ast.stmt]:
    """Functions, classes and constants beside `node` that it mentions, or that those mention."""
    others = [n for n in body if isinstance(n, _KINDS) and node.name not in _defines(n)]
    return similarity.needed(_free_names(node), others, defines=_defines, reads=_free_names)


def _free_names(node: ast.stmt) -> set[str]:
    """Names that a statement reads and, if it is a function, does not bind itself."""
    if not isinstance(node, ast.FunctionDef):
        return similarity.names(node)
    inside = list(ast.walk(node))
    bound = {n.id for n in inside if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    outside = {name for n in inside if isinstance(n, ast.Global) for name in n.names}
    bound |= {n.arg for n in inside if isinstance(n, ast.arg)}
    return (similarity.names(node) - bound) | outside


def _imports(body: Sequence[ast.stmt], names: set[str]) -> list[ast.stmt]:
    """The imports that bring one of `names`, or nobody knows which."""
    found = []
    for node in body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            brought = {(a.asname or a.name).partition(".")[0] for a in node.names}
            if brought & (names | {"*"}) or getattr(node, "module", "") == "__future__":
                found.append(node)
    return found


def _defines(node: ast.stmt) -> set[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return {node.name}
    return similarity.names(*(node.targets if isinstance(node, ast.Assign) else [node.target]))


def _first_line(node: ast.stmt) -> int:
    return min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", ()))])


def _source(node: ast.stmt, lines: Sequence[str]) -> str:
    return "".join(lines[_first_line(node) - 1 : node.end_lineno])


def _parts(node: ast.FunctionDef, lines: Sequence[str]) -> tuple[str, str, str]:
    """(signature, body without its docstring, indentation) as they stand in the program."""
    first = node.body[0]
    start, indent = _first_line(first), lines[first.lineno - 1][: first.col_offset]
    if start == node.lineno or indent.strip():
        raise ValueError("the function stands on one line")
    signature = lines[_first_line(node) - 1 : start - 1]
    body = lines[start - 1 : node.end_lineno]
    while not signature[-1].strip() or signature[-1].lstrip().startswith("#"):
        body = [signature.pop(), *body]  # a comment above the first statement belongs to it
    if ast.get_docstring(node) is not None:
        if len(node.body) == 1:
            raise ValueError("the function has no body")
        body = lines[first.end_lineno : node.end_lineno]
    return "".join(signature), "".join(body), indent


def _escaped(text: str) -> str:
    """`text` as the inside of a docstring: nothing in it ends the string or escapes."""
    return text.replace("\\", "\\\\").replace('"""', '\\"\\"\\"').rstrip()


def _arity(arguments: ast.arguments) -> tuple[int, int | None]:
    """Fewest and most arguments by place; ValueError where a keyword has to be given."""
    if any(default is None for default in arguments.kw_defaults):
        raise ValueError("the function needs a keyword argument")
    most = len(arguments.posonlyargs) + len(arguments.args)
    return most - len(arguments.defaults), None if arguments.vararg else most
