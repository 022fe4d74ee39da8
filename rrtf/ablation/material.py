"""What all arms share: problems, answers of student and teachers, and problems nobody has seen."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rrtf import config, engines, execution, prompts, store
from rrtf.ablation.sets import Answers, Material
from rrtf.nano import corpus, grammar
from rrtf.nano import problems as nano_problems
from rrtf.records import Execution, Outcome, Problem, Response

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
    limits: Mapping[str, Any],
    shards: Path,
) -> Material:
    """The `given` answers, and those of the oracles, executed here.

    `limits` are options of `execution.execute`; prompts are those that `student` is asked with.
    """
    ask = engines.asker(student, "starcoder")
    oracles = {style: oracle(problems, style) for style in ORACLES}
    teachers = {name: found for name, found in answers.items() if name != "student"}
    teachers |= {
        style: Answers(found, execution.execute(problems, found, shards=shards, **limits))
        for style, found in oracles.items()
    }
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


def sampling(profile: str, *, workers: int) -> dict[str, Any]:
    """How stage 03 of `profile` asks the student, as options of `sample.sample_temperatures`."""
    settings = config.resolve(profile, "sample")
    names = ("temperatures", "n_samples", "top_p", "max_new_tokens", "engine")
    return {**{name: settings[name] for name in names}, "workers": workers}


def held_out(
    count: int,
    *,
    trained_on: Sequence[Problem],
    workers: int,
    progress: Callable[[int, int], None] | None = None,
) -> list[Problem]:
    """`count` problems of the test split beyond those of the runs, unlike all that was learnt.

    None behaves like a problem of any other split of the small world, like one that its models
    were pre-trained on, or like one of `trained_on`. ValueError if too few are found.
    """
    world = nano_problems.world(workers)
    known = {key for name, (_, keys) in world.items() if name != "test" for key in keys}
    before = set(world["test"][1])
    wanted = len(before) + count + count // 4  # some will behave like something learnt
    problems, keys, _ = nano_problems.build("test", wanted, avoid=known, workers=workers)
    taken = before | corpus.behaviours(workers=workers, progress=progress)
    taken |= {nano_problems.behaviour(grammar.parse_spec(problem.spec)) for problem in trained_on}
    fresh = [p for p, key in zip(problems, keys, strict=True) if key not in taken]
    if len(fresh) < count:
        raise ValueError(f"only {len(fresh)} of {count} problems are unlike all that was learnt")
    return fresh[:count]
