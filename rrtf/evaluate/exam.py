"""Who is evaluated on what: every contender answers every problem of an exam, and is scored."""

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from rrtf import benchmarks, engines, execution, prompts, store
from rrtf.benchmarks import catalogue
from rrtf.cluster import side_by_side
from rrtf.engines import NOTHING, Decoding, note
from rrtf.evaluate.results import Result, by_part
from rrtf.records import Execution, Leak, Outcome, Problem, Response, TaskScore
from rrtf.sample import Author
from rrtf.sandbox.executor import Limits
from rrtf.stats import label, parse_label

# of tables and pictures
ORDER = ("sft", "sft-kept", "sft-verified", "rrhf", "dpo", "rrtf", "rrtf-verified")
STEPS = ("answers", "executions")


@dataclass(frozen=True, slots=True)
class Contender:
    """One model that is evaluated: its name in the tables, its training seed, where it lies.

    `engine` and `prompt_format` are its own where it is asked in others than what was trained.
    """

    method: str
    seed: int
    model: str
    engine: str | None = None
    prompt_format: str | None = None

    def author(self, author: Callable[..., Author], temperature: float) -> Author:
        """Who answers at `temperature`; `author` has what is the same for all."""
        own = {"engine": self.engine, "prompt_format": self.prompt_format}
        own = {name: value for name, value in own.items() if value}
        return author(self.model, label(self.method, self.seed, temperature), **own)


@dataclass(frozen=True, slots=True)
class Exam:
    """The problems of one benchmark, what a program may use for one, which resemble each other."""

    name: str
    problems: tuple[Problem, ...]
    limits: Limits
    family: Callable[[Problem], str] | None = None

    def file(self, what: str) -> str:
        """The name of a file of `what` (`responses`, ...) of this exam."""
        return f"{what}-{self.name.replace(' ', '-')}.jsonl"


@dataclass(frozen=True, slots=True)
class Sat:
    """An exam with all answers, their verdicts in the same order, and the scores."""

    exam: Exam
    responses: tuple[Response, ...]
    executions: tuple[Execution, ...]
    scores: tuple[TaskScore, ...]


def contenders(
    runs: Sequence[Contender],
    folders: Sequence[Path],
    *,
    base: str | Path,
    teachers: Sequence[Author],
    formats: Sequence[str],
) -> list[Contender]:
    """The student before training, the teachers (if there are any), then every trained run.

    The runs stand in the order of `ORDER`, whatever order they were trained in. Each teacher has
    its own engine and prompt format; `formats` are texts NAME=FORMAT of others that have one, as
    the base, which was not trained in that of the runs. ValueError for a format or a name that is
    not there.
    """
    own = dict(text.split("=", 1) if "=" in text else (text, "") for text in formats)
    for name, prompt_format in own.items():
        if prompt_format not in prompts.FORMATS:
            known = ", ".join(prompts.FORMATS)
            raise ValueError(f"{name}={prompt_format}: expected NAME=FORMAT, one of {known}")
    fixed = [Contender("base", 0, str(base))]
    for one in teachers:
        model = one.model if engines.remote(one.engine) else engines.resolve_model(one.model)
        fixed.append(Contender(one.source, 0, str(model), one.engine, one.prompt_format))
    pairs = zip(runs, folders, strict=True)
    trained = [Contender(run.method, run.seed, str(folder)) for run, folder in pairs]
    place = {name: at for at, name in enumerate(ORDER)}
    fixed += sorted(trained, key=lambda c: (place.get(c.method, 99), c.method, c.seed))
    if strangers := own.keys() - {one.method for one in fixed}:
        there = ", ".join(dict.fromkeys(one.method for one in fixed))
        raise ValueError(f"{min(strangers)}: a format, but no such contender: there are {there}")
    return [replace(c, prompt_format=own.get(c.method, c.prompt_format)) for c in fixed]


def exams(
    names: Sequence[str],
    *,
    test: Sequence[Problem],
    test_name: str,
    limits: Limits,
    family: Callable[[Problem], str] | None = None,
) -> list[Exam]:
    """What the contenders are asked: `test` in the names is the split `test`, others benchmarks.

    `"leetcode-v0.3-test since 2022-07-01"` takes the tasks created after that day, as the paper
    cuts LeetCode. `limits` are those of `test`; a benchmark may have seconds of its own. `family`
    groups the tasks of `test` that resemble each other. Errors as `benchmarks.load`; ValueError
    for a name that comes twice.
    """
    found = []
    for text in names:
        if text == "test":
            found.append(Exam(test_name, tuple(test), limits, family))
            continue
        name, _, since = text.partition(" since ")
        problems = benchmarks.load(name, since=since or None)
        cpu, own = catalogue.entry(name).cpu_seconds, limits
        if cpu:
            own = replace(limits, cpu_seconds=cpu, wall_seconds=execution.WALL_PER_CPU * cpu)
        found.append(Exam(text, tuple(problems), own))
    if not found or len({exam.name for exam in found}) < len(found):
        raise ValueError(f"benchmarks {list(names)}: expected at least one, each once")
    return found


def sit(
    exam: Exam,
    entries: Sequence[Contender],
    *,
    author: Callable[..., Author],
    draws: Sequence[tuple[int, Decoding]],
    sampler: Callable[..., list[Response]],
    judge: Callable[..., list[Execution]],
    processes: int,
    progress: Callable[[str], Callable[[int, int], None]] | None = None,
) -> Sat:
    """Every contender answers every problem of the exam, the answers are executed and scored.

    `author` is `sample.Author`, `sampler` `sample.sample` and `judge` `execution.execute` with
    everything bound that is the same for all exams; `progress` makes a tick for what it is told.
    """
    ticks = [progress(f"{exam.name}, {what}") if progress else None for what in STEPS]
    asked = {"author": author, "draws": draws, "sampler": sampler, "processes": processes}
    responses = responses_of(entries, exam.problems, **asked, progress=ticks[0])
    executions = judge(exam.problems, responses, limits=exam.limits, progress=ticks[1])
    scores = score(exam.problems, executions, benchmark=exam.name, family=exam.family)
    return Sat(exam, tuple(responses), tuple(executions), tuple(scores))


def responses_of(
    entries: Sequence[Contender],
    problems: Sequence[Problem],
    *,
    author: Callable[..., Author],
    draws: Sequence[tuple[int, Decoding]],
    sampler: Callable[..., list[Response]],
    processes: int,
    progress: Callable[[int, int], None] | None = None,
) -> list[Response]:
    """The answers of every contender to every problem: `draws` are (n, decoding) pairs.

    `author` and `sampler` as `sit`; the sampler is called in `processes` processes, one model and
    decoding a call. Neither the order of the result nor its content depends on their number.
    """
    jobs = [
        (entry.author(author, decoding.temperature), n, decoding)
        for entry in entries
        for n, decoding in draws
    ]
    found: dict[int, list[Response]] = {}
    ended = side_by_side(partial(_ask, sampler, problems), jobs, processes=processes)
    for number, answers in ended:
        found[number] = answers
        if progress:
            progress(len(found), len(jobs))
    every = [response for number in sorted(found) for response in found[number]]
    lost = Counter(one.source for one in every if one.finish_reason == NOTHING.finish_reason)
    for source, count in lost.items():
        note(f"{source}: {count} answers to prompts that leave no room count as failed")
    return every


def _ask(
    sampler: Callable[..., list[Response]],
    problems: Sequence[Problem],
    job: tuple[Author, int, Decoding],
) -> list[Response]:
    """The answers of one job; a prompt that its model cannot hold has empty ones, which fail."""
    author, n, decoding = job
    found = sampler(problems, author, n_samples=n, decodings=[decoding])
    answered = {response.task_id for response in found}
    silent = [problem for problem in problems if problem.task_id not in answered]
    told = {"source": author.source, "temperature": decoding.temperature}
    return found + prompts.responses(silent, [[NOTHING] * n for _ in silent], **told)


def score(
    problems: Sequence[Problem],
    executions: Sequence[Execution],
    *,
    benchmark: str = "nano",
    family: Callable[[Problem], str] | None = None,
    allow_missing: bool = False,
) -> list[TaskScore]:
    """How many answers of every source pass, task by task, in the order of `problems`.

    The sources are labels (`label`). `family` groups tasks that resemble each other; without it
    every task stands alone. ValueError for an unknown task, an index that comes twice, or (unless
    `allow_missing`) a task that a source has not answered.
    """
    tasks = {problem.task_id: problem for problem in problems}
    passed: dict[tuple[str, str], dict[int, bool]] = defaultdict(dict)
    for run in executions:
        if run.task_id not in tasks:
            raise ValueError(f"{run.task_id}: executed for {run.source} but not among the problems")
        samples = passed[run.source, run.task_id]
        if run.index in samples:
            raise ValueError(f"{run.task_id}: answer {run.index} of {run.source} comes twice")
        samples[run.index] = run.outcome == Outcome.PASS
    scores = []
    for source in dict.fromkeys(run.source for run in executions):
        method, seed, temperature = parse_label(source)
        for name, problem in tasks.items():
            samples = passed.get((source, name))
            if not samples and allow_missing:
                continue
            if not samples:
                raise ValueError(f"{name}: no answer of {source}")
            group = family(problem) if family else name
            n, c = len(samples), sum(samples.values())
            scores.append(TaskScore(method, benchmark, name, n, c, seed, temperature, group))
    return scores


CAUTION = (
    "flagged tasks are those that an audit found in the training rows; they are easier than the "
    "others on average, so the gap is not what the leak is worth: read the rate on the clean ones, "
    "and compare models that were trained on these rows with models that were not"
)


def leaks_of(rows: Iterable[tuple[int, Any]], file: str) -> list[Leak]:
    """The findings in (line number, row) of the verb `audit` that its rule does not call chance."""
    return [
        store.from_row(row, Leak, f"{file}:{number}")
        for number, row in rows
        if not (isinstance(row, dict) and row.get("chance"))
    ]


def flagged_tasks(leaks: Sequence[Leak], benchmark: str) -> set[str]:
    """The tasks of `benchmark` that some leak names.

    ValueError where all leaks are of other benchmarks: a wrong file, or a wrong name.
    """
    found = {leak.benchmark_task_id for leak in leaks if leak.benchmark == benchmark}
    if leaks and not found:
        others = ", ".join(sorted({leak.benchmark for leak in leaks}))
        raise ValueError(f"no leak of {benchmark}: these are of {others}")
    return found


def by_leak(
    scores: Sequence[TaskScore], flagged: Collection[str], *, ks: Sequence[int] = ()
) -> dict[str, list[Result]]:
    """`by_part` of all tasks, the clean and the `flagged` ones; besides `ks` it has pass@1."""
    tasks = {row.task_id for row in scores}
    parts = {"all": tasks, "clean": tasks - {*flagged}, "flagged": flagged}
    return by_part(scores, parts, [1, *ks])
