"""Grading samples that somebody brings: problems by name or file, verdicts, pass@k."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from pathlib import Path
from types import MappingProxyType
from typing import Any

from rrtf import benchmarks, config, execution, store
from rrtf.benchmarks import catalogue, tasks
from rrtf.evaluate.results import KS, Result, by_part
from rrtf.evaluate.samples import sizes
from rrtf.records import Execution, Outcome, Problem, Response, TaskScore
from rrtf.sandbox.executor import Limits

FIRST_FAILED = ("failed_test", "failed_line", "called", "expected", "got")  # of an `Execution`


def load_problems(
    name: str,
    *,
    data: Path | None = None,
    since: str | None = None,
    joint: bool = False,
    packages: Sequence[str] = (),
    progress: Callable[[int, int], None] | None = None,
) -> list[Problem]:
    """The problems of a benchmark (looked for in `data` first), or of a file in HumanEval form.

    `-` is standard input; the further options are those of `benchmarks.load`; a file's rows say in
    `DATES` when they were created. ValueError for a file without problems, one task_id on two
    lines, tests that are not in its `test` field, or no day where `since` asks; FileNotFoundError
    names the benchmarks that exist; OSError where a benchmark needs the sandbox and there is none.
    """
    path = Path(name)
    if name == "-" or (path.exists() and not path.is_dir()):
        rows = list(store.read_rows(path))
        return tasks.problems_of(_created_after(rows, since, name), file=name, joint=joint)
    if name in catalogue.names():
        try:
            how = {"joint": joint, "packages": packages, "progress": progress}
            return benchmarks.load(name, data=data, since=since, **how)
        except RuntimeError as error:
            raise OSError(str(error)) from error
    what = "a folder" if path.is_dir() else "no such file"
    known = ", ".join(catalogue.names())
    raise FileNotFoundError(f"{name}: {what}, and no benchmark's name (these are: {known})")


DATES = ("contest_date", "date")  # fields that hold an ISO date, LiveCodeBench's first


def _created_after(
    rows: Sequence[tuple[int, Any]], since: str | None, file: str
) -> Sequence[tuple[int, Any]]:
    """The rows created after a day, if one is given; ValueError names the first without its own."""
    if not since:
        return rows
    after, left = catalogue.day_of(since), []
    for number, row in rows:
        told = next((row[n] for n in DATES if row.get(n)), "") if isinstance(row, Mapping) else ""
        try:
            created = date.fromisoformat(str(told)[:10])
        except ValueError:
            fields = " or ".join(DATES)
            raise ValueError(
                f"{file}:{number}: --since {since} needs a day, as 2025-01-31, in {fields}"
            ) from None
        if created > after:
            left.append((number, row))
    if rows and not left:
        raise ValueError(f"{file}: no task of it was created after {since}")
    return left


def is_benchmark(name: str) -> bool:
    """Whether problems of this name are a benchmark's: a file of the same name comes first."""
    return name in catalogue.names() and not Path(name).is_file()


def refusals(name: str, *, data: Path | None = None, **options) -> list[str]:
    """What a benchmark of this name leaves out and why, one line per reason; [] for files.

    `options` are those of `benchmarks.refused`.
    """
    if not is_benchmark(name):
        return []
    reasons: dict[str, list[str]] = defaultdict(list)
    for task_id, reason in benchmarks.refused(name, data=data, **options).items():
        reasons[reason].append(task_id)
    return [
        f"{name} has {len(tasks)} more, refused because: {reason} ({', '.join(tasks)})"
        for reason, tasks in reasons.items()
    ]


def limits(
    name: str,
    *,
    cpu_seconds: float | None,
    wall_seconds: float | None,
    memory_mb: int,
    isolation: str,
) -> Limits:
    """The limits of the programs of a benchmark or file; seconds may be None.

    CPU seconds then are what the benchmark of this name asks for, for a file those of the profile
    nano; seconds of waiting three times as many.
    """
    if cpu_seconds is None:
        cpu_seconds = catalogue.entry(name).cpu_seconds if is_benchmark(name) else None
    cpu_seconds = cpu_seconds or config.resolve("nano", "rank")["cpu_seconds"]
    wall_seconds = wall_seconds or execution.WALL_PER_CPU * cpu_seconds
    return Limits(cpu_seconds, wall_seconds, memory_mb, isolation)


def groups(name: str, by: str, *, data: Path | None = None) -> dict[str, str]:
    """task_id -> its `difficulty` or `level`; ValueError where that is not known."""
    if not is_benchmark(name):
        raise ValueError(f"--by {by}: {name} is no benchmark, of which alone that is known")
    return catalogue.groups(name, by, data=data)


def execute(
    problems: Sequence[Problem],
    responses: Sequence[Response],
    *,
    progress: Callable[[int, int], None] | None = None,
    **options,
) -> list[Execution]:
    """`execution.execute` (its options) on the problems that have a response.

    OSError where the sandbox, or the cluster it is spread over, is not to be had here.
    """
    answered = {response.task_id for response in responses}
    asked = [problem for problem in problems if problem.task_id in answered]
    try:
        return execution.execute(asked, responses, progress=progress, **options)
    except (RuntimeError, ImportError) as error:
        raise OSError(str(error)) from error


def verdict(run: Execution, unstable: bool | None = None) -> dict[str, Any]:
    """One line of the output; which assertion failed first stands where one did."""
    row = {
        "task_id": run.task_id,
        "index": run.index,
        "passed": run.outcome == Outcome.PASS,
        "outcome": run.outcome.name,
        "reason": run.reason,
        "n_passed": run.n_passed,
        "n_tests": run.n_tests,
        "isolation": run.isolation,
    }
    row |= {name: value for name in FIRST_FAILED if (value := getattr(run, name))}
    return row if unstable is None else row | {"flaky": unstable}


def parse_ks(words: Sequence[str]) -> tuple[int, ...]:
    """`["1", "10", "100"]` -> (1, 10, 100), ascending; `KS` where there are none."""
    if not all(word.isdecimal() and int(word) for word in words):
        text = ",".join(words)
        raise ValueError(f"--k {text!r}: expected whole numbers from 1 on, as in 1,10,100")
    return tuple(sorted({int(word) for word in words})) or KS


def check_ks(responses: Sequence[Response], ks: Sequence[int]) -> None:
    """ValueError for a k that no entry has enough samples for."""
    most = max(min(of_task.values()) for of_task in sizes(responses).values())
    if max(ks) > most:
        raise ValueError(
            f"--k {max(ks)}: no entry has so many samples of every task, the most is {most}"
        )


def check_every_k(responses: Sequence[Response], ks: Sequence[int]) -> None:
    """ValueError that names a task with fewer samples than a k of `ks`."""
    for source, of_task in sizes(responses).items():
        least = min(of_task, key=of_task.get)
        if max(ks) > of_task[least]:
            who = f" of {source}" if source else ""
            raise ValueError(
                f"--k {max(ks)}: {least} has {of_task[least]} samples{who}; pass@k needs at least "
                "k of every task"
            )


def sample_rates(
    executions: Sequence[Execution],
    ks: Sequence[int],
    groups: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, list[Result]]:
    """`by_part` of every source, over the tasks it answered: under '' all of them, then by group.

    `groups` (task_id -> group) come in the order of their first tasks.
    """
    passed = sizes([run for run in executions if run.outcome == Outcome.PASS])
    scores = [
        TaskScore(source, "", task, n, passed.get(source, {}).get(task, 0))
        for source, of_task in sorted(sizes(executions).items())
        for task, n in of_task.items()
    ]
    parts = {"": {row.task_id for row in scores}}
    for task, group in groups.items():
        parts.setdefault(group, set()).add(task)
    return by_part(scores, parts, ks)
