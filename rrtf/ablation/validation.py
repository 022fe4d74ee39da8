"""The validation appendix: the settings that are compared, one run each, and which rate wins."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from rrtf import train
from rrtf.methods import METHODS
from rrtf.records import RankedGroup


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
