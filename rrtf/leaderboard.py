"""Many models on one benchmark: who leads, and who cannot be told apart from the best.

An entry is one source of answers: a model, its training seed and its temperature. All rates, ranks
and tests speak of the same tasks, those that every entry answered. Rates cover the choice of tasks;
differences are paired task by task, and their tests corrected for the number of pairs.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

from rrtf import stats
from rrtf.evaluate import differences
from rrtf.grade import KS
from rrtf.measures import Metric, label
from rrtf.metrics import Comparison, Result, rates
from rrtf.records import Execution, TaskScore

ALPHA = 0.05
ESTIMAND = (
    "pass@k is the mean over tasks of the chance that k samples, drawn from the n of a task, hold "
    "a right one (Chen et al. 2021); its interval covers the choice of tasks"
)
_STANDING = {None: "", True: "told apart", False: "not told apart"}
Answers = Mapping[str, TaskScore]  # of one entry, by task


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the board; `rates` is pass@k by k, the first of them pass@1, which ranks.

    `n_answered` tasks were answered, of which the board's are a part; `n_samples` holds the fewest
    and the most samples of a task. `told_apart` says whether the first differs from it beyond
    chance (after Holm); None for the first itself, and where there was nothing to test.
    """

    name: str
    rank: int
    n_answered: int
    n_samples: tuple[int, int]
    told_apart: bool | None
    rates: tuple[Result, ...]


@dataclass(frozen=True, slots=True)
class Board:
    """Entries by rank, and every pair of them: `a` is the better one, `b` the other."""

    benchmark: str
    n_tasks: int
    n_families: int
    entries: tuple[Entry, ...]
    pairs: tuple[Comparison, ...]


def board(
    scores: Sequence[TaskScore], *, ks: Sequence[int] = KS, margin: float = 0.02, seed: int = 0
) -> Board:
    """Entries ranked by pass@1 on the tasks they all answered, and all paired tests.

    Every entry gets those of `ks` that its n allows. Two entries of one sample per task are
    compared by McNemar's exact test, others, and tasks that come in families, by a permutation
    of the paired differences; Holm's correction runs over all pairs. Differences within
    `margin` (a share of tasks) count as none. ValueError for no scores, a task that comes twice,
    several benchmarks, or no common task.
    """
    answers = by_entry(scores)
    common = sorted(set.intersection(*(set(of) for of in answers.values())))
    if not common:
        raise ValueError(f"{', '.join(answers)}: no task that all of them answered")
    used = {name: {task: of[task] for task in common} for name, of in answers.items()}
    found = {name: rates(name, list(of.values()), ks) for name, of in used.items()}
    order = sorted(used, key=lambda name: -found[name][0].value)
    pairs = _compared(used, order, margin=margin, seed=seed)
    entries = [
        Entry(
            name=name,
            rank=1 + sum(found[other][0].value > found[name][0].value + 1e-12 for other in used),
            n_answered=len(answers[name]),
            n_samples=_sizes(used[name]),
            told_apart=_told_apart(pairs, order[0], name),
            rates=tuple(found[name]),
        )
        for name in order
    ]
    groups = {row.family or row.task_id for row in used[order[0]].values()}
    return Board(scores[0].benchmark, len(common), len(groups), tuple(entries), tuple(pairs))


def by_entry(scores: Sequence[TaskScore]) -> dict[str, dict[str, TaskScore]]:
    """Entry -> task -> score, entries named as briefly as tells them apart.

    ValueError for no scores, those of several benchmarks, or a task that comes twice.
    """
    if len({row.benchmark for row in scores}) != 1:
        found = ", ".join(sorted({row.benchmark for row in scores})) or "none"
        raise ValueError(f"a leaderboard is of one benchmark; these scores are of: {found}")
    names = short_names((row.model, row.seed, row.temperature) for row in scores)
    found: dict[str, dict[str, TaskScore]] = {}
    for row in scores:
        name = names[row.model, row.seed, row.temperature]
        if row.task_id in found.setdefault(name, {}):
            raise ValueError(f"{row.task_id}: two scores of {name}")
        found[name][row.task_id] = row
    return found


def short_names(
    keys: Iterable[tuple[str, int, float]],
) -> dict[tuple[str, int, float], str]:
    """(model, seed, temperature) -> the model, or its whole label where one model comes twice."""
    distinct = list(dict.fromkeys(keys))
    models = [model for model, _, _ in distinct]
    return {key: key[0] if models.count(key[0]) == 1 else label(*key) for key in distinct}


def _sizes(answers: Answers) -> tuple[int, int]:
    counts = [row.n for row in answers.values()]
    return min(counts), max(counts)


def _families(answers: Answers) -> list[str]:
    return [row.family or row.task_id for row in answers.values()]


def _compared(
    answers: Mapping[str, Answers], order: Sequence[str], *, margin: float, seed: int
) -> list[Comparison]:
    """Every pair, the better entry first; none where there are too few tasks for a test."""
    if len(set(_families(answers[order[0]]))) < 2:
        return []
    found = [
        replace(_pair(answers[a], answers[b], margin=margin, seed=seed), a=a, b=b)
        for a, b in combinations(order, 2)
    ]
    adjusted = stats.holm([row.p for row in found])
    return [replace(row, p_holm=p) for row, p in zip(found, adjusted, strict=True)]


def _pair(a: Answers, b: Answers, *, margin: float, seed: int) -> Comparison:
    """pass@1 of two entries; McNemar where both are yes or no and every task stands alone."""
    single = all(row.n == 1 for side in (a, b) for row in side.values())
    alike = {"seed": 0, "temperature": 0.0 if single else 1.0}
    sides = {"a": a, "b": b}
    rows = [
        replace(row, model=name, family=row.family or row.task_id, **alike)
        for name, side in sides.items()
        for row in side.values()
    ]
    metric = Metric(1, alike["temperature"])
    how = {"margin": margin, "seed": seed, "table": "all pairs"}
    return replace(differences.compare(rows, "a", "b", metric, **how), metric="pass@1")


def _told_apart(pairs: Sequence[Comparison], first: str, name: str) -> bool | None:
    tests = [row.p_holm for row in pairs if (row.a, row.b) == (first, name)]
    return tests[0] < ALPHA if tests else None


def mark(row: Comparison) -> str:
    """`*` told apart, `=` equal within the margin, else nothing: undecided."""
    return {"better": "*", "worse": "*", "no difference": "="}.get(differences.verdict(row), "")


def matrix(found: Board) -> dict[tuple[str, str], str]:
    """(better, other) -> how far ahead in points, with its `mark`: `+4.3*`."""
    return {
        (row.a, row.b): f"{differences.points(row.difference)}{mark(row)}" for row in found.pairs
    }


def panels(found: Board) -> dict[str, list[tuple[str, float, float, float]]]:
    """Metric -> (entry, value, low, high) by rank, as `figures.intervals` takes them."""
    rates = [rate for entry in found.entries for rate in entry.rates]
    metrics = dict.fromkeys(rate.metric for rate in rates)
    every = {metric: [r for r in rates if r.metric == metric] for metric in metrics}
    whole = {metric: rows for metric, rows in every.items() if len(rows) == len(found.entries)}
    return {m: [(r.model, r.value, r.low, r.high) for r in rows] for m, rows in whole.items()}


def rows(found: Board) -> list[dict[str, Any]]:
    """The board as rows of a table: rates in percent with their intervals."""
    return [
        {"#": entry.rank, "entry": entry.name, "n": entry.n_samples[0]}
        | {r.metric: "{:.2f} [{:.2f}, {:.2f}]".format(*_percent(r)) for r in entry.rates}
        | {"from the first": _STANDING[entry.told_apart]}
        for entry in found.entries
    ]


def _percent(rate: Result) -> tuple[float, float, float]:
    return 100 * rate.value, 100 * rate.low, 100 * rate.high


def alike(
    scores: Sequence[TaskScore], executions: Sequence[Execution]
) -> tuple[list[TaskScore], list[Execution]]:
    """Both with one short name per entry, as if all had been drawn alike: for `cases`.

    A task then counts as solved by an entry if any of its samples solves it.
    """
    keys = [(row.model, row.seed, row.temperature) for row in scores]
    names = short_names(keys)
    sources = {label(*key): label(name, 0, 0.0) for key, name in names.items()}
    renamed = [
        replace(row, model=names[key], seed=0, temperature=0.0)
        for row, key in zip(scores, keys, strict=True)
    ]
    return renamed, [replace(run, source=sources[run.source]) for run in executions]


def notes(found: Board) -> list[str]:
    """What a reader must know to read the board: the tests, their power, what was left out."""
    lines = []
    short = [entry for entry in found.entries if entry.n_answered > found.n_tasks]
    if short:
        named = ", ".join(f"{entry.name} {entry.n_answered}" for entry in found.entries)
        lines.append(
            f"compared on the {found.n_tasks} tasks that all entries answered (answered: {named})"
        )
    kinds = dict.fromkeys(rate.interval for entry in found.entries for rate in entry.rates)
    lines.append(f"95 % intervals: {'; '.join(kinds)}")
    if not found.pairs:
        return lines
    tests = " and ".join(dict.fromkeys(row.test for row in found.pairs))
    points = sorted({f"{100 * row.detectable:.1f}" for row in found.pairs}, key=float)
    lines.append(
        f"differences of pass@1, task by task; {tests}, after Holm over all pairs "
        f"({len(found.pairs)}), level {ALPHA:g}; one pair alone would find a true difference of "
        f"{' to '.join(dict.fromkeys((points[0], points[-1])))} points four times in five"
    )
    open_ = [entry.name for entry in found.entries if entry.told_apart is False]
    if open_:
        lines.append(f"~ not told apart from {found.entries[0].name}: {', '.join(open_)}")
    return lines
