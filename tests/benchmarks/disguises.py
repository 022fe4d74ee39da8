"""Real benchmark tasks as training rows that leak them, under one disguise after the other.

Every kind changes words or code by rule, with the word lists of `data/plants.toml`; nothing is
drawn by chance. A disguise keeps the solution's logic only if its program still passes the task's
tests: `sound` asks a judge, and what fails is no plant.
"""

import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import restyling

from rrtf import config
from rrtf.audit.rows import Row, from_problem
from rrtf.audit.running import Function, Judge, as_responses, parameters
from rrtf.records import Outcome, Problem

_CUT = re.compile(r"^\s*(>>>|assert\b|(for )?examples?\b.*:?\s*$|example:)", re.I | re.M)
_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n\s*\n|\n\s*-\s")


@dataclass(frozen=True, slots=True)
class Plant:
    """A row that leaks the task `task_id`.

    `solution` is the part of its code that solves it, a program that defines `solver` (a function,
    or a method as `Solution().solve`).
    """

    kind: str
    task_id: str
    row: Row
    solution: str
    solver: str


def description(problem: Problem) -> str:
    """What a task says in words, without its examples (all of it where it has nothing else)."""
    text = from_problem(problem).text.strip().strip('"')
    found = _CUT.search(text)
    return (text[: found.start()] if found else text).strip() or text


def rephrased(text: str) -> str:
    """The sentences in the reverse order, each in other words."""
    sentences = [s.strip() for s in _SENTENCE.split(text) if s.strip()]
    return " ".join(_replaced(s, _words()["rephrased"]) for s in reversed(sentences))


def translated(text: str) -> str:
    """The text in German, word by word; words that the list lacks never stand side by side."""
    table, kept, known = _words()["german"], [], True
    for word in re.findall(r"[A-Za-zÀ-ÿ_'’]+|[^A-Za-zÀ-ÿ_'’\s]+", text):
        was_known, known = known, word.lower() in table or not word[0].isalpha()
        if known or was_known:
            kept.append(table.get(word.lower(), word))
    return " ".join(kept)


def _replaced(text: str, table: Mapping[str, str]) -> str:
    """Every phrase once, the longest that fits at each place, without regard to case."""
    phrases = sorted(table, key=len, reverse=True)
    pattern = re.compile(r"\b(" + "|".join(map(re.escape, phrases)) + r")\b", re.IGNORECASE)
    return pattern.sub(lambda found: table[found.group().lower()], text)


@cache
def _words() -> Mapping[str, Mapping[str, str]]:
    return tomllib.loads(config.data_text("plants.toml"))


# --- kinds -------------------------------------------------------------------------------------

Told = tuple[str, str, str]  # description, solution, the name of its function


def _verbatim(problem: Problem) -> Told:
    row = from_problem(problem)
    return row.text, row.code, problem.entry_point


def _renamed(problem: Problem) -> Told:
    """The same words over a program with other names and no docstring."""
    code, new = restyling.renamed(from_problem(problem).code)
    text = description(problem)
    for old, other in new.items():
        text = re.sub(rf"\b{re.escape(old)}\b", other, text) if len(old) > 1 else text
    return text, code, new.get(problem.entry_point, problem.entry_point)


def _rephrased(problem: Problem) -> Told:
    _, code, name = _renamed(problem)
    return rephrased(description(problem)), code, name


def _translated(problem: Problem) -> Told:
    _, code, name = _renamed(problem)
    return translated(description(problem)), code, name


def _restyled(problem: Problem) -> Told:
    text, code, name = _rephrased(problem)
    return text, restyling.restyled(code), name


def _embedded(problem: Problem) -> Told:
    text, code, name = _restyled(problem)
    story = _words()["story"]
    return f"{story['before']} {text} {story['after']}", code, name


KINDS: Mapping[str, Callable[[Problem], Told]] = {
    "verbatim": _verbatim,
    "other names": _renamed,
    "other words, other names": _rephrased,
    "another language, other names": _translated,
    "other words, other style": _restyled,
    "embedded, other words, other style": _embedded,
    "embedded inside another function": _embedded,
}
_WRAPPED = {
    "embedded, other words, other style": restyling.beside,
    "embedded inside another function": restyling.inside,
}


def disguised(problems: Sequence[Problem], kind: str) -> list[Plant]:
    """Every problem under one of KINDS, as a row without tests.

    ValueError for a problem without a reference, or whose code does not parse.
    """
    plants = []
    for number, problem in enumerate(problems):
        if not problem.reference:
            raise ValueError(f"{problem.task_id}: no reference, so nothing that could leak")
        try:
            text, solution, name = KINDS[kind](problem)
        except SyntaxError as error:
            raise ValueError(f"{problem.task_id}: the reference does not parse: {error}") from None
        wrap = _WRAPPED.get(kind)
        code, entry = (wrap(solution, name), restyling.WRAPPER) if wrap else (solution, name)
        plants.append(
            Plant(kind, problem.task_id, Row(f"{kind}/{number}", text, code, entry), solution, name)
        )
    return plants


def sound(plants: Sequence[Plant], problems: Sequence[Problem], judge: Judge) -> list[Plant]:
    """The plants whose solution still passes all tests of its task."""
    asked = {plant.task_id for plant in plants}
    tasks = {problem.task_id: problem for problem in problems if problem.task_id in asked}
    tried = []
    for plant in plants:
        task = tasks[plant.task_id]
        solver = Function(plant.solver, plant.solution, least=0, most=0, key="")
        tried.append((task, solver, range(len(parameters(task)))))
    verdicts = judge(list(tasks.values()), as_responses(tried))
    return [p for p, v in zip(plants, verdicts, strict=True) if v.outcome is Outcome.PASS]
