"""Tests by agreement: literals only, votes counted right, doubt is dropped, references pass."""

from functools import partial

import pytest
from conftest import LIMITS, call, execute
from scripted_teacher import CODE, Teacher, reply

from rrtf.evolve import testing
from rrtf.evolve.asking import freely
from rrtf.evolve.testing import parse_inputs, vote, write_tests
from rrtf.records import Instruction, Outcome, Problem, Response
from rrtf.strength import examine

CALL = partial(call, workers=1, cpu_seconds=1.0, wall_seconds=3.0)


def _row(code=CODE, number=1):
    task = "Return the sum of the numbers that are not odd and negative."
    return Instruction(f"s/{number}", task, output=code, seed_id=f"s/{number}", source="s")


def _add(rows, teacher=None, **more):
    how = {"answers": 5, "inputs": 10, "least_share": 0.6, "decoding": freely(0)} | more
    return testing.add_tests(rows, ask=teacher or Teacher(), call=CALL, **how)


# --- inputs ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "parameters", "found"),
    [
        ("[[1, 2]]\n[[]]", (1, 1), [([1, 2],), ([],)]),
        ('Inputs:\n1. ["a", 3]\n2) ("b", -1.5),\n- ["c", None]', (2, 2),
         [("a", 3), ("b", -1.5), ("c", None)]),
        ("```python\n[1]\n[2]\n```", (1, 1), [(1,), (2,)]),
        ('[["a", true], ["b", null]]', (2, 2), [(["a", True], ["b", None])]),
        ('[["a", true],\n ["b", null]]', (2, 2), [("a", True), ("b", None)]),
        ("[[1], [2], [3]]", (1, 1), [(1,), (2,), (3,)]),
        ("[{'a': {1, 2}}, (3,)]", (1, 3), [({"a": {1, 2}}, (3,))]),
        ("[]", (0, None), [()]),
    ],
)  # fmt: skip
def test_inputs_are_read_in_the_ways_models_write_them(text, parameters, found):
    assert parse_inputs(text, parameters) == (found, {})


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[__import__('os').system('true')]", "the input is no literal list of arguments"),
        ("[2 ** 99]", "the input is no literal list of arguments"),
        ("[[0] * 9]", "the input is no literal list of arguments"),
        ("[" * 5000, "the input is no literal list of arguments"),
        ("[...]", "the input is no literal list of arguments"),
        ("[1, 2, 3]", "other arguments than the function takes"),
        (f"['{'a' * 6000}']", "the input is too long"),
    ],
)
def test_what_is_no_literal_is_never_run_and_counted(text, reason):
    assert parse_inputs(text, (1, 1)) == ([], {reason: 1})


def test_equal_inputs_count_once():
    assert parse_inputs("[1]\n[1]\n[1.0]", (1, 1)) == ([(1,), (1.0,)], {"the same input again": 1})


# --- votes -------------------------------------------------------------------------------------


def _column(*values):
    return [v if isinstance(v, tuple) else ("value", v) for v in values]


ERROR = ("error", "ValueError")


@pytest.mark.parametrize(
    ("column", "answers", "share", "result"),
    [
        (_column(1, 1, 1, 2, 2), 5, 0.6, ("", 1)),
        (_column(1, 1, 2, 2, 3), 5, 0.6, ("the answers disagree", None)),
        (_column(1, 1, 1), 5, 0.6, ("", 1)),
        (_column(1, 1), 5, 0.6, ("the answers disagree", None)),  # three never came
        (_column(1, True, 1.0), 3, 1.0, ("", 1)),
        (_column(0.1 + 0.2, 0.3, 0.3), 3, 1.0, ("", 0.1 + 0.2)),
        (_column([1], ("value", (1,)), [1]), 3, 1.0, ("the answers disagree", None)),
        (_column(ERROR, ("error", "KeyError"), 1), 3, 0.6,
         ("the answers raise errors or do not end", None)),
        (_column(*[("error", "another value when run again")] * 3), 3, 0.6,
         ("another value when run again", None)),
        (_column(*[("error", "no plain value")] * 3), 3, 0.6, ("no plain value", None)),
    ],
)  # fmt: skip
def test_an_output_needs_its_share_of_all_answers(column, answers, share, result):
    assert vote(column, answers, share) == result


def test_a_share_that_two_outputs_could_have_is_refused():
    for share in (0.5, 0.2, 1.1):
        with pytest.raises(ValueError, match="above one half"):
            _add([_row()], least_share=share)
    with pytest.raises(ValueError, match="at least 2 answers"):
        _add([_row()], answers=1)


# --- tests -------------------------------------------------------------------------------------


def _verdict(problem, program):
    (run,) = execute([problem], [Response(problem.task_id, "", 0, "", program)], workers=1)
    return run


def test_tests_compare_floats_with_tolerance_and_the_rest_exactly():
    values = [0.3, [1.0, 2], {"a": (0.1,)}, float("inf"), float("nan"), "x", [1, 2]]
    tests = write_tests([(n,) for n in range(len(values))], values)
    problem = Problem("t", "", "f", tests)
    right = f"nan, inf = float('nan'), float('inf')\nV = {values!r}\ndef f(n):\n    return V[n]\n"
    run = _verdict(problem, right)
    assert (run.outcome, run.n_passed, run.n_tests) == (Outcome.PASS, 7, 7)
    near = right.replace("[0.3,", "[0.1 + 0.2,")
    assert _verdict(problem, near).n_passed == 7
    wrong = right.replace("[1, 2]]", "(1, 2)]").replace("0.1,", "0.11,").replace("inf, nan", "1, 2")
    assert _verdict(problem, wrong).n_passed == 3


def test_problems_with_tests_have_a_reference_that_passes_and_tests_that_see():
    found = _add([_row(number=n) for n in (1, 2)])
    assert len(found.rows) == 2 and not found.dropped
    assert found.inputs == {"kept": 10}
    problems = [problem for _, problem in found.rows]
    assert problems[0].tests.count("assert") == 5
    broken, strengths = examine.examine(
        problems, n_mutants=10, seed=0, limits=LIMITS, execute=execute
    )
    assert not broken and all(one.n_mutants and one.strength > 0.5 for one in strengths)


def test_rows_are_problems_or_dropped_with_a_reason():
    rows = [_row(), _row("print(1)", 2), _row("def f(:", 3)]
    found = _add(rows)
    assert len(found.rows) + len(found.dropped) == len(rows)
    assert {row.task_id for row, _ in found.dropped} == {"s/2", "s/3"}


def test_a_wrong_own_answer_gives_way_to_one_that_the_others_share():
    wrong = "def total(numbers):\n    return len(numbers)\n"
    found = _add([_row(wrong)])
    ((row, problem),) = found.rows
    assert "n % 2" in row.output and "n % 2" in problem.reference
    assert _verdict(problem, problem.prompt + problem.reference).outcome == Outcome.PASS


def test_answers_that_differ_leave_no_tests():
    bodies = iter(range(1, 100))

    def other(ask):
        return f"```python\ndef total(numbers):\n    return {next(bodies)}\n```"

    found = _add([_row()], Teacher(again=other))
    assert [why for _, why in found.dropped] == [
        "tests: fewer than 3 inputs that the answers agree on"
    ]
    assert found.inputs == {"the answers disagree": 5}


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import random\ndef total(numbers):\n    return random.random()\n", "another value"),
        ("def total(numbers):\n    raise ValueError\n    return 1\n", "raise errors"),
        ("def total(numbers):\n    while True:\n        pass\n    return 1\n", "raise errors"),
        ("def total(numbers):\n    return (n for n in numbers)\n", "no plain value"),
        ("def total(numbers):\n    return list(range(9999))\n", "too long"),
        ("def total(numbers):\n    import os\n    os._exit(0)\n    return 1\n", "raise errors"),
        (
            "def total(numbers, seen=set()):\n    seen.add(len(seen))\n    return id(seen)\n",
            "another",
        ),
    ],
)
def test_outcomes_that_no_test_can_ask_for_are_dropped_by_reason(code, reason):
    found = _add([_row(code)], Teacher(again=f"```python\n{code}```"), answers=3)
    assert not found.rows
    (told,) = found.inputs
    assert reason in told and sum(found.inputs.values()) == 5


def test_one_output_for_all_inputs_is_no_test():
    code = "def total(numbers):\n    return 0\n"
    found = _add([_row(code)], Teacher(again=f"```\n{code}```"))
    assert [why for _, why in found.dropped] == ["tests: one output for all inputs"]


def test_answers_that_never_came_count_against_agreement():
    silent = Teacher(again=reply("", error="HTTP 500"))
    found = _add([_row()], silent)
    assert not found.rows and found.inputs == {"the answers disagree": 5}


def test_inputs_from_prose_or_silence_leave_no_tests():
    for said in ("I cannot think of any.", "", "f([1, 2])"):
        found = _add([_row()], Teacher(inputs=said))
        assert not found.rows and len(found.dropped) == 1


def test_a_function_that_changes_its_argument_sees_a_fresh_one_each_time():
    code = "def total(numbers):\n    numbers.append(1)\n    return numbers\n"
    found = _add([_row(code)], Teacher(again=f"```python\n{code}```"))
    ((_, problem),) = found.rows
    assert "candidate([7]) == [7, 1]" in problem.tests


def test_answers_that_are_all_one_text_are_counted():
    own = Teacher(again=lambda ask: f"```python\n{CODE}```" if ask.seed % 2 else CODE + "\n# x\n")
    assert _add([_row()]).n_alike in (0, 1)
    assert _add([_row(number=n) for n in range(4)], own).n_trials == 4


def test_cutting_rows_into_calls_changes_nothing(monkeypatch):
    rows = [_row(number=n) for n in range(1, 6)]
    whole = _add(rows)
    monkeypatch.setattr(testing, "ROWS_PER_CALL", 2)
    assert _add(rows) == whole
    turned = _add(rows[::-1])
    assert sorted(map(repr, turned.rows)) == sorted(map(repr, whole.rows))


def test_the_model_is_shown_the_head_and_never_the_body():
    teacher = Teacher()
    _add([_row()], teacher, answers=3, inputs=7)
    assert len(teacher.asks) == 3
    for ask in teacher.asks:
        assert "def total(numbers):" in ask.messages[-1][1] and "sum(" not in ask.messages[-1][1]
    assert "Give 7 different inputs" in teacher.asks[0].messages[-1][1]
