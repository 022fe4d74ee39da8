"""Who solves what, where an answer fails and how often, on tasks counted by hand."""

import ast
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import execute

from rrtf import prompts, store
from rrtf.cases import choice, sheets
from rrtf.figures import style, tables
from rrtf.records import Execution, Outcome, Problem, Response, TaskScore
from rrtf.sandbox.wire import REASONS
from rrtf.stats import Metric

GREEDY, SAMPLED = Metric(1, 0.0), Metric(4, 0.8)
SOLVED = {  # method -> training seed -> greedy result of tasks t0 to t4
    "base": [[1, 1, 0, 0, 0]],
    "sft": [[1, 0, 1, 0, 0]],
    "rrtf": [[1, 0, 1, 0, 0], [1, 0, 1, 0, 0], [1, 0, 0, 0, 1]],
}
OFTEN = {"base": [4, 4, 0, 0, 0], "sft": [4, 1, 4, 2, 0], "rrtf": [4, 0, 4, 1, 2]}
NAMES = ["base", "sft", "rrtf"]


def all_scores():
    rows = []
    for method, seeds in SOLVED.items():
        for seed, solved in enumerate(seeds):
            for t, c in enumerate(solved):
                rows.append(TaskScore(method, "toy", f"t{t}", 1, c, seed, 0.0, f"t{t}"))
                often = OFTEN[method][t]
                rows.append(TaskScore(method, "toy", f"t{t}", 4, often, seed, 0.8, f"t{t}"))
    return rows


def greedy_scores():
    return [row for row in all_scores() if not row.temperature]


def choose(**changes):
    rule = dict(a="rrtf", b="base", greedy=GREEDY, sampled=SAMPLED, per_kind=2) | changes
    return choice.choose(all_scores(), **rule)


def test_in_the_place_of_a_method_that_was_not_trained_stands_another_that_was():
    scores = [row for row in greedy_scores() if row.model != "rrtf"]
    assert choice.evaluated(["rrtf", "base"], scores) == ["sft", "base"]
    assert choice.evaluated(["base", "sft", "rrtf"], scores) == ["base", "sft"]
    assert choice.evaluated(["rrtf", "base"], greedy_scores()) == ["rrtf", "base"]


def test_gains_losses_and_hopeless_tasks_are_chosen_by_rule():
    assert choose() == [
        ("largest gain", "t2"), ("largest gain", "t4"), ("largest loss", "t1"), ("all wrong", "t3"),
    ]  # fmt: skip
    assert choose(a="base", b="base") == [("all wrong", "t3")], "a kind without tasks is left out"
    found = choice.choose(greedy_scores(), a="rrtf", b="base", greedy=GREEDY, per_kind=1)
    assert found == [("largest gain", "t2"), ("largest loss", "t1"), ("all wrong", "t3")]


def test_a_task_that_one_rival_alone_solves_is_shown_once_under_its_first_rule():
    assert choose(per_kind=1, rivals=["base", "sft"]) == [
        ("largest gain", "t2"), ("largest loss", "t1"), ("all wrong", "t3"),
    ]  # fmt: skip
    rows = [r for r in all_scores() if r.task_id != "t2" or r.model != "rrtf"]
    rows += [TaskScore("rrtf", "toy", "t2", n, 0, s, t) for s in range(3) for n, t in ((1, 0.0), (4, 0.8))]  # fmt: skip  # noqa: E501
    found = choice.choose(rows, a="rrtf", b="base", greedy=GREEDY, per_kind=1, rivals=["base", "sft"])  # fmt: skip  # noqa: E501
    assert ("only sft", "t2") in found and ("largest loss", "t1") in found
    assert not any(kind == "only base" for kind, _ in found)


def test_among_tasks_that_one_alone_solves_those_come_first_that_others_sample_least():
    def rows(method, solved, often):
        for t, (c, n) in enumerate(zip(solved, often, strict=True)):
            yield TaskScore(method, "toy", f"t{t}", 1, c, 0, 0.0)
            yield TaskScore(method, "toy", f"t{t}", 4, n, 0, 0.8)

    scores = [*rows("a", [1, 1, 1], [4, 4, 4]), *rows("b", [0, 0, 0], [3, 0, 1])]
    scores += rows("c", [1, 1, 1], [4, 4, 4])
    found = choice.choose(scores, a="b", b="b", greedy=GREEDY, sampled=SAMPLED, per_kind=2,
                         rivals=["a", "b"])  # fmt: skip
    assert found == [("only a", "t1"), ("only a", "t2")]


def test_rates_are_means_over_training_seeds_and_one_of_fewer_tasks_is_named():
    assert choice.solved_rates(all_scores(), "rrtf", GREEDY)["t2"] == pytest.approx(2 / 3)
    rows = [r for r in greedy_scores() if (r.model, r.seed, r.task_id) != ("rrtf", 1, "t3")]
    with pytest.raises(ValueError, match="rrtf, seed 1: 4 of 5 tasks for pass@1 greedy"):
        choice.solved_rates(rows, "rrtf", GREEDY)


def test_the_overlap_counts_every_task_once():
    rows = choice.overlap(all_scores(), NAMES, [GREEDY, SAMPLED])
    assert len(rows) == 8 and all(sum(r[m.name] for r in rows) == 5 for m in (GREEDY, SAMPLED))
    greedy = choice.regions(rows, GREEDY.name)
    assert greedy[("base", "sft", "rrtf")] == 1 and greedy[("base",)] == 1
    assert greedy[("sft", "rrtf")] == 1 and greedy[()] == 2
    assert choice.solved_counts(rows, GREEDY.name) == {"base": 2, "sft": 2, "rrtf": 2}
    for names, expected in (  # a task that one training of three solves is not the method's
        (["base", "sft"], {("base",): 1, ("sft",): 1, ("base", "sft"): 1, (): 2}),
        (["rrtf"], {("rrtf",): 2, (): 3}),
    ):
        two = choice.overlap(greedy_scores(), names, [GREEDY])
        assert choice.regions(two, GREEDY.name) == expected
    more = [*greedy_scores(), TaskScore("sft", "toy", "t9", 1, 1)]
    with pytest.raises(ValueError, match="base and sft were scored on different tasks: t9"):
        choice.overlap(more, ["base", "sft"], [GREEDY])


def test_the_lists_name_the_tasks_of_every_region_but_all_and_none():
    problems = [Problem(f"t{n}", f'"""Task {n}: count.\n>>> f()\n"""\n', "f", "") for n in range(5)]
    assert choice.alone(all_scores(), NAMES, GREEDY, problems) == [
        {"solved only by": "base", "task_id": "t1", "task": "Task 1: count."},
        {"solved only by": "sft and rrtf", "task_id": "t2", "task": "Task 2: count."},
    ]
    rows = choice.overlap(all_scores(), NAMES, [GREEDY])
    inner = sum(r[GREEDY.name] for r in rows if 0 < len(r["solved_by"]) < 3)
    assert len(choice.alone(all_scores(), NAMES, GREEDY)) == inner


@pytest.mark.parametrize(
    ("prompt", "entry_point", "line"),
    [
        ('def f(x):\n    """Add one.\n    >>> f(1)\n    2\n    """\n', "f", "Add one."),
        ('"""\nWrite f.\nassert f(1) == 2\n"""\n', "f", "Write f. assert f(1) == 2"),
        ('import re\n\n"""Given words."""\nclass Solution:\n    def f(self, x):\n        ',
         "Solution().f", "Given words."),
        ("# add one\ndef f(x):\n", "f", "# add one def f(x):"),
        ("Add one (to it", "f", "Add one (to it"),
    ],
)  # fmt: skip
def test_the_first_line_of_a_task_is_what_it_asks_cut_at_a_word(prompt, entry_point, line):
    assert choice.first_line(Problem("t", prompt, entry_point, "")) == line
    long = choice.first_line(Problem("t", f'"""{"word " * 60}"""\n', "f", ""))
    assert len(long) <= 110 and long.endswith("word …")


def run_of(tests, program, entry_point="f", prompt="", **limits):
    problem = Problem("t", prompt, entry_point, tests)
    response = Response("t", "m/0@0", 0, program, program)
    return execute([problem], [response], **limits)[0]


def check(*lines):
    return "def check(candidate):\n" + "".join(f"    {line}\n" for line in lines)


F = "def f(x):\n    return x\n"


@pytest.mark.parametrize(
    ("tests", "test", "line", "called", "expected", "got"),
    [
        ("assert f(1) == 1\nassert f(x=2) == 3\n", 2, 2, "f(x=2)", "3", "2"),
        ("assert 3 == f(2)\n", 1, 1, "f(2)", "3", "2"),
        (check("assert candidate(1)", "assert not candidate(1)"),
         2, 3, "f(1)", "a false value", "1"),
        (check("assert candidate(0), 'message'"), 1, 2, "f(0)", "a true value", "0"),
        (check("assert candidate(3) is None"), 1, 2, "f(3)", "None", "3"),
        (check("assert candidate(3) < 2"), 1, 2, "f(3)", "< 2", "3"),
        (check("assert candidate(3) in [1, 2]"), 1, 2, "f(3)", "in [1, 2]", "3"),
        (check("assert candidate(1) != 1"), 1, 2, "f(1)", "!= 1", "1"),
        (check("assert abs(candidate(1.5) - 2.5) < 1e-3"),
         1, 2, "f(1.5)", "within 0.001 of 2.5", "1.5"),
        (check("assert sorted(candidate([2, 1])) == [1]"), 1, 2, "f([2, 1])", "[1]", "[1, 2]"),
        (check("for x in range(5):", "    assert candidate(x) == min(x, 2)"),
         4, 3, "f(3)", "2", "3"),
        (check("for x in 1, 2:", "    y = candidate(x)", "    assert y == 1"),
         2, 4, "f(2)", "1", "2"),
        (check("import math", "assert math.isclose(candidate(1.5), 2.5)"),
         1, 3, "f(1.5)", "", "1.5"),
        (check("y = candidate(-1)", "assert 2 < y"), 1, 3, "f(-1)", "> 2", "-1"),
        (check("assert 2 in candidate([1])"), 1, 2, "f([1])", "holding 2", "[1]"),
        ("from math import *\nassert f(1) == floor(2.5)\n", 1, 2, "f(1)", "2", "1"),
        ("def is_two(x):\n    assert x == 2\n" + check("is_two(candidate(3))"),
         1, 2, "f(3)", "2", "3"),
        (check("x = [2]", "assert candidate(x) == len(x)", "assert 1"), 1, 3, "f([2])", "1", "[2]"),
        ("assert sorted(f(None)) == []\n", 1, 1, "f(None)", "", "None"),
        ("import unittest\nclass T(unittest.TestCase):\n    def test_f(self):\n"
         "        self.assertEqual(f(1), 2)\n", 1, 4, "f(1)", "", "1"),
    ],
)  # fmt: skip
def test_the_judge_says_which_assertion_failed_first_and_both_its_sides(
    tests, test, line, called, expected, got
):
    run = run_of(tests, F)
    assert (run.failed_test, run.failed_line, run.called) == (test, line, called)
    assert (run.expected, run.got) == (expected, got)


@pytest.mark.parametrize(
    ("program", "got"),
    [
        ("def f(x):\n    raise ValueError('no', x)\n", "raises ValueError('no', [1, 2])"),
        ("def f(x):\n    while True:\n        pass\n", "stopped: cpu_time"),
        ("import os\ndef f(x):\n    os._exit(0)\n", "stopped: early_exit"),
        ("class A:\n    def __repr__(self):\n        return 'my own'\ndef f(x):\n    return A()\n",
         "<A>"),
        ("def f(x):\n    x.clear()\n    return {'b': (1,), 'a': {3, 1}}\n",
         "{'a': {1, 3}, 'b': (1,)}"),

         ("from collections import *\ndef f(x):\n    return deque(), 2.5, b'', frozenset(), int\n",
         "(deque(None,), 2.5, b'', frozenset(), int)"),
        ("def f(x):\n    return 10 ** 5000, {1: {}}, set()\n", "(<int>, {1: {}}, set())"),
        ("def f(x):\n    return [type('\\x1b[2J', (), {})()], '\\x1b[2J'\n",
         "([<object>], '\\x1b[2J')"),
        ("def f(x):\n    raise type('E', (Exception,), {'__str__': 5})(f, '\\n')\n",
         "raises E('')"),
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    "asked", ["assert candidate(x) == sum(x)", "assert candidate([1, 2]) == 3"]
)
def test_what_came_is_written_by_the_judge_and_never_by_the_program(program, got, asked):
    run = run_of(
        check(*["x = [1, 2]"] * ("x" in asked), asked), program, cpu_seconds=0.3, wall_seconds=20.0
    )
    assert (run.got, run.called, run.expected) == (got, "f([1, 2])", "3")


@pytest.mark.parametrize(
    "value", ["[[1] * 10**6] * 9", "'x' * 10**6", "{n: str(n) for n in range(10**5)}", "nested"]
)
def test_a_value_however_large_or_shared_costs_the_judge_little(value):
    body = "    y = [1]\n    for _ in range(14):\n        y = {0: y, 1: y}\n    return y\n"
    body = body if value == "nested" else f"    return {value}\n"
    run = run_of(check("assert candidate(1) == 1"), "def f(x):\n" + body)
    assert run.outcome == Outcome.FAILED_TESTS and 0 < len(run.got) <= 400


def test_long_texts_are_cut_around_the_first_difference():
    long = "def f(x):\n    return [*range(500), -1] * 99\n"
    run = run_of(check("assert candidate(1) == list(range(700))"), long)
    assert 300 < max(map(len, (run.expected, run.got))) <= 400
    assert "499, -1, 0, 1" in run.got and "499, 500, 501" in run.expected
    assert run.got.startswith("… ")
    run = run_of(check("assert candidate(1) == 1"), "raise ValueError('x' * 10**6)\n")
    assert run.got.startswith("raises ValueError('xxx") and len(run.got) <= 400


def test_a_program_that_does_not_load_says_why():
    tests = check("assert candidate(1) == 1")
    run = run_of(tests, "import nowhere\n")
    assert (run.failed_test, run.got[:27]) == (0, "raises ModuleNotFoundError(")
    assert run_of(tests, "def g(x) return").got == ""
    assert run_of(tests, F) == replace(run_of(tests, F), failed_test=9, got="no part of a verdict")


def test_an_object_of_the_prompts_class_is_shown_by_its_fields():
    prompt = "class Node:\n    def __init__(self, v):\n        self.v = v\n"
    tests = check("assert candidate(Node(1)) == Node(2)")
    run = run_of(tests, prompt + F, prompt=prompt + "def f(x):\n    ...\n")
    one, two = "Node{'v': 1}", "Node{'v': 2}"
    assert (run.called, run.expected, run.got) == (f"f({one})", two, one)


def differing(expected, got):
    return tuple([text for text, apart in side if apart] for side in sheets.marked(expected, got))


@pytest.mark.parametrize(
    ("expected", "returned", "left", "right"),
    [
        ("[1, 2, 3]", "[1, 5, 3]", ["2"], ["5"]), ("123", "173", ["123"], ["173"]),
        ("'abcde'", "'abXde'", ["c"], ["X"]), ("True", "False", ["True"], ["False"]),
        ("(1, 2)", "[1, 2]", ["(", ")"], ["[", "]"]), ("3", "'3'", [], ["'", "'"]),
        ("[1, 2]", "None", ["[1, 2]"], ["None"]),
        ("{'a': 1, 'b': 2}", "{'a': 1, 'b': 3}", ["2"], ["3"]),
        ("[0.1, 0.5]", "[0.10000000001, 0.7]", ["0.5"], ["0.7"]),
        ("0.3", "0.30000000000000004", ["0.3"], ["0.30000000000000004"]),
        ("-1", "1", ["-1"], ["1"]), ("< 2", "3", ["2"], ["3"]),
        ("within 0.1 of [1.0, 2.0]", "[1.04, 3.0]", ["2.0"], ["3.0"]),
    ],
)  # fmt: skip
def test_what_differs_is_marked_and_nothing_else(expected, returned, left, right):
    assert differing(expected, returned) == (left, right)
    odd = ("[1, 2, 'x\\'y']", "[1, 'xy']"), ("", "1"), ("<iterator>", "[1]"), ("!= 1", "1")
    for texts in ((expected, returned), *odd):
        pieces = ["".join(text for text, _ in side) for side in sheets.marked(*texts)]
        assert pieces == [*texts], "put together they are the texts"


RIGHT, WRONG = "def add(a, b): return a + b\n", "def add(a, b): return 3\n"


def described(problem, programs, kind="all wrong", **how):
    """Sheets of the programs by source, with the verdicts that the sandbox gives them."""
    answers = [Response("toy/add", s, 0, f"# {s}", program) for s, program in programs.items()]
    runs = execute([problem], answers)
    return sheets.describe([(kind, "toy/add")], [problem], answers, runs, **how)


def test_sheets_show_every_method_with_the_training_that_is_typical(add_problem, tmp_path):
    programs = {"base/0@0": WRONG, "rrtf/1@0": WRONG, "rrtf/2@0": RIGHT, "rrtf/3@0": RIGHT}
    programs["rrtf/1@0.8"] = WRONG
    shown = ["base", "oracle", "rrtf"]
    found = described(add_problem, programs, "largest gain", shown=shown)
    assert [(case.model, case.seed, case.n_seeds) for case in found] == [
        ("base", 0, 1), ("rrtf", 2, 3),
    ]  # fmt: skip
    assert [case.assertion for case in found] == ["assert candidate(0, 0) == 0", ""]
    (sheet,) = sheets.sheets(found)
    first, second = sheet["answers"]
    assert first["verdict"] == (
        "failed tests (wrong_value): 1 of 3 tests hold; the first that fails is test 2"
    )
    assert first["expected"] == [("0", True)] and first["returned"] == [("3", True)]
    assert second["verdict"] == "passes all 3 tests" and second["name"] == "rrtf\nseed 2"
    html = tables.sheet(sheet).data
    assert "toy/add" in html and "return a + b" in html and "<mark" in html
    store.write(tmp_path / "cases.jsonl", found)
    assert store.read(tmp_path / "cases.jsonl", sheets.Case) == found
    alone = described(
        add_problem, {"base/0@0": WRONG, "sft/0@0": RIGHT}, "only sft", shown=["base"]
    )
    assert [case.model for case in alone] == ["base", "sft"], "beside the others"


def test_the_typical_training_is_the_first_that_ends_as_most_do():
    ends = {1: Outcome.FAILED_TESTS, 2: Outcome.PASS, 3: Outcome.PASS}
    assert sheets.typical(ends) == 2 and sheets.typical(ends | {4: Outcome.COMPILE_ERROR}) == 1


def run(source, outcome, reason, n_passed=0, n_tests=2, task="t0"):
    return Execution(task, source, 0, Outcome[outcome], reason, n_passed, n_tests, "process")


@pytest.mark.parametrize(
    ("outcome", "reason", "n_passed", "kind"),
    [
        ("PASS", "", 2, "passes"), ("FAILED_TESTS", "wrong_value", 1, "some tests wrong"),
        ("FAILED_TESTS", "wrong_value", 0, "all tests wrong"),
        ("FAILED_TESTS", "wrong_type", 1, "wrong type"),
        ("FAILED_TESTS", "IndexError", 1, "some tests raise"),
        ("RUNTIME_ERROR", "NameError", 0, "name error"),
        ("RUNTIME_ERROR", "ValueError", 0, "type error"),
        ("RUNTIME_ERROR", "RecursionError", 0, "other error"),
        ("RUNTIME_ERROR", "MyOwnError", 0, "other error"),
        ("RUNTIME_ERROR", "cpu_time", 1, "too slow"), ("RUNTIME_ERROR", "memory", 0, "stopped"),
        ("RUNTIME_ERROR", "signal_11", 0, "stopped"), ("COMPILE_ERROR", "syntax", 0, "no program"),
        ("COMPILE_ERROR", "missing_entry_point", 0, "no program"),
    ],
)  # fmt: skip
def test_every_outcome_and_reason_has_one_kind(outcome, reason, n_passed, kind):
    assert sheets.kind(run("m/0@0", outcome, reason, n_passed)) == kind


def test_every_reason_of_the_sandbox_has_a_kind():

    for reason, (situation, _) in REASONS.items():
        assert sheets.kind(run("m/0@0", situation, reason)) in sheets.KINDS
    assert list(style.KIND_COLOURS) == list(sheets.KINDS)


TWO = [
    run("rrtf/1@0", "PASS", "", 2), run("rrtf/2@0", "RUNTIME_ERROR", "NameError"),
    run("base/0@0", "FAILED_TESTS", "wrong_value", 1), run("base/0@0.8", "COMPILE_ERROR", "syntax"),
]  # fmt: skip


def test_the_taxonomy_counts_every_answer_once():
    found = sheets.taxonomy(TWO, shown=())
    assert {name: {k: n for k, n in row.items() if n} for name, row in found.items()} == {
        "rrtf, greedy": {"passes": 1, "name error": 1},
        "base, greedy": {"some tests wrong": 1},
        "base, T=0.8": {"no program": 1},
    }
    assert list(sheets.taxonomy(TWO, shown=["base"])) == ["base, greedy", "base, T=0.8"]
    rows = sheets.taxonomy_rows(found)
    assert [row["kind"] for row in rows] == [
        "passes", "some tests wrong", "name error", "no program", "all answers",
    ]  # fmt: skip
    assert rows[-1]["rrtf, greedy"] == 2 and rows[2]["rrtf, greedy"] == 1


@pytest.mark.parametrize(
    ("expected", "got", "given", "kind"),
    [
        ("1", "None", "None", "wrong type"),
        ("[1]", "'a'", "another type", "wrong type"),
        ("1", "2.0", "wrong value", "some tests wrong"),
        ("{1, 2}", "{1: 2}", "another type", "wrong type"),
        ("[1, 2 …", "(1, 2 …", "another type", "wrong type"),
        ("… 2, 3]", "… 4, 3]", "wrong value", "some tests wrong"),
        ("< 2", "[3]", "wrong value", "some tests wrong"),
        ("1", "<A>", "another type", "wrong type"),
        ("1", "raises IndexError()", "nothing", "some tests wrong"),
    ],
)  # fmt: skip
def test_the_judges_word_tells_a_wrong_type_from_a_wrong_value(expected, got, given, kind):
    one = replace(TWO[2], expected=expected, got=got)
    assert (sheets.returned(one), sheets.kind(one)) == (given, kind)
    (row,) = sheets.given([one, *TWO], shown=["base"])
    counts = Counter([given, "nothing"]) | {"model": "base", "failing": 2}
    assert {name: value for name, value in row.items() if value} == counts


def test_the_table_of_changes_pairs_every_training_with_its_counterpart():
    before = [run("base/0@0", "PASS", "", 2), run("base/0@0", "COMPILE_ERROR", "syntax", task="t1")]
    wrong = run("rrtf/1@0", "FAILED_TESTS", "wrong_value", 1, task="t1")
    after = [
        run("rrtf/1@0", "PASS", "", 2), wrong,
        run("rrtf/2@0", "PASS", "", 2), run("rrtf/2@0", "PASS", "", 2, task="t1"),
    ]  # fmt: skip
    rows = sheets.changes([*before, *after], before="base", after="rrtf")
    assert [row["base"] for row in rows] == [
        "PASS", "FAILED_TESTS", "RUNTIME_ERROR", "COMPILE_ERROR",
    ]  # fmt: skip
    assert rows[0]["rrtf: PASS"] == 2 and rows[3]["rrtf: PASS"] == 1
    assert rows[3]["rrtf: FAILED_TESTS"] == 1 and sum(row["all"] for row in rows) == len(after)
    with pytest.raises(ValueError, match="t1: rrtf answered it, base did not"):
        sheets.changes([before[0], *after], before="base", after="rrtf")


def test_outcomes_and_reasons_add_up_over_seeds():
    runs = [
        run("rrtf/1@0", "PASS", "", 1), run("rrtf/2@0", "RUNTIME_ERROR", "IndexError"),
        run("base/0@0", "RUNTIME_ERROR", "cpu_time"), run("base/0@0.8", "PASS", "", 1),
    ]  # fmt: skip
    assert sheets.outcomes(runs, 0.0) == {
        "rrtf": {"PASS": 1, "RUNTIME_ERROR": 1}, "base": {"RUNTIME_ERROR": 1},
    }  # fmt: skip
    assert sheets.reasons(runs, 0.0, shown=["base", "rrtf"]) == [
        {"outcome": "RUNTIME_ERROR", "reason": "IndexError", "base": 0.0, "rrtf": 50.0},
        {"outcome": "RUNTIME_ERROR", "reason": "cpu_time", "base": 100.0, "rrtf": 0.0},
    ]


@pytest.mark.slow
@pytest.mark.parametrize("model", ["qwen2.5-coder-1.5b", "evol-replit-3b"])
def test_published_failing_answers_to_humaneval_show_the_test_they_fail(model):
    """Every answer that loads and fails has its first failing test, in line with what held."""
    folder = os.environ.get("RRTF_DATA")
    if not folder:
        pytest.skip("RRTF_DATA names no folder with published answers")
    file = Path(folder) / "generations" / model / "humaneval.jsonl.gz"
    if not file.exists():
        pytest.skip(f"{model}: published answers are not here")
    from rrtf import benchmarks

    by_id = {p.task_id: p for p in benchmarks.load("humaneval", data=Path(folder))}
    rows = [row for _, row in store.read_rows(file)]
    responses = [
        Response(r["task_id"], "model/0@0", 0, r["completion"],
                 prompts.extract(by_id[r["task_id"]], r["completion"]))
        for r in rows
    ]  # fmt: skip
    failing = [e for e in execute([*by_id.values()], responses) if e.outcome != Outcome.PASS]
    assert len(failing) > 20
    for run in failing:
        text = sheets.assertion(by_id[run.task_id].tests, run)
        assert bool(run.failed_test) == (run.outcome != Outcome.COMPILE_ERROR) or run.got, run
        assert 0 <= run.failed_test - 1 <= run.n_passed or run.failed_test == 0, run
        assert not run.failed_test or ast.parse(text.rstrip(":")), run
