"""What is computed from the paper's figures, against counts done by hand."""

import pytest

from rrtf import paper

FIGURES = paper.figures()
FACTS = {row["fact"]: row["values"] for row in paper.audit(FIGURES)}


def fact(words):
    return next(values for name, values in FACTS.items() if words in name)


def test_every_table_of_the_paper_says_where_it_stands():
    tables = [table for table in FIGURES.values() if isinstance(table, dict) and "rows" in table]
    assert len(tables) == 5 and all(table["source"] and table["what"] for table in tables)


def test_the_regions_of_figure_5_cover_humaneval():
    for column in ("greedy", "pass_at_200"):
        assert sum(row[column] for row in FIGURES["figure_5"]["rows"]) == 164


def test_every_greedy_rate_is_a_whole_number_of_tasks():
    found = [row["humaneval solved"] for row in paper.greedy_rows(FIGURES)]
    assert found == [39, 92, 54, 98, 102]
    assert [row["codereval solved"] for row in paper.greedy_rows(FIGURES)] == [35, 63, 87, 77, 88]


def test_a_rate_between_two_counts_is_refused():
    with pytest.raises(ValueError, match="no whole number"):
        paper.solved(60.0, 164)


def test_intervals_of_the_tables_are_wilsons():
    assert paper.greedy_rows(FIGURES)[-1]["humaneval 95 %"] == "54.6 to 69.3"
    assert paper.sampled_rows(FIGURES)[-1]["95 %"] == "54.0 to 68.7"


def test_a_figure_the_paper_does_not_give_stays_empty():
    phi = next(row for row in paper.sampled_rows(FIGURES) if row["model"] == "Phi-1")
    assert phi["pass@10"] is None and phi["pass@100"] is None


def test_pangu_coder2_against_wizardcoder_is_21_against_17_tasks():
    found = paper.paired(FIGURES, "PanGu-Coder2", "WizardCoder")
    assert (found["only a"], found["only b"]) == (21, 17)
    assert found["p"] == pytest.approx(0.627, abs=0.001)


def test_the_audit_finds_the_batch_size_of_the_small_run():
    assert fact("data sizes")["implied_batch"]["18000"] == 8


def test_the_audit_finds_that_figure_5_and_table_2_cannot_be_one_run():
    found = fact("StarCoder solves fewer")
    assert found["contradiction"] and found["solved_within_200"] == 99
    assert found["least_tasks_for_pass_at_100"] == 131


def test_the_audit_counts_one_function_on_codereval():
    assert fact("CoderEval")["lead"] == 1


def test_the_audit_keeps_both_rates_of_gpt_3_5():
    assert fact("GPT-3.5")["better_than"] == ["OpenAI"]


def test_the_audit_weighs_int8_against_its_noise():
    found = fact("CTranslate2")
    assert found["more_tasks"] == 4
    assert found["difference_points"] < found["standard_error_points"]


def test_the_greedy_regions_agree_with_table_3():
    found = fact("regions of Fig 5")
    assert found["figure_5"] == found["table_3"]


def test_facts_are_shown_as_text_with_two_decimals():
    (row,) = paper.shown([{"fact": "x", "place": "Fig 1", "values": {"p_value": 0.62710, "n": 3}}])
    assert row["values"] == "p value: 0.63\nn: 3"
