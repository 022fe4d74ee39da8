"""What was registered: arms, rates, seeds, questions, from `data/ablation.toml`."""

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from itertools import product
from pathlib import Path
from typing import Any

from rrtf import config
from rrtf.evaluate import results

FILTERS = ("none", "drop_below", "must_pass", "must_fail")
ERRORS = ("systematic", "random")
HOME = "nano"  # the world of the bases that name none
FIRST, TEACHERS, BASES = "ingredients", "teachers", "bases"  # studies 1, 2 and 3
ALL_TESTS = 12  # of a problem of the small world
# Rows without training.
ANCHORS = ("base", "teacher", "base, best of 8", "base, most frequent of 8")


def as_it_is(base: str) -> str:
    """What a start model of study 3 is called where it was not trained."""
    return f"{base}, as it is"


@dataclass(frozen=True, slots=True)
class Arm:
    """A start model, a training set and an objective; the file says what the fields mean.

    `errors` is "" for the registered teacher, else `accuracy` (percent) is the share of right
    answers of a made one. `tests` of a prompt's assertions decide what is learnt.
    """

    study: str
    name: str
    base: str
    data: str
    objective: str
    errors: str
    accuracy: int
    tests: int
    seeds: int


@dataclass(frozen=True)
class Registration:
    """The whole plan. `objectives` and `data` by name, as the file has them."""

    base: str
    teacher: str
    profile: str
    prompts: int
    updates: int
    groups_per_batch: int
    precision: str
    answers: int
    metric: str
    alpha: float
    margin: float
    arms: tuple[Arm, ...]
    objectives: Mapping[str, Mapping[str, Any]]
    data: Mapping[str, Mapping[str, Any]]
    problems: Mapping[str, Any]
    bases: Mapping[str, Mapping[str, Any]]
    teachers: Mapping[str, Any]
    questions: Mapping[str, str]
    replaced: str
    amendments: Mapping[str, str]

    def world(self, arm: Arm) -> str:
        """The small world that an arm lives in."""
        return self.bases[arm.base].get("world", HOME) if arm.base else HOME

    @property
    def seeds(self) -> int:
        """The most seeds that an arm has: each has validation problems of its own."""
        return max(arm.seeds for arm in self.arms)

    def rates(self, arm: Arm) -> tuple[float, ...]:
        """The learning rates at which `arm` is trained: of study 2 those of [teachers]."""
        own = self.teachers["rates"] if arm.study == TEACHERS else {}
        grid = self.objectives[arm.objective]["rates"]
        return tuple(own.get(f"{arm.data}, {arm.objective}", grid))


# Tables that are taken as they are.
PARTS = ("objectives", "data", "problems", "questions", "bases", "teachers")


def place() -> Path:
    """Where the registration lies."""
    return config.home() / "data" / "ablation.toml"


def read(path: Path | None = None) -> Registration:
    """The registration in `path`; ValueError naming the block, arm or question that is wrong."""
    path = path or place()
    table = tomllib.loads(path.read_text(encoding="utf-8"))
    arms = [arm for block in table["block"] for arm in _arms(block, table, path)]
    names = [arm.name for arm in arms]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{path}: {name!r} comes twice")
    for question, contrast in table["questions"].items():
        for name in results.parse_contrast(contrast):
            if name not in (*names, *ANCHORS):
                raise ValueError(f"{path}: {question!r}: {name!r} is no arm")
    for name, row in table["data"].items():
        if row["filter"] not in FILTERS:
            known = ", ".join(FILTERS)
            raise ValueError(f"{path}: {name!r}: filter {row['filter']!r}: expected one of {known}")
    own = {name: table[name] for name in PARTS}
    own |= {"replaced": table["replaced"]["why"], "amendments": table["amendments"]}
    return Registration(**table["registration"], arms=tuple(arms), **own)


def _arms(block: Mapping[str, Any], table: Mapping[str, Any], path: Path) -> Iterator[Arm]:
    """The arms of a block: all combinations of its lists."""
    axes = {
        "bases": [""], "errors": [""], "accuracy": [0], "tests": [ALL_TESTS], "data": [],
        "objectives": [],
    }  # fmt: skip
    if strangers := block.keys() - axes.keys() - {f.name for f in fields(Arm)}:
        raise ValueError(f"{path}: block of {block['study']!r}: unknown {min(strangers)!r}")
    lists = (block.get(name, default) for name, default in axes.items())
    for base, errors, accuracy, tests, data, objective in product(*lists):
        if errors and errors not in ERRORS:
            raise ValueError(f"{path}: errors {errors!r}: expected {' or '.join(ERRORS)}")
        for kind, name in (("data", data), ("objectives", objective), ("bases", base)):
            if name and name not in table[kind]:
                raise ValueError(f"{path}: {name!r} is not in [{kind}]")
        parts = [base, f"{errors} {accuracy} %" if errors else ""]
        parts += [f"{tests} test{'s' * (tests > 1)}" if tests != ALL_TESTS else "", data, objective]
        name = ", ".join(part for part in parts if part)
        made = (errors, accuracy, tests, block["seeds"])
        yield Arm(block["study"], name, base, data, objective, *made)
