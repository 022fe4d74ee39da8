"""Flakiness: what changes from run to run is flagged, what does not is left alone."""

import pytest
from conftest import execute

from rrtf.records import Execution, Outcome, Problem, Response
from rrtf.sandbox import executor


def flags(tests: str, *programs: str, **options) -> list[bool]:
    problem = Problem("t", "", "f", tests)
    responses = [Response("t", "model", i, "", program) for i, program in enumerate(programs)]
    return executor.unstable([problem], responses, execute=execute, **options)


def double(*rounds: list[bool | None]):
    """An `execute` whose verdicts are given: round by round, program by program."""
    asked = []
    ends = {True: Outcome.PASS, False: Outcome.FAILED_TESTS, None: Outcome.COMPILE_ERROR}

    def execute(problems, responses, *, hash_seed, progress=None):
        truths = rounds[len(asked)]
        asked.append((hash_seed, [r.index for r in responses]))
        found = [(r.index, truths[r.index]) for r in responses]
        why = {None: "syntax"}
        return [Execution("t", "m", i, ends[it], why.get(it, ""), 0, 1, "") for i, it in found]

    return execute, asked


def test_what_hangs_on_hash_order_or_random_is_flagged_and_a_steady_answer_is_not():
    hashed = "def f(): return next(iter({'a', 'b', 'c', 'd', 'e', 'f', 'g'}))"
    drawn = "import random\ndef f(): return random.choice('abcdefg')"
    steady = "def f(): return min({'a', 'b', 'c'})"
    tests = "assert f() in ('a', 'b', 'c')"
    found = flags(tests, hashed, drawn, steady, hash_seeds=range(10), apart=0)
    assert found == [True, True, False]
    urandom = "import os\ndef f(): return os.urandom(8)"  # hangs on nothing but repetition
    seen = "f_first = f()\nassert f_first[0] % 2 == 0"
    assert flags(seen, urandom, hash_seeds=[0] * 12, apart=0) == [True]
    date = "import datetime\ndef f(): return datetime.date.today().year > 2000"
    assert flags("assert f()", date, apart=0) == [False], "which no repetition can tell"


@pytest.mark.parametrize(
    "answer", ["int(time.time()) % 2", "int(time.time() % 2 < 1)", "time.localtime().tm_sec % 2"]
)
def test_an_answer_by_the_clock_that_changes_every_second_is_flagged(answer):
    assert flags("assert f() == 1", f"import time\ndef f(): return {answer}") == [True]


def test_what_is_found_out_does_not_compile_or_is_known_is_not_run_again():
    rounds = [True, True, False, None], [True, False, False, None], [True, True, False, None]
    execute, asked = double(*rounds)
    responses = [Response("t", "m", i, "", str(i)) for i in range(4)]
    options = {"hash_seeds": (0, 0, 1), "apart": 0, "execute": execute}
    assert executor.unstable([], responses, **options) == [False, True, False, False]
    assert asked == [(0, [0, 1, 2, 3]), (0, [0, 1, 2]), (1, [0, 2])]
    execute, asked = double([True])
    first = [Execution("t", "m", 0, Outcome.FAILED_TESTS, "", 0, 1, "")]
    options = {"hash_seeds": (5, 6), "apart": 0, "execute": execute, "first": first}
    assert executor.unstable([], responses[:1], **options) == [True]
    assert asked == [(6, [0])], "verdicts known already are the first round"


def test_progress_counts_the_responses_of_all_rounds_and_ends_at_the_total():
    told = []
    flags(
        "assert f()", "def f(): return 1", "def f(:",
        hash_seeds=(0, 1), apart=0, progress=lambda done, total: told.append((done, total)),
    )  # fmt: skip
    assert told == sorted(told) and told[-1] == (4, 4)


def test_too_few_rounds_and_verdicts_of_another_list_are_refused():
    passed = Execution("t", "model", 0, Outcome.PASS, "", 1, 1, "none")
    with pytest.raises(ValueError, match="two rounds"):
        flags("assert f()", "def f(): pass", hash_seeds=(0,))
    with pytest.raises(ValueError, match="1 verdicts known of 2 responses"):
        flags("assert f()", "def f(): pass", "def f(): pass ", first=[passed])
