"""What each method learns from, and at which rate."""

from test_train import recipe

from rrtf import methods, train
from rrtf.records import Outcome, RankedGroup


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
