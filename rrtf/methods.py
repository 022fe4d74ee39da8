"""What is compared: the methods, and the groups each learns from.

All methods start from one model, take the same number of updates and meet their prompts in the
same order; they differ in what they learn from and by which objective.
"""

import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from rrtf import config
from rrtf.records import Outcome, RankedGroup

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
    max_responses: int,
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


def sizes(
    trained: Iterable[str],
    groups: Sequence[RankedGroup],
    pairs: Sequence[RankedGroup],
    *,
    max_responses: int,
) -> list[dict[str, Any]]:
    """One row per method: prompts in = learnt from + left out, responses, wrong targets of L_ft."""
    rows = []
    for method in trained:
        chosen, dropped = training_set(method, groups, pairs, max_responses=max_responses)
        targets = [group.outcomes[group.sft_index] for group in chosen]
        compared = len(chosen) if METHODS[method] == "sft" else sum(len(g.scores) for g in chosen)
        rows.append(
            {
                "method": method,
                "objective": METHODS[method],
                "prompts": len({g.task_id for g in chosen}) + sum(dropped.values()),
                "learnt from": len({g.task_id for g in chosen}),
                "left out": ", ".join(f"{n} {reason}" for reason, n in dropped.items()) or "none",
                "responses": compared,
                "targets that fail": sum(outcome != Outcome.PASS for outcome in targets),
            }
        )
    return rows
