"""A function that passes a task's tests is found, whatever it is called and wherever it stands."""

from dataclasses import replace
from functools import partial

import pytest
from conftest import call, judge

from rrtf.audit import running, verdict
from rrtf.audit.rows import Corpus, Row
from rrtf.records import Leak, Problem

call = partial(call, workers=1, isolation="none", cpu_seconds=1.0)
judge = partial(judge, workers=1, isolation="none")


def task(name: str, head: str, text: str, body: str, *asserts: str) -> Problem:
    return Problem(
        task_id=f"t/{name}",
        prompt=f'def {name}({head}):\n    """{text}\n    """\n',
        entry_point=name,
        tests="def check(candidate):\n" + "".join(f"    assert {line}\n" for line in asserts),
        reference=f"    {body}\n",
    )


SUM_EVEN = task("sum_even", "xs", "Return the sum of the even numbers.",
                "return sum(x for x in xs if x % 2 == 0)",
                "candidate([1, 2, 4]) == 6", "candidate([]) == 0", "candidate([3, 8]) == 8",
                )  # fmt: skip
REPEAT = task("repeat", "text, times", "Write the text so many times.", "return text * times",
              "candidate('ab', 2) == 'abab'", "candidate(times=3, text='x') == 'xxx'")  # fmt: skip
UNIQUE = task("unique", "xs", "The distinct elements.", "return list(dict.fromkeys(xs))",
              "set(candidate([3, 1, 3])) == {1, 3}", "set(candidate([2])) == {2}")  # fmt: skip
METHOD = Problem(
    "t/method", "class TreeNode:\n    pass\n\n", "Solution().double",
    "def check(candidate):\n    assert candidate(n=4) == 9\n    assert candidate(n=1) == 3\n",
    "class Solution:\n    def double(self, n: int) -> int:\n        return 2 * n + 1\n",
)  # fmt: skip
TASKS = [SUM_EVEN, REPEAT, UNIQUE, METHOD]


def row(code: str, task_id: str = "r", text: str = "") -> Row:
    return Row(task_id, text, code)


def found(code: str, tasks=TASKS, **options) -> dict[str, str]:
    """Task -> evidence for one row of this code."""
    leaks = running.passes_tests([row(code)], "b", tasks, call=call, judge=judge, **options)
    assert all((k.task_id, k.benchmark, k.detector) == ("r", "b", "execution") for k in leaks)
    return {leak.benchmark_task_id: leak.evidence for leak in leaks}


LOOP = "def f(values):\n    t = 0\n    for v in values:\n        if not v % 2:\n            t += v\n    return t\n"  # noqa: E501


def test_a_solution_in_other_words_and_another_style_is_found_with_what_it_passes():
    assert found(LOOP) == {"t/sum_even": "f passes 3 of 3 tests"}


def test_a_function_is_found_among_questions_prints_and_calls_that_would_end_the_program():
    around = "import no_such_module\nname = input('who?')\n" + LOOP + "print(f([1]))\nexit(3)\n"
    assert set(found(around)) == {"t/sum_even"}


def test_a_function_keeps_the_helpers_constants_and_imports_it_needs():
    code = "import operator\nTWO = 2\ndef even(v):\n    return operator.mod(v, TWO) == 0\n"
    assert set(found(code + "def f(vs):\n    return sum(filter(even, vs))\n")) == {"t/sum_even"}


@pytest.mark.parametrize("code", [
    "class Numbers:\n    def total(self, vs):\n        return sum(v for v in vs if v % 2 == 0)\n",
    "class Numbers:\n    @staticmethod\n    def total(vs):\n        return sum(v for v in vs if not v % 2)\n",  # noqa: E501
    "total = lambda vs: sum(v for v in vs if v % 2 == 0)\n",
    "def outer(batches):\n    def total(vs):\n        return sum(v for v in vs if v % 2 == 0)\n"
    "    return list(map(total, batches)), len(batches)\n",
])  # fmt: skip
def test_methods_lambdas_and_functions_inside_others_are_tried(code):
    assert set(found(code)) == {"t/sum_even"}


def test_arguments_in_another_order_and_under_other_names_are_found():
    assert set(found("def f(count, word):\n    return word * count\n")) == {"t/repeat"}


def test_a_function_stands_for_the_method_of_a_contest_and_the_other_way_round():
    assert set(found("def twice(n):\n    return 1 + n + n\n")) == {"t/method"}
    assert set(found(METHOD.reference.replace("Solution", "Other"))) == {"t/method"}


def test_a_function_that_bears_the_name_it_is_tried_under_does_not_call_itself_for_ever():
    recursive = (
        "def sum_even(xs):\n    if not xs:\n        return 0\n"
        "    return (xs[0] if xs[0] % 2 == 0 else 0) + sum_even(xs[1:])\n"
    )
    assert set(found(recursive)) == {"t/sum_even"}
    assert set(found("def repeat(n, s):\n    return s + repeat(n - 1, s) if n else ''\n")) == {
        "t/repeat"
    }


def test_results_in_another_order_or_container_reach_the_tests_that_allow_them():
    assert set(found("def f(xs):\n    return set(xs)\n")) == {"t/unique"}


def test_wrong_stubs_unparsable_and_other_code_is_not_found():
    assert found("def f(xs):\n    return sum(xs)\n") == {}
    assert found("def f(xs):\n    raise NotImplementedError\n") == {}
    assert found("def f(xs:\n") == found("SELECT name FROM people;") == {}


def test_a_function_that_hangs_on_one_task_is_still_found_with_another():
    far = task("far", "n", "Half.", "return n // 2", "candidate(1000000000) == 500000000",
               "candidate(900000001) == 450000000", "candidate(800000002) == 400000001",
               )  # fmt: skip
    slow = "def f(n):\n    t = 0\n    while t < n:\n        t += 1\n    return t * 2 + 1\n"
    assert set(found(slow, [far, METHOD])) == {"t/method"}


def test_a_function_that_ends_its_process_is_called_again_after_that():
    leaves = "import os\ndef f(n):\n    if n > 1000:\n        os._exit(1)\n    return n * 2 + 1\n"
    far = task("far", "n", "More.", "return n + n + 1", "candidate(10**6) == 2 * 10**6 + 1")
    for order in ([far, METHOD], [METHOD, far]):
        assert set(found(leaves, order)) == {"t/method"}


def test_a_task_without_a_reference_is_tried_on_its_tests_at_once():
    assert set(found(LOOP, [replace(SUM_EVEN, reference="")])) == {"t/sum_even"}


def test_equal_code_runs_once_and_is_reported_for_every_row():
    asked = []

    def counting(programs, inputs):
        asked.extend(entry for _, entry in programs)
        return call(programs, inputs)

    rows = [row(LOOP, "a"), row(LOOP.replace("values", "numbers"), "b"), row("x = 1", "c")]
    leaks = running.passes_tests(rows, "b", [SUM_EVEN], call=counting, judge=judge)
    assert [leak.task_id for leak in leaks] == ["a", "b"]
    assert asked.count("rrtf_timed") == 1


def test_what_was_called_is_saved_and_found_again(tmp_path):
    asked = []

    def counting(programs, inputs):
        asked.extend(entry for _, entry in programs)
        return call(programs, inputs)

    runs = [
        running.passes_tests([row(LOOP)], "b", TASKS, call=counting, judge=judge, shards=tmp_path)
        for _ in range(2)
    ]
    assert runs[0] == runs[1] != []
    assert asked.count("rrtf_timed") == 1


def test_the_score_is_the_share_of_further_calls_that_agree():
    weak = task("weak", "n", "Double.", "return n + n", "candidate(2) == 4", "candidate(0) == 0")
    rows = [
        row("def f(n):\n    return n * n\n", "square"),
        row("def g(k):\n    return 2 * k\n", "g"),
    ]
    square, double = running.passes_tests(rows, "b", [weak], call=call, judge=judge)
    assert square.score < 0.9 and double.score == 1.0


def test_examples_are_what_the_tests_ask_and_the_reference_returns():
    looped = replace(
        SUM_EVEN,
        tests="def check(f):\n    for n in (2, 4):\n        assert f(list(range(n))) >= 0\n",
    )
    (exam,) = running.examine([looped], call)
    assert set(map(repr, exam.examples)) == {"(([0, 1, 2, 3],), 2)", "(([0, 1],), 0)"}


@pytest.mark.parametrize(("value", "expected", "same"), [
    (1, 1.0004, True), (1, 1.1, False), (True, 1, True), (10**400, 1.5, False),
    ([1, 2], (2, 1), True), ([1, 1], {1}, True), ([1], [1, 2], False), ([], [], True),
    ({"a": [1]}, {"a": (1,)}, True), ({"a": 1}, {"b": 1}, False), ("a", "b", False),
    (iter([]), [1], True), (iter([]), True, True), (None, 0, False), (1j, 1j, True),
])  # fmt: skip
def test_results_are_alike_where_some_test_might_accept_them(value, expected, same):
    assert running.alike(value, expected) is same


def test_functions_have_one_key_if_they_are_the_same_but_for_names():
    (one,) = running.functions_in(LOOP)
    (other,) = running.functions_in('def g(ys: list) -> int:\n    """Doc."""\n' + "\n".join(
        LOOP.replace("values", "ys").replace("v ", "w ").replace("+= v", "+= w")
        .replace("for v", "for w").splitlines()[1:]))  # fmt: skip
    (third,) = running.functions_in(LOOP.replace("t = 0", "t = 1"))
    assert one.key == other.key != third.key
    assert (one.name, one.least, one.most) == ("f", 1, 1)


def test_what_cannot_be_called_by_place_is_no_function_to_try():
    code = (
        "async def a(x): return x\ndef b(*, k): return k\ndef c(): return 1\n"
        "class D:\n    def __init__(self, n): self.n = n\n    def m(self, x): return x\n"
        "def e(x, y=1, *rest): return x\n"
    )
    (only,) = running.functions_in(code)
    assert (only.name, only.least, only.most) == ("e", 1, running.MOST)


# --- chance ------------------------------------------------------------------------------------

LONG = (
    "def big(xs):\n    "
    + "\n    ".join(f"a{i} = xs[{i}] + {i}" for i in range(12))
    + "\n    return a1\n"
)
SIDES = Corpus.of_benchmarks({
    "b": [
        Row("short", "Join all strings of a list.", "def j(x):\n    return ''.join(x)", "j"),
        Row("long", "Shuffle numbered pebbles between two baskets.", LONG, "big"),
    ]
})  # fmt: skip


def judged(text: str, benchmark_task: str, score: float = 1.0, copies: int = 1) -> bool:
    rows = [row("", f"r{i}", text) for i in range(copies)]
    rows += [row("", f"other{i}", f"Sort the words of a text, letter {i}.") for i in range(20)]
    leaks = [Leak(f"r{i}", "b", benchmark_task, "execution", score, "f passes 2 of 2 tests")
             for i in range(copies)]  # fmt: skip
    return ("r0", "b", benchmark_task) in verdict.coincidences(leaks, Corpus(rows), SIDES)


def test_a_short_function_under_other_words_is_a_coincidence_and_under_the_same_words_a_leak():
    assert judged("Remove the vowels of a text.", "short")
    assert not judged("Write code that joins the strings of a list", "short")


def test_a_long_function_is_a_leak_under_any_words_unless_everybody_has_it_or_it_acts_otherwise():
    other = "Compute a tax."
    assert not judged(other, "long")
    assert judged(other, "long", copies=verdict.COMMON)
    assert judged(other, "long", score=0.9)
    assert not judged("Pebbles move between baskets; shuffle them.", "long", score=0.9)
