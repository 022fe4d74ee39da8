"""What the printed figures say about each other: one row per finding, all computed.

A row is `fact, place, values, verdict`; verdicts are short words, among them those of `claims`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from math import ceil
from typing import Any

from rrtf.paper import claims, printed
from rrtf.paper.printed import IN_FIG_5, LEVELS, Figures, count, is_whole, tasks_of

OURS, RIVAL, BASE = IN_FIG_5
Fact = dict[str, Any]


def audit(paper: Figures, *, alpha: float, power: float) -> list[Fact]:
    """Every finding; `alpha` is the level of the tests, `power` that of the detectable leads."""
    tests = claims.claim_tests(paper, alpha=alpha)
    return [
        *_training(paper, alpha),
        *_regions_and_leads(paper, alpha),
        *_what_can_be_found(paper, tests, alpha, power),
        *_quantised(paper, alpha),
        *_protocols(paper),
        *_not_shown(paper),
        *_claims(paper, tests),
    ]


def shown(facts: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """The facts of `audit` as rows of text; numbers with two significant decimals."""
    names = ("place", "fact", "values", "verdict")
    return [
        {name: fact[name] for name in names} | {"values": _lines(fact["values"])} for fact in facts
    ]


def verdicts(facts: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """The facts in one line each, without their numbers."""
    return [{name: fact[name] for name in ("place", "fact", "verdict")} for fact in facts]


def _lines(values: Mapping[str, Any]) -> str:
    """Name and value; what is a table of its own (a list of mappings) is left to programs."""
    there = {
        name.replace("_at_", "@").replace("_", " "): value
        for name, value in values.items()
        if not (isinstance(value, list) and value and isinstance(value[0], Mapping))
    }
    return "; ".join(f"{name}: {_text(value)}" for name, value in there.items())


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return " · ".join(f"{name} {_text(part)}" for name, part in value.items())
    if isinstance(value, list):
        return ", ".join(map(_text, value)) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "never"
    if isinstance(value, float):
        return f"{value:.2g}" if 0 < abs(value) < 0.01 else f"{value:.2f}"
    return str(value)


def _fact(fact: str, place: str, verdict: str, **values: Any) -> Fact:
    return {"fact": fact, "place": place, "values": values, "verdict": verdict}


def _training(paper: Figures, alpha: float) -> Iterator[Fact]:
    """Batch and data size, updates, choice of the checkpoint."""
    training, drawn, sizes = paper["training"], paper["figure_4"], printed.size_rows(paper)
    batches = {line["data"]: line["implied batch"] for line in sizes}
    alike = max(batches.values()) < 2 * min(batches.values())
    yield _fact(
        "batch size that the steps of each data size imply", "Fig 4",
        "consistent" if alike else "confounded",
        stated_batch=training["global_batch"], implied_batch=batches,
        steps_per_epoch={line["data"]: line["steps per epoch"] for line in sizes},
        times_smaller_batch=training["global_batch"] / min(batches.values()),
    )  # fmt: skip
    first, second, *_ = batches
    p = claims.bounds(paper, "figure_4", (second, first), alpha=alpha)[-1]
    yield _fact(
        f"gain from {first} to {second}", "Fig 4", _open(p, alpha),
        tasks_solved={line["data"]: line["solved"] for line in sizes},
        smallest_p=p.smallest, largest_p=p.largest,
    )  # fmt: skip
    best = drawn["rows"][-1]["humaneval"]
    headline = printed.row(paper, "table_3", model=OURS)["humaneval"]
    yield _fact(
        "the headline rate against the best point of Fig 4's curve on HumanEval itself",
        "Fig 4, Table 3",
        "choice on the test set not excluded" if best == headline else "consistent",
        best_point_of_fig_4=best, headline_of_table_3=headline,
        best_after_epochs=drawn["best_after_epochs"], trained_epochs=training["epochs"],
    )  # fmt: skip
    updates = drawn["rows"][-1]["steps_per_epoch"] * training["epochs"]
    stated = paper["data"]["kept_rows"] * training["epochs"] / training["global_batch"]
    yield _fact(
        "updates drawn in Fig 4 and those that rows, epochs and batch give", "Fig 4, section 4.1",
        _consistent(abs(updates - stated) < 0.02 * stated), drawn=updates, computed=stated,
    )  # fmt: skip


def _open(p: claims.PRange, alpha: float) -> str:
    return "not shown" if p.smallest >= alpha else "left open"


def _consistent(holds: bool) -> str:
    return "consistent" if holds else "contradiction"


def _regions_and_leads(paper: Figures, alpha: float) -> Iterator[Fact]:
    """Fig 5 against Table 2, and what its regions and two counts say of the leads."""
    n_tasks, samples = tasks_of(paper, "humaneval"), paper["evaluation"]["samples"]
    for model in IN_FIG_5:
        rate = printed.row(paper, "table_2", model=model)["pass_at_100"]
        within = printed.solved_by(paper, model, "pass_at_200")
        least = ceil(rate / 100 * n_tasks - 0.01)
        much = "fewer" if within < least else "enough"
        yield _fact(
            f"{model} solves {much} tasks within {samples} samples for its pass@100",
            "Fig 5, Table 2", _consistent(within >= least),
            solved_within_200=within, share_within_200=100 * within / n_tasks,
            pass_at_100=rate, least_tasks_for_pass_at_100=least,
        )  # fmt: skip
    test = claims.paired(paper, OURS, RIVAL)
    yield _fact(
        f"greedy lead over {RIVAL} on HumanEval", "Fig 5",
        "within noise" if test.low <= 0 <= test.high else "stands",
        **{f"only {OURS}": test.only_a, f"only {RIVAL}": test.only_b},
        difference_points=100 * test.difference, interval=[100 * test.low, 100 * test.high],
        p=test.p, test=test.test,
    )  # fmt: skip
    found = claims.all_pairs(paper)
    named = {f"{pair.a} - {pair.b}, {pair.decoding.replace('_at_', '@')}": p for pair, p in found}
    yield _fact(
        "the pairs of Fig 5, p after Holm over all of them", "Fig 5",
        f"{sum(p < alpha for p in named.values())} of {len(named)} stand",
        p_after_holm=named, tests=[asdict(pair) | {"p_holm": p} for pair, p in found],
    )  # fmt: skip
    how = {"alpha": alpha, "column": "codereval"}
    ours, base, p = claims.bounds(paper, "table_3", (OURS, BASE), **how)
    yield _fact(
        f"lead over the untuned {BASE} on CoderEval, in functions", "Table 3", _open(p, alpha),
        **{OURS: ours.solved, BASE: base.solved}, lead=ours.solved - base.solved,
        n_tasks=ours.tasks, smallest_p=p.smallest,
    )  # fmt: skip


def _what_can_be_found(
    paper: Figures, every: Sequence[claims.ClaimTest], alpha: float, power: float
) -> Iterator[Fact]:
    """Leads too small for any test, for the benchmarks, and against a rate reported twice."""
    least = claims.least_lead(alpha)
    tests = [test for test in every if test.how != "rates"]
    short = {f"{t.a} - {t.b} ({claims.where(t)})": t.lead for t in tests if t.lead < least}
    yield _fact(
        "leads that no paired test finds significant, however the answers overlap",
        "Tables 3 and 4, Figs 4 and 5", f"{len(short)} of {len(tests)} too small",
        least_tasks_ahead=least, alpha=alpha, too_small=short,
    )  # fmt: skip
    lines = claims.detectable_rows(paper, alpha=alpha, power=power)
    lead, found = list(lines[0])[2:4]
    yield _fact(
        f"leads over {RIVAL} against what the benchmarks can find, in points", "Table 3, Fig 5",
        f"{sum(line[lead] < line[found] for line in lines)} of {len(lines)} below", power=power,
        lead={line["benchmark"]: line[lead] for line in lines},
        smallest_detectable={line["benchmark"]: line[found] for line in lines}, table=lines,
    )  # fmt: skip
    rate, rows = printed.row(paper, "table_2", model=OURS)["pass_at_1"], paper["table_2"]["rows"]
    rivals = {r["reported_by"]: r["pass_at_1"] for r in rows if r["model"] == "GPT-3.5"}
    better = [name for name, value in rivals.items() if rate > value]
    yield _fact(
        f"the reported rates of GPT-3.5 that {OURS} exceeds", "Table 2",
        "stands" if len(better) == len(rivals) else "contradicted",
        **{OURS: rate, "GPT-3.5": rivals}, better_than=better,
    )  # fmt: skip


def _quantised(paper: Figures, alpha: float) -> Iterator[Fact]:
    """Each row of Table 4 against the first one, on the same tasks, and how it was decoded."""
    n_tasks, table = tasks_of(paper, "humaneval"), paper["table_4"]
    rates = {printed.name_of(line): line["humaneval"] for line in table["rows"]}
    first, *smaller = rates
    for name in smaller:
        own, full, p = claims.bounds(paper, "table_4", (name, first), alpha=alpha)
        more, share = own.solved - full.solved, full.solved / full.tasks
        yield _fact(
            f"{own.name} over {full.name} on {full.tasks} tasks", "Table 4",
            "within noise" if p.smallest >= alpha else claims.settled(p.largest, alpha),
            more_tasks=more, difference_points=100 * more / full.tasks,
            standard_error_points=100 * (share * (1 - share) / full.tasks) ** 0.5,
            smallest_p=p.smallest, largest_p=p.largest, significant_if_both_solve=p.shared_needed,
        )  # fmt: skip
    whole = [name for name, rate in rates.items() if is_whole(rate, n_tasks)]
    yield _fact(
        "every rate of Table 4 is a whole number of tasks, as greedy decoding gives", "Table 4",
        "greedy, not as its text says" if len(whole) == len(rates) else "left open",
        header=table["decoding_by_header"], text=table["decoding_by_text"],
        tasks_solved={name: printed.solved(rates[name], n_tasks) for name in whole},
    )  # fmt: skip


def _protocols(paper: Figures) -> Iterator[Fact]:
    """Rates as whole numbers of tasks, and counts that have to add up."""
    marks, n_tasks = paper["benchmarks"], tasks_of(paper, "humaneval")
    sampled = printed.row(paper, "table_2", model=OURS)["pass_at_1"]
    greedy = printed.row(paper, "table_3", model=OURS)["humaneval"]
    apart = not is_whole(sampled, n_tasks) and is_whole(greedy, n_tasks)
    yield _fact(
        "the two headline rates as tasks: a greedy one is a whole number",
        "Tables 2 and 3", "two protocols" if apart else "left open",
        table_2=sampled, table_2_in_tasks=sampled / 100 * n_tasks,
        table_3=greedy, table_3_in_tasks=greedy / 100 * n_tasks,
    )  # fmt: skip
    regions = {
        column.replace("_at_", "@"): sum(line[column] for line in paper["figure_5"]["rows"])
        for column in ("greedy", "pass_at_200")
    }
    levels = sum(marks["leetcode"][level] for level in LEVELS)
    rates = [is_whole(line[name], marks[name]["tasks"]) for line in paper["table_3"]["rows"]
             for name in ("humaneval", "codereval")]  # fmt: skip
    right = set(regions.values()) == {n_tasks} and levels == marks["leetcode"]["tasks"]
    yield _fact(
        "regions and difficulties add up, greedy rates are whole numbers of tasks",
        "Fig 5, Table 3", _consistent(right and all(rates)), regions_of_fig_5=regions,
        leetcode_levels=levels, whole_rates=f"{sum(rates)} of {len(rates)}",
    )  # fmt: skip
    drawn = {name: printed.solved_by(paper, name, "greedy") for name in IN_FIG_5}
    table = {name: count(paper, "table_3", "humaneval", name).solved for name in IN_FIG_5}
    yield _fact(
        "the greedy regions of Fig 5 add up to the counts of Table 3", "Fig 5, Table 3",
        _consistent(drawn == table), figure_5=drawn, table_3=table,
    )  # fmt: skip


def _not_shown(paper: Figures) -> Iterator[Fact]:
    """What the paper did not check, compare or release."""
    n_tasks, study = tasks_of(paper, "humaneval"), paper["leak_study"]
    looked_at = study["checked"] + study["by_date_only"]
    yield _fact(
        "leakage: what was checked, and what public corpora of this kind were found to leak",
        study["source"], "cannot be checked", checked=study["checked"],
        by_date_only=study["by_date_only"],
        unchecked=[name for name in printed.BENCHMARKS if name not in looked_at],
        humaneval_percent_leaked_elsewhere={
            f"{leak['corpus']} ({leak['source']})": 100 * leak["tasks"] / n_tasks
            for leak in paper["published_leaks"]
        },
    )  # fmt: skip
    baselines = paper["loss"]["baselines_on_the_same_data"]
    yield _fact(
        "what ranking adds to imitating the teacher on the same data", "section 4",
        "left open" if baselines else "not tested", baselines_on_the_same_data=baselines,
        not_disclosed=len(paper["not_disclosed"]), released=paper["paper"]["released"],
    )  # fmt: skip


def _claims(paper: Figures, tests: Sequence[claims.ClaimTest]) -> Iterator[Fact]:
    """A row per claim, with all its tests, corrected over the tests of all claims."""
    for line in claims.claim_verdicts(paper, tests):
        yield _fact(
            f"claim: {line['claim']}", line["place"], line["verdict"], holm_over=len(tests),
            **{name.replace(" ", "_"): line[name] for name in ("tests", *claims.VERDICTS)},
            because_of=line["because of"],
            rows=[asdict(test) for test in tests if test.claim == line["claim"]],
        )  # fmt: skip
