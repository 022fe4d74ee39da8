"""What all arms share: problems, answers of student and teachers, and problems nobody has seen."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rrtf import asking, config, execution, nano, nano_corpus, prompts, sample
from rrtf.ablation.sets import Answers, Material
from rrtf.records import Execution, Problem, Response

ORACLES = ("canonical", "varied")


def collect(
    problems: Sequence[Problem],
    responses: Sequence[Response],
    executions: Sequence[Execution],
    *,
    student: str | Path,
    slips: str | Path,
    sampling: Mapping[str, Any],
    limits: Mapping[str, Any],
    shards: Path,
) -> Material:
    """The nano run's own answers, and those of the further teachers, sampled and executed here.

    `responses` and `executions` are those of its stages 03 and 04, of the sources `student` and
    `teacher`; `sampling` are options of `sample.sample` for the second teacher, the same as for
    the first, `limits` those of `execution.execute`.
    """
    ask = asking.asker(student, "starcoder")
    others = {
        "slips": sample.sample(
            problems, model=slips, source="teacher", n_samples=1, shards=shards, **sampling
        ),
        **{style: oracle(problems, style) for style in ORACLES},
    }
    run = {"shards": shards, **limits}
    teachers = {
        name: Answers(found, execution.execute(problems, found, **run))
        for name, found in others.items()
    }
    return Material(
        problems=problems,
        prompts={problem.task_id: ask(problem) for problem in problems},
        student=_of("student", responses, executions),
        teachers={"blind_spots": _of("teacher", responses, executions), **teachers},
    )


def _of(source: str, responses: Sequence[Response], executions: Sequence[Execution]) -> Answers:
    pairs = zip(responses, executions, strict=True)
    kept = [(response, run) for response, run in pairs if response.source == source]
    return Answers([response for response, _ in kept], [run for _, run in kept])


def oracle(problems: Sequence[Problem], style: str) -> list[Response]:
    """The right answer to every problem: in the `canonical` style, or in `varied` ones."""
    bodies = nano_corpus.restyled(problems, style)
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
    world = nano.world(workers)
    known = {key for name, (_, keys) in world.items() if name != "test" for key in keys}
    before = set(world["test"][1])
    wanted = len(before) + count + count // 4  # some will behave like something learnt
    problems, keys, _ = nano.build("test", wanted, avoid=known, workers=workers)
    taken = before | nano_corpus.behaviours(workers=workers, progress=progress)
    taken |= {nano.behaviour(nano.parse_spec(problem.spec)) for problem in trained_on}
    fresh = [p for p, key in zip(problems, keys, strict=True) if key not in taken]
    if len(fresh) < count:
        raise ValueError(f"only {len(fresh)} of {count} problems are unlike all that was learnt")
    return fresh[:count]
