"""Flakiness: what changes from run to run is flagged, what does not is left alone."""

import pytest
from conftest import execute

from rrtf.records import Execution, Outcome, Problem, Response
from rrtf.sandbox import executor

PASSED = Execution("t", "model", 0, Outcome.PASS, "", 1, 1, "none")


def flags(tests: str, *programs: str, **options) -> list[bool]:
    problem = Problem("t", "", "f", tests)
    responses = [Response("t", "model", i, "", program) for i, program in enumerate(programs)]
    return executor.unstable([problem], responses, execute=execute, **options)


def double(*rounds: list[bool]):
    """An `execute` whose verdicts are given: round by round, program by program."""
    asked = []

    def execute(problems, responses, *, hash_seed, progress=None):
        truths = rounds[len(asked)]
        asked.append((hash_seed, [r.index for r in responses]))
        fail = Outcome.FAILED_TESTS
        return [
            Execution("t", "m", r.index, Outcome.PASS if truths[r.index] else fail, "", 0, 1, "")
            for r in responses
        ]

    return execute, asked


def test_what_hangs_on_hash_order_or_random_is_flagged_and_a_steady_answer_is_not():
    hashed = "def f(): return next(iter({'a', 'b', 'c', 'd', 'e', 'f', 'g'}))"
    drawn = "import random\ndef f(): return random.choice('abcdefg')"
    steady = "def f(): return min({'a', 'b', 'c'})"
    tests = "assert f() in ('a', 'b', 'c')"
    found = flags(tests, hashed, drawn, steady, hash_seeds=range(10), apart=0)
    assert found == [True, True, False]


def test_what_hangs_on_nothing_but_repetition_is_flagged_under_one_seed():
    urandom = "import os\ndef f(): return os.urandom(8)"
    seen = "f_first = f()\nassert f_first[0] % 2 == 0"
    assert flags(seen, urandom, hash_seeds=[0] * 12, apart=0) == [True]


@pytest.mark.parametrize(
    "answer", ["int(time.time()) % 2", "int(time.time() % 2 < 1)", "time.localtime().tm_sec % 2"]
)
def test_an_answer_by_the_clock_that_changes_every_second_is_flagged(answer):
    assert flags("assert f() == 1", f"import time\ndef f(): return {answer}") == [True]


def test_an_answer_by_the_date_cannot_be_told_and_is_not_flagged():
    program = "import datetime\ndef f(): return datetime.date.today().year > 2000"
    assert flags("assert f()", program, apart=0) == [False]


def test_what_is_found_out_or_does_not_compile_is_not_run_again():
    execute, asked = double([True, True, False], [True, False, False], [True, True, False])
    responses = [Response("t", "m", i, "", str(i)) for i in range(3)]
    options = {"hash_seeds": (0, 0, 1), "apart": 0, "execute": execute}
    found = executor.unstable([], responses, **options)
    assert found == [False, True, False]
    assert asked == [(0, [0, 1, 2]), (0, [0, 1, 2]), (1, [0, 2])]
    assert not executor._may_differ(
        Execution("t", "m", 0, Outcome.COMPILE_ERROR, "syntax", 0, 1, "")
    )
    assert executor._may_differ(PASSED)


def test_verdicts_known_already_are_the_first_round():
    execute, asked = double([True], [True])
    responses = [Response("t", "model", 0, "", "")]
    first = [Execution("t", "m", 0, Outcome.FAILED_TESTS, "", 0, 1, "")]
    options = {"hash_seeds": (5, 6), "apart": 0, "execute": execute}
    assert executor.unstable([], responses, first=first, **options) == [True]
    assert asked == [(6, [0])]


def test_progress_counts_the_responses_of_all_rounds_and_ends_at_the_total():
    told = []
    flags(
        "assert f()", "def f(): return 1", "def f(:",
        hash_seeds=(0, 1), apart=0, progress=lambda done, total: told.append((done, total)),
    )  # fmt: skip
    assert told == sorted(told) and told[-1] == (4, 4)


def test_too_few_rounds_and_verdicts_of_another_list_are_refused():
    with pytest.raises(ValueError, match="two rounds"):
        flags("assert f()", "def f(): pass", hash_seeds=(0,))
    with pytest.raises(ValueError, match="1 verdicts known of 2 responses"):
        flags("assert f()", "def f(): pass", "def f(): pass ", first=[PASSED])
