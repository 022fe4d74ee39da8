"""What was registered: arms, contrasts, learning rates, seeds, from `data/ablation.toml`."""

import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from rrtf import config
from rrtf.evaluate import results

TIERS = ("A", "B", "C")
TEACHERS = ("blind_spots", "slips", "canonical", "varied", "own")
FILTERS = ("drop_below", "none", "must_pass", "random")
SCORES = ("situations", "pass_ratio", "skewed", "shuffled")
METHODS = ("train", "grpo")


@dataclass(frozen=True)
class Arm:
    """A training set and an objective; the file says what the fields mean.

    `options` are those of `train.train` that the arm changes.
    """

    name: str
    tier: str
    what: str
    teacher: str
    compared: str
    filter: str
    prompts: int
    scores: str
    tie_break: float
    objective: str
    family: str
    equal_compute_with: str
    against: str = ""
    max_responses: int = 0
    epochs: int = 0
    rounds: int = 1
    method: str = "train"
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Family:
    """Arms that share a learning rate: the one of `rates` at which those of `by` do best."""

    name: str
    rates: tuple[float, ...]
    by: tuple[str, ...]


@dataclass(frozen=True)
class Registration:
    """The whole plan; `rows` of every run that it asks for are made by `rrtf.ablation`."""

    question: str
    base: str
    profile: str
    held_out: int
    validation: int
    metric: str
    alpha: float
    margin: float
    updates: int
    groups_per_batch: int
    seeds: Mapping[str, int]
    grid_seeds: int
    primary: tuple[str, ...]
    arms: Mapping[str, Arm]
    families: Mapping[str, Family]
    amendments: Mapping[str, str]


def place() -> Path:
    """Where the registration lies."""
    return config.home() / "data" / "ablation.toml"


def read(path: Path | None = None) -> Registration:
    """The registration in `path`; ValueError naming the arm, family or contrast that is wrong."""
    path = path or place()
    table = tomllib.loads(path.read_text(encoding="utf-8"))
    defaults = table["defaults"]
    arms = [_arm({**defaults, **row}, path) for row in table["arm"]]
    families = [Family(f["name"], tuple(f["rates"]), tuple(f["by"])) for f in table["family"]]
    head = table["registration"]
    found = Registration(
        **{**head, "primary": tuple(head["primary"])},
        arms=_by_name(arms, path),
        families=_by_name(families, path),
        amendments=table["amendments"],
    )
    _check(found, path)
    return found


def _arm(row: Mapping[str, Any], path: Path) -> Arm:
    names = {f.name for f in fields(Arm)} - {"options"}
    allowed = {
        "tier": TIERS, "teacher": TEACHERS, "filter": FILTERS, "scores": SCORES, "method": METHODS,
    }  # fmt: skip
    known = {name: value for name, value in row.items() if name in names}
    for name, values in allowed.items():
        if known.get(name, values[0]) not in values:
            where = f"{path}: arm {row['name']!r}: {name} = {row[name]!r}"
            raise ValueError(f"{where}: expected one of {', '.join(values)}")
    return Arm(**known, options={k: v for k, v in row.items() if k not in names})


def _by_name(rows: Sequence[Any], path: Path) -> dict[str, Any]:
    counts = Counter(row.name for row in rows)
    twice = [name for name, count in counts.items() if count > 1]
    if twice:
        raise ValueError(f"{path}: {twice[0]!r} comes twice")
    return {row.name: row for row in rows}


def _check(found: Registration, path: Path) -> None:
    """Every name that is used is also defined."""
    for arm in found.arms.values():
        for other in (arm.against, arm.equal_compute_with):
            if other and other not in found.arms:
                raise ValueError(f"{path}: arm {arm.name!r} names {other!r}, which is no arm")
        if arm.family not in found.families:
            raise ValueError(f"{path}: arm {arm.name!r}: unknown family {arm.family!r}")
    used = [name for family in found.families.values() for name in family.by]
    used += [name for contrast in found.primary for name in results.parse_contrast(contrast)]
    for name in used:
        if name not in found.arms:
            raise ValueError(f"{path}: {name!r} is no arm")
