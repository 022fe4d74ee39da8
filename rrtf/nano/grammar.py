"""Operations as data, and specifications: typed compositions of operations with parameters."""

import os
import random
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache

from rrtf import config
from rrtf.records import Problem

LONGEST = 200  # characters of a specification that an error shows
SHOWN = 8  # choices of an operation that an error names


class Degenerate(ValueError):
    """A specification that makes no useful problem; the message is the reason."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One step of a problem: its wordings, its correct solutions, the range of its parameters.

    `expressions` and `blocks` hold `@` (loop variable), `{v}` (input expression), `{o}` (output
    variable) and the parameters' names in braces; the first of them is the canonical style.
    """

    name: str
    takes: str
    gives: str
    verbs: tuple[str, ...]
    nouns: tuple[str, ...]
    expressions: tuple[str, ...]
    blocks: tuple[str, ...]
    choices: tuple[tuple[tuple[str, str | int], ...], ...]  # every allowed parameter setting


@dataclass(frozen=True, slots=True)
class Step:
    """An operation with its parameters set."""

    name: str
    parameters: tuple[tuple[str, str | int], ...] = ()

    def __str__(self) -> str:
        inside = ", ".join(f"{key}={value!r}" for key, value in self.parameters)
        return f"{self.name}({inside})" if inside else self.name


@dataclass(frozen=True, slots=True)
class Spec:
    """A composition: the type of the argument and the steps applied to it, first to last."""

    takes: str
    steps: tuple[Step, ...]

    def __str__(self) -> str:
        return f"{self.takes}: " + " > ".join(map(str, self.steps))

    @property
    def gives(self) -> str:
        return operations()[self.steps[-1].name].gives

    @property
    def names(self) -> tuple[str, ...]:
        return (self.takes, *(step.name for step in self.steps))


WORLD = "RRTF_WORLD"  # in the environment, so that the processes of a call live in it too


def world() -> str:
    """The folder of data/ that has the grammar."""
    return os.environ.get(WORLD, "nano")


@contextmanager
def living_in(name: str) -> Iterator[None]:
    """Everything of `rrtf.nano` is about the world `name` inside the block."""
    before = world()
    os.environ[WORLD] = name
    try:
        yield
    finally:
        os.environ[WORLD] = before


def operations() -> Mapping[str, Operation]:
    """All operations of the `world` by name."""
    return _operations(world())


@cache
def _operations(name: str) -> Mapping[str, Operation]:
    table = tomllib.loads(config.data_text(f"{name}/operations.toml"))
    return {name: _operation(name, row) for name, row in table.items()}


def vocabulary() -> Mapping:
    """Names, descriptions and inputs by type, of the `world`."""
    return _vocabulary(world())


@cache
def _vocabulary(name: str) -> Mapping:
    table = tomllib.loads(config.data_text(f"{name}/vocabulary.toml"))
    words = table.pop("words_type", None)
    return table | ({"word_list": table["words"], "words": words} if words else {})


@cache
def taking(kind: str) -> tuple[Operation, ...]:
    """The operations that take a value of type `kind`."""
    return tuple(op for op in operations().values() if op.takes == kind)


def _operation(name: str, row: Mapping) -> Operation:
    expressions, blocks = _solutions(name, row)
    return Operation(
        name,
        row["takes"],
        row["gives"],
        tuple(row["verbs"]),
        tuple(row["nouns"]),
        tuple(expressions),
        tuple(blocks),
        tuple(_choices(row.get("parameters", {}))),
    )


def _solutions(name: str, row: Mapping) -> tuple[list[str], list[str]]:
    """The solutions of the four shapes that operations.toml describes."""
    if "keeps" in row:
        keeps, drops = row["keeps"], row["drops"]
        return (
            [f"[@ for @ in {{v}} if {keeps}]", f"list(filter(lambda @: {keeps}, {{v}}))"],
            [
                f"{{o}} = []\nfor @ in {{v}}:\n    if {keeps}:\n        {{o}}.append(@)",
                f"{{o}} = []\nfor @ in {{v}}:\n    if {drops}:\n        continue\n"
                "    {o}.append(@)",
            ],
        )
    if "maps" in row:
        maps = row["maps"]
        return (
            [f"[{maps} for @ in {{v}}]", f"list(map(lambda @: {maps}, {{v}}))"],
            [f"{{o}} = []\nfor @ in {{v}}:\n    {{o}}.append({maps})"],
        )
    if "keeps_characters" in row:
        keeps = row["keeps_characters"]
        return (
            [f"''.join(@ for @ in {{v}} if {keeps})", f"''.join([@ for @ in {{v}} if {keeps}])"],
            [f"{{o}} = ''\nfor @ in {{v}}:\n    if {keeps}:\n        {{o}} += @"],
        )
    if "expressions" not in row:
        raise ValueError(f"operations.toml: [{name}] has no solution")
    return row["expressions"], row.get("blocks", [])


def _choices(parameters: Mapping) -> list[tuple[tuple[str, str | int], ...]]:
    if "joint" in parameters:
        return [tuple(row.items()) for row in parameters["joint"]]
    for name, allowed in parameters.items():  # one parameter, or `joint`
        values = allowed.get("of") or range(allowed["from"], allowed["to"] + 1)
        return [((name, value),) for value in values]
    return [()]


def fill(template: str, parameters: tuple[tuple[str, str | int], ...]) -> str:
    """`template` with each `{name}` of the parameters replaced by its value."""
    for name, value in parameters:
        template = template.replace(f"{{{name}}}", str(value))
    return template


def draw_step(operation: Operation, rng: random.Random) -> Step:
    """The operation with one of its allowed parameter settings."""
    return Step(operation.name, rng.choice(operation.choices))


def draw_spec(rng: random.Random, depth: int, takes: str = "") -> Spec:
    """A random composition of `depth` steps without immediate repetition."""
    starts = vocabulary()["start"]
    while True:
        kind = start = takes or rng.choices(list(starts), list(starts.values()))[0]
        steps: list[Step] = []
        for position in range(depth):
            options = taking(kind)
            if position < depth - 1:
                options = tuple(op for op in options if taking(op.gives))
            operation = rng.choice(options)
            if steps and steps[-1].name == operation.name:
                break
            steps.append(draw_step(operation, rng))
            kind = operation.gives
        if len(steps) == depth:
            return Spec(start, tuple(steps))


def well_typed(spec: Spec) -> bool:
    """Whether every step takes what the one before gives and none repeats its predecessor."""
    kind, before = spec.takes, ""
    for step in spec.steps:
        operation = operations()[step.name]
        if operation.takes != kind or step.name == before:
            return False
        kind, before = operation.gives, step.name
    return bool(spec.steps)


def neighbour(spec: Spec, rng: random.Random) -> Spec:
    """A specification that differs in one operation of the same type."""
    for place in rng.sample(range(len(spec.steps)), len(spec.steps)):
        old = operations()[spec.steps[place].name]
        same = [op for op in taking(old.takes) if op.gives == old.gives and op.name != old.name]
        if same:
            return replace_step(spec, place, draw_step(rng.choice(same), rng))
    raise Degenerate("no neighbouring problem")


def replace_step(spec: Spec, place: int, step: Step) -> Spec:
    """`spec` with another step at `place`."""
    return Spec(spec.takes, (*spec.steps[:place], step, *spec.steps[place + 1 :]))


def blind_spots() -> Mapping[str, Operation]:
    """All operations, those of the world's `blind_spots.toml` with a consistent misconception."""
    return _blind_spots(world())


@cache
def _blind_spots(place: str) -> Mapping[str, Operation]:
    known = _operations(place)
    wrong = {
        name: replace(known[name], expressions=(row["believes"],), blocks=())
        for name, row in tomllib.loads(config.data_text(f"{place}/blind_spots.toml")).items()
    }
    return {**known, **wrong}


@cache
def _steps(place: str) -> Mapping[str, Step]:
    """Every step that there can be, by its text: no other parameter has ever a meaning."""
    made = (Step(op.name, choice) for op in _operations(place).values() for choice in op.choices)
    return {str(step): step for step in made}


def parse_spec(text: str) -> Spec:
    """The inverse of `str(spec)`; ValueError names what is wrong.

    Steps are looked up among those of the grammar, so nothing of `text` is ever part of a program.
    """
    takes, _, steps = text.partition(": ")
    try:
        spec = Spec(takes, tuple(map(_step, steps.split(" > "))))
    except ValueError as error:
        raise ValueError(f"{text[:LONGEST]!r}: {error}") from None
    if not well_typed(spec):
        raise ValueError(f"{text[:LONGEST]!r}: the steps do not fit together")
    return spec


def _step(part: str) -> Step:
    if found := _steps(world()).get(part):
        return found
    name = part.partition("(")[0]
    if name not in operations():
        raise ValueError(f"unknown operation {part[:LONGEST]!r}")
    known = [str(Step(name, choice)) for choice in operations()[name].choices]
    shown = ", ".join(known[:SHOWN]) + (f" or {len(known) - SHOWN} more" if known[SHOWN:] else "")
    raise ValueError(f"{part[:LONGEST]!r} is no choice of {name}: expected {shown}")


def spec_of(problem: Problem) -> Spec:
    """The specification of a nano problem; ValueError names a problem without one that fits."""
    if not problem.spec or not isinstance(problem.spec, str):
        raise ValueError(f"{problem.task_id}: no specification; only nano problems have one")
    try:
        return parse_spec(problem.spec)
    except ValueError as error:
        raise ValueError(f"{problem.task_id}: {error}") from None


def argument_of(problem: Problem) -> str:
    """The argument's name in a nano problem's prompt; ValueError where it is none of ours."""
    name = problem.prompt.partition("(")[2].partition(")")[0]
    known = vocabulary()[spec_of(problem).takes]["arguments"]
    if name not in known:
        raise ValueError(
            f"{problem.task_id}: the argument {name[:LONGEST]!r}: expected {', '.join(known)}"
        )
    return name


def family(problem: Problem) -> str:
    """The composition without its parameters: problems of one family resemble each other."""
    return " > ".join(spec_of(problem).names) if problem.spec else problem.task_id
