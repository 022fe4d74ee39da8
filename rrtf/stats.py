"""pass@k, intervals and paired tests: how sure a number is.

Three things vary between equal experiments: the sampled answers, the tasks of the benchmark, the
seed of the training. Every function says which of them its interval covers. Tasks that resemble
each other share a `cluster` and are resampled, flipped and averaged together. What covers and what
keeps its level is simulated by tests/benchmarks/bench_coverage.py.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


CONFIDENCE = 0.95
TAIL = (1 - CONFIDENCE) / 2
FEW_SEEDS = 3  # that so many agree does not show that seeds matter little
NORMAL = 1e9  # degrees of freedom: a t of more is a normal one


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its confidence interval; `standard_error` and `df` where a t lies behind it."""

    value: float
    low: float
    high: float
    standard_error: float = math.nan
    df: float = math.inf


@lru_cache(maxsize=65536)
def pass_at_k(n: int, c: int, k: int) -> float:
    """Chance that k of n samples, c of them correct, hold a correct one: 1 - C(n-c, k) / C(n, k).

    The unbiased estimator of Chen et al. 2021 (equation 1), in whole numbers up to one correctly
    rounded division, so it is exact to the last bit of a float also for n = 10,000. ValueError
    unless 0 <= c <= n and 1 <= k <= n.
    """
    if not (0 <= c <= n and 1 <= k <= n):
        raise ValueError(f"pass@k needs 0 <= c <= n and 1 <= k <= n, not n={n}, c={c}, k={k}")
    subsets = math.comb(n, k)
    return (subsets - math.comb(n - c, k)) / subsets


def rate(
    values: Sequence[float], clusters: Sequence[Hashable] | None = None
) -> tuple[Estimate, str]:
    """One model's mean over tasks with its interval, and how that was found.

    `values` are pass@k per task, in [0, 1]; the interval covers the choice of tasks (and the
    sampling noise inside them), whole `clusters` where tasks come in families. Tasks that are
    solved or not get Wilson's interval, all others that of `mean_rate`. A single task gets nan
    for an interval: it says nothing of others. Nothing is drawn, so it takes no seed.
    """
    data = _numbers(values, "values")
    families = clusters is not None and len(set(clusters)) < len(data)
    if set(data) <= {0.0, 1.0} and not families:
        return wilson(int(data.sum()), len(data)), "Wilson"
    if len(data if clusters is None else set(clusters)) == 1:
        alone = "one family" if families else "one task"
        return Estimate(float(data.mean()), math.nan, math.nan), f"none: {alone}"
    how = "Wilson, effective n" + (" of families" if families else "")
    return mean_rate([data], clusters), how


def mean_rate(
    rows: Sequence[Sequence[float]], clusters: Sequence[Hashable] | None = None
) -> Estimate:
    """Mean over training seeds and tasks of values in [0, 1]; covers the choice of both.

    `rows` holds T task values per seed. Wilson's interval at the effective number of yes/no tasks,
    p (1 - p) / variance, with Student's t in place of z; the variance is that of `crossed` with G
    for G - 1. A few tasks that carry all variance say little of it, so that of the tasks is pulled
    towards the largest possible, p (1 - p) for every cluster at once, with weight lean^2: `lean`
    is Herfindahl's index of the clusters' shares in the variance minus 1/G, 0 where they are even
    and near 1 where one cluster carries all. Chosen by simulation: tests/benchmarks/coverage.txt
    has it beside bootstraps and others, which under-cover near 0 and 1. ValueError for values
    outside [0, 1].
    """
    import numpy as np

    side = _matrix(rows, "rows")
    if side.min() < 0 or side.max() > 1:
        raise ValueError("a rate needs values between 0 and 1")
    value = float(side.mean())
    _, sizes = _cluster_sums(side[0], clusters)
    largest = value * (1 - value) * float(np.sum(sizes**2)) / sizes.sum() ** 2
    deviations, _ = _cluster_sums(side.mean(axis=0) - value, clusters)
    seen, weight = float(np.sum(deviations**2)) / sizes.sum() ** 2, _lean(deviations) ** 2
    tasks = (1 - weight) * seen + weight * largest
    parts = [(tasks, tasks**2 / (len(sizes) - 1)), *_seed_part(side, clusters)]
    variance, df = _combined(parts)
    df = min(df, len(sizes) - 1.0)
    n = value * (1 - value) / variance if variance else sizes.sum() ** 2 / np.sum(sizes**2)
    return Estimate(value, *_score_interval(value, variance, n, df), math.sqrt(variance), df)


def wilson(successes: int, n: int) -> Estimate:
    """A rate of yes/no tasks with Wilson's score interval; covers the choice of tasks."""
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"a rate needs 0 <= successes <= n and n >= 1, not {successes} of {n}")
    value = successes / n
    return Estimate(value, *_score_interval(value, value * (1 - value) / n, n, math.inf))


def _score_interval(value: float, variance: float, n: float, df: float) -> tuple[float, float]:
    """Wilson's interval of a rate of `n` tasks with this variance, with Student's t for z."""
    z = _quantile(df)
    middle, reach = value + z**2 / (2 * n), z * math.sqrt(variance + (z / (2 * n)) ** 2)
    low, high = (float((middle + sign * reach) / (1 + z**2 / n)) for sign in (-1, 1))
    return min(value, max(0.0, low)), max(value, min(1.0, high))


def bootstrap(
    values: Sequence[float],
    clusters: Sequence[Hashable] | None = None,
    *,
    seed: int,
    n_resamples: int = 10_000,
) -> Estimate:
    """Mean over tasks with a percentile interval; whole clusters are drawn with replacement.

    Covers the choice of tasks (and the sampling noise inside them). It needs variety to resample:
    two clusters at least, and some twenty before its coverage is near nominal. The same `seed`
    gives the same interval.
    """
    import numpy as np

    sums, sizes = _cluster_sums(values, clusters)
    draws = _draws(len(sums), n_resamples, seed)  # (R, G)
    means = (draws @ sums) / (draws @ sizes)  # (R,)
    low, high = np.quantile(means, [TAIL, 1 - TAIL])
    return Estimate(
        float(sums.sum() / sizes.sum()), float(low), float(high), float(means.std(ddof=1))
    )


@lru_cache(maxsize=2)
def _draws(n_clusters: int, n_resamples: int, seed: int) -> np.ndarray:
    """How often each cluster is drawn in each resample, (R, G); many rates share one design."""
    import numpy as np

    even = np.full(n_clusters, 1 / n_clusters)
    counts = np.random.default_rng(seed).multinomial(n_clusters, even, size=n_resamples)
    return counts.astype(float)


def crossed(
    a: Sequence[Sequence[float]],
    b: Sequence[Sequence[float]] | None = None,
    clusters: Sequence[Hashable] | None = None,
    *,
    paired: bool = False,
) -> Estimate:
    """Mean of `a`, or of a - b, over seeds x tasks; covers the choice of both.

    `a` and `b` hold one row of T task values per training seed, over the same tasks in the same
    order; their numbers of rows may differ. Seeds and tasks are crossed, so the two sources of
    variance add up:

    - tasks: average over seeds, take the difference task by task, then the variance of its mean
      over clusters, sum_g (sum_{t in g} (d_t - mean))^2 / T^2 * G / (G - 1), which is what a
      cluster bootstrap of the tasks converges to; where few clusters carry it, part of one more
      differing cluster is added (all of it if no tasks differ: nothing seen is not certainty);
    - seeds: var(mean of a seed) / S for each side with two seeds or more, or, if `paired` (row s
      of both sides was trained with the same seed, so on the same order of prompts), once for the
      differences of the rows, less what the noise of single cells adds to it, which the tasks
      count already (the residual of the two-way table; never below 0). A single seed shows no
      variance of its own, and the interval then speaks of that one model only.

    The degrees of freedom follow Satterthwaite (as in multi-reader studies, where readers and
    cases are crossed); up to `FEW_SEEDS` seeds count in them also where they vary no more than
    cells, without which the t test would exceed its level.
    """
    per_task, parts = _crossed_parts(a, b, clusters, paired)
    variance, df = _combined(parts)
    value, error = float(per_task.mean()), math.sqrt(variance)
    half = _quantile(df) * error
    return Estimate(value, value - half, value + half, error, df)


@dataclass(frozen=True, slots=True)
class Noise:
    """The variance of a difference of pass@1 by where it comes from.

    `samples` is NaN where a task has one sample: what they add is then part of `tasks`.
    """

    tasks: float
    samples: float
    seeds: float

    @property
    def whole(self) -> float:
        return self.tasks + self.seeds + (0.0 if math.isnan(self.samples) else self.samples)

    def more_samples(self, difference: float) -> float:
        """How many times the samples would find it four times in five; inf where none would.

        Where their part is not known: how many times they would at the least.
        """
        bar = (difference / smallest_detectable(1.0)) ** 2
        if math.isnan(self.samples):
            return self.tasks / (bar - self.seeds) if bar > self.seeds else math.inf
        room = bar - self.tasks - self.seeds
        return self.samples / room if room > 0 else math.inf

    def more_tasks(self, difference: float) -> float:
        """How many times the tasks would, with as many samples each; inf where none would."""
        bar = (difference / smallest_detectable(1.0)) ** 2
        return (self.whole - self.seeds) / (bar - self.seeds) if bar > self.seeds else math.inf


def noise(
    a: Sequence[Sequence[float]],
    b: Sequence[Sequence[float]],
    counts: tuple[Sequence[int], Sequence[int]],
    clusters: Sequence[Hashable] | None = None,
    *,
    paired: bool = False,
) -> Noise:
    """The variance that `crossed` finds in a - b, parted; `a` and `b` are shares of right samples.

    `counts`: how many samples of each task those of `a` and of `b` are. A share p of n samples
    varies by p (1 - p) / n around the task's own, of which p (1 - p) / (n - 1) is an unbiased
    estimate; the rest of the tasks' part is their choice (and what seeds do to single tasks).
    """
    import numpy as np

    _, parts = _crossed_parts(a, b, clusters, paired)
    seeds = sum(part for part, _ in parts[1:])
    sizes = [_numbers(side, "counts") for side in counts]  # (T,) each
    if min(side.min() for side in sizes) < 2:
        return Noise(parts[0][0], math.nan, seeds)
    sides = [_matrix(side, name) for side, name in ((a, "a"), (b, "b"))]
    samples = sum(
        float(np.sum(side * (1 - side) / (n - 1))) / side.size**2
        for side, n in zip(sides, sizes, strict=True)
    )
    return Noise(max(0.0, parts[0][0] - samples), samples, seeds)


def _crossed_parts(
    a: Sequence[Sequence[float]],
    b: Sequence[Sequence[float]] | None,
    clusters: Sequence[Hashable] | None,
    paired: bool,
) -> tuple[np.ndarray, list[tuple[float, float]]]:
    """(a or a - b per task, the variances of its mean with their doubts: tasks, then seeds)."""
    sides = [_matrix(a, "a")] if b is None else [_matrix(a, "a"), _matrix(b, "b")]
    if b is not None and sides[0].shape[1] != sides[1].shape[1]:
        raise ValueError(f"a has {sides[0].shape[1]} tasks but b has {sides[1].shape[1]}")
    means = [side.mean(axis=0) for side in sides]  # (T,) each
    per_task = means[0] if b is None else means[0] - means[1]
    if paired:
        if b is None or sides[0].shape != sides[1].shape:
            raise ValueError("paired seeds need the same number of rows in a and b")
        sides = [sides[0] - sides[1]]
    parts = [_task_part(per_task, clusters)]
    for side in sides:
        parts += _seed_part(side, clusters)
    return per_task, parts


def t_test(estimate: Estimate, *, null: float = 0.0) -> float:
    """Two-sided p of `estimate` against `null` by its own standard error and df."""
    _needs_error(estimate)
    return _told(2 * _above(abs(estimate.value - null) / estimate.standard_error, estimate.df))


@lru_cache(maxsize=65536)
def mcnemar(only_a: int, only_b: int) -> float:
    """Exact two-sided McNemar p from the tasks that only one of two models solves."""
    if only_a < 0 or only_b < 0:
        raise ValueError(f"counts cannot be negative: {only_a}, {only_b}")
    tosses, term, tail = only_a + only_b, 1, 0
    for heads in range(min(only_a, only_b) + 1):
        tail += term
        term = term * (tosses - heads) // (heads + 1)  # the binomial coefficient of the next
    return min(1.0, 2 * tail / 2**tosses)


def permutation(
    differences: Sequence[float],
    clusters: Sequence[Hashable] | None = None,
    *,
    seed: int,
    n_resamples: int = 10_000,
) -> float:
    """Two-sided p of a mean paired difference: the signs of whole clusters are flipped.

    All sign patterns are enumerated where there are at most `n_resamples` of them; otherwise
    that many are drawn, and the observed one counts as one of them, so p is never 0.
    """
    import numpy as np

    sums, _ = _cluster_sums(differences, clusters, least=1)
    sums = sums[sums != 0]
    observed = abs(sums.sum())
    bar = observed - 1e-9 * max(1.0, np.abs(sums).sum())  # equal sums differ in the last bits
    if 2 ** len(sums) <= n_resamples:
        patterns = np.arange(2 ** len(sums))[:, None] >> np.arange(len(sums)) & 1  # (2^G, G)
        return float(np.mean(np.abs((2 * patterns - 1) @ sums) >= bar))
    signs = np.random.default_rng(seed).integers(0, 2, (n_resamples, len(sums)), dtype=np.int8)
    as_extreme = int(np.sum(np.abs((2 * signs - 1) @ sums) >= bar))
    return (as_extreme + 1) / (n_resamples + 1)


def equivalence(estimate: Estimate, *, margin: float) -> float:
    """p of two one-sided tests (TOST): small = the value surely lies within +-`margin`."""
    if not margin > 0:
        raise ValueError(f"an equivalence margin is positive, not {margin}")
    _needs_error(estimate)
    sides = (margin + estimate.value, margin - estimate.value)
    return _told(max(_above(side / estimate.standard_error, estimate.df) for side in sides))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p values, in the order given: the family's error rate is kept.

    The k-th smallest of m is multiplied by m - k + 1, and none falls below a smaller one's.
    """
    p = [float(value) for value in p_values]
    if not all(0 <= value <= 1 for value in p):
        raise ValueError(f"p values lie between 0 and 1: {p}")
    adjusted, so_far = [0.0] * len(p), 0.0
    for rank, at in enumerate(sorted(range(len(p)), key=p.__getitem__)):
        so_far = max(so_far, min(1.0, (len(p) - rank) * p[at]))
        adjusted[at] = so_far
    return adjusted


def smallest_detectable(standard_error: float, df: float = math.inf) -> float:
    """The true difference that a two-sided t test at 5 % would find four times in five.

    In the units of `standard_error`; solved on the noncentral t distribution.
    """
    if not (standard_error > 0 and df > 0):
        raise ValueError(f"needs standard_error > 0 and df > 0, not {standard_error}, {df}")
    bar, power = _quantile(df), 0.8
    shift = _root(lambda shift: _above(bar, df, shift) - power, 0.0, 3 * bar + 10.0)
    return standard_error * _told(shift)


@lru_cache(maxsize=4096)
def _quantile(df: float) -> float:
    """Student's t for a two-sided interval."""
    if df > NORMAL:
        return NormalDist().inv_cdf(1 - TAIL)
    high = 4.0
    while _above(high, df) > TAIL:
        high *= 2
    return _told(_root(lambda x: _above(x, df) - TAIL, 0.0, high))


def _above(x: float, df: float, shift: float = 0.0) -> float:
    """The chance that a t of `df` degrees of freedom, noncentral by `shift`, lies above `x`.

    It is the mean of Phi(shift - x w) over w = sqrt(chi^2 / df), taken by the trapezoidal rule in
    log w, where it converges geometrically. scipy says the same to 1e-12, and is as large as all
    else that a bare installation needs.
    """
    if df > NORMAL:
        return math.erfc((x - shift) / math.sqrt(2)) / 2
    import numpy as np

    reach = 45 / df  # weights below e^-45 are nothing; a shift makes the normal's edge steep
    low, high = -math.sqrt(reach) - reach, min(math.sqrt(reach), 3.0)
    log_w = np.linspace(low, high, 128 + math.ceil((8 + 1.5 * abs(shift)) * (high - low)))
    weights = np.exp(df * (log_w - np.expm1(2 * log_w) / 2))
    z = (x * np.exp(log_w) - shift) / math.sqrt(2)
    return float(weights @ [math.erfc(one) / 2 for one in z.tolist()] / weights.sum())


def _told(x: float) -> float:
    """Eleven digits: those after them are the machine's, whose exp() is not everybody's."""
    return float(f"{x:.11g}")


def _root(f: Callable[[float], float], a: float, b: float) -> float:
    """Where `f`, of two signs at `a` and `b`, is 0 (to 1e-13): false position, Illinois' way."""
    at_a, at_b = f(a), f(b)
    for _ in range(100):
        if abs(at_b) < 1e-13:
            break
        x = b - at_b * (b - a) / (at_b - at_a)
        at_x = f(x)
        if (at_x > 0) == (at_b > 0):
            at_a /= 2
        else:
            a, at_a = b, at_b
        b, at_b = x, at_x
    return b


def _task_part(per_task: np.ndarray, clusters: Sequence[Hashable] | None) -> tuple[float, float]:
    """(variance of the mean over tasks, its doubt), clusters kept whole."""
    deviations, sizes = _cluster_sums(per_task - per_task.mean(), clusters)
    total = len(sizes)
    squares = (deviations**2).sum() + (_lean(deviations) * sizes.mean()) ** 2
    variance = float(squares / sizes.sum() ** 2 * total / (total - 1))
    return variance, variance**2 / (total - 1)


def _lean(deviations: np.ndarray) -> float:
    """How few clusters carry the variance: 0 if all do alike, near 1 if one does, 1 if none."""
    squares = deviations**2
    if squares.sum() < 1e-18:
        return 1.0
    return float((squares**2).sum() / squares.sum() ** 2 - 1 / len(squares))


def _seed_part(side: np.ndarray, clusters: Sequence[Hashable] | None) -> list[tuple[float, float]]:
    """[(variance of the mean over seeds beyond cell noise, its doubt)], [] for a single seed.

    Cell noise is the residual of seed means plus task means, summed over clusters; `side` (S, T).
    """
    import numpy as np

    seeds, tasks = side.shape
    if seeds == 1:
        return []
    means = side.mean(axis=1, keepdims=True)
    rows = side - side.mean(axis=0) - means + side.mean()
    noise = sum(float((_cluster_sums(row, clusters)[0] ** 2).sum()) for row in rows)
    total = len(_cluster_sums(rows[0], clusters)[0])
    noise *= total / (total - 1) / tasks**2 / (seeds * (seeds - 1))
    seen = float(np.var(means, ddof=1)) / seeds
    if seen <= noise and seeds > FEW_SEEDS:
        return []
    return [(max(0.0, seen - noise), seen**2 / (seeds - 1))]


def _combined(parts: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """The sum of variances and its degrees of freedom by Satterthwaite, at least 1.

    A part is (variance, doubt): the square of what was measured over its degrees of freedom.
    """
    variance = sum(part for part, _ in parts)
    doubt = sum(doubt for _, doubt in parts)
    return variance, max(1.0, variance**2 / doubt) if doubt else math.inf


def _cluster_sums(
    values: Sequence[float], clusters: Sequence[Hashable] | None, least: int = 2
) -> tuple[np.ndarray, np.ndarray]:
    """(sum, size) of every cluster, (G,) each, in order of first appearance."""
    import numpy as np

    data = _numbers(values, "values")
    names = range(len(data)) if clusters is None else clusters
    if len(names) != len(data):
        raise ValueError(f"{len(data)} values but {len(names)} clusters")
    position = {name: at for at, name in enumerate(dict.fromkeys(names))}
    if len(position) < least:
        raise ValueError(f"needs at least {least} clusters of tasks, not {len(position)}")
    where = np.array([position[name] for name in names], dtype=int)
    return np.bincount(where, weights=data), np.bincount(where).astype(float)


def _numbers(values: Sequence[float], name: str) -> np.ndarray:
    import numpy as np

    data = np.asarray(values, dtype=float)
    if data.ndim != 1 or not data.size or not np.isfinite(data).all():
        raise ValueError(f"{name}: expected a non-empty row of finite numbers")
    return data


def _matrix(values: Sequence[Sequence[float]], name: str) -> np.ndarray:
    import numpy as np

    if len({len(row) for row in values}) != 1:
        raise ValueError(f"{name}: every seed needs a value for the same tasks")
    return np.stack([_numbers(row, name) for row in values])  # (S, T)


def _needs_error(estimate: Estimate) -> None:
    if not estimate.standard_error > 0:
        raise ValueError("this test needs an estimate with a standard error above 0")


@dataclass(frozen=True, slots=True)
class Metric:
    """pass@k from the samples drawn at `temperature` (0 = greedy)."""

    k: int
    temperature: float

    @property
    def name(self) -> str:
        return f"pass@{self.k} " + (f"T={self.temperature:g}" if self.temperature else "greedy")


def parse_metric(text: str) -> Metric:
    """The inverse of `Metric.name`: `"pass@10 T=1.2"`, `"pass@1 greedy"`; ValueError otherwise."""
    found = re.fullmatch(r"pass@([1-9]\d*) (?:greedy|T=(\d+(?:\.\d+)?))", text)
    metric = Metric(int(found[1]), float(found[2] or 0)) if found else None
    if metric is None or (metric.temperature == 0 and metric.k > 1):
        raise ValueError(f"measure {text!r}: expected 'pass@1 greedy' or, say, 'pass@10 T=1.2'")
    return metric


def draws(measures: Sequence[Metric], n_samples: int) -> list[tuple[int, float]]:
    """(answers per task, temperature) for each temperature of `measures`: one if it is greedy.

    ValueError for a pass@k that needs more than `n_samples` answers.
    """
    for metric in measures:
        if metric.k > n_samples:
            raise ValueError(f"{metric.name} needs {metric.k} answers per task, not {n_samples}")
    warmths = dict.fromkeys(metric.temperature for metric in measures)
    return [(n_samples if warmth else 1, warmth) for warmth in warmths]


def label(method: str, seed: int, temperature: float) -> str:
    """The `source` of an answer: `rrtf/2@0.8` is RRTF, training seed 2, temperature 0.8."""
    return f"{method}/{seed}@{temperature:g}"


def parse_label(source: str) -> tuple[str, int, float]:
    """The inverse of `label`; ValueError for a source that has another form."""
    name, at, temperature = source.rpartition("@")
    method, slash, seed = name.rpartition("/")
    try:
        if not (method and slash and at):
            raise ValueError
        return method, int(seed), float(temperature)
    except ValueError:
        raise ValueError(f"source {source!r}: expected method/seed@temperature") from None
