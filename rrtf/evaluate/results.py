"""Rates with their intervals, the planned comparisons, and sentences that claim no more."""

import math
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, pairwise
from typing import Any, TypeVar

from rrtf import stats
from rrtf.records import Execution, TaskScore
from rrtf.stats import Estimate, Metric, label


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
KS = (1, 10, 100)  # of pass@k, where nobody asks for others
ALPHA = 0.05  # level of every test here


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
    """Those pass@k of `ks` that the fewest samples of a task allow, of one model under `name`.

    The intervals cover the choice of tasks (`stats.rate`).
    """
    least = min(row.n for row in scores)
    groups = [row.family or row.task_id for row in scores]
    who = {"n_tasks": len(scores), "n_samples": least, "seed": scores[0].seed, "n_seeds": 1}
    return [
        _result(
            name,
            scores[0].benchmark,
            f"pass@{k}",
            stats.rate([stats.pass_at_k(row.n, row.c, k) for row in scores], groups),
            **who,
        )
        for k in sorted({*ks})
        if k <= least
    ]


def _result(
    model: str, benchmark: str, metric: str, found: tuple[Estimate, str], **counts: int | None
) -> Result:
    estimate, how = found
    spread = {"value": estimate.value, "low": estimate.low, "high": estimate.high}
    return Result(model, benchmark, metric, **spread, **counts, interval=how)


def families(scores: Sequence[TaskScore]) -> list[str]:
    """The family of every task, tasks in order of id."""
    of = {row.task_id: row.family or row.task_id for row in scores}
    return [group for _, group in sorted(of.items())]


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
        cells[row.metric] = _percent(row, 1)
        cells["trainings"] = str(max(row.n_seeds, int(cells.get("trainings", 0))))
    return list(table.values())


def panels(rows: Sequence[Result]) -> dict[str, list[tuple[str, float, float, float]]]:
    """Metric -> (model, value, low, high) of every row, as `charts.intervals` takes them."""
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
    for training, rate in found.items():
        counts = {"n_tasks": len(groups), "n_samples": n_samples, "seed": training}
        counts["n_seeds"] = len(by_seed) if training is None else 1
        yield _result(method, scores[0].benchmark, metric.name, rate, **counts)


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
    first = [row for row in rows if row.table == "primary"]
    return corrected(first) + corrected([row for row in rows if row.table == "secondary"])


def corrected(rows: Sequence[Comparison]) -> list[Comparison]:
    """The same with p_holm after Holm's correction over all of them."""
    adjusted = stats.holm([row.p for row in rows])
    return [replace(row, p_holm=p) for row, p in zip(rows, adjusted, strict=True)]


def uncompared(scores: Sequence[TaskScore], contrasts: Sequence[str]) -> str:
    """The contrasts that `comparisons` leaves out, in a sentence; `''` where it has them all."""
    there = set(methods(scores))
    left = [contrast for contrast in contrasts if not {*parse_contrast(contrast)} <= there]
    lacking = sorted({name for contrast in left for name in parse_contrast(contrast)} - there)
    if not left:
        return ""
    return f"Not compared, for want of {', '.join(lacking)}: {'; '.join(left)}."


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
    them whole; McNemar's is for tasks that stand alone and have one answer, right or not.
    """
    groups = families(scores)
    alone = len(set(groups)) == len(groups)
    asked = (row for row in scores if row.temperature == metric.temperature)
    answers = {row.n for row in asked if row.model in (a, b)}
    estimate, left, right = _difference(scores, a, b, metric)
    means = [[sum(task) / len(task) for task in zip(*side, strict=True)] for side in (left, right)]
    per_task = [x - y for x, y in zip(*means, strict=True)]
    p_tasks = stats.permutation(per_task, groups, seed=seed)
    if len(left) > 1 or len(right) > 1:
        p, test = stats.t_test(estimate), "t, seeds x families"
    elif alone and answers == {1}:
        only_a, only_b = sum(d > 0 for d in per_task), sum(d < 0 for d in per_task)
        p, test = stats.mcnemar(only_a, only_b), "exact McNemar"
    else:
        p, test = p_tasks, f"paired permutation over {'tasks' if alone else 'families'}"
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


def differences(rows: Sequence[Comparison]) -> list[tuple[str, float, float, float, bool]]:
    """(name, difference, low, high, told apart) of each, as `charts.differences` takes them."""
    return [
        (f"{row.a} - {row.b}", row.difference, row.low, row.high, row.p_holm < ALPHA)
        for row in rows
    ]


def verdict(row: Comparison) -> str:
    """`better`, `worse`, `no difference` (within the margin) or `undecided`, by a's side."""
    if row.p_holm < ALPHA:
        return "better" if row.difference > 0 else "worse"
    return "no difference" if row.p_equivalence < ALPHA else "undecided"


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
            size = f"a true one of {100 * row.detectable:.1f} points"
            size = f"{size if row.detectable <= 1 else 'none, however large,'} would be found"
            return f"{found}: {said}; {size} four times in five (p = {row.p_holm:.2g}; {trials})."
        case found_to_be:
            small = row.p_equivalence < ALPHA
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


ESTIMAND = (
    "pass@k is the mean over tasks of the chance that k samples, drawn from the n of a task, hold "
    "a right one (Chen et al. 2021); its interval covers the choice of tasks"
)
_STANDING = {None: "", True: "told apart", False: "not told apart"}


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
    """Entries by rank, and every pair of them: `a` is the better one, `b` the other.

    `noise` says where that of their differences comes from, '' where there are no pairs.
    """

    benchmark: str
    n_tasks: int
    n_families: int
    entries: tuple[Entry, ...]
    pairs: tuple[Comparison, ...]
    noise: str


def board(
    scores: Sequence[TaskScore], *, ks: Sequence[int] = KS, margin: float, seed: int
) -> Board:
    """Entries ranked by pass@1 on the tasks they all answered, and all paired tests.

    Every entry gets those of `ks` that its n allows. Two entries of one sample per task are
    compared by McNemar's exact test, others, and tasks that come in families, by a permutation
    of the paired differences; Holm's correction runs over all pairs. Differences within
    `margin` (a share of tasks) count as none. ValueError for no scores, several benchmarks, or no
    common task.
    """
    if len({row.benchmark for row in scores}) != 1:
        found = ", ".join(sorted({row.benchmark for row in scores})) or "none"
        raise ValueError(f"a leaderboard is of one benchmark; these scores are of: {found}")
    entries = by_entry(scores)
    common = set.intersection(*({row.task_id for row in rows} for rows in entries.values()))
    if not common:
        raise ValueError(f"{', '.join(entries)}: no task that all of them answered")
    used = {name: [row for row in rows if row.task_id in common] for name, rows in entries.items()}
    found = {name: rates(name, rows, [1, *ks]) for name, rows in used.items()}
    order = sorted(used, key=lambda name: -found[name][0].value)
    pairs = _pairs(used, order, margin=margin, seed=seed)
    apart = {row.b: row.p_holm < ALPHA for row in pairs if row.a == order[0]}
    ranked = [
        Entry(
            name=name,
            rank=1 + sum(found[other][0].value > found[name][0].value + 1e-12 for other in used),
            n_answered=len(entries[name]),
            n_samples=(min(row.n for row in used[name]), max(row.n for row in used[name])),
            told_apart=apart.get(name),
            rates=tuple(found[name]),
        )
        for name in order
    ]
    n_families = len(set(families(used[order[0]])))
    counts, entries = (len(common), n_families), (tuple(ranked), tuple(pairs))
    return Board(scores[0].benchmark, *counts, *entries, _noise(used, order) if pairs else "")


def by_entry(scores: Sequence[TaskScore]) -> dict[str, list[TaskScore]]:
    """Entry -> its scores by task id; an entry is a model, its label where a model comes twice."""
    names = _short_names(scores)
    found: dict[str, list[TaskScore]] = defaultdict(list)
    for row in sorted(scores, key=lambda row: row.task_id):
        found[names[_of(row)]].append(row)
    return {name: found[name] for name in names.values()}


def _of(row: TaskScore) -> tuple[str, int, float]:
    return row.model, row.seed, row.temperature


def _short_names(scores: Sequence[TaskScore]) -> dict[tuple[str, int, float], str]:
    """(model, seed, temperature) -> the model, or its whole label where one model comes twice."""
    distinct = list(dict.fromkeys(map(_of, scores)))
    models = [model for model, _, _ in distinct]
    return {key: key[0] if models.count(key[0]) == 1 else label(*key) for key in distinct}


def by_part(
    scores: Sequence[TaskScore], parts: Mapping[str, Collection[str]], ks: Sequence[int]
) -> dict[str, list[Result]]:
    """Part -> pass@k of every entry on its tasks of that part, for those of `ks` that it allows.

    An entry allows a k that it has samples for of all its tasks, whatever their part.
    """
    found: dict[str, list[Result]] = {part: [] for part in parts}
    for name, rows in by_entry(scores).items():
        least = min(row.n for row in rows)
        allowed = [k for k in ks if k <= least]
        for part, tasks in parts.items():
            own = [row for row in rows if row.task_id in tasks]
            found[part] += rates(name, own, allowed) if own else []
    return found


def _pairs(
    entries: Mapping[str, Sequence[TaskScore]], order: Sequence[str], *, margin: float, seed: int
) -> list[Comparison]:
    """pass@1 of every pair, the better first; none where there are too few tasks for a test."""
    if len(set(families(entries[order[0]]))) < 2:
        return []
    as_one = {name: _as_one(rows, name) for name, rows in entries.items()}
    how = {"margin": margin, "seed": seed, "table": "all pairs"}
    found = [
        replace(compare(as_one[a] + as_one[b], a, b, AS_ONE, **how), metric="pass@1")
        for a, b in combinations(order, 2)
    ]
    return corrected(found)


SOUGHT = 0.02  # the difference for which a board says how many samples would show it


def _noise(entries: Mapping[str, Sequence[TaskScore]], order: Sequence[str]) -> str:
    """How much of the differences' variance is what, on average, and what would show SOUGHT."""
    shares = {name: [row.c / row.n for row in rows] for name, rows in entries.items()}
    counts = {name: [row.n for row in rows] for name, rows in entries.items()}
    groups = families(entries[order[0]])
    found = [
        stats.noise([shares[a]], [shares[b]], (counts[a], counts[b]), groups)
        for a, b in combinations(order, 2)
    ]
    mean = stats.Noise(
        *(sum(getattr(one, part) for one in found) / len(found) for part in stats.Noise.__slots__)
    )
    least, known = min(map(min, counts.values())), not math.isnan(mean.samples)
    share = round(100 * mean.samples / mean.whole) if known else 0
    parts = (
        f"{100 - share} % the choice of tasks, {share} % the samples"
        if known
        else "the choice of tasks and the samples, not to be told apart by one sample a task"
    )
    times = mean.more_samples(SOUGHT)
    needed = "no number of samples, but with"
    if times < math.inf:
        at_least = "" if known else "at least "
        needed = f"{at_least}{math.ceil(least * times):,} samples a task, or with"
    more = math.ceil(len(groups) * mean.more_tasks(SOUGHT))
    return (
        f"noise of these differences (variance, mean of the pairs): {parts}, none training seeds "
        f"(each entry is one model); {100 * SOUGHT:g} points would be found four times in five "
        f"with {needed} {more:,} such tasks"
    )


AS_ONE = Metric(1, 0.0)  # of entries whose seed and temperature are put aside


def _as_one(rows: Sequence[TaskScore], name: str) -> list[TaskScore]:
    return [replace(row, model=name, seed=0, temperature=AS_ONE.temperature) for row in rows]


def mark(row: Comparison) -> str:
    """`*` told apart, `=` equal within the margin, else nothing: undecided."""
    return {"better": "*", "worse": "*", "no difference": "="}.get(verdict(row), "")


def matrix(found: Board) -> dict[tuple[str, str], str]:
    """(better, other) -> how far ahead in points, with its `mark`: `+4.3*`."""
    return {(row.a, row.b): f"{points(row.difference)}{mark(row)}" for row in found.pairs}


def board_panels(found: Board) -> dict[str, list[tuple[str, float, float, float]]]:
    """Metric -> (entry, value, low, high) by rank, as `charts.intervals` takes them."""
    every = panels([rate for entry in found.entries for rate in entry.rates])
    return {metric: rows for metric, rows in every.items() if len(rows) == len(found.entries)}


def rows(found: Board) -> list[dict[str, Any]]:
    """The board as rows of a table: rates in percent with their intervals."""
    return [
        {"#": entry.rank, "entry": entry.name, "n": entry.n_samples[0]}
        | {rate.metric: _percent(rate, 2) for rate in entry.rates}
        | {"from the first": _STANDING[entry.told_apart]}
        for entry in found.entries
    ]


def rate_row(rate: Result) -> dict[str, Any]:
    """A rate as numbers of a row, in percent: for tables that leave the house."""
    shares = ((name, getattr(rate, name)) for name in ("value", "low", "high"))
    spread = {name: round(100 * share, 2) if share == share else None for name, share in shares}
    counts = {"tasks": rate.n_tasks, "samples": rate.n_samples, "interval": rate.interval}
    return {"metric": rate.metric, "percent": spread.pop("value")} | spread | counts


def tables(found: Board) -> dict[str, list[dict[str, Any]]]:
    """`board` (a row for each rate of an entry) and `pairs` (in points), as rows of numbers."""
    board = [
        {"rank": entry.rank, "entry": entry.name} | rate_row(rate)
        | {"from the first": _STANDING[entry.told_apart]}
        for entry in found.entries for rate in entry.rates
    ]  # fmt: skip
    pairs = [
        {"entry": row.a, "other": row.b, "metric": row.metric}
        | {name: float(points(share)) for name, share in (
            ("points", row.difference), ("low", row.low), ("high", row.high))}
        | {"p": float(f"{row.p_holm:.2g}"), "test": row.test, "verdict": verdict(row)}
        for row in found.pairs
    ]  # fmt: skip
    return {"board": board, "pairs": pairs}


def _percent(rate: Result, digits: int) -> str:
    value, low, high = (f"{100 * share:.{digits}f}" for share in (rate.value, rate.low, rate.high))
    return f"{value} [{low}, {high}]"


def alike(
    scores: Sequence[TaskScore], executions: Sequence[Execution]
) -> tuple[list[TaskScore], list[Execution]]:
    """Both with one short name per entry, as if all had been drawn alike: for `cases`.

    A task then counts as solved by an entry if any of its samples solves it.
    """
    names = _short_names(scores)
    sources = {label(*key): label(name, 0, 0.0) for key, name in names.items()}
    renamed = [one for row in scores for one in _as_one([row], names[_of(row)])]
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
    sizes = sorted({row.detectable for row in found.pairs})
    ends = dict.fromkeys(f"{100 * size:.1f}" for size in (sizes[0], sizes[-1]) if size <= 1)
    size = f"a true difference of {' to '.join(ends)} points" if ends else "none, however large,"
    lines.append(
        f"differences of pass@1, task by task; {tests}, after Holm over all pairs "
        f"({len(found.pairs)}), level {ALPHA:g}; one pair alone would find {size} four times in "
        f"five"
    )
    lines.append(found.noise)
    open_ = [entry.name for entry in found.entries if entry.told_apart is False]
    if open_:
        lines.append(f"~ not told apart from {found.entries[0].name}: {', '.join(open_)}")
    return lines
