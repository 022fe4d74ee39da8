"""What the ledger says: rates with intervals, the planned contrasts, and a line for every arm."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from rrtf import stats, train
from rrtf.ablation.registration import Arm, Family, Registration
from rrtf.ablation.runs import HELD_OUT, VALIDATION, Line, unpacked
from rrtf.evaluate import results
from rrtf.evaluate.results import Comparison
from rrtf.methods import METHODS
from rrtf.records import Outcome, Problem, RankedGroup, TaskScore

BENCHMARK = "nano, held out"


def scores(
    lines: Iterable[Line], problems: Sequence[Problem], *, family: Callable[[Problem], str]
) -> list[TaskScore]:
    """The lines on the held-out problems, problem by problem; the model's name is the arm's.

    ValueError naming the arm if a line counts other problems than these, or counts them wrongly.
    """
    found = []
    for line in lines:
        if line.split != HELD_OUT:
            continue
        if line.n_tasks != len(problems):
            where = f"arm {line.arm!r}, seed {line.seed}"
            raise ValueError(f"{where}: {line.n_tasks} problems, expected {len(problems)}")
        solved = unpacked(line.solved, line.n_tasks)
        if sum(solved) != line.passed:
            where = f"arm {line.arm!r}, seed {line.seed}"
            raise ValueError(f"{where}: {line.passed} passed, but {sum(solved)} are marked")
        found += [
            TaskScore(line.arm, BENCHMARK, p.task_id, 1, c, line.seed, 0.0, family(p))
            for p, c in zip(problems, solved, strict=True)
        ]
    return found


def primary(plan: Registration, rows: Sequence[TaskScore], *, seed: int) -> list[Comparison]:
    """The registered contrasts, Holm over all of them that have been run."""
    return _compared(plan, rows, plan.primary, seed=seed)


def secondary(
    plan: Registration, rows: Sequence[TaskScore], tier: str, *, seed: int
) -> list[Comparison]:
    """Every arm of `tier` against the one it changes, on the tier's training seeds."""
    few = [row for row in rows if row.seed < plan.seeds[tier]]
    arms = [arm for arm in plan.arms.values() if arm.tier == tier and arm.against]
    return _compared(plan, few, [f"{arm.name} - {arm.against}" for arm in arms], seed=seed)


def _compared(
    plan: Registration, rows: Sequence[TaskScore], contrasts: Sequence[str], *, seed: int
) -> list[Comparison]:
    metric = stats.parse_metric(plan.metric)
    how = {"primary": contrasts, "secondary": (), "margin": plan.margin, "seed": seed}
    return results.comparisons(rows, [metric], **how) if rows else []


def grid_rows(lines: Iterable[Line], family: Family) -> list[dict[str, Any]]:
    """pass@1 on validation of the arms that choose the learning rate of `family`."""
    return [
        {"method": line.arm, "variant": "", "learning_rate": line.learning_rate,
         "pass@1": line.passed / line.n_tasks}
        for line in lines
        if line.split == VALIDATION and line.arm in family.by
    ]  # fmt: skip


def rate_rows(
    plan: Registration, lines: Sequence[Line], rates: Mapping[str, float]
) -> list[dict[str, Any]]:
    """One row per family: every rate that was tried, and which was chosen."""
    rows = []
    for family in plan.families.values():
        tried: dict[float, list[float]] = {}
        for row in grid_rows(lines, family):
            tried.setdefault(row["learning_rate"], []).append(row["pass@1"])
        told = [f"{rate:g}: {100 * _mean(tried[rate]):.1f}" for rate in sorted(tried)]
        rate = rates.get(family.name)
        rows.append(
            {
                "family": family.name,
                "arms": ", ".join(family.by),
                "pass@1 by rate": ", ".join(told) or "not run",
                "chosen": "not yet" if rate is None else f"{rate:g}",
                "at the edge": "yes" if rate in (family.rates[0], family.rates[-1]) else "",
            }
        )
    return rows


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return sum(found) / len(found)


def arm_rows(
    plan: Registration,
    lines: Sequence[Line],
    rows: Sequence[TaskScore],
    groups: Mapping[str, Sequence[RankedGroup]],
    tier: str,
) -> list[dict[str, Any]]:
    """Every arm of `tier` with its rate and interval, training set and cost, or `not run`.

    Of an arm in rounds, updates and tokens of all, as if every round's answers were as long as the
    first's. Online RL draws its answers itself: neither targets nor tokens are known.
    """
    measured = results.results(rows, [stats.parse_metric(plan.metric)]) if rows else []
    best = {result.model: result for result in results.headline(measured)}
    made = {line.arm: line for line in lines if line.split == HELD_OUT}
    return [
        _arm_row(arm, best.get(arm.name), made.get(arm.name), groups.get(arm.name, ()))
        for arm in plan.arms.values()
        if arm.tier == tier
    ]


def _arm_row(
    arm: Arm, result: results.Result | None, line: Line | None, groups: Sequence[RankedGroup]
) -> dict[str, Any]:
    if result is None or line is None:
        return {"arm": arm.name, "what": arm.what, "pass@1, %": "not run"}
    given = arm.method == "train"
    wrong = sum(group.outcomes[group.sft_index] != Outcome.PASS for group in groups)
    updates = line.updates * arm.rounds
    return {
        "arm": arm.name,
        "what": arm.what,
        "pass@1, %": _rate(result),
        "seeds": result.n_seeds,
        "learning rate": f"{line.learning_rate:g}",
        "prompts": line.prompts,
        "targets that fail": wrong if given else None,
        "updates": updates,
        "million tokens": round(line.tokens * updates / 1e6, 2) if given else None,
    }


def two_by_two(rows: Sequence[TaskScore], metric: str) -> list[dict[str, Any]]:
    """Filter and ranking loss, each off and on: pass@1 in percent of the four arms."""
    cells = [
        ("no filter", "sft", "rank-unfiltered"),
        ("as many prompts at random", "drop-random", "drop-random-rank"),
        ("the paper's filter", "sft-kept", "rrtf"),
        ("only passing teachers", "sft-verified", "rrtf-verified"),
    ]
    values = {r.model: r.value for r in results.headline(_results(rows, metric))}
    return [
        {"training set": name, "L_ft alone": _percent(values.get(off)),
         "with the ranking loss": _percent(values.get(on))}
        for name, off, on in cells
    ]  # fmt: skip


def _results(rows: Sequence[TaskScore], metric: str) -> list[results.Result]:
    return results.results(rows, [stats.parse_metric(metric)]) if rows else []


def _percent(value: float | None) -> str:
    return "not run" if value is None else f"{100 * value:.1f}"


def curve(
    plan: Registration, rows: Sequence[TaskScore], arms: Mapping[str, float], axis: str
) -> list[dict[str, str]]:
    """pass@1 of those of `arms` (name -> place along `axis`) that were run, by place."""
    found = {r.model: r for r in results.headline(_results(rows, plan.metric))}
    there = sorted((at, name) for name, at in arms.items() if name in found)
    return [{axis: f"{at:g}", "arm": name, "pass@1, %": _rate(found[name])} for at, name in there]


def tiers_compared(plan: Registration, lines: Iterable[Line]) -> list[str]:
    """The tiers with a run of an arm that changes another, in order."""
    made = {line.arm for line in lines if line.split == HELD_OUT}
    return list(dict.fromkeys(a.tier for a in plan.arms.values() if a.against and a.name in made))


def _rate(row: results.Result) -> str:
    return f"{100 * row.value:.1f} [{100 * row.low:.1f}, {100 * row.high:.1f}]"


def missing(plan: Registration, lines: Iterable[Line]) -> dict[str, int]:
    """Arm -> how many of its registered seeds have no line yet."""
    made: dict[str, set[int]] = {}
    for line in lines:
        if line.split == HELD_OUT:
            made.setdefault(line.arm, set()).add(line.seed)
    left = {a.name: plan.seeds[a.tier] - len(made.get(a.name, ())) for a in plan.arms.values()}
    return {name: count for name, count in left.items() if count}


def trials(
    groups: Sequence[RankedGroup],
    pairs: Sequence[RankedGroup],
    settings: Iterable[Mapping[str, Any]],
    *,
    recipe: train.Recipe,
    max_responses: int,
) -> list[train.Run]:
    """One run, of the first seed, per setting: `method`, `learning_rate` and what else it changes.

    A run is named after its setting; `recipe` is what all share.
    """
    runs = []
    for setting in settings:
        own = dict(setting)
        method, rate = own.pop("method"), own.pop("learning_rate")
        (run,) = train.plan(
            groups,
            pairs,
            recipe=replace(recipe, **own),
            seeds={method: 1},
            learning_rates=dict.fromkeys(METHODS.values(), rate),
            max_responses=max_responses,
        )
        name = "-".join([method, f"lr{rate:.0e}", *(f"{k}={v}" for k, v in own.items())])
        runs.append(replace(run, name=name))
    return runs


def grid(
    rates: Mapping[str, Sequence[float]],
    reductions: Sequence[str],
    rank_weights: Sequence[float],
) -> list[dict[str, Any]]:
    """The settings that are compared on validation, one run each.

    `rates` maps an objective to its learning rates. SFT, RRTF and RRHF are tried with every
    reduction of L_ft, RRTF also with every further rank weight (reduction `mean`).
    """
    found = [
        {"method": method, "learning_rate": rate, "ft_reduction": reduction}
        for method in ("sft", "rrtf", "rrhf")
        for reduction in reductions
        for rate in rates[method]
    ]
    found += [
        {"method": "rrtf", "learning_rate": rate, "ft_reduction": "mean", "rank_weight": weight}
        for weight in rank_weights
        for rate in rates["rrtf"]
    ]
    return found + [{"method": "dpo", "learning_rate": rate} for rate in rates["dpo"]]


def best_rates(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Of rows with `method`, `variant`, `learning_rate`, `pass@1`: the best rate of each variant.

    Equal rates go to the smaller learning rate, the gentler change.
    """
    best: dict[tuple[str, str], Mapping[str, Any]] = {}
    for row in sorted(rows, key=lambda row: (-row["pass@1"], row["learning_rate"])):
        best.setdefault((row["method"], row["variant"]), row)
    return [dict(row) for row in best.values()]


def shared_rates(rows: Iterable[Mapping[str, Any]], among: Sequence[str]) -> list[dict[str, Any]]:
    """For every variant and learning rate that all of `among` were tried with, their mean pass@1.

    The best first. Methods whose difference is the question share one rate, so that they differ
    in nothing else.
    """
    tried: dict[tuple[str, float], dict[str, float]] = {}
    for row in rows:
        key = (row["variant"], row["learning_rate"])
        tried.setdefault(key, {})[row["method"]] = row["pass@1"]
    found = [
        {"variant": variant, "learning_rate": rate}
        | {name: passing[name] for name in among}
        | {"mean": sum(passing[name] for name in among) / len(among)}
        for (variant, rate), passing in tried.items()
        if set(among) <= set(passing)
    ]
    return sorted(found, key=lambda row: (-row["mean"], row["learning_rate"]))


def trial_rows(runs: Sequence[train.Run], rates: Mapping[str, float]) -> list[dict[str, Any]]:
    """One row per trial with its validation pass@1; `rates` maps a run's name to it."""
    return [
        {
            "method": run.method,
            "variant": "-".join(run.name.split("-lr", 1)[1].split("-", 2)[2:]),
            "learning_rate": run.recipe.learning_rate,
            "pass@1": rates[run.name],
        }
        for run in runs
    ]
