"""The choice of cases, their failing tests and the overlap, on tasks counted by hand."""

from dataclasses import dataclass

import pytest

from rrtf import cases
from rrtf.metrics import Metric
from rrtf.records import Execution, Outcome, Problem, Response, TaskScore

GREEDY, SAMPLED = Metric(1, 0.0), Metric(4, 0.8)
SOLVED = {  # method -> training seed -> greedy result of tasks t0 to t4
    "base": [[1, 1, 0, 0, 0]],
    "sft": [[1, 0, 1, 0, 0]],
    "rrtf": [[1, 0, 1, 0, 0], [1, 0, 1, 0, 0], [1, 0, 0, 0, 1]],
}
OFTEN = {"base": [4, 4, 0, 0, 0], "sft": [4, 1, 4, 2, 0], "rrtf": [4, 0, 4, 1, 2]}


@dataclass(frozen=True)
class Result:
    value: object
    error: str = ""


def all_scores():
    rows = []
    for method, seeds in SOLVED.items():
        for seed, solved in enumerate(seeds):
            for t, c in enumerate(solved):
                rows.append(TaskScore(method, "toy", f"t{t}", 1, c, seed, 0.0, f"t{t}"))
                often = OFTEN[method][t]
                rows.append(TaskScore(method, "toy", f"t{t}", 4, often, seed, 0.8, f"t{t}"))
    return rows


def choose(**changes):
    rule = dict(a="rrtf", b="base", greedy=GREEDY, sampled=SAMPLED, per_kind=2) | changes
    return cases.choose(all_scores(), **rule)


def test_rates_are_means_over_training_seeds():
    assert cases.rates(all_scores(), "rrtf", GREEDY)["t2"] == pytest.approx(2 / 3)


def test_gains_losses_and_hopeless_tasks_are_chosen_by_rule():
    assert choose() == [
        ("largest gain", "t2"), ("largest gain", "t4"), ("largest loss", "t1"), ("all wrong", "t3"),
    ]  # fmt: skip


def test_a_kind_without_tasks_is_left_out():
    assert choose(a="base", b="base") == [("all wrong", "t3")]


def test_examples_are_the_literal_assertions(add_problem):
    assert cases.examples(add_problem) == [((1, 2), 3), ((0, 0), 0), ((-1, 1), 0)]


def test_assertions_that_are_not_literal_are_no_examples():
    tests = (
        "def check(candidate):\n    assert candidate(len('a')) == 1\n    assert candidate(2) > 1\n"
    )
    assert cases.examples(Problem("t", "", "f", tests)) == []


def test_the_failing_test_is_the_first_wrong_value_or_error(add_problem):
    right, wrong, broken = Result(3), Result(4), Result(None, "TypeError")
    assert cases.failing_test(add_problem, [right, Result(0), Result(0)]) == ""
    shown = cases.failing_test(add_problem, [right, wrong, broken])
    assert shown == "add(0, 0) == 0\nreturns 4"
    assert cases.failing_test(add_problem, [broken, right, right]).endswith("raises TypeError")


def test_cases_show_the_first_training_and_the_test_that_fails(add_problem):
    verdicts = {
        "base/0@0": Outcome.FAILED_TESTS,
        "rrtf/1@0": Outcome.PASS,
        "rrtf/3@0": Outcome.PASS,
    }
    responses = [Response("toy/add", source, 0, f"text {source}", source) for source in verdicts]
    executions = [
        Execution("toy/add", source, 0, outcome, "", 3 if outcome == 4 else 1, 3, "process")
        for source, outcome in verdicts.items()
    ]
    asked = []

    def call(programs, inputs):
        asked.append((programs, inputs))
        return [(Result(3), Result(1), Result(0))]

    found = cases.describe(
        [("largest gain", "toy/add")], [add_problem], responses, executions, call,
        shown=["base", "oracle", "rrtf"],
    )  # fmt: skip
    assert [(case.model, case.seed, case.answer) for case in found] == [
        ("base", 0, "text base/0@0"), ("rrtf", 1, "text rrtf/1@0"),
    ]  # fmt: skip
    assert [case.failing_test for case in found] == ["add(0, 0) == 0\nreturns 1", ""]
    assert asked == [([("base/0@0", "add")], [(1, 2), (0, 0), (-1, 1)])]
    rows = cases.side_by_side(found)
    assert [row["model"] for row in rows] == ["task", "base", "rrtf"]


def test_the_overlap_counts_every_task_once():
    rows = cases.overlap(all_scores(), ["base", "sft", "rrtf"], [GREEDY, SAMPLED])
    assert len(rows) == 8 and all(sum(r[m.name] for r in rows) == 5 for m in (GREEDY, SAMPLED))
    greedy = cases.regions(rows, GREEDY.name)
    assert greedy[("base", "sft", "rrtf")] == 1 and greedy[("base",)] == 1
    assert greedy[("sft", "rrtf")] == 1 and greedy[()] == 2
    assert cases.solved_counts(rows, GREEDY.name) == {"base": 2, "sft": 2, "rrtf": 2}


def test_a_task_that_one_training_of_three_solves_is_not_solved_by_the_method():
    rows = cases.overlap(all_scores(), ["rrtf"], [GREEDY])
    assert cases.regions(rows, GREEDY.name) == {("rrtf",): 2, (): 3}


def test_outcomes_and_reasons_add_up_over_seeds():
    runs = [
        Execution("t0", "rrtf/1@0", 0, Outcome.PASS, "", 1, 1, "process"),
        Execution("t0", "rrtf/2@0", 0, Outcome.RUNTIME_ERROR, "IndexError", 0, 1, "process"),
        Execution("t0", "base/0@0", 0, Outcome.RUNTIME_ERROR, "cpu_time", 0, 1, "process"),
        Execution("t0", "base/0@0.8", 0, Outcome.PASS, "", 1, 1, "process"),
    ]
    assert cases.outcomes(runs, 0.0) == {
        "rrtf": {"PASS": 1, "RUNTIME_ERROR": 1}, "base": {"RUNTIME_ERROR": 1},
    }  # fmt: skip
    assert cases.reasons(runs, 0.0, shown=["base", "rrtf"]) == [
        {"outcome": "RUNTIME_ERROR", "reason": "IndexError", "base": 0.0, "rrtf": 50.0},
        {"outcome": "RUNTIME_ERROR", "reason": "cpu_time", "base": 100.0, "rrtf": 0.0},
    ]
