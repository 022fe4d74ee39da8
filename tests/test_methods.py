"""Choosing on validation: every setting once, one rate for what is compared, gentler on ties."""

import pytest
from test_train import recipe

from rrtf import methods, train
from rrtf.ablation import results
from rrtf.records import Outcome, RankedGroup

ROWS = [
    {"method": "sft", "variant": "sum", "learning_rate": 1e-5, "pass@1": 0.5},
    {"method": "sft", "variant": "sum", "learning_rate": 1e-4, "pass@1": 0.4},
    {"method": "rrtf", "variant": "sum", "learning_rate": 1e-5, "pass@1": 0.3},
    {"method": "rrtf", "variant": "sum", "learning_rate": 1e-4, "pass@1": 0.45},
    {"method": "rrtf", "variant": "mean", "learning_rate": 1e-4, "pass@1": 0.45},
]


def group(task: str) -> RankedGroup:
    outcomes = (Outcome.PASS, Outcome.FAILED_TESTS)
    return RankedGroup(task, "p", ("a", "b"), ("teacher", "student"), outcomes, (3.5, 2.0), 0)


def test_the_grid_holds_every_combination_once():
    rates = {"sft": [1e-5, 1e-4], "rrtf": [1e-5, 1e-4], "rrhf": [1e-5], "dpo": [1e-6]}
    found = results.grid(rates, ["mean", "sum"], [10.0])
    assert len(found) == 4 + 4 + 2 + 2 + 1
    assert len({tuple(sorted(row.items())) for row in found}) == len(found)
    assert {
        "method": "rrtf",
        "learning_rate": 1e-4,
        "ft_reduction": "mean",
        "rank_weight": 10.0,
    } in (found)


def test_a_trial_is_named_after_its_setting_and_changes_only_that():
    settings = [
        {"method": "rrtf", "learning_rate": 1e-4, "ft_reduction": "sum"},
        {"method": "rrtf", "learning_rate": 1e-4, "ft_reduction": "mean"},
        {"method": "dpo", "learning_rate": 1e-6},
    ]
    groups = [group(f"t/{i}") for i in range(3)]
    runs = results.trials(groups, groups, settings, recipe=recipe(), max_responses=4)
    assert [run.name for run in runs] == [
        "rrtf-lr1e-04-ft_reduction=sum", "rrtf-lr1e-04-ft_reduction=mean", "dpo-lr1e-06",
    ]  # fmt: skip
    assert [run.recipe.ft_reduction for run in runs] == ["sum", "mean", "mean"]
    assert len({run.recipe.seed for run in runs}) == 1
    rows = results.trial_rows(runs, {run.name: 0.5 for run in runs})
    assert [row["variant"] for row in rows] == ["ft_reduction=sum", "ft_reduction=mean", ""]
    assert rows[2]["learning_rate"] == 1e-6


def test_the_best_rate_of_each_variant_wins_and_ties_go_to_the_smaller_rate():
    tie = {"method": "sft", "variant": "sum", "learning_rate": 1e-6, "pass@1": 0.5}
    best = {(r["method"], r["variant"]): r for r in results.best_rates([*ROWS, tie])}
    assert best["sft", "sum"]["learning_rate"] == 1e-6
    assert best["rrtf", "sum"]["pass@1"] == 0.45
    assert len(best) == 3


def test_a_shared_rate_needs_all_methods_and_has_the_best_mean():
    shared = results.shared_rates(ROWS, ["sft", "rrtf"])
    assert [row["learning_rate"] for row in shared] == [1e-4, 1e-5]
    assert shared[0]["mean"] == pytest.approx(0.425)
    assert all(row["variant"] == "sum" for row in shared)


def test_a_large_group_is_cut_to_its_target_and_others_drawn_by_key():
    outcomes = (Outcome.FAILED_TESTS, *[Outcome.RUNTIME_ERROR] * 7, Outcome.PASS)
    large = RankedGroup(
        "t/0", "p", tuple("abcdefghi"), ("teacher", *["student"] * 8), outcomes,
        tuple(float(o) for o in outcomes), 0,
    )  # fmt: skip
    chosen, _ = methods.training_set("rrhf", [large], [], max_responses=4)
    again, _ = methods.training_set("rrhf", [large], [], max_responses=4)
    whole, _ = methods.training_set("rrhf", [large], [], max_responses=0)
    assert chosen == again and len(chosen[0].responses) == 4
    assert chosen[0].responses[chosen[0].sft_index] == "i", "the best response stays the target"
    assert len(whole[0].responses) == 9


def test_the_verified_variant_learns_from_pairs_whose_teacher_passes_at_its_own_rate():
    def pair(name: str, *outcomes: Outcome) -> RankedGroup:
        scores = tuple(float(outcome) for outcome in outcomes)
        return RankedGroup(name, "p", ("a", "b"), ("teacher", "student"), outcomes, scores, 0)

    right = pair("t/right", Outcome.PASS, Outcome.FAILED_TESTS)
    wrong = pair("t/wrong", Outcome.FAILED_TESTS, Outcome.RUNTIME_ERROR)
    both = [right, wrong], [right, wrong]
    chosen, dropped = methods.training_set("rrtf-verified", *both, max_responses=0)
    assert [group.task_id for group in chosen] == ["t/right"]
    assert dropped == {"teacher_not_passing": 1}
    how = {"seeds": {"rrtf": 1, "rrtf-verified": 1}, "recipe": recipe(), "max_responses": 0}
    rates = {"rrtf": 1e-5, "rrtf-verified": 1e-4}
    runs = train.plan(*both, learning_rates=rates, **how)
    assert {run.method: run.recipe.learning_rate for run in runs} == rates
    assert {run.recipe.objective for run in runs} == {"rrtf"}
