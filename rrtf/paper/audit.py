"""What the printed figures say about each other: one row per finding, all computed.

A row is `fact, place, values, verdict`; verdicts are short words, among them those of `claims`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from math import ceil
from typing import Any

from rrtf.paper import claims, pairs
from rrtf.paper.printed import (
    IN_FIG_5,
    LEVELS,
    Count,
    Figures,
    counts,
    is_whole,
    name_of,
    row,
    size_rows,
    solved,
    solved_by,
    tasks_of,
)

ALPHA, POWER = 0.05, 0.8
OURS, RIVAL, BASE = IN_FIG_5


def audit(paper: Figures, *, alpha: float = ALPHA, power: float = POWER) -> list[dict[str, Any]]:
    """Every finding; `alpha` is the level of the tests, `power` that of the detectable leads."""
    tests = claims.claim_tests(paper, alpha=alpha)
    return [
        _size_and_batch(paper),
        _data_size(paper, alpha),
        _checkpoint(paper),
        _updates(paper),
        *(_within_samples(paper, model) for model in IN_FIG_5),
        _margin_over_wizard_coder(paper),
        _pairs_of_fig_5(paper, alpha),
        _margin_on_codereval(paper, alpha),
        _least_lead(tests, alpha),
        _detectable(paper, alpha, power),
        _two_gpt_rates(paper),
        *_quantised(paper, alpha),
        _decoding_of_table_4(paper),
        _sampled_headline(paper),
        _counts_add_up(paper),
        _greedy_agreement(paper),
        _leaks(paper),
        _baselines(paper),
        *_claims(paper, tests),
    ]


def shown(facts: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """The facts of `audit` as rows of text; numbers with two significant decimals."""
    return [
        {
            "place": fact["place"],
            "fact": fact["fact"],
            "values": _lines(fact["values"]),
            "verdict": fact["verdict"],
        }
        for fact in facts
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


def _fact(fact: str, place: str, verdict: str, **values: Any) -> dict[str, Any]:
    return {"fact": fact, "place": place, "values": values, "verdict": verdict}


def _size_and_batch(paper: Figures) -> dict[str, Any]:
    stated = paper["training"]["global_batch"]
    batches = {line["data"]: line["implied batch"] for line in size_rows(paper)}
    steps = {line["data"]: line["steps per epoch"] for line in size_rows(paper)}
    alike = max(batches.values()) < 2 * min(batches.values())
    return _fact(
        "batch size that the steps of each data size imply", "Fig 4",
        "consistent" if alike else "confounded",
        stated_batch=stated, implied_batch=batches, steps_per_epoch=steps,
        times_smaller_batch=stated / min(batches.values()),
    )  # fmt: skip


def _data_size(paper: Figures, alpha: float) -> dict[str, Any]:
    names = [line["data"] for line in size_rows(paper)]
    runs = [next(counts(paper, "figure_4", "humaneval", name)) for name in names]
    smaller, larger = runs[0], runs[1]
    found = pairs.p_range(larger, smaller, alpha=alpha)
    return _fact(
        f"gain from {smaller.name} to {larger.name}", "Fig 4",
        "not shown" if found.smallest >= alpha else "left open",
        tasks_solved={run.name: run.solved for run in runs},
        smallest_p=found.smallest, largest_p=found.largest,
    )  # fmt: skip


def _checkpoint(paper: Figures) -> dict[str, Any]:
    best = paper["figure_4"]["rows"][-1]["humaneval"]
    headline = row(paper, "table_3", model=OURS)["humaneval"]
    return _fact(
        "the headline rate against the best point of Fig 4's curve on HumanEval itself",
        "Fig 4, Table 3",
        "choice on the test set not excluded" if best == headline else "consistent",
        best_point_of_fig_4=best, headline_of_table_3=headline,
        best_after_epochs=paper["figure_4"]["best_after_epochs"],
        trained_epochs=paper["training"]["epochs"],
    )  # fmt: skip


def _updates(paper: Figures) -> dict[str, Any]:
    training, run = paper["training"], paper["figure_4"]["rows"][-1]
    drawn = run["steps_per_epoch"] * training["epochs"]
    stated = paper["data"]["kept_rows"] * training["epochs"] / training["global_batch"]
    return _fact(
        "updates drawn in Fig 4 and those that rows, epochs and batch give", "Fig 4, section 4.1",
        "consistent" if abs(drawn - stated) < 0.02 * stated else "contradiction",
        drawn=drawn, computed=stated,
    )  # fmt: skip


def _within_samples(paper: Figures, model: str) -> dict[str, Any]:
    n_tasks = tasks_of(paper, "humaneval")
    rate = row(paper, "table_2", model=model)["pass_at_100"]
    within = solved_by(paper, model, "pass_at_200")
    least = ceil(rate / 100 * n_tasks - 0.01)
    wrong = within < least
    samples = paper["evaluation"]["samples"]
    fewer = "fewer" if wrong else "enough"
    return _fact(
        f"{model} solves {fewer} tasks within {samples} samples for its pass@100",
        "Fig 5, Table 2", "contradiction" if wrong else "consistent",
        solved_within_200=within, share_within_200=100 * within / n_tasks,
        pass_at_100=rate, least_tasks_for_pass_at_100=least,
    )  # fmt: skip


def _margin_over_wizard_coder(paper: Figures) -> dict[str, Any]:
    test = pairs.paired(paper, OURS, RIVAL)
    return _fact(
        f"greedy lead over {RIVAL} on HumanEval", "Fig 5",
        "within noise" if test.low <= 0 <= test.high else "stands",
        **{f"only {OURS}": test.only_a, f"only {RIVAL}": test.only_b},
        difference_points=100 * test.difference, interval=[100 * test.low, 100 * test.high],
        p=test.p, test=test.test,
    )  # fmt: skip


def _pairs_of_fig_5(paper: Figures, alpha: float) -> dict[str, Any]:
    found = pairs.all_pairs(paper)
    named = {
        f"{pair.a} - {pair.b}, {pair.decoding.replace('_at_', '@')}": adjusted
        for pair, adjusted in found
    }
    missed = [name for name, p in named.items() if p >= alpha]
    return _fact(
        "the pairs of Fig 5, p after Holm over all of them", "Fig 5",
        f"{len(named) - len(missed)} of {len(named)} stand",
        p_after_holm=named,
        tests=[asdict(pair) | {"p_holm": adjusted} for pair, adjusted in found],
    )  # fmt: skip


def _margin_on_codereval(paper: Figures, alpha: float) -> dict[str, Any]:
    ours, base = (next(counts(paper, "table_3", "codereval", name)) for name in (OURS, BASE))
    found = pairs.p_range(ours, base, alpha=alpha)
    return _fact(
        f"lead over the untuned {BASE} on CoderEval, in functions", "Table 3",
        "not shown" if found.smallest >= alpha else "left open",
        **{OURS: ours.solved, BASE: base.solved}, lead=ours.solved - base.solved,
        n_tasks=ours.tasks, smallest_p=found.smallest,
    )  # fmt: skip


def _least_lead(every: Sequence[claims.ClaimTest], alpha: float) -> dict[str, Any]:
    least = pairs.least_lead(alpha)
    tests = [test for test in every if test.how != "rates"]
    short = {
        f"{test.a} - {test.b} ({claims.where(test)})": test.lead
        for test in tests
        if test.lead < least
    }
    return _fact(
        "leads that no paired test finds significant, however the answers overlap",
        "Tables 3 and 4, Figs 4 and 5", f"{len(short)} of {len(tests)} too small",
        least_tasks_ahead=least, alpha=alpha, too_small=short,
    )  # fmt: skip


def _detectable(paper: Figures, alpha: float, power: float) -> dict[str, Any]:
    lines = pairs.detectable_rows(paper, alpha=alpha, power=power)
    lead, found = list(lines[0])[2:4]
    short = [line["benchmark"] for line in lines if line[lead] < line[found]]
    return _fact(
        f"leads over {RIVAL} against what the benchmarks can find, in points", "Table 3, Fig 5",
        f"{len(short)} of {len(lines)} below", power=power,
        lead={line["benchmark"]: line[lead] for line in lines},
        smallest_detectable={line["benchmark"]: line[found] for line in lines},
        table=lines,
    )  # fmt: skip


def _two_gpt_rates(paper: Figures) -> dict[str, Any]:
    rate = row(paper, "table_2", model=OURS)["pass_at_1"]
    rivals = {
        line["reported_by"]: line["pass_at_1"]
        for line in paper["table_2"]["rows"]
        if line["model"] == "GPT-3.5"
    }
    better = [name for name, value in rivals.items() if rate > value]
    return _fact(
        f"the reported rates of GPT-3.5 that {OURS} exceeds", "Table 2",
        "stands" if len(better) == len(rivals) else "contradicted",
        **{OURS: rate, "GPT-3.5": rivals}, better_than=better,
    )  # fmt: skip


def _quantised(paper: Figures, alpha: float) -> list[dict[str, Any]]:
    """Each row of Table 4 against the first one, on the same tasks."""
    names = [name_of(line) for line in paper["table_4"]["rows"]]
    full, *smaller = (next(counts(paper, "table_4", "humaneval", name)) for name in names)
    share, found = full.solved / full.tasks, []
    for count in smaller:
        p = pairs.p_range(count, full, alpha=alpha)
        more = count.solved - full.solved
        found.append(_fact(
            f"{count.name} over {full.name} on {full.tasks} tasks", "Table 4",
            "within noise" if p.smallest >= alpha else claims.settled(p.largest, alpha),
            more_tasks=more, difference_points=100 * more / full.tasks,
            standard_error_points=100 * (share * (1 - share) / full.tasks) ** 0.5,
            smallest_p=p.smallest, largest_p=p.largest, significant_if_both_solve=p.shared_needed,
        ))  # fmt: skip
    return found


def _decoding_of_table_4(paper: Figures) -> dict[str, Any]:
    n_tasks, table = tasks_of(paper, "humaneval"), paper["table_4"]
    rates = {name_of(line): line["humaneval"] for line in table["rows"]}
    whole = [name for name, rate in rates.items() if is_whole(rate, n_tasks)]
    greedy = len(whole) == len(rates)
    return _fact(
        "every rate of Table 4 is a whole number of tasks, as greedy decoding gives", "Table 4",
        "greedy, not as its text says" if greedy else "left open",
        header=table["decoding_by_header"], text=table["decoding_by_text"],
        tasks_solved={name: solved(rates[name], n_tasks) for name in whole},
    )  # fmt: skip


def _sampled_headline(paper: Figures) -> dict[str, Any]:
    n_tasks = tasks_of(paper, "humaneval")
    sampled = row(paper, "table_2", model=OURS)["pass_at_1"]
    greedy = row(paper, "table_3", model=OURS)["humaneval"]
    apart = not is_whole(sampled, n_tasks) and is_whole(greedy, n_tasks)
    return _fact(
        "the two headline rates as tasks: a greedy one is a whole number",
        "Tables 2 and 3", "two protocols" if apart else "left open",
        table_2=sampled, table_2_in_tasks=sampled / 100 * n_tasks,
        table_3=greedy, table_3_in_tasks=greedy / 100 * n_tasks,
    )  # fmt: skip


def _counts_add_up(paper: Figures) -> dict[str, Any]:
    marks = paper["benchmarks"]
    regions = {
        column.replace("_at_", "@"): sum(line[column] for line in paper["figure_5"]["rows"])
        for column in ("greedy", "pass_at_200")
    }
    levels = sum(marks["leetcode"][level] for level in LEVELS)
    rates = [
        is_whole(line[name], marks[name]["tasks"])
        for line in paper["table_3"]["rows"]
        for name in ("humaneval", "codereval")
    ]
    right = (
        set(regions.values()) == {marks["humaneval"]["tasks"]}
        and levels == marks["leetcode"]["tasks"]
        and all(rates)
    )
    return _fact(
        "regions and difficulties add up, greedy rates are whole numbers of tasks",
        "Fig 5, Table 3", "consistent" if right else "contradiction",
        regions_of_fig_5=regions, leetcode_levels=levels,
        whole_rates=f"{sum(rates)} of {len(rates)}",
    )  # fmt: skip


def _greedy_agreement(paper: Figures) -> dict[str, Any]:
    drawn = {name: solved_by(paper, name, "greedy") for name in IN_FIG_5}
    printed: dict[str, Count] = {
        name: next(counts(paper, "table_3", "humaneval", name)) for name in IN_FIG_5
    }
    table = {name: count.solved for name, count in printed.items()}
    return _fact(
        "the greedy regions of Fig 5 add up to the counts of Table 3", "Fig 5, Table 3",
        "consistent" if drawn == table else "contradiction", figure_5=drawn, table_3=table,
    )  # fmt: skip


def _leaks(paper: Figures) -> dict[str, Any]:
    n_tasks, study = tasks_of(paper, "humaneval"), paper["leak_study"]
    named = [name for name, mark in paper["benchmarks"].items() if isinstance(mark, Mapping)]
    open_to_leaks = [n for n in named if n not in study["checked"] + study["by_date_only"]]
    return _fact(
        "leakage: what was checked, and what public corpora of this kind were found to leak",
        study["source"], "cannot be checked", checked=study["checked"],
        by_date_only=study["by_date_only"], unchecked=open_to_leaks,
        humaneval_percent_leaked_elsewhere={
            f"{leak['corpus']} ({leak['source']})": 100 * leak["tasks"] / n_tasks
            for leak in paper["published_leaks"]
        },
    )  # fmt: skip


def _baselines(paper: Figures) -> dict[str, Any]:
    baselines = paper["loss"]["baselines_on_the_same_data"]
    return _fact(
        "what ranking adds to imitating the teacher on the same data", "section 4",
        "left open" if baselines else "not tested", baselines_on_the_same_data=baselines,
        not_disclosed=len(paper["not_disclosed"]), released=paper["paper"]["released"],
    )  # fmt: skip


def _claims(paper: Figures, tests: Sequence[claims.ClaimTest]) -> list[dict[str, Any]]:
    """A row per claim, with all its tests, corrected over the tests of all claims."""
    return [
        _fact(
            f"claim: {line['claim']}", line["place"], line["verdict"],
            holm_over=len(tests),
            **{name.replace(" ", "_"): line[name] for name in ("tests", *claims.VERDICTS)},
            because_of=line["because of"],
            rows=[asdict(test) for test in tests if test.claim == line["claim"]],
        )
        for line in claims.claim_verdicts(paper, tests)
    ]  # fmt: skip
