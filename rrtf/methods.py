"""What is compared: the methods, the groups each learns from, the runs of all seeds.

All methods start from one model, take the same number of updates and meet their prompts in the
same order; they differ in what they learn from and by which objective.
"""

import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rrtf import config
from rrtf.records import Outcome, RankedGroup, TrainStep

METHODS = {
    "sft": "sft",
    "sft-kept": "rrtf",  # with rank weight 0
    "sft-verified": "sft",
    "rrtf": "rrtf",
    "rrtf-verified": "rrtf",  # where the teacher passes, at a learning rate of its own
    "rrhf": "rrhf",
    "dpo": "dpo",
}


def training_set(
    method: str,
    groups: Sequence[RankedGroup],
    pairs: Sequence[RankedGroup],
    *,
    max_responses: int = 0,
) -> tuple[list[RankedGroup], dict[str, int]]:
    """(what `method` trains on, number of prompts left out by reason).

    `groups` hold every prompt with all its responses, the teacher's at `sft_index`; `pairs` are
    teacher and student of the prompts the paper's filter keeps. `sft` imitates the teacher
    unseen, `sft-verified` where it passes, `sft-kept` and `rrtf` learn from the pairs,
    `rrtf-verified` from those whose teacher passes, `rrhf` from whole groups with the best
    response as target (the teacher's where it is among the best), cut to `max_responses` (0 = all)
    by drawing the others by key, `dpo` from the pairs whose scores differ.
    """
    if method not in METHODS:
        raise ValueError(f"unknown method {method!r}: expected one of {', '.join(METHODS)}")
    source = groups if method in ("sft", "sft-verified", "rrhf") else pairs
    reasons = [_left_out(method, group) for group in source]
    kept = [group for group, reason in zip(source, reasons, strict=True) if not reason]
    dropped = Counter(reason for reason in reasons if reason)
    if source is pairs:
        dropped["no_pair"] = len({g.task_id for g in groups} - {g.task_id for g in pairs})
    if method == "rrhf":
        best = [replace(group, sft_index=group.best_index) for group in kept]
        kept = [drawn(group, max_responses) for group in best]
    return kept, {reason: count for reason, count in sorted(dropped.items()) if count}


def _left_out(method: str, group: RankedGroup) -> str:
    if method.endswith("-verified") and group.outcomes[group.sft_index] != Outcome.PASS:
        return "teacher_not_passing"
    if method == "rrhf" and len(group.responses) < 2:
        return "one_response"
    if method == "dpo" and len(set(group.scores)) == 1:
        return "equal_scores"
    return ""


def drawn(group: RankedGroup, count: int) -> RankedGroup:
    """The group with its target and `count` - 1 other responses, drawn by the task's key."""
    if not count or len(group.responses) <= count:
        return group
    others = [k for k in range(len(group.responses)) if k != group.sft_index]
    rng = random.Random(config.derive_seed(0, "drawn", group.task_id))
    places = sorted([group.sft_index, *rng.sample(others, count - 1)])
    cut = {
        name: tuple(getattr(group, name)[k] for k in places)
        for name in ("responses", "sources", "outcomes", "scores")
    }
    return replace(group, sft_index=places.index(group.sft_index), **cut)


def seeds(trained: Iterable[str], n_seeds: int, n_seeds_others: int) -> dict[str, int]:
    """Method -> number of training seeds: `n_seeds` for RRTF and the SFTs, whose differences are
    the question, `n_seeds_others` for RRHF and DPO.
    """
    few = ("rrhf", "dpo")
    return {method: n_seeds_others if method in few else n_seeds for method in trained}


@dataclass(frozen=True)
class Run:
    """One method and seed: what `train` needs beside the start model.

    `model` is a start model of the run's own, if it has one.
    """

    name: str
    method: str
    seed: int
    groups: tuple[RankedGroup, ...]
    options: Mapping[str, Any]
    model: str = ""

    @property
    def folder(self) -> str:
        """Where the model lies, relative to the stage's folder."""
        return f"models/{self.name}"


def plan(
    groups: Sequence[RankedGroup],
    pairs: Sequence[RankedGroup],
    *,
    seeds: Mapping[str, int],
    learning_rates: Mapping[str, float],
    seed: int,
    max_responses: int = 0,
    **options: Any,
) -> list[Run]:
    """The runs of all methods: `seeds` says how many of each, `learning_rates` by objective.

    A method that `learning_rates` has by its own name takes that one. All share `options` (see
    `train`); run k of every method has the same seed, so it meets the prompts in the same order.
    Longer runs come first, which keeps all processes busy.
    """
    runs = []
    for method, count in seeds.items():
        objective = METHODS[method]
        chosen, _ = training_set(method, groups, pairs, max_responses=max_responses)
        rate = learning_rates.get(method, learning_rates[objective])
        own = {"objective": objective, "learning_rate": rate}
        if method == "sft-kept":
            own |= {"rank_weight": 0.0}  # everything else as in RRTF, its learning rate too
        for k in range(count):
            own["seed"] = config.derive_seed(seed, "train", k) % 2**31
            runs.append(Run(f"{method}-s{k}", method, k, tuple(chosen), {**options, **own}))
    return sorted(runs, key=_cost, reverse=True)


def _cost(run: Run) -> float:
    """Responses that one prompt of a run brings into a batch, on average."""
    if run.options["objective"] == "sft" or not run.groups:
        return 1.0
    return sum(len(group.responses) for group in run.groups) / len(run.groups)


def trials(
    groups: Sequence[RankedGroup],
    pairs: Sequence[RankedGroup],
    settings: Iterable[Mapping[str, Any]],
    *,
    seed: int,
    **options: Any,
) -> list[Run]:
    """One run, of the first seed, per setting: `method`, `learning_rate` and what else it changes.

    A run is named after its setting; `options` are what all share.
    """
    runs = []
    for setting in settings:
        own = dict(setting)
        method = own.pop("method")
        rates = dict.fromkeys(METHODS.values(), own.pop("learning_rate"))
        planned = {"seeds": {method: 1}, "learning_rates": rates, "seed": seed}
        run = plan(groups, pairs, **planned, **{**options, **own})[0]
        name = "-".join([method, f"lr{rates['sft']:.0e}", *(f"{k}={v}" for k, v in own.items())])
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


def trial_rows(runs: Sequence[Run], rates: Mapping[str, float]) -> list[dict[str, Any]]:
    """One row per trial with its validation pass@1; `rates` maps a run's name to it."""
    return [
        {
            "method": run.method,
            "variant": "-".join(run.name.split("-lr", 1)[1].split("-", 2)[2:]),
            "learning_rate": run.options["learning_rate"],
            "pass@1": rates[run.name],
        }
        for run in runs
    ]


def sizes(
    trained: Iterable[str],
    groups: Sequence[RankedGroup],
    pairs: Sequence[RankedGroup],
    *,
    max_responses: int = 0,
) -> list[dict[str, Any]]:
    """One row per method: prompts in = learnt from + left out, responses, wrong targets of L_ft."""
    rows = []
    for method in trained:
        chosen, dropped = training_set(method, groups, pairs, max_responses=max_responses)
        targets = [group.outcomes[group.sft_index] for group in chosen]
        rows.append(
            {
                "method": method,
                "objective": METHODS[method],
                "prompts": len({g.task_id for g in chosen}) + sum(dropped.values()),
                "learnt from": len({g.task_id for g in chosen}),
                "left out": ", ".join(f"{n} {reason}" for reason, n in dropped.items()) or "none",
                "responses": 0 if METHODS[method] == "sft" else sum(len(g.scores) for g in chosen),
                "targets that fail": sum(outcome != Outcome.PASS for outcome in targets),
            }
        )
        rows[-1]["responses"] = rows[-1]["responses"] or len(chosen)
    return rows


def run_rows(
    runs: Sequence[Run], steps: Sequence[Sequence[TrainStep]], *, last: int = 10
) -> list[dict[str, Any]]:
    """What `runs.jsonl` holds: each run, its model and its losses, means of the `last` updates."""
    rows = []
    for run, rows_of_run in zip(runs, steps, strict=True):
        end = rows_of_run[-last:]
        rows.append(
            {
                "method": run.method,
                "objective": run.options["objective"],
                "seed": run.seed,
                "model": run.folder,
                "n_groups": len(run.groups),
                "updates": run.options["updates"],
                "learning_rate": run.options["learning_rate"],
                "loss": sum(s.loss for s in end) / len(end),
                "rank_loss": sum(s.rank_loss for s in end) / len(end),
                "ft_loss": sum(s.ft_loss for s in end) / len(end),
            }
        )
    return rows


def lines(
    steps: Iterable[Sequence[TrainStep]], field: str, *, among: Sequence[str] = ()
) -> dict[str, list[tuple[int, float]]]:
    """Run -> (update, value of `field`), for the figures; `among` limits it to some methods."""
    return {
        rows[0].run: [(step.step, getattr(step, field)) for step in rows]
        for rows in steps
        if not among or rows[0].run.rsplit("-s", 1)[0] in among
    }


def key_figures(steps: Iterable[Sequence[TrainStep]], *, last: int = 10) -> dict[str, float]:
    """RRTF's share of violated pairs at the start and at the end: means of `last` updates."""
    runs = [rows for rows in steps if rows[0].run.rsplit("-s", 1)[0] == "rrtf"]
    ends = {"first": [r[:last] for r in runs], "last": [r[-last:] for r in runs]}
    figures = {}
    for when, chosen in ends.items():
        values = [step.violated for rows in chosen for step in rows]
        if values:
            figures[f"violated pairs, {when} updates"] = round(sum(values) / len(values), 3)
    return figures
