"""What the paper claims, as tests: which claims its printed figures carry, all corrected at once.

A claim "best on X" holds only if the model is better than every rival, so it needs one test per
rival. Holm's correction runs over all tests of all claims, once with the smallest and once with
the largest p that the figures allow: what is significant even then stands, what is not
significant even at best is not shown, the rest the printed figures leave open.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rrtf import stats
from rrtf.paper.pairs import p_range, p_text, paired
from rrtf.paper.printed import IN_FIG_5, Count, Figures, counts

VERDICTS = ("stands", "left open", "not shown", "contradicted")
HOW = ("regions", "counts", "rates")  # what p was computed from


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
    decoding = {("table_3", "humaneval"): "greedy", ("figure_5", column): column}.get(
        (table, column)
    )
    if decoding and {ours.name, theirs.name} <= set(IN_FIG_5):
        p = paired(paper, ours.name, theirs.name, decoding).p
        return p, p, "regions"
    found = p_range(ours, theirs, alpha=alpha)
    if ours.sampled or theirs.sampled:
        return 0.0, found.largest, "rates"
    return found.smallest, found.largest, "counts"


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

    A claim without figures is `not tested`.
    """
    rows = []
    for claim in paper["claims"]:
        own = [test for test in tests if test.claim == claim["claim"]]
        verdicts = [test.verdict for test in own]
        worst = max(verdicts, key=VERDICTS.index, default="not tested")
        rows.append(
            {"claim": claim["claim"], "place": claim["source"], "tests": len(own)}
            | {name: verdicts.count(name) for name in VERDICTS}
            | {"verdict": worst, "because of": _because(own, worst)}
        )
    return rows


def claim_rows(paper: Figures, tests: Sequence[ClaimTest]) -> list[dict[str, Any]]:
    """`claim_verdicts` for a reader."""
    return [
        {
            "claim": row["claim"],
            "place": row["place"],
            "tests that stand": f"{row['stands']} of {row['tests']}" if row["tests"] else None,
            "verdict": row["verdict"],
            "because of": row["because of"],
        }
        for row in claim_verdicts(paper, tests)
    ]


def _because(tests: Sequence[ClaimTest], verdict: str) -> str:
    """The rivals that keep a claim from standing; all of them where it stands."""
    names = dict.fromkeys(test.b for test in tests if test.verdict == verdict)
    return ", ".join(names) if tests else "no comparison printed"


def test_rows(tests: Sequence[ClaimTest]) -> list[dict[str, Any]]:
    """The tests for a reader."""
    return [
        {
            "place": where(test).replace(" ", "\u00a0"),
            "a - b": f"{test.a} - {test.b}",
            "tasks ahead": test.lead,
            "p": _shown((test.p_smallest, test.p_largest), test.how),
            "after Holm": _shown((test.holm_smallest, test.holm_largest), test.how),
            "from": test.how,
            "verdict": test.verdict,
        }
        for test in tests
    ]


def _shown(bounds: tuple[float, float], how: str) -> str:
    return f"≤ {bounds[1]:.2g}" if how == "rates" else p_text(bounds)


def range_lines(tests: Sequence[ClaimTest]) -> list[tuple[str, float, float, str]]:
    """(name, smallest p, largest p, verdict) after Holm, as `charts.p_ranges` draws them.

    Without the sampled rates, whose p has no lower bound.
    """
    return [
        (f"{where(test)}: {test.a} - {test.b}", test.holm_smallest, test.holm_largest,
         test.verdict)
        for test in tests
        if test.how != "rates"
    ]  # fmt: skip


def where(test: ClaimTest) -> str:
    """`Table 3, CoderEval` or `Table 2, pass@10`."""
    names = {"humaneval": "HumanEval", "codereval": "CoderEval", "leetcode": "LeetCode"}
    metric = names.get(test.metric, test.metric.replace("_at_", "@"))
    return f"{test.place.partition(',')[0]}, {metric}"
