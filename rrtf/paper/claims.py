"""Two models on the same tasks, and what the paper claims of them: which claims its figures carry.

Fig 5 gives the regions of three models, and with them the tasks that only one of two solves.
Everywhere else only the two counts are known; then McNemar's p lies between that of the largest
and that of the smallest number of tasks which both can have solved.

A claim "best on X" holds only if the model is better than every rival, so it needs one test per
rival. Holm's correction runs over all tests of all claims, once with the smallest and once with
the largest p that the figures allow: what is significant even then stands, what is not
significant even at best is not shown, the rest the printed figures leave open.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

from rrtf import stats
from rrtf.paper.printed import BENCHMARKS, IN_FIG_5, Count, Figures, count, counts, only, tasks_of

VERDICTS = ("stands", "left open", "not shown", "contradicted")
HOW = ("regions", "counts", "rates")  # what p was computed from


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
        {"a - b": f"{pair.a} - {pair.b}", "decoding": pair.decoding.replace("_at_", "@"),
         "only a": pair.only_a, "only b": pair.only_b, "points": f"{100 * pair.difference:+.1f}",
         "95 %": f"{100 * pair.low:+.1f} to {100 * pair.high:+.1f}", "p": f"{pair.p:.2g}",
         "p after Holm": f"{adjusted:.2g}"}
        for pair, adjusted in all_pairs(paper)
    ]  # fmt: skip


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
    p = [stats.mcnemar(a.solved - shared, b.solved - shared) for shared in range(least, most + 1)]
    above = max((at for at, value in enumerate(p) if value >= alpha), default=-1)
    needed = None if above == most - least else least + above + 1
    return PRange(min(p), max(p), least, most, needed)


def bounds(
    paper: Figures, table: str, names: tuple[str, str], *, alpha: float, column: str = "humaneval"
) -> tuple[Count, Count, PRange]:
    """Both counts of a column, and every p that they allow (`p_range`)."""
    a, b = (count(paper, table, column, name) for name in names)
    return a, b, p_range(a, b, alpha=alpha)


def least_lead(alpha: float) -> int:
    """The fewest tasks by which a model must lead before exact McNemar can go below `alpha`.

    The most favourable case: the weaker model solves nothing that the stronger does not.
    """
    return next(lead for lead in range(1, 1000) if stats.mcnemar(lead, 0) < alpha)


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
    for name in BENCHMARKS:
        ours, theirs = (count(paper, "table_3", name, model) for model in (a, b))
        p, q = ours.rate.value, theirs.rate.value
        row = {"benchmark": paper["benchmarks"][name]["name"], "tasks": ours.tasks}
        row[f"lead over {b}"] = 100 * (p - q)
        ways = {
            "disagreeing as in Fig 5": seen,
            "were answers independent": p * (1 - q) + q * (1 - p),
        }
        for way, disagreement in ways.items():
            found = detectable(ours.tasks, disagreement, alpha=alpha, power=power)
            row[f"found, {way}"] = None if found is None else 100 * found
        rows.append(row)
    return rows


def p_text(ranges: Sequence[float]) -> str:
    """`0.63`, or `0.013 to 0.83` where only bounds are known."""
    low, high = min(ranges), max(ranges)
    return f"{low:.2g}" if math.isclose(low, high) else f"{low:.2g} to {high:.2g}"


@dataclass(frozen=True, slots=True)
class ClaimTest:
    """One model against one rival: the lead in tasks, and the p that the figures allow.

    `how` is one of `HOW`: exact McNemar from the regions of Fig 5, its bounds from two counts, or
    its upper bound from two sampled rates. For these there is no smallest p above 0: the same
    small lead on every task would be no accident. `holm_*` are corrected over all tests of all
    claims.
    """

    claim: str
    place: str
    metric: str
    a: str
    b: str
    lead: int
    tasks: int
    p_smallest: float
    p_largest: float
    how: str
    holm_smallest: float = 1.0
    holm_largest: float = 1.0
    verdict: str = ""


def claim_tests(paper: Figures, *, alpha: float) -> list[ClaimTest]:
    """Every test that the claims of `data/paper.toml` need, with Holm over all of them."""
    found = [
        test
        for claim in paper["claims"]
        for column in claim["columns"]
        for rival in claim["rivals"]
        for test in _tests(paper, claim, column, rival, alpha)
    ]
    smallest = stats.holm([test.p_smallest for test in found])
    largest = stats.holm([test.p_largest for test in found])
    corrected = [
        replace(test, holm_smallest=low, holm_largest=high)
        for test, low, high in zip(found, smallest, largest, strict=True)
    ]
    return [replace(test, verdict=_verdict(test, alpha)) for test in corrected]


def _tests(
    paper: Figures, claim: Mapping[str, Any], column: str, rival: str, alpha: float
) -> Iterator[ClaimTest]:
    """One test per printed rate of the rival: GPT-3.5 has two."""
    table = claim["table"]
    (ours,) = counts(paper, table, column, claim["model"])
    for theirs in counts(paper, table, column, rival):
        smallest, largest, how = _p(paper, table, column, ours, theirs, alpha)
        yield ClaimTest(
            claim["claim"], claim["source"], column, ours.name, theirs.name,
            ours.solved - theirs.solved, ours.tasks, smallest, largest, how,
        )  # fmt: skip


def _p(
    paper: Figures, table: str, column: str, ours: Count, theirs: Count, alpha: float
) -> tuple[float, float, str]:
    """(smallest p, largest p, how they were found)."""
    drawn = {("table_3", "humaneval"): "greedy", ("figure_5", column): column}.get((table, column))
    if drawn and {ours.name, theirs.name} <= set(IN_FIG_5):
        p = paired(paper, ours.name, theirs.name, drawn).p
        return p, p, "regions"
    found = p_range(ours, theirs, alpha=alpha)
    sampled = ours.sampled or theirs.sampled
    return (0.0, found.largest, "rates") if sampled else (found.smallest, found.largest, "counts")


def _verdict(test: ClaimTest, alpha: float) -> str:
    if test.lead < 0:
        return "contradicted"
    if test.lead == 0 or test.holm_smallest >= alpha:
        return "not shown"
    return settled(test.holm_largest, alpha)


def settled(p_largest: float, alpha: float) -> str:
    """`stands` if even the largest p that the figures allow is below `alpha`."""
    return "stands" if p_largest < alpha else "left open"


def claim_verdicts(paper: Figures, tests: Sequence[ClaimTest]) -> list[dict[str, Any]]:
    """One row per claim: its tests by verdict, and the worst of them, which is the claim's.

    A claim without figures is `not tested`. `because of` are the rivals that keep it from
    standing, all of them where it stands.
    """
    rows = []
    for claim in paper["claims"]:
        own = [test for test in tests if test.claim == claim["claim"]]
        verdicts = [test.verdict for test in own]
        worst = max(verdicts, key=VERDICTS.index, default="not tested")
        rivals = ", ".join(dict.fromkeys(test.b for test in own if test.verdict == worst))
        rows.append(
            {"claim": claim["claim"], "place": claim["source"], "tests": len(own)}
            | {name: verdicts.count(name) for name in VERDICTS}
            | {"verdict": worst, "because of": rivals if own else "no comparison printed"}
        )
    return rows


def claim_rows(paper: Figures, tests: Sequence[ClaimTest]) -> list[dict[str, Any]]:
    """`claim_verdicts` for a reader."""
    return [
        {"claim": row["claim"], "place": row["place"],
         "tests that stand": f"{row['stands']} of {row['tests']}" if row["tests"] else None,
         "verdict": row["verdict"], "because of": row["because of"]}
        for row in claim_verdicts(paper, tests)
    ]  # fmt: skip


def test_rows(tests: Sequence[ClaimTest]) -> list[dict[str, Any]]:
    """The tests for a reader."""
    return [
        {"place": where(test).replace(" ", "\u00a0"), "a - b": f"{test.a} - {test.b}",
         "tasks ahead": test.lead, "p": _shown((test.p_smallest, test.p_largest), test.how),
         "after Holm": _shown((test.holm_smallest, test.holm_largest), test.how),
         "from": test.how, "verdict": test.verdict}
        for test in tests
    ]  # fmt: skip


def _shown(bounds: tuple[float, float], how: str) -> str:
    return f"≤ {bounds[1]:.2g}" if how == "rates" else p_text(bounds)


def range_lines(tests: Sequence[ClaimTest]) -> list[tuple[str, float, float, str]]:
    """(name, smallest p, largest p, verdict) after Holm, as `charts.p_ranges` draws them.

    Without the sampled rates, whose p has no lower bound.
    """
    return [
        (f"{where(t)}: {t.a} - {t.b}", t.holm_smallest, t.holm_largest, t.verdict)
        for t in tests
        if t.how != "rates"
    ]


def where(test: ClaimTest) -> str:
    """`Table 3, CoderEval` or `Table 2, pass@10`."""
    names = {"humaneval": "HumanEval", "codereval": "CoderEval", "leetcode": "LeetCode"}
    metric = names.get(test.metric, test.metric.replace("_at_", "@"))
    return f"{test.place.partition(',')[0]}, {metric}"
