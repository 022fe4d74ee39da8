"""From an arm to what it trains on: who teaches, what is compared, what is left out."""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rrtf import config, engines, methods, prompts, rank, store
from rrtf.ablation.registration import Arm
from rrtf.nano import corpus, grammar
from rrtf.nano import problems as nano_problems
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
        teacher="teacher",
        scores=SKEWED if arm.scores == "skewed" else SITUATIONS,
        tie_break=arm.tie_break,
        pass_ratio=PASS_RATIO if arm.scores == "pass_ratio" else 0.0,
        prompts=material.prompts,
        prompt_format="starcoder",
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


ORACLES = ("canonical", "varied")


@dataclass(frozen=True, slots=True)
class Given:
    """One answer of those that the registered runs learn from, with its verdict.

    `by` is `student` or the name of a teacher.
    """

    by: str
    task_id: str
    index: int
    text: str
    temperature: float
    outcome: Outcome
    reason: str
    n_passed: int
    n_tests: int
    isolation: str


def answers_file() -> Path:
    """Where the answers lie that were registered: another engine or processor draws others."""
    return config.home() / "data" / "ablation_answers.jsonl.gz"


def given(path: Path, problems: Sequence[Problem]) -> dict[str, Answers]:
    """`student` or teacher's name -> the answers in `path` with their verdicts.

    ValueError that names the line of an answer to none of `problems`.
    """
    by_task = {problem.task_id: problem for problem in problems}
    found: dict[str, Answers] = {}
    for number, row in enumerate(store.read(path, Given), start=1):
        if row.task_id not in by_task:
            raise ValueError(f"{path}:{number}: {row.task_id}: not among the run's problems")
        place = row.task_id, "student" if row.by == "student" else "teacher", row.index
        answers = found.setdefault(row.by, Answers([], []))
        program = prompts.extract(by_task[row.task_id], row.text)
        drawn = {"temperature": row.temperature}
        answers.responses.append(Response(*place, text=row.text, program=program, **drawn))
        verdict = row.outcome, row.reason, row.n_passed, row.n_tests, row.isolation
        answers.executions.append(Execution(*place, *verdict))
    return found


def collect(
    problems: Sequence[Problem],
    answers: Mapping[str, Answers],
    *,
    student: str | Path,
    judge: Callable[..., list[Execution]],
) -> Material:
    """The `given` answers, and those of the oracles, executed here by `judge`.

    Prompts are those that `student` is asked with.
    """
    ask = engines.asker(student, "starcoder")
    oracles = {style: oracle(problems, style) for style in ORACLES}
    teachers = {name: found for name, found in answers.items() if name != "student"}
    teachers |= {style: Answers(found, judge(problems, found)) for style, found in oracles.items()}
    asked = {problem.task_id: ask(problem) for problem in problems}
    return Material(problems, asked, student=answers["student"], teachers=teachers)


def oracle(problems: Sequence[Problem], style: str) -> list[Response]:
    """The right answer to every problem: in the `canonical` style, or in `varied` ones."""
    bodies = corpus.restyled(problems, style)
    return [
        Response(
            task_id=problem.task_id,
            source="teacher",
            index=0,
            text=body,
            program=prompts.extract(problem, body),
        )
        for problem, (_, body) in zip(problems, bodies, strict=True)
    ]


def held_out(
    count: int,
    *,
    trained_on: Sequence[Problem],
    isolation: str,
    workers: int,
    progress: Callable[[int, int], None] | None = None,
) -> list[Problem]:
    """`count` problems of the test split beyond those of the runs, unlike all that was learnt.

    None behaves like a problem of any other split of the small world, like one that its models
    were pre-trained on, or like one of `trained_on`, which come from a file and are run in the
    sandbox, at the least at level `isolation`. ValueError if too few are found.
    """
    world = nano_problems.world(workers)
    known = {key for name, (_, keys) in world.items() if name != "test" for key in keys}
    before = set(world["test"][1])
    wanted = len(before) + count + count // 4  # some will behave like something learnt
    problems, keys, _ = nano_problems.build("test", wanted, avoid=known, workers=workers)
    taken = before | corpus.behaviours(workers=workers, progress=progress)
    specs = map(grammar.spec_of, trained_on)
    taken.update(nano_problems.behaviours(specs, isolation=isolation, workers=workers))
    fresh = [p for p, key in zip(problems, keys, strict=True) if key not in taken]
    if len(fresh) < count:
        raise ValueError(f"only {len(fresh)} of {count} problems are unlike all that was learnt")
    return fresh[:count]
