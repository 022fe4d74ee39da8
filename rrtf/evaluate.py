"""What every trained model solves, how sure that is, and what it owes to which part of RRTF.

The notebook samples, executes, then scores; here is what happens before and after: who takes
part, the scores of executions, results with intervals, the planned comparisons, and sentences
that say of a comparison no more than it shows.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from rrtf import config, stats
from rrtf.metrics import (
    Comparison,
    Metric,
    Result,
    families,
    grid,
    label,
    methods,
    parse_contrast,
    parse_label,
)
from rrtf.records import Execution, Outcome, Problem, Response, TaskScore
from rrtf.stats import Estimate

ORDER = ("sft", "sft-kept", "sft-verified", "rrhf", "dpo", "rrtf")  # of tables and pictures
PARTS = {
    ("sft", "base"): "imitating the teacher",
    ("sft-kept", "sft"): "the tests as a filter",
    ("rrtf", "sft-kept"): "the ranking loss",
}


@dataclass(frozen=True, slots=True)
class Contender:
    """One model that is evaluated: its name in the tables, its training seed, where it lies."""

    method: str
    seed: int
    model: str


def contenders(
    runs: Sequence[Contender], folders: Sequence[Path], *, base: str | Path, teacher: str | Path
) -> list[Contender]:
    """The student before training, the teacher (if there is one), then every trained run.

    The runs stand in the order of `ORDER`, whatever order they were trained in.
    """
    fixed = [Contender("base", 0, str(base))]
    if str(teacher):
        fixed.append(Contender("teacher", 0, str(teacher)))
    pairs = zip(runs, folders, strict=True)
    trained = [Contender(run.method, run.seed, str(folder)) for run, folder in pairs]
    place = {name: at for at, name in enumerate(ORDER)}
    return fixed + sorted(trained, key=lambda c: (place.get(c.method, 99), c.method, c.seed))


def responses_of(
    entries: Sequence[Contender],
    problems: Sequence[Problem],
    sampler: Callable[..., list[Response]],
    *,
    n_samples: int,
    temperature: float,
    processes: int = 2,
    progress: Callable[[int, int], None] | None = None,
) -> list[Response]:
    """Of every contender one greedy answer and `n_samples` at `temperature` to every problem.

    `sampler` is `rrtf.sample.sample` with everything bound that is the same for all; it is called
    in `processes` processes of their own, one model and temperature a call. Neither the order of
    the result nor its content depends on their number.
    """
    jobs = [
        {"model": entry.model, "source": label(entry.method, entry.seed, warmth),
         "n_samples": n, "temperature": warmth}
        for entry in entries
        for n, warmth in ((1, 0.0), (n_samples, temperature))
    ]  # fmt: skip
    pool = ProcessPoolExecutor(processes, get_context("spawn"), config.set_threads, (1,))
    try:
        responses: list[Response] = []
        for done, answers in enumerate(pool.map(partial(_ask, sampler, problems), jobs), start=1):
            responses += answers
            if progress:
                progress(done, len(jobs))
    finally:
        pool.shutdown(cancel_futures=True)
    return responses


def _ask(
    sampler: Callable[..., list[Response]], problems: Sequence[Problem], job: Mapping[str, Any]
) -> list[Response]:
    return sampler(problems, **job)


def score(
    problems: Sequence[Problem],
    executions: Sequence[Execution],
    *,
    benchmark: str = "nano",
    family: Callable[[Problem], str] | None = None,
) -> list[TaskScore]:
    """How many answers of every source pass, task by task, in the order of `problems`.

    The sources are labels (`label`). `family` groups tasks that resemble each other; without it
    every task stands alone. ValueError for an unknown task, an index that comes twice, or a
    task that a source has not answered.
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
            if not samples:
                raise ValueError(f"{name}: no answer of {source}")
            group = family(problem) if family else name
            n, c = len(samples), sum(samples.values())
            scores.append(TaskScore(method, benchmark, name, n, c, seed, temperature, group))
    return scores


def results(scores: Sequence[TaskScore], metrics: Sequence[Metric], *, seed: int) -> list[Result]:
    """Every method, metric and training seed with its interval, and the means over seeds.

    Greedy counts of one model get Wilson's interval, sampled rates of one model a bootstrap over
    families (both: the choice of tasks), means over trainings `stats.crossed` (tasks and seeds).
    """
    groups, rows = families(scores), []
    for metric in metrics:
        n_samples = max(row.n for row in scores if row.temperature == metric.temperature)
        for method in methods(scores):
            by_seed = grid(scores, method, metric)
            found: dict[int | None, tuple[Estimate, str]] = {}
            if len(by_seed) > 1:
                found[None] = (
                    stats.crossed(list(by_seed.values()), clusters=groups),
                    "seeds x families, t",
                )
            for training, values in by_seed.items():
                found[training] = _interval(values, metric, groups, seed)
            rows += [
                Result(
                    model=method, benchmark=scores[0].benchmark, metric=metric.name,
                    value=estimate.value, low=max(0.0, estimate.low), high=min(1.0, estimate.high),
                    n_tasks=len(groups), n_samples=n_samples, seed=training,
                    n_seeds=len(by_seed) if training is None else 1, interval=how,
                )
                for training, (estimate, how) in found.items()
            ]  # fmt: skip
    return rows


def _interval(
    values: Sequence[float], metric: Metric, groups: Sequence[str], seed: int
) -> tuple[Estimate, str]:
    if metric.temperature == 0 and metric.k == 1:
        return stats.wilson(int(sum(values)), len(values)), "tasks, wilson"
    if len(set(values)) == 1:  # nothing varies that could be resampled
        return stats.crossed([values], clusters=groups), "families, t"
    return stats.bootstrap(values, groups, seed=seed), "families, bootstrap"


def comparisons(
    scores: Sequence[TaskScore],
    metrics: Sequence[Metric],
    *,
    primary: Sequence[str],
    secondary: Sequence[str],
    margin: float,
    seed: int,
) -> list[Comparison]:
    """The contrasts `"a - b"`: the primary ones on the first metric, all others listed apart.

    Holm's correction runs within each of the two tables. A contrast with a method that was not
    evaluated is left out. `margin` is the share of tasks that counts as no difference.
    """
    first, others = metrics[:1], metrics[1:]
    plan = [("primary", contrast, metric) for metric in first for contrast in primary]
    plan += [("secondary", contrast, metric) for metric in first for contrast in secondary]
    extra = [*primary, *secondary]
    plan += [("secondary", contrast, metric) for metric in others for contrast in extra]
    there, rows = set(methods(scores)), []
    for table, contrast, metric in plan:
        a, b = parse_contrast(contrast)
        if {a, b} <= there:
            rows.append(_compare(scores, a, b, metric, margin=margin, seed=seed, table=table))
    for table in ("primary", "secondary"):
        at = [i for i, row in enumerate(rows) if row.table == table]
        for i, p in zip(at, stats.holm([rows[i].p for i in at]), strict=True):
            rows[i] = replace(rows[i], p_holm=p)
    return rows


def _compare(
    scores: Sequence[TaskScore],
    a: str,
    b: str,
    metric: Metric,
    *,
    margin: float,
    seed: int,
    table: str,
) -> Comparison:
    """The test follows the design: several trainings call for one that knows about seeds."""
    groups = families(scores)
    estimate, left, right = _difference(scores, a, b, metric)
    means = [[sum(task) / len(task) for task in zip(*side, strict=True)] for side in (left, right)]
    per_task = [x - y for x, y in zip(*means, strict=True)]
    p_tasks = stats.permutation(per_task, groups, seed=seed)
    if len(left) > 1 or len(right) > 1:
        p, test = stats.t_test(estimate), "t, seeds x families"
    elif metric.temperature == 0:
        only_a, only_b = sum(d > 0 for d in per_task), sum(d < 0 for d in per_task)
        p, test = stats.mcnemar(only_a, only_b), "exact McNemar"
    else:
        p, test = p_tasks, "paired permutation over families"
    return Comparison(
        a=a, b=b, metric=metric.name, difference=estimate.value, low=estimate.low,
        high=estimate.high, p=p, test=test, p_holm=p, p_tasks=p_tasks,
        p_equivalence=stats.equivalence(estimate, margin=margin), margin=margin,
        detectable=stats.smallest_detectable(estimate.standard_error, estimate.df),
        n_tasks=len(groups), n_families=len(set(groups)), n_seeds_a=len(left),
        n_seeds_b=len(right), table=table,
    )  # fmt: skip


def _difference(
    scores: Sequence[TaskScore], a: str, b: str, metric: Metric
) -> tuple[Estimate, list[list[float]], list[list[float]]]:
    """a - b and both grids; equal sets of training seeds are paired."""
    left, right = grid(scores, a, metric), grid(scores, b, metric)
    paired = len(left) > 1 and left.keys() == right.keys()
    rows = list(left.values()), list(right.values())
    return stats.crossed(*rows, families(scores), paired=paired), *rows


def differences(rows: Sequence[Comparison]) -> list[tuple[str, float, float, float]]:
    """(name, difference, low, high) of every comparison, as `figures.differences` takes them."""
    return [(f"{row.a} - {row.b}", row.difference, row.low, row.high) for row in rows]


def verdict(row: Comparison, *, alpha: float = 0.05) -> str:
    """`better`, `worse`, `no difference` (within the margin) or `undecided`, by a's side."""
    if row.p_holm < alpha:
        return "better" if row.difference > 0 else "worse"
    return "no difference" if row.p_equivalence < alpha else "undecided"


def sentence(row: Comparison) -> str:
    """What a comparison shows, in words, and no more than that."""
    found = (
        f"{row.a} - {row.b}, {row.metric}: {points(row.difference)} points "
        f"[{points(row.low)}, {points(row.high)}]"
    )
    trials = f"{row.n_tasks} tasks, seeds {row.n_seeds_a} against {row.n_seeds_b}"
    match verdict(row):
        case "no difference":
            said = f"no difference of {100 * row.margin:g} points or more"
            return f"{found}: {said} (equivalence p = {row.p_equivalence:.2g}; {trials})."
        case "undecided":
            said = "neither a difference nor its absence is shown"
            smallest = f"{100 * row.detectable:.1f} points would be found four times in five"
            return f"{found}: {said}; a true one of {smallest} (p = {row.p_holm:.2g}; {trials})."
        case found_to_be:
            small = row.p_equivalence < 0.05
            said = f"{row.a} is {found_to_be}" + (
                f", by less than {100 * row.margin:g} points" if small else ""
            )
            return f"{found}: {said} (p = {row.p_holm:.2g} after Holm; {trials})."


def brief(row: Comparison) -> dict[str, str]:
    """A comparison as a table row of text."""
    return {
        "a - b": f"{row.a} - {row.b}",
        "metric": row.metric,
        "points": f"{points(row.difference)} [{points(row.low)}, {points(row.high)}]",
        "p": f"{row.p_holm:.2g}",
        "test": row.test,
        "verdict": verdict(row),
    }


def points(share: float) -> str:
    """A difference of shares in percentage points, signed: 0.041 -> `+4.1`."""
    return f"{round(100 * share, 1) + 0.0:+.1f}"  # + 0.0 turns -0.0 into 0.0


def gain_parts(
    scores: Sequence[TaskScore], metric: Metric, chain: Sequence[str]
) -> list[tuple[str, str, Estimate]]:
    """(a, b, a - b) along those of `chain` that were evaluated: they add up to last minus first."""
    there = [name for name in chain if name in methods(scores)]
    if len(there) < 2:
        raise ValueError(f"of {', '.join(chain)} only {there} were evaluated")
    return [(a, b, _difference(scores, a, b, metric)[0]) for b, a in pairwise(there)]


def ladder(
    rows: Sequence[Result], parts: Sequence[tuple[str, str, Estimate]]
) -> tuple[tuple[str, float], list[tuple[str, float, float, float]], str]:
    """(first method and its rate, the named steps, last method), as `figures.steps` takes them."""
    first = parts[0][1]
    start = next(row.value for row in rows if row.model == first)
    rises = [(f"{PARTS.get((a, b), b)} ({a})", e.value, e.low, e.high) for a, b, e in parts]
    return (first, start), rises, parts[-1][0]


def story(parts: Sequence[tuple[str, str, Estimate]]) -> str:
    """The chain base, sft, sft-kept, rrtf as one sentence: where RRTF's gain comes from."""
    whole = sum(estimate.value for _, _, estimate in parts)
    first, last = parts[0][1], parts[-1][0]
    told = "; ".join(
        f"{PARTS.get((a, b), f'{a} - {b}')} {points(e.value)} [{points(e.low)}, {points(e.high)}]"
        for a, b, e in parts
    )
    return f"From {first} to {last}: {points(whole)} points in all. Of these: {told}."
