"""What is measured of the models: scores as grids of seeds and tasks, results, comparisons.

A source of evaluated answers is labelled `method/seed@temperature`; `rrtf/2@0.8` is RRTF,
training seed 2, sampled at temperature 0.8, and `@0` is greedy.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from rrtf import stats
from rrtf.measures import Metric
from rrtf.records import TaskScore


@dataclass(frozen=True, slots=True)
class Result:
    """One rate with its 95 % interval; `seed` is None for the mean over `n_seeds` trainings."""

    model: str
    benchmark: str
    metric: str
    value: float
    low: float
    high: float
    n_tasks: int
    n_samples: int
    seed: int | None
    n_seeds: int
    interval: str


Row = TypeVar("Row", TaskScore, Result)


@dataclass(frozen=True, slots=True)
class Comparison:
    """a - b on the same tasks. Rates and differences are shares of tasks, not points.

    `p` belongs to `test`, `p_holm` is adjusted within `table` (`primary` or `secondary`);
    `p_tasks` asks only whether these models differ beyond the choice of tasks; `p_equivalence`
    is small where the difference surely lies within +-`margin`; `detectable` is the true
    difference that an experiment of this size would find four times in five.
    """

    a: str
    b: str
    benchmark: str
    metric: str
    difference: float
    low: float
    high: float
    p: float
    test: str
    p_holm: float
    p_tasks: float
    p_equivalence: float
    margin: float
    detectable: float
    n_tasks: int
    n_families: int
    n_seeds_a: int
    n_seeds_b: int
    table: str


def by_benchmark(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The rows of every benchmark, in order of appearance."""
    found: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        found[row.benchmark].append(row)
    return dict(found)


def methods(scores: Sequence[TaskScore]) -> list[str]:
    """The methods that were scored, in order of appearance."""
    return list(dict.fromkeys(row.model for row in scores))


def grid(scores: Sequence[TaskScore], method: str, metric: Metric) -> dict[int, list[float]]:
    """Training seed -> pass@k of every task, tasks in order of id. ValueError if there is none."""
    rows: dict[int, dict[str, float]] = defaultdict(dict)
    for row in scores:
        if row.model == method and row.temperature == metric.temperature:
            rows[row.seed][row.task_id] = stats.pass_at_k(row.n, row.c, metric.k)
    if not rows:
        raise ValueError(f"{method}: no scores for {metric.name}")
    return {seed: [tasks[name] for name in sorted(tasks)] for seed, tasks in sorted(rows.items())}


def rates(name: str, scores: Sequence[TaskScore], ks: Sequence[int]) -> list[Result]:
    """pass@1 and those of `ks` that the fewest samples of a task allow, of one model under `name`.

    The intervals cover the choice of tasks (`stats.rate`).
    """
    least, found = min(row.n for row in scores), []
    for k in (k for k in sorted({1, *ks}) if k <= least):
        values = [stats.pass_at_k(row.n, row.c, k) for row in scores]
        estimate, how = stats.rate(values, [row.family or row.task_id for row in scores])
        found.append(
            Result(
                model=name,
                benchmark=scores[0].benchmark,
                metric=f"pass@{k}",
                value=estimate.value,
                low=estimate.low,
                high=estimate.high,
                n_tasks=len(values),
                n_samples=least,
                seed=scores[0].seed,
                n_seeds=1,
                interval=how,
            )
        )
    return found


def families(scores: Sequence[TaskScore]) -> list[str]:
    """The family of every task, tasks in order of id."""
    return [group for _, group in sorted({row.task_id: row.family for row in scores}.items())]


def parse_contrast(text: str) -> tuple[str, str]:
    """`"rrtf - sft-kept"` -> `("rrtf", "sft-kept")`; ValueError for another form."""
    a, sign, b = text.partition(" - ")
    if not (a.strip() and sign and b.strip()):
        raise ValueError(f"contrast {text!r}: expected 'a - b'")
    return a.strip(), b.strip()


def measured(scores: Sequence[TaskScore]) -> tuple[Metric, Metric]:
    """(greedy pass@1, pass@n of the sampled answers), n being how many were drawn per task."""
    warmest = max(row.temperature for row in scores)
    if warmest == 0 or min(row.temperature for row in scores) != 0:
        raise ValueError("the scores hold no greedy or no sampled answers")
    return Metric(1, 0.0), Metric(max(row.n for row in scores), warmest)


def headline(rows: Sequence[Result]) -> list[Result]:
    """One row per model, benchmark and metric: the mean over seeds where there are several."""
    best: dict[tuple[str, str, str], Result] = {}
    for row in rows:
        key = (row.model, row.benchmark, row.metric)
        if key not in best or row.n_seeds > best[key].n_seeds:
            best[key] = row
    return list(best.values())


def key_figures(rows: Sequence[Result]) -> dict[str, float]:
    """`model metric` -> percent on the first benchmark, one decimal."""
    first = [row for row in rows if row.benchmark == rows[0].benchmark]
    return {f"{row.model} {row.metric}": round(100 * row.value, 1) for row in first}


def by_model(rows: Sequence[Result]) -> list[dict[str, str]]:
    """One table row per model, one column per metric: `52.3 [48.4, 56.2]`, in percent."""
    table: dict[str, dict[str, str]] = {}
    for row in rows:
        cells = table.setdefault(row.model, {"model": row.model})
        shown = (100 * row.value, 100 * row.low, 100 * row.high)
        cells[row.metric] = "{:.1f} [{:.1f}, {:.1f}]".format(*shown)
        cells["trainings"] = str(max(row.n_seeds, int(cells.get("trainings", 0))))
    return list(table.values())


def panels(rows: Sequence[Result]) -> dict[str, list[tuple[str, float, float, float]]]:
    """Metric -> (model, value, low, high) of every row, as `figures.intervals` takes them."""
    found: dict[str, list[tuple[str, float, float, float]]] = {}
    for row in rows:
        found.setdefault(row.metric, []).append((row.model, row.value, row.low, row.high))
    return found


def curves(scores: Sequence[TaskScore]) -> dict[str, list[tuple[int, float]]]:
    """Method -> (k, pass@k in percent) for every k up to the samples drawn, means over seeds."""
    _, widest = measured(scores)
    found: dict[str, list[tuple[int, float]]] = {}
    for method in methods(scores):
        for k in range(1, widest.k + 1):
            rows = grid(scores, method, Metric(k, widest.temperature)).values()
            values = [value for row in rows for value in row]
            found.setdefault(method, []).append((k, 100 * sum(values) / len(values)))
    return found
