"""What the audit sees: a benchmark's problems and anybody's training rows, in one shape."""

import ast
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from rrtf import prompts, similarity, store
from rrtf.records import Problem, Response

QUESTIONS = ("instruction", "input", "prompt", "question", "problem", "query", "task")
ANSWERS = ("output", "completion", "response", "answer", "solution", "canonical_solution", "code")
ANSWERS += ("chosen", "rejected", "responses", "completions", "solutions", "generation", "program")
WHOLE = ("messages", "conversations", "text", "content")  # question and answer in one
_FENCED = re.compile(
    r"^[ \t]*(```|~~~)[ \t]*(\w*)[^\n]*\n(.*?)(?:^[ \t]*\1[ \t]*$|\Z)", re.DOTALL | re.MULTILINE
)
_PYTHON = ("", "python", "python3", "py")
_BEGINS = re.compile(r"^(?:def|class|import|from|async def)[ \t]|^@\w", re.MULTILINE)
_CUTS = 3  # times that text behind code is cut off where it stops being Python
GUESSED = 1000  # rows that fields are guessed by
_EXAMPLES = re.compile(r"^\s*Example 1:", re.MULTILINE)  # LeetCode's: examples, then constraints


@dataclass(frozen=True, slots=True)
class Row:
    """What the audit sees of a training row or a benchmark task.

    `text` is the description in words, `code` a whole program that defines `entry_point`,
    `tests` any source that calls it (or `candidate`) with literal arguments. `answer` is what
    answers the description as it stands: a task's reference, of a row
    everything that is not its text.
    """

    task_id: str
    text: str
    code: str = ""
    entry_point: str = ""
    tests: str = ""
    answer: str = ""

    @property
    def whole(self) -> str:
        """All that it holds: what is told, then what answers it."""
        return f"{self.text}\n{self.answer or self.code}"


@dataclass(frozen=True, slots=True)
class Fields:
    """Which fields of a row are read: those that ask, those that answer, in this order."""

    question: tuple[str, ...]
    answer: tuple[str, ...]

    def told(self) -> str:
        """One line for people: what is read as what."""
        parts = [("description", self.question), ("answer", self.answer)]
        return "; ".join(f"{what}: {', '.join(names)}" for what, names in parts if names)


def from_problem(problem: Problem) -> Row:
    """The docstring as text, prompt and reference as program (none where there is no reference).

    A prompt without a function head is described by its last string (MBPP, LeetCode), up to the
    examples, or else is all text.
    """
    code = problem.prompt + problem.reference if problem.reference else ""
    text = _description(problem)
    return Row(problem.task_id, text, code, problem.entry_point, problem.tests, problem.reference)


def _description(problem: Problem) -> str:
    try:
        return prompts.split_prompt(problem)[2] or problem.prompt
    except ValueError:
        text = next(_strings(similarity.parsed(problem.prompt).body), problem.prompt)
        return _EXAMPLES.split(text, maxsplit=1)[0] or text


def _strings(nodes: Iterable[ast.AST]) -> Iterator[str]:
    """Strings that are statements, as docstrings are: what a program says in words."""
    constants = (node.value for node in nodes if isinstance(node, ast.Expr))
    values = (one.value for one in constants if isinstance(one, ast.Constant))
    return (value for value in values if isinstance(value, str))


def from_problems(problems: Sequence[Problem]) -> list[Row]:
    """`from_problem` for each."""
    return [from_problem(problem) for problem in problems]


def from_responses(problems: Sequence[Problem], responses: Sequence[Response]) -> list[Row]:
    """A row for each answer: its problem's description and tests, its own program.

    ValueError for an answer to none of `problems`.
    """
    asked = {problem.task_id: from_problem(problem) for problem in problems}
    rows = []
    for answer in responses:
        if answer.task_id not in asked:
            raise ValueError(f"{answer.task_id}: an answer, but no such problem")
        name = f"{answer.task_id}#{answer.source}-{answer.index}"
        rows.append(
            replace(asked[answer.task_id], task_id=name, code=answer.program, answer=answer.text)
        )
    return rows


def guess_fields(rows: Iterable[Mapping[str, Any]], *, where: str) -> Fields:
    """The fields that hold text, by the names that are customary (`QUESTIONS`, `ANSWERS`, `WHOLE`).

    ValueError names what `where` has instead.
    """
    seen: dict[str, bool] = {}
    for row in rows:
        seen |= {name: True for name, value in row.items() if _is_text(value)}
    question, answer, whole = (
        tuple(name for name in names if name in seen) for names in (QUESTIONS, ANSWERS, WHOLE)
    )
    lone = [name for name in prompts.QUESTIONS if name in seen and name not in QUESTIONS]
    if question or answer:
        return Fields(question or tuple(lone[:1]), answer)
    if whole:
        return Fields(whole[:1], ())
    raise ValueError(
        f"{where}: no field holds text under a name that is known; it has "
        f"{', '.join(seen) or 'no text'}: name them with --fields"
    )


def _is_text(value: Any) -> bool:
    """A text, a list of texts, or messages."""
    if not isinstance(value, list):
        return isinstance(value, str)
    messages = all(isinstance(one, Mapping) and {"role", "from"} & one.keys() for one in value)
    return messages or all(isinstance(one, str) for one in value)


def named_fields(names: Sequence[str]) -> Fields:
    """Fields as somebody named them: what is called like an answer is read as one."""
    answer = tuple(name for name in names if name in ANSWERS)
    return Fields(tuple(name for name in names if name not in answer), answer)


def from_fields(row: Mapping[str, Any], *, task_id: str, fields: Fields, where: str = "") -> Row:
    """Any row: what asks as text, the Python found in the answer (else in the question) as code.

    Of Python that stands in the question the docstrings are text too.
    Python is found in fenced blocks, or where a field parses, or from its first definition on.
    The entry point is the last function of the code. A message list counts by its roles, and of a
    list of texts all answer. A field that is absent or null is empty; ValueError for one that holds
    no text, naming `where`.
    """
    asking: list[str] = []
    answering: list[str] = []
    for names, into in ((fields.question, asking), (fields.answer, answering)):
        for name in names:
            value = row.get(name)
            if isinstance(value, list) and not all(isinstance(one, str) for one in value):
                try:
                    said = prompts.turns(value)
                except ValueError as error:
                    raise ValueError(f"{where or task_id}: {name}: {error}") from None
                asking += [text for role, text in said if role == "user"]
                answering += [text for role, text in said if role in ("assistant", "tool")]
            elif isinstance(value, list):
                into += value
            elif value is None or isinstance(value, str):
                into.append(value or "")
            else:
                raise ValueError(
                    f"{where or task_id}: no text in field {name!r}, but {type(value).__name__}"
                )
    asked = [words_and_code(text) for text in dict.fromkeys(asking)]
    answers = [*dict.fromkeys(filter(None, answering))]
    given = [code for _, code in asked if code]
    code = "\n\n".join(_code_of(answers, given) or given)
    told = (
        part
        for words, own in asked
        for part in (words, *_strings(ast.walk(similarity.parsed(own))))
    )
    text = "\n".join(filter(None, told))
    # Of several answers none goes on behind the question, so that all together are no program.
    parts = [*given, *answers] if len(answers) < 2 else [*answers, *given]
    return Row(task_id, text, code, _last_function(code), answer="\n".join(parts))


def _code_of(answers: Sequence[str], given: Sequence[str]) -> list[str]:
    """The programs in several answers: each alone, or else as it goes on behind the code given."""
    found = [words_and_code(answer)[1] for answer in answers]
    if given and not any(found):
        wholes = [f"{given[-1].rstrip()}\n{answer}" for answer in answers]
        found = [whole for whole in wholes if _is_code(whole)]
    return [code for code in found if code]


def words_and_code(text: str) -> tuple[str, str]:
    """(what is told in words, the Python in it, as one program); either may be empty."""
    blocks = list(_FENCED.finditer(text))
    python = [b[3] for b in blocks if b[2].lower() in _PYTHON and _is_code(b[3])]
    if python:
        return _FENCED.sub("", text).strip(), "\n\n".join(python)
    if blocks:
        return text, ""
    if _is_code(text):
        return "", text
    begins = _BEGINS.search(text)
    code = _parsing_part(text[begins.start() :]) if begins else ""
    return (text[: begins.start()].strip(), code) if code else (text, "")


def _parsing_part(text: str) -> str:
    """As much of the start of `text` as is Python and defines something."""
    lines = text.splitlines(keepends=True)
    for _ in range(_CUTS):
        part = "".join(lines)
        if body := similarity.parsed(part).body:
            return part if any(isinstance(n, ast.FunctionDef | ast.ClassDef) for n in body) else ""
        lines = lines[: max(_broken_line(part) - 1, 0)]
    return ""


def _broken_line(source: str) -> int:
    """The first line that is no Python, 0 where none is or nobody can say."""
    try:
        ast.parse(source)
    except SyntaxError as error:
        return error.lineno or 0
    except (ValueError, RecursionError, MemoryError):
        pass
    return 0


def _is_code(text: str) -> bool:
    """Whether Python reads it as more than names, numbers and strings."""
    return any(
        not isinstance(node, ast.Expr) or isinstance(node.value, ast.Call | ast.Await)
        for node in similarity.parsed(text).body
    )


def _last_function(code: str) -> str:
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    names = [node.name for node in similarity.parsed(code).body if isinstance(node, kinds)]
    return names[-1] if names else ""


class Corpus:
    """Rows, or the tasks of benchmarks (`names` says of which each is), and their normal forms.

    Every form is a list parallel to `rows`. Words and tokens are shared between rows, so that
    those of 68,000 rows take some hundred megabytes.
    """

    def __init__(self, rows: Sequence[Row], names: Sequence[str] = ()) -> None:
        self.rows = tuple(rows)
        self.names = tuple(names)

    @classmethod
    def of_benchmarks(cls, benchmarks: Mapping[str, Sequence[Row]]) -> "Corpus":
        """The tasks of all benchmarks, one after the other."""
        tasks = [(task, name) for name, members in benchmarks.items() for task in members]
        return cls([task for task, _ in tasks], [name for _, name in tasks])

    @cached_property
    def placed(self) -> dict[tuple[str, str], Row]:
        """The tasks by benchmark and id."""
        return {(n, row.task_id): row for n, row in zip(self.names, self.rows, strict=True)}

    @cached_property
    def words(self) -> list[list[str]]:
        """Words of the description (`similarity.words`)."""
        return [_shared(similarity.words(row.text)) for row in self.rows]

    @cached_property
    def whole_words(self) -> list[list[str]]:
        """Words of all that a row holds."""
        return [_shared(similarity.words(row.whole)) for row in self.rows]

    @cached_property
    def whole_tokens(self) -> list[list[str]]:
        """Tokens of all that a row holds: words and single signs, in lower case."""
        return [_shared(similarity.tokens(row.whole)) for row in self.rows]

    @cached_property
    def answer_tokens(self) -> list[list[str]]:
        """Tokens of what answers the description."""
        return [_shared(similarity.tokens(row.answer)) for row in self.rows]

    @cached_property
    def functions(self) -> list[dict[str, str]]:
        """Canonical functions by name; of a program that repeats given helpers, its own ones."""
        return [_own_functions(row) for row in self.rows]

    @cached_property
    def solutions(self) -> list[str]:
        """The canonical text of the entry point, '' where there is none."""
        names = [row.entry_point.rpartition(".")[2] for row in self.rows]
        return [of.get(name, "") for of, name in zip(self.functions, names, strict=True)]

    @cached_property
    def sizes(self) -> list[int]:
        """Nodes of the syntax tree of the entry point's canonical text, 0 where there is none."""
        return [similarity.nodes(text) if text else 0 for text in self.solutions]

    @cached_property
    def code_tokens(self) -> list[list[str]]:
        """Tokens of the canonical functions in order."""
        return [_shared(similarity.tokens("\n".join(of.values()))) for of in self.functions]


def _own_functions(row: Row) -> dict[str, str]:
    """The functions of a task's reference where it is whole, else those of the program."""
    own = similarity.canonical_functions(row.answer) if row.answer != row.code else {}
    whole = row.entry_point.rpartition(".")[2] in own
    return own if whole else similarity.canonical_functions(row.code)


def _shared(words: Sequence[str]) -> list[str]:
    return [sys.intern(word) for word in words]


@dataclass(frozen=True, slots=True)
class Material:
    """Rows as they were read and as the audit sees them, parallel."""

    raw: tuple[Mapping[str, Any], ...]
    rows: tuple[Row, ...]
    fields: Fields


def read(name: str, fields: Sequence[str]) -> Material:
    """The rows of a file or data set, with ids `NAME:line` that stay as long as the file does.

    `fields` are guessed where there are none. ValueError names the file and line of a row that is
    no object, or holds no text in a field; a field that no row has; no rows at all.
    """
    raw = list(store.rows(name))
    for where, row in raw:
        if not isinstance(row, Mapping):
            raise ValueError(f"{where}: expected a JSON object, found {type(row).__name__}")
    if not raw:
        raise ValueError(f"{name}: no rows in it")
    if fields:
        chosen = named_fields(fields)
        known = {field for _, row in raw for field in row}
        for field in (*chosen.question, *chosen.answer):
            if field not in known:
                has = ", ".join(sorted(known))
                raise ValueError(f"{name}: no row has a field {field!r}; they have {has}")
    else:
        chosen = guess_fields((row for _, row in islice(raw, GUESSED)), where=name)
    stem = "stdin" if name == "-" else Path(name).name.partition(".")[0]
    rows = tuple(
        from_fields(row, task_id=stem + where[len(name) :], fields=chosen, where=where)
        for where, row in raw
    )
    return Material(tuple(row for _, row in raw), rows, chosen)
