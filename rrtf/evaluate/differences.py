"""Rates with their intervals, the planned comparisons, and sentences that claim no more."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise

from rrtf import stats
from rrtf.measures import Metric
from rrtf.metrics import Comparison, Result, by_benchmark, families, grid, methods, parse_contrast
from rrtf.records import TaskScore
from rrtf.stats import Estimate

PARTS = {
    ("sft", "base"): "imitating the teacher",
    ("sft-kept", "sft"): "the tests as a filter",
    ("rrtf", "sft-kept"): "the ranking loss",
}


def results(scores: Sequence[TaskScore], metrics: Sequence[Metric]) -> list[Result]:
    """Every benchmark, metric, method and training seed with its interval, and means over seeds.

    The intervals of one model are those of `stats.rate` (the choice of tasks), those of means
    over trainings `stats.mean_rate` (tasks and seeds).
    """
    return [
        row
        for found in by_benchmark(scores).values()
        for metric in metrics
        for method in methods(found)
        for row in _results(found, method, metric)
    ]


def _results(scores: Sequence[TaskScore], method: str, metric: Metric) -> Iterator[Result]:
    """One method on one benchmark: the mean over its trainings if there are several, and each."""
    groups, by_seed = families(scores), grid(scores, method, metric)
    n_samples = max(row.n for row in scores if row.temperature == metric.temperature)
    found: dict[int | None, tuple[Estimate, str]] = {}
    if len(by_seed) > 1:
        mean = stats.mean_rate(list(by_seed.values()), groups)
        found[None] = mean, "Wilson, effective n of seeds and families"
    for training, values in by_seed.items():
        found[training] = stats.rate(values, groups)
    for training, (estimate, how) in found.items():
        yield Result(
            model=method, benchmark=scores[0].benchmark, metric=metric.name,
            value=estimate.value, low=estimate.low, high=estimate.high,
            n_tasks=len(groups), n_samples=n_samples, seed=training,
            n_seeds=len(by_seed) if training is None else 1, interval=how,
        )  # fmt: skip


def comparisons(
    scores: Sequence[TaskScore],
    metrics: Sequence[Metric],
    *,
    primary: Sequence[str],
    secondary: Sequence[str],
    margin: float,
    seed: int,
) -> list[Comparison]:
    """The contrasts `"a - b"`: the primary ones on the first benchmark and metric, others apart.

    Holm's correction runs within each of the two tables. A contrast with a method that was not
    evaluated is left out. `margin` is the share of tasks that counts as no difference.
    """
    rows: list[Comparison] = []
    for place, found in enumerate(by_benchmark(scores).values()):
        there = set(methods(found))
        for at, metric in enumerate(metrics):
            for contrast in (*primary, *secondary):
                first = place == at == 0 and contrast in primary
                table = "primary" if first else "secondary"
                a, b = parse_contrast(contrast)
                if {a, b} <= there:
                    how = {"margin": margin, "seed": seed, "table": table}
                    rows.append(compare(found, a, b, metric, **how))
    for table in ("primary", "secondary"):
        at = [i for i, row in enumerate(rows) if row.table == table]
        for i, p in zip(at, stats.holm([rows[i].p for i in at]), strict=True):
            rows[i] = replace(rows[i], p_holm=p)
    return rows


def compare(
    scores: Sequence[TaskScore],
    a: str,
    b: str,
    metric: Metric,
    *,
    margin: float,
    seed: int,
    table: str,
) -> Comparison:
    """a - b on one metric, before any correction; the test follows the design.

    Several trainings call for one that knows about seeds, families of tasks for one that keeps
    them whole; McNemar's is for tasks that stand alone and are solved or not.
    """
    groups = families(scores)
    estimate, left, right = _difference(scores, a, b, metric)
    means = [[sum(task) / len(task) for task in zip(*side, strict=True)] for side in (left, right)]
    per_task = [x - y for x, y in zip(*means, strict=True)]
    p_tasks = stats.permutation(per_task, groups, seed=seed)
    if len(left) > 1 or len(right) > 1:
        p, test = stats.t_test(estimate), "t, seeds x families"
    elif metric.temperature == 0 and len(set(groups)) == len(groups):
        only_a, only_b = sum(d > 0 for d in per_task), sum(d < 0 for d in per_task)
        p, test = stats.mcnemar(only_a, only_b), "exact McNemar"
    else:
        unit = "tasks" if len(set(groups)) == len(groups) else "families"
        p, test = p_tasks, f"paired permutation over {unit}"
    return Comparison(
        a=a, b=b, benchmark=scores[0].benchmark, metric=metric.name, difference=estimate.value,
        low=estimate.low, high=estimate.high, p=p, test=test, p_holm=p, p_tasks=p_tasks,
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
        f"{row.a} - {row.b}, {row.benchmark}, {row.metric}: {points(row.difference)} points "
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
        "benchmark": row.benchmark,
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
