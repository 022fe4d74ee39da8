"""Two models on the same tasks: what their printed counts allow to say.

Fig 5 gives the regions of three models, and with them the tasks that only one of two solves.
Everywhere else only the two counts are known; then McNemar's p lies between that of the largest
and that of the smallest number of tasks which both can have solved.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from typing import Any

from rrtf import stats
from rrtf.paper.printed import IN_FIG_5, Count, Figures, counts, only, tasks_of


@dataclass(frozen=True, slots=True)
class PRange:
    """The smallest and largest exact McNemar p that two counts allow.

    `shared_least` and `shared_most` tasks can have been solved by both; from `shared_needed` on p
    is below alpha, None if it never is.
    """

    smallest: float
    largest: float
    shared_least: int
    shared_most: int
    shared_needed: int | None


@dataclass(frozen=True, slots=True)
class Paired:
    """a - b from the regions of Fig 5, in shares of tasks; `low` and `high` by Student's t."""

    a: str
    b: str
    decoding: str
    only_a: int
    only_b: int
    difference: float
    low: float
    high: float
    p: float
    test: str = "exact McNemar"


def paired(paper: Figures, a: str, b: str, column: str = "greedy") -> Paired:
    """Two models on the same HumanEval tasks, exact McNemar from the regions of Fig 5."""
    only_a, only_b = only(paper, a, b, column), only(paper, b, a, column)
    seen = spread(only_a, only_b, tasks_of(paper, "humaneval"))
    p = stats.mcnemar(only_a, only_b)
    return Paired(a, b, column, only_a, only_b, seen.value, seen.low, seen.high, p)


def spread(only_a: int, only_b: int, n_tasks: int) -> stats.Estimate:
    """a - b in shares of tasks with its t interval, from the tasks that only one of them solves."""
    same = n_tasks - only_a - only_b
    return stats.crossed([[1.0] * only_a + [-1.0] * only_b + [0.0] * same])


def all_pairs(paper: Figures) -> list[tuple[Paired, float]]:
    """All pairs of Fig 5, greedy and within 200 samples, each with p after Holm over all."""
    found = [
        paired(paper, a, b, column)
        for column in ("greedy", "pass_at_200")
        for a, b in combinations(IN_FIG_5, 2)
    ]
    return list(zip(found, stats.holm([pair.p for pair in found]), strict=True))


def paired_rows(paper: Figures) -> list[dict[str, Any]]:
    """`all_pairs` for a reader."""
    return [
        {
            "a - b": f"{pair.a} - {pair.b}",
            "decoding": pair.decoding.replace("_at_", "@"),
            "only a": pair.only_a,
            "only b": pair.only_b,
            "points": f"{100 * pair.difference:+.1f}",
            "95 %": f"{100 * pair.low:+.1f} to {100 * pair.high:+.1f}",
            "p": f"{pair.p:.2g}",
            "p after Holm": f"{adjusted:.2g}",
        }
        for pair, adjusted in all_pairs(paper)
    ]


def p_range(a: Count, b: Count, *, alpha: float) -> PRange:
    """Every number of common tasks that the counts allow is tried.

    Parts printed apart (LeetCode's difficulties) narrow what is possible. ValueError if the two
    are not over the same tasks.
    """
    if [tasks for _, tasks in a.parts] != [tasks for _, tasks in b.parts]:
        raise ValueError(f"{a.name} and {b.name} are not over the same tasks")
    both = [(x, y, tasks) for (x, tasks), (y, _) in zip(a.parts, b.parts, strict=True)]
    least = sum(max(0, x + y - tasks) for x, y, tasks in both)
    most = sum(min(x, y) for x, y, _ in both)
    p = [_mcnemar(a.solved - shared, b.solved - shared) for shared in range(least, most + 1)]
    above = max((at for at, value in enumerate(p) if value >= alpha), default=-1)
    needed = None if above == most - least else least + above + 1
    return PRange(min(p), max(p), least, most, needed)


@cache
def _mcnemar(only_a: int, only_b: int) -> float:
    """`stats.mcnemar` for thousands of pairs: sums of binomial coefficients, divided once."""
    tosses, fewer = only_a + only_b, min(only_a, only_b)
    return min(1.0, 2 * sum(math.comb(tosses, k) for k in range(fewer + 1)) / 2**tosses)


def least_lead(alpha: float) -> int:
    """The fewest tasks by which a model must lead before exact McNemar can go below `alpha`.

    The most favourable case: the weaker model solves nothing that the stronger does not.
    """
    return next(lead for lead in range(1, 1000) if _mcnemar(lead, 0) < alpha)


def detectable(n_tasks: int, disagreement: float, *, alpha: float, power: float) -> float | None:
    """The true difference (share of tasks) that exact McNemar finds with chance `power`.

    On a share `disagreement` of the tasks exactly one of the two models is right. None where even
    a disagreement all in one direction is found less often.
    """
    from scipy.optimize import brentq

    def short(difference: float) -> float:
        return _power(n_tasks, disagreement, difference, alpha) - power

    if short(disagreement) < 0:
        return None
    return float(brentq(short, 0.0, disagreement, xtol=1e-6))


def _power(n_tasks: int, disagreement: float, difference: float, alpha: float) -> float:
    """Chance that exact McNemar rejects, over all numbers of tasks on which the two disagree."""
    import numpy as np
    from scipy.stats import binom

    discordant = np.arange(n_tasks + 1)  # (T + 1,)
    bar = binom.ppf(alpha / 2, discordant, 0.5)
    bar -= binom.cdf(bar, discordant, 0.5) >= alpha / 2  # most losses that still reject; -1: none
    share = min(1.0, (1 + difference / disagreement) / 2)
    rejects = binom.cdf(bar, discordant, share) + binom.cdf(bar, discordant, 1 - share)
    return float(binom.pmf(discordant, n_tasks, disagreement) @ rejects)


def detectable_rows(paper: Figures, *, alpha: float, power: float) -> list[dict[str, Any]]:
    """For each benchmark of Table 3: the lead printed, and the lead that would be found.

    PanGu-Coder2 against WizardCoder, in points: once with as much disagreement as Fig 5 shows on
    HumanEval, once with as much as independent answers would give.
    """
    a, b = IN_FIG_5[:2]
    shown = paired(paper, a, b)
    seen = (shown.only_a + shown.only_b) / tasks_of(paper, "humaneval")
    rows = []
    for name, mark in paper["benchmarks"].items():
        if not isinstance(mark, Mapping):
            continue
        (ours,), (theirs,) = (tuple(counts(paper, "table_3", name, model)) for model in (a, b))
        rates = [count.solved / count.tasks for count in (ours, theirs)]
        free = rates[0] * (1 - rates[1]) + rates[1] * (1 - rates[0])
        options = {"alpha": alpha, "power": power}
        rows.append(
            {
                "benchmark": mark["name"],
                "tasks": mark["tasks"],
                f"lead over {b}": 100 * (rates[0] - rates[1]),
                "found, disagreeing as in Fig 5": _points(mark["tasks"], seen, **options),
                "found, were answers independent": _points(mark["tasks"], free, **options),
            }
        )
    return rows


def _points(n_tasks: int, disagreement: float, *, alpha: float, power: float) -> float | None:
    found = detectable(n_tasks, disagreement, alpha=alpha, power=power)
    return None if found is None else 100 * found


def p_text(ranges: Sequence[float]) -> str:
    """`0.63`, or `0.013 to 0.83` where only bounds are known."""
    low, high = min(ranges), max(ranges)
    return f"{low:.2g}" if math.isclose(low, high) else f"{low:.2g} to {high:.2g}"
