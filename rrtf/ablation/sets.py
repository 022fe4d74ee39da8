"""From an arm to what it trains on: who teaches, what is compared, what is left out."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from rrtf import config, methods, rank
from rrtf.ablation.registration import Arm
from rrtf.records import Execution, Outcome, Problem, RankedGroup, Response

SITUATIONS = dict(zip(Outcome, (0.0, 1.0, 2.0, 3.0), strict=True))
SKEWED = dict(zip(Outcome, (0.0, 0.1, 0.2, 3.0), strict=True))
PASS_RATIO = 0.4  # the most that k/n adds: less than a tie-break of 0.5 leaves up to the next step


@dataclass(frozen=True)
class Answers:
    """Responses with their verdicts, in the same order."""

    responses: Sequence[Response]
    executions: Sequence[Execution]


@dataclass(frozen=True)
class Material:
    """All that training sets are made of; `teachers` by name, each one answer per task at most."""

    problems: Sequence[Problem]
    prompts: Mapping[str, str]
    student: Answers
    teachers: Mapping[str, Answers]


def training_set(
    arm: Arm, material: Material, *, seed: int
) -> tuple[list[RankedGroup], dict[str, int]]:
    """(the groups that `arm` trains on, prompts and responses left out by reason)."""
    groups, left_out = ranked(arm, material)
    if arm.prompts:
        groups = sorted(groups, key=lambda g: config.derive_seed(seed, "prompts", g.task_id))
        groups = groups[: arm.prompts]
    if arm.compared == "group":
        chosen, dropped = methods.training_set("rrhf", groups, [], max_responses=arm.max_responses)
    else:
        chosen, dropped = _paired(arm, groups, seed=seed)
    if arm.scores == "shuffled":
        chosen = [shuffled(group, seed=seed) for group in chosen]
    return chosen, {**left_out, **{reason: n for reason, n in dropped.items() if n}}


def ranked(arm: Arm, material: Material) -> tuple[list[RankedGroup], dict[str, int]]:
    """Every prompt with the answers of the arm's teacher and of the student, scored."""
    teacher = own(material.student) if arm.teacher == "own" else material.teachers[arm.teacher]
    return rank.rank(
        material.problems,
        [*material.student.responses, *teacher.responses],
        [*material.student.executions, *teacher.executions],
        scores=SKEWED if arm.scores == "skewed" else SITUATIONS,
        tie_break=arm.tie_break,
        pass_ratio=PASS_RATIO if arm.scores == "pass_ratio" else 0.0,
        prompts=material.prompts,
    )


def own(student: Answers) -> Answers:
    """The student's first passing answer to each task, in the place of a teacher's."""
    found: dict[str, tuple[Response, Execution]] = {}
    for response, verdict in zip(student.responses, student.executions, strict=True):
        if verdict.outcome == Outcome.PASS:
            found.setdefault(response.task_id, (response, verdict))
    taught = {"source": "teacher", "index": 0}
    return Answers(
        [replace(response, **taught) for response, _ in found.values()],
        [replace(verdict, **taught) for _, verdict in found.values()],
    )


def _paired(
    arm: Arm, groups: Sequence[RankedGroup], *, seed: int
) -> tuple[list[RankedGroup], dict[str, int]]:
    """The teacher with the student's answers it is compared with, filtered as the arm says."""
    pairing = "one" if arm.compared == "one" else "all"
    how = {"pairing": pairing, "seed": seed}
    by = "none" if arm.filter == "random" else arm.filter
    chosen, dropped = rank.pairs(groups, teacher_filter=by, **how)
    if arm.filter == "random":
        count = len(rank.pairs(groups, teacher_filter="drop_below", **how)[0])
        keep = sorted(chosen, key=lambda g: config.derive_seed(seed, "drop", g.task_id))[:count]
        names = {group.task_id for group in keep}
        dropped = {**dropped, "prompt: dropped at random": len(chosen) - count}
        chosen = [group for group in chosen if group.task_id in names]
    if arm.compared not in ("one", "all"):
        chosen = [methods.drawn(group, int(arm.compared) + 1) for group in chosen]
    return chosen, dropped


def shuffled(group: RankedGroup, *, seed: int) -> RankedGroup:
    """The group with its scores handed to its responses in an order drawn by its task id."""
    scores = list(group.scores)
    random.Random(config.derive_seed(seed, "placebo", group.task_id)).shuffle(scores)
    return replace(group, scores=tuple(scores))
