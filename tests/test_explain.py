"""Rows of single numbers against the library's loss."""

import pytest

from rrtf.loss import PAPER
from rrtf.records import Outcome, RankedGroup
from rrtf.step import explain

GROUP = RankedGroup(
    task_id="toy/add",
    prompt="def add(a, b):",
    responses=("\n    return a + b", "\n    return", "\n    return a - b\n    pass"),
    sources=("teacher", "student", "student"),
    outcomes=(Outcome.PASS, Outcome.RUNTIME_ERROR, Outcome.FAILED_TESTS),
    scores=(3.5, 1.0, 2.0),
    sft_index=0,
)


def test_the_rows_of_a_group_add_up_to_the_loss_of_the_library(tiny_model):
    rows = explain.response_rows([GROUP], model=tiny_model)
    assert [row["|y|"] for row in rows] == [len(text) + 1 for text in GROUP.responses]
    rank = sum(row["L_rank"] for row in explain.hinge_rows(rows, margin=0.0))
    ours = explain.library_loss([GROUP], model=tiny_model, weights=PAPER)
    assert ours["L_rank"] == pytest.approx(rank, rel=1e-5)
    assert ours["L_ft"] == pytest.approx(-rows[0]["sum log P"], rel=1e-5)
    assert ours["L"] == pytest.approx(rank - rows[0]["sum log P"], rel=1e-5)


def test_the_tokens_of_a_response_add_up_to_its_row(tiny_model):
    rows = explain.response_rows([GROUP], model=tiny_model)
    tokens = explain.token_rows(GROUP, 2, model=tiny_model)
    assert sum(token["log P"] for token in tokens) == pytest.approx(rows[2]["sum log P"], rel=1e-5)
    assert tokens[-1]["token"] == "'<|endoftext|>'"
    assert len(explain.token_rows(GROUP, 2, model=tiny_model, limit=4)) == 4


def test_the_rows_of_a_group_hold_its_losses_and_every_token_by_model(tiny_model):
    (before, after) = explain.likelihood_rows(
        [GROUP], {"before": tiny_model, "after": tiny_model}, weights=PAPER
    )
    assert after == before | {"model": "after"}
    ours = explain.library_loss([GROUP], model=tiny_model, weights=PAPER)
    assert before["L_rank"] == pytest.approx(ours["L_rank"], abs=1e-3)
    assert before["L_ft"] == pytest.approx(ours["L_ft"], abs=1e-3)
    assert ["".join(tokens) for tokens in before["tokens"]] == [
        f"{text}<|endoftext|>" for text in GROUP.responses
    ]
    assert sum(before["log_probs"][0]) == pytest.approx(-ours["L_ft"], abs=1e-2)


def test_a_pair_in_the_right_order_is_silent_and_a_wrong_one_weighted_by_its_scores():
    rows = [
        {"task": "t", "source": "teacher", "outcome": "PASS", "r": 3.5, "p": -1.0},
        {"task": "t", "source": "student", "outcome": "PASS", "r": 3.0, "p": -2.0},
        {"task": "t", "source": "student", "outcome": "FAILED_TESTS", "r": 2.0, "p": -0.5},
        {"task": "u", "source": "student", "outcome": "PASS", "r": 3.0, "p": 0.0},
    ]
    found = explain.hinge_rows(rows, margin=0.0)
    assert [row["L_rank"] for row in found] == [0.0, 0.75]
    assert [row["order"] for row in found] == ["right", "wrong"]


def test_the_summed_gradient_of_imitation_outweighs_the_mean(tiny_model):
    (row,) = explain.gradient_rows([GROUP], {"base": tiny_model})
    assert row["|grad L_ft|, sum"] > 5 * row["|grad L_ft|, mean"] > 0
    assert row["share of L_rank beside the sum"] <= row["beside the mean"]


def test_without_a_tie_break_an_equal_student_has_no_weight():
    scores = dict(zip(Outcome, (0.0, 1.0, 2.0, 3.0), strict=True))
    rows = explain.tie_rows(scores, [0.0, 0.5])
    assert [row["weight, tie-break 0"] for row in rows] == [3.0, 2.0, 1.0, 0.0]
    assert [row["weight, tie-break 0.5"] for row in rows] == [3.5, 2.5, 1.5, 0.5]
