"""Judge and worker apart: verdicts, counts, values, levels, and nothing left behind."""

import os
import random
import re
import time
from pathlib import Path

import pytest
from conftest import call, execute

from rrtf.records import Outcome, Problem, Response
from rrtf.sandbox import executor, expectations, instrument, joint, lanes, linked, packages, wire

ROOT = Path(__file__).resolve().parent.parent


def problem(tests: str, *, prompt: str = "", entry_point: str = "f", task_id: str = "t") -> Problem:
    return Problem(task_id, prompt, entry_point, tests)


def respond(*programs: str, task_id: str = "t") -> list[Response]:
    return [Response(task_id, "model", i, "", program) for i, program in enumerate(programs)]


def verdict(tests: str, program: str, **options):
    """(outcome, reason, passed, assertions) of one program."""
    names = ("prompt", "entry_point")
    about = {name: options.pop(name) for name in names if name in options}
    (found,) = execute([problem(tests, **about)], respond(program), workers=1, **options)
    return found.outcome, found.reason, found.n_passed, found.n_tests


# --- outcomes ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        ("def add(a, b): return a + b", (Outcome.PASS, "", 3, 3)),
        ("def add(a, b): return 3", (Outcome.FAILED_TESTS, "wrong_value", 1, 3)),
        ("def add(a, b): return (a + b,)", (Outcome.FAILED_TESTS, "wrong_value", 0, 3)),
        ("def add(a, b): return a // b + 1", (Outcome.FAILED_TESTS, "wrong_value", 1, 3)),
        ("def add(a, b): return [][a]", (Outcome.RUNTIME_ERROR, "IndexError", 0, 3)),
        ("import nothing_of_this_name", (Outcome.RUNTIME_ERROR, "ModuleNotFoundError", 0, 3)),
        ("class E(ValueError): pass\nraise E", (Outcome.RUNTIME_ERROR, "E", 0, 3)),
        ("raise SystemExit(3)", (Outcome.RUNTIME_ERROR, "early_exit", 0, 3)),
        ("def add(a, b) return a", (Outcome.COMPILE_ERROR, "syntax", 0, 3)),
        ("def sub(a, b): return a", (Outcome.COMPILE_ERROR, "missing_entry_point", 0, 3)),
        ("add = 3", (Outcome.COMPILE_ERROR, "missing_entry_point", 0, 3)),
    ],
)
def test_each_program_falls_into_one_of_the_four_situations(add_problem, program, expected):
    (found,) = execute([add_problem], respond(program, task_id=add_problem.task_id), workers=1)
    assert (found.outcome, found.reason, found.n_passed, found.n_tests) == expected


def test_every_outcome_of_the_table_is_an_outcome():
    assert {situation for situation, _ in wire.REASONS.values()} == set(Outcome.__members__)
    assert set(wire.FATAL) <= set(wire.REASONS)


def test_a_time_limit_decides_although_earlier_assertions_held():
    program = "def f(x):\n    while x > 1: pass\n    return x"
    tests = "assert f(0) == 0\nassert f(1) == 1\nassert f(2) == 2\nassert f(1) == 1"
    found = verdict(tests, program, cpu_seconds=0.5)
    assert found == (Outcome.RUNTIME_ERROR, "cpu_time", 2, 4)


def test_the_cpu_limit_is_for_all_calls_together():
    program = "import time\ndef f(x):\n    end = time.process_time() + 0.3\n"
    program += "    while time.process_time() < end: pass\n    return x"
    tests = "for x in range(10):\n    assert f(x) == x"
    outcome, reason, passed, total = verdict(tests, program, cpu_seconds=1.0)
    assert (outcome, reason, total) == (Outcome.RUNTIME_ERROR, "cpu_time", 10)
    assert 1 <= passed <= 3


# --- counting ----------------------------------------------------------------------------------


def test_assertions_in_loops_count_each_and_a_failed_one_does_not_end_the_check():
    tests = "def check(candidate):\n    for x in range(10):\n        assert candidate(x) == x\n"
    tests += "    assert candidate(3) == 3\n"
    program = "def f(x):\n    if x == 2: raise ValueError\n    return x if x % 2 == 0 else -x"
    assert verdict(tests, program) == (Outcome.FAILED_TESTS, "wrong_value", 4, 11)


def test_an_assertion_of_a_true_constant_is_no_test():
    tests = "def check(candidate):\n    assert True, 'hint'\n    assert candidate(1) == 1\n"
    program = "def f(x): raise KeyError"
    assert verdict(tests, program) == (Outcome.RUNTIME_ERROR, "KeyError", 0, 1)


def test_a_failed_call_outside_an_assertion_fails_those_that_use_its_value():
    tests = (
        "def check(candidate):\n    for x in (0, 1, 2):\n        y = candidate(x)\n"
        "        assert y == 1 / x if x else True\n    assert candidate(1) == 1\n"
    )
    tests = tests.replace("y == 1 / x if x else True", "abs(y - x) < 1e-6")
    program = "def f(x):\n    return x // x"
    assert verdict(tests, program) == (Outcome.FAILED_TESTS, "ZeroDivisionError", 2, 4)


def test_a_program_that_cannot_start_has_as_many_tests_as_the_check_reaches():
    tests = "def check(candidate):\n    for x in range(7):\n        assert candidate(x) == x\n"
    assert verdict(tests, "def f(") == (Outcome.COMPILE_ERROR, "syntax", 0, 7)


def test_a_check_that_cannot_go_on_counts_at_least_its_assert_statements():
    tests = "def check(candidate):\n    for x in candidate(3):\n"
    tests += "        assert x\n        assert x > 0\n"
    assert verdict(tests, "def f(x): return None") == (Outcome.FAILED_TESTS, "wrong_type", 0, 2)


def test_an_expected_exception_is_seen_by_the_tests():
    tests = (
        "def check(candidate):\n    try:\n        candidate(-1)\n        assert False\n"
        "    except ValueError:\n        pass\n    assert candidate(1) == 1\n"
    )
    good = "def f(x):\n    if x < 0: raise ValueError('no')\n    return x"
    assert verdict(tests, good)[0] is Outcome.PASS
    assert verdict(tests, "def f(x): return x") == (Outcome.FAILED_TESTS, "wrong_value", 1, 2)


def test_a_test_that_swallows_every_exception_does_not_hide_an_exit():
    tests = (
        "def check(candidate):\n    try:\n        candidate(1)\n    except Exception:\n"
        "        pass\n    assert 1 + len('a') == 2\n"
    )
    assert verdict(tests, "import os\ndef f(x): os._exit(0)")[:2] == (
        Outcome.RUNTIME_ERROR,
        "early_exit",
    )


def test_counting_leaves_the_expressions_of_the_tests_alone():
    code, n_asserts, has_check = instrument.instrument("x = 1\nassert x == 1\nassert x")
    assert (n_asserts, has_check) == (2, False)
    assert instrument.global_names(code) == {"x"}


# --- forms of tests and values -----------------------------------------------------------------


def test_helpers_of_the_prompt_are_there_for_the_tests():
    prompt = 'def shift(s):\n    return s[::-1]\n\ndef f(s):\n    """Undo shift."""\n'
    tests = "def check(candidate):\n    for s in ('ab', 'abc'):\n"
    tests += "        assert candidate(shift(s)) == s\n"
    assert verdict(tests, prompt + "    return s[::-1]", prompt=prompt)[0] is Outcome.PASS
    assert verdict(tests, prompt + "    return s", prompt=prompt)[0] is Outcome.FAILED_TESTS


def test_bare_assertions_may_use_modules_and_classes_of_the_program():
    program = (
        "import math\nclass Node:\n    def __init__(self, x): self.x, self.next = x, None\n"
        "def f(node):\n    return node.x + (f(node.next) if node.next else 0)"
    )
    tests = "a = Node(1)\na.next = Node(2)\na.next.next = Node(3)\nassert f(a) == 6\n"
    tests += "assert math.isclose(f(a), 6.0)\nassert a.next.x == 2"
    assert verdict(tests, program) == (Outcome.PASS, "", 3, 3)


def test_methods_are_called_on_a_fresh_object():
    program = (
        "class Solution:\n    seen = 0\n    def __init__(self): self.n = 0\n"
        "    def step(self, x):\n        self.n += x\n        return self.n"
    )
    tests = "def check(candidate):\n    assert candidate(2) == 2\n    assert candidate(3) == 3\n"
    assert verdict(tests, program, entry_point="Solution().step")[0] is Outcome.PASS


def test_a_call_as_a_statement_shows_what_it_did_to_its_argument():
    tests = "xs = [3, 1, 2]\nf(xs)\nassert xs == [1, 2, 3]"
    assert verdict(tests, "def f(xs): xs.sort()")[0] is Outcome.PASS
    assert verdict(tests, "def f(xs): pass")[0] is Outcome.FAILED_TESTS


@pytest.mark.parametrize(
    ("body", "tests"),
    [
        ("import collections; return collections.Counter('aab')", "assert f() == {'a': 2, 'b': 1}"),
        ("import re; return re.match('a', 'abc')", "assert f()"),
        ("return (x for x in (1, 2))", "assert list(f()) == [1, 2]"),
        ("return range(3)", "assert len(f()) == 3 and list(f()) == [0, 1, 2]"),
        ("return {1: 'a'}.keys()", "assert set(f()) == {1}"),
        ("return 2.0", "assert f() == 2"),
        ("return True", "assert f() == 1"),
        ("return 10**40", "assert f() == 10**40"),
        ("return -(2**63)", "assert f() == -(2**63)"),
        ("return (1, [2, {3}], {'a': b'x', (4,): None})",
         "assert f() == (1, [2, {3}], {'a': b'x', (4,): None})"),
        ("return '\\udc80 \\x00 é'", "assert f() == '\\udc80 \\x00 é'"),
        ("return 1j, float('inf'), frozenset({1})",
         "assert f() == (1j, float('inf'), frozenset({1}))"),
        ("return int", "assert f() is int"),
    ],
)  # fmt: skip
def test_a_right_value_of_a_neighbouring_type_passes(body, tests):
    assert verdict(tests, f"def f(): {body}") == (Outcome.PASS, "", 1, 1)


@pytest.mark.parametrize("value", ["True", "1", "[1]"])
def test_an_opaque_value_equals_nothing(value):
    program = "class A:\n    def __eq__(self, other): return True\ndef f(): return A()"
    assert verdict(f"assert f() == {value}", program)[:2] == (Outcome.FAILED_TESTS, "wrong_type")
    assert verdict(f"assert {value} in [f()]", program)[0] is Outcome.FAILED_TESTS


# --- many programs -----------------------------------------------------------------------------


def test_results_come_in_the_order_of_the_responses_and_progress_counts_them():
    problems = [problem(f"assert f() == {i}", task_id=f"p{i}") for i in range(12)]
    responses = [
        Response(f"p{i % 12}", "m", i // 12, "", f"def f(): return {(i * 7) % 12}")
        for i in random.Random(0).sample(range(60), 60)
    ]
    seen = []
    found = execute(problems, responses, progress=lambda d, t: seen.append((d, t)))
    assert [(e.task_id, e.index) for e in found] == [(r.task_id, r.index) for r in responses]
    for execution, response in zip(found, responses, strict=True):
        right = response.program.split()[-1] == response.task_id[1:]
        assert (execution.outcome is Outcome.PASS) is right
    assert seen[-1] == (60, 60) and seen == sorted(seen)


def test_equal_programs_run_once():
    program = ("import os\ndef f(): return os.urandom(8)", "f")
    (first,), (second,), (other,) = call([program, program, (program[0] + "\n", "f")], [()])
    assert first == second and first.value != other.value


def test_equal_calls_give_equal_verdicts_whatever_they_draw_and_hash():
    program = "import statistics\nimport random\n"  # the former imports the latter
    program += "def f(n):\n    return random.random() < 0.5 or len({'a', 'b'}) == n\n"
    program += "def g(): return [*{'a', 'b', 'c', 'd'}], random.random(), hash('a')"
    problems = [problem("from random import random\nfor _ in range(9):\n    assert f(random())")]
    runs = [execute(problems, respond(program)) for _ in range(3)]
    assert runs[0] == runs[1] == runs[2]
    values = [call([(program, "g")], [()]) for _ in range(2)]
    assert values[0] == values[1]


# --- calls -------------------------------------------------------------------------------------


def test_calls_return_values_or_reasons_in_order():
    source = "def f(x):\n    if x == 2: raise LookupError('two')\n    return {x: [x] * 2}"
    (found,) = call([(source, "f")], [(1,), (2,), (3,)])
    assert found == (
        executor.Result({1: [1, 1]}),
        executor.Result(None, "LookupError"),
        executor.Result({3: [3, 3]}),
    )


def test_after_the_time_is_over_the_remaining_calls_say_so():
    source = "def f(x):\n    while x == 2: pass\n    return x"
    (found,) = call([(source, "f")], [(1,), (2,), (3,)], cpu_seconds=0.3)
    assert [(r.value, r.error) for r in found] == [(1, ""), (None, "cpu_time"), (None, "cpu_time")]


def test_calls_of_what_does_not_start_say_why():
    sources = ["def f(", "x = 1", "raise OSError"]
    found = call([(source, "f") for source in sources], [(1,), (2,)])
    assert [[r.error for r in row] for row in found] == [
        ["syntax"] * 2,
        ["missing_entry_point"] * 2,
        ["OSError"] * 2,
    ]


def test_calls_get_fresh_copies_of_their_arguments():
    source = "def f(xs):\n    xs.append(1)\n    return xs"
    shared = [0]
    (found,) = call([(source, "f")], [(shared,), (shared,)])
    assert [r.value for r in found] == [[0, 1], [0, 1]] and shared == [0]


def test_values_beyond_the_size_limit_do_not_reach_the_caller():
    (found,) = call([("def f(n): return 'x' * n", "f")], [(10,), (100 << 20,)])
    assert found[0].value == "x" * 10
    assert isinstance(found[1].value, wire.Opaque)


# --- the wire ----------------------------------------------------------------------------------


def test_values_survive_the_wire():
    values = [None, True, 0, -1, 2**63, -(10**50), 1.5, 1j, "ü\0", b"\xff", [1, [2]], (1,), {1: 2}]
    values += [{3}, frozenset({4}), list(range(20)), [0.5] * 20, [2**70] * 20, [1, 2.0] * 10, int]
    for value in values:
        back = wire.decode(wire.encode(value), None)
        assert back == value and type(back) is type(value)


def test_hostile_bytes_cause_a_wire_error_and_nothing_else():
    source = random.Random(0)
    good = wire.encode([1, "abc", {"a": (1.5, None)}, {1, 2}, list(range(20))])
    for _ in range(3000):
        data = bytearray(good)
        for _ in range(source.randrange(1, 6)):
            data[source.randrange(len(data))] = source.randrange(256)
        try:
            wire.decode(bytes(data[: source.randrange(1, len(data) + 1)]), wire.Opaque)
        except wire.WireError:
            continue
    for data in (b"", b"l\xff\xff\xff\xff", b"l\x01\0\0\0" * 5000, b"d\x01\0\0\0l\0\0\0\0N"):
        with pytest.raises(wire.WireError):
            wire.decode(data, wire.Opaque)


def test_what_is_too_deep_or_too_large_does_not_cross():
    loop: list = []
    loop.append(loop)
    for value in (loop, "x" * (wire.MAX_BLOB + 1), [0] * (wire.MAX_FRAME // 8), object()):
        with pytest.raises(wire.WireError):
            wire.encode(value)


# --- what is wrong with the input --------------------------------------------------------------


@pytest.mark.parametrize(
    ("tests", "message"),
    [
        ("def check(candidate):\n    candidate(1)\n", "assert nothing"),
        ("def check(candidate)\n    assert 1\n", "do not compile"),
        ("import no_such_module\nassert f(1) == 1", "no_such_module"),
    ],
)
def test_tests_that_cannot_judge_say_so_and_stop_no_others(tests, message):
    sound = Problem("sound", "", "f", "assert f(1) == 1")
    for problem in (Problem("t", "", "f", tests), joint.mark(Problem("t", "", "f", tests))):
        asked = [Response(p.task_id, "m", 0, "", "def f(x): return x") for p in (problem, sound)]
        bad, good = execute([problem, sound], asked)
        assert good.outcome is Outcome.PASS
        inside = "import" in tests and bad.isolation.endswith(joint.SUFFIX)
        if inside:  # it is the program that cannot import
            assert bad.reason == "ModuleNotFoundError"
        else:
            assert bad.outcome is Outcome.FAILED_TESTS
            assert bad.reason.startswith("unusable_tests: ") and message in bad.reason


@pytest.mark.parametrize(
    "tests",
    ["def check(candidate):\n    return candidate(1)\n    assert 0 < 1 < len('ab')",
     "class A:\n    x = f(1)\nassert A.x"],
)  # fmt: skip
def test_an_import_error_of_the_program_is_not_one_of_the_tests(tests):
    found = verdict(tests, "def f(x): raise ImportError('no_such_module')")
    assert found[:2] == (Outcome.RUNTIME_ERROR, "ImportError")


def test_unknown_and_doubled_task_ids_are_named():
    with pytest.raises(ValueError, match="other: a response, but no problem"):
        execute([problem("assert f() == 1")], respond("", task_id="other"))
    with pytest.raises(ValueError, match="t: two problems"):
        execute([problem("assert f() == 1")] * 2, [])


def test_no_responses_are_no_work():
    assert execute([], []) == []
    assert call([], [(1,)]) == []


def test_a_judge_that_dies_costs_only_its_own_programs():
    dies = problem("import os\nif f() == 2:\n    os._exit(1)\nassert f() == 1", task_id="dies")
    fine = problem("assert f() == 1", task_id="fine")
    programs = [f"def f(): return {n}" for n in (1, 2, 3)]
    responses = respond(*programs, task_id="dies") + respond(*programs, task_id="fine")
    found = [(e.outcome, e.reason) for e in execute([dies, fine], responses)]
    failed = (Outcome.FAILED_TESTS, "wrong_value")
    limit = (Outcome.RUNTIME_ERROR, "judge_limit")
    assert found == [(Outcome.PASS, ""), limit, failed, (Outcome.PASS, ""), failed, failed]


# --- programs that are run as a whole ----------------------------------------------------------

ADDS = "assert candidate('1 2\\n') == '3\\n'\nassert candidate('0.1 0.2') == '0.3'\n"
SUM = "import sys\na, b = map(float, {read}.split())\nprint(*map('{{:.12g}}'.format, [a + b]))\n"


def whole(program: str, tests: str = ADDS, **options):
    return verdict(tests, program, entry_point="sys.stdin", **options)


@pytest.mark.parametrize(
    "read", ["input()", "sys.stdin.read()", "sys.stdin.buffer.read()", "open(0).read()"]
)
@pytest.mark.parametrize("end", ["", "sys.exit()", "exit(0)", "sys.stdout.flush(); 1 / 0.5"])
def test_a_whole_program_reads_standard_input_and_passes_by_what_it_prints(read, end):
    assert whole(SUM.format(read=read) + end) == (Outcome.PASS, "", 2, 2)


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        ("print('0.3')", (Outcome.FAILED_TESTS, "wrong_value", 1, 2)),
        ("x(", (Outcome.COMPILE_ERROR, "syntax", 0, 2)),
        ("print(3)\n1 / 0", (Outcome.RUNTIME_ERROR, "exit_1", 0, 2)),
        ("print(3)\nraise SystemExit(7)", (Outcome.RUNTIME_ERROR, "exit_7", 0, 2)),
        ("print(3)\nexit('no')", (Outcome.RUNTIME_ERROR, "exit_1", 0, 2)),
        ("print(3 if input()[0] == '1' else 1 / 0)", (Outcome.FAILED_TESTS, "exit_1", 1, 2)),
        ("import os\nprint(3, flush=True)\nos.abort()", (Outcome.RUNTIME_ERROR, "signal_6", 0, 2)),
    ],
)
def test_another_exit_status_than_0_fails_a_test_whatever_was_printed(program, expected):
    assert whole(program) == expected


def test_every_run_of_a_whole_program_is_a_fresh_interpreter_and_threads_are_waited_for():
    counts = "import os\nn = os.environ.get('n', '')\nos.environ['n'] = n + 'x'\n"
    counts += "import threading, time\nthreading.Thread(target=lambda: (time.sleep(0.1), "
    counts += "print(__name__, len(n)))).start()\n"
    tests = "assert candidate('') == '__main__ 0'\n" * 3
    assert whole(counts, tests) == (Outcome.PASS, "", 3, 3)


def test_what_a_whole_program_reads_and_prints_may_be_large_but_has_a_bound():
    large = "7 " * 500_000
    tests = f"assert candidate({large!r}) == {large!r}"
    assert whole("print(input())", tests)[0] is Outcome.PASS
    assert whole("print('x' * (5 << 20))")[:2] == (Outcome.RUNTIME_ERROR, "output_limit")
    found = whole("print(1)", "assert candidate(1) == '1'")
    assert found[1].startswith("unusable_tests: the tests do not compile: of sys.stdin")


@pytest.mark.parametrize(
    ("printed", "expected", "same"),
    [
        ("a  \r\nb\n\n", "a\nb", True),
        ("a\n\nb", "a\nb", False),
        ("a  b", "a b", False),
        ("b a", "a b", False),
        ("1 2.0", "1.0 2", True),
        ("3.00001", "3", False),
        ("0.333333", "0.3333333", True),
        ("0.3334", "0.3333333", False),
        ("1000001", "1000000", False),
        ("9" * 40 + "1", "9" * 40 + "2", False),
        ("-0.0", "0", True),
        ("nan", "1.0", False),
        ("1e400", "1.0", False),
        ("inf", "1e400", False),
        ("", "", True),
    ],
)
def test_printed_texts_are_compared_line_by_line_and_numbers_by_value(printed, expected, same):
    assert expectations.is_same_output(printed, expected) is same


# --- the benchmarks of the field ---------------------------------------------------------------


def rows(name: str) -> list[dict]:
    from rrtf import store

    folder = os.environ.get("RRTF_DATA")
    if not folder or not (Path(folder) / name).exists():
        pytest.skip(f"$RRTF_DATA holds no {name}")
    return [row for _, row in store.read_rows(Path(folder) / name)]


@pytest.mark.slow
def test_all_references_of_humaneval_pass_and_all_empty_bodies_fail():
    problems = [
        Problem(r["task_id"], r["prompt"], r["entry_point"], r["test"], r["canonical_solution"])
        for r in rows("humaneval/HumanEval.jsonl.gz")
    ]
    right = [Response(p.task_id, "ref", 0, "", p.prompt + p.reference) for p in problems]
    empty = [Response(p.task_id, "none", 0, "", p.prompt + "    pass\n") for p in problems]
    found = execute(problems, right + empty, cpu_seconds=10, wall_seconds=30)
    assert [e for e in found[:164] if e.outcome is not Outcome.PASS] == []
    assert [e for e in found[164:] if e.outcome is not Outcome.FAILED_TESTS] == []


@pytest.mark.slow
def test_all_references_of_mbpp_pass():
    problems = []
    for row in rows("mbpp/mbpp.jsonl"):
        code, _, _ = instrument.instrument(row["test_list"][0])
        defined = {line.split("(")[0].split()[1] for line in row["code"].splitlines()
                   if line.startswith("def ")}  # fmt: skip
        entry = min(instrument.global_names(code) & defined or defined)
        tests = "\n".join([row["test_setup_code"], *row["test_list"], *row["challenge_test_list"]])
        problems.append(Problem(f"MBPP/{row['task_id']}", row["text"], entry, tests, row["code"]))
    responses = [Response(p.task_id, "ref", 0, "", p.reference) for p in problems]
    found = execute(problems, responses, cpu_seconds=20, wall_seconds=60)
    assert [e for e in found if e.outcome is not Outcome.PASS] == []


@pytest.mark.parametrize("boot", ["raise SystemExit(3)", "import time; time.sleep(60)"])
def test_a_zygote_that_dies_or_stays_silent_is_an_error_and_not_a_wait(boot, monkeypatch):
    monkeypatch.setattr(lanes, "_BOOT", boot)
    monkeypatch.setattr(lanes, "START_SECONDS", 2.0)
    started = time.monotonic()
    with pytest.raises(lanes.SandboxFailure, match="workers' zygote"):
        lanes.Lane("process", {"seed": 0})
    assert time.monotonic() - started < 20


# --- nodes and mutation ------------------------------------------------------------------------

LIST_NODE = """class ListNode:
    def __init__(self, val=0, next=None):
        self.val = val
        self.next = next

def list_node(values):
    head = None
    for value in reversed(values):
        head = ListNode(value, head)
    return head

def is_same_list(a, b):
    while a and b and a.val == b.val:
        a, b = a.next, b.next
    return a is b

"""
REVERSE = """class Solution:
    def reverse(self, head):
        last = None
        while head:
            head.next, last, head = last, head, head.next
        return last
"""


def reverse_verdict(tests: str, program: str = LIST_NODE + REVERSE):
    tests = "def check(candidate):\n" + "".join(f"    {line}\n" for line in tests.splitlines())
    return verdict(tests, program, prompt=LIST_NODE, entry_point="Solution().reverse")


def test_nodes_of_the_prompts_classes_cross_and_come_back():
    tests = "assert is_same_list(candidate(list_node([1, 2, 3])), list_node([3, 2, 1]))\n"
    tests += "assert candidate(head=None) is None\n"
    tests += "assert is_same_list(candidate(list_node(range(10**4))), "
    tests += "list_node(range(10**4)[::-1]))\n"
    assert reverse_verdict(tests) == (Outcome.PASS, "", 3, 3)
    wrong = LIST_NODE + REVERSE.replace("return last", "return last and last.next")
    assert reverse_verdict(tests, wrong) == (Outcome.FAILED_TESTS, "wrong_value", 1, 3)


def test_a_program_that_defines_the_class_itself_gets_objects_of_its_own_class():
    own = LIST_NODE.replace("self.next = next", "self.next = next\n    def double(self): return 2")
    program = own.partition("def list_node")[0] + REVERSE.replace(
        "last = None", "last = ListNode(head.double())"
    )
    tests = "assert is_same_list(candidate(list_node([1])), list_node([1, 2]))"
    assert reverse_verdict(tests, program)[0] is Outcome.PASS
    without = REVERSE.replace("last = None", "last = type(head).__name__ and None")
    assert (
        reverse_verdict("assert candidate(list_node([1, 2])).val == 2", without)[0] is Outcome.PASS
    )


def test_rings_of_nodes_and_nodes_inside_lists_cross():
    program = LIST_NODE + (
        "class Solution:\n    def reverse(self, nodes):\n        for node in nodes:\n"
        "            node.next = node\n        return {'nodes': (nodes, nodes[0])}\n"
    )
    tests = "got = candidate([ListNode(1), ListNode(2)])['nodes']\n"
    tests += "assert got[0][0] is got[1] and got[1].next.next is got[1]\nassert got[0][1].val == 2"
    assert reverse_verdict(tests, program) == (Outcome.PASS, "", 2, 2)


def test_what_a_call_does_to_nodes_is_seen_where_the_test_looks_later():
    tests = "head = list_node([1, 2, 3])\nsecond = head.next\nback = candidate(head)\n"
    tests += "assert head.next is None\nassert back.next is second and second.next is head\n"
    assert reverse_verdict(tests) == (Outcome.PASS, "", 2, 2)


def test_a_node_that_lies_gives_values_and_runs_nothing_in_the_judge():
    lies = LIST_NODE + (
        "class Liar(ListNode):\n    def __eq__(self, other): return True\n"
        "    def __getattr__(self, name): return 7\n    __hash__ = None\n"
        "class Solution:\n    def reverse(self, head):\n        node = Liar(8)\n"
        "        node.__dict__['__class__'] = int\n        node.__dict__['__eq__'] = max\n"
        "        return node\n"
    )
    tests = "node = candidate(None)\nassert type(node) is ListNode\nassert not node == 1\n"
    tests += "assert sorted(vars(node)) == ['next', 'val'] and node.val == 8"
    assert reverse_verdict(tests, lies) == (Outcome.PASS, "", 3, 3)


def test_hostile_tables_cause_a_wire_error_and_nothing_else():
    class ListNode:
        pass

    node = ListNode()
    node.val, node.next, node.seen = [1, 2.5, {3}], node, {"a": (node, None)}
    good, objects = linked.encode((node, [node]), {"ListNode": ListNode})
    (back, (again,)), built = linked.decode(good, lambda kind: ListNode(), None)
    assert back is again is back.next is back.seen["a"][0] and back.val == [1, 2.5, {3}]
    assert len(objects) == len(built)
    source = random.Random(0)
    for _ in range(3000):
        data = bytearray(good)
        for _ in range(source.randrange(1, 6)):
            data[source.randrange(1, len(data))] = source.randrange(256)
        cut = bytes(data[: source.randrange(1, len(data) + 1)])
        try:
            linked.decode(cut, lambda kind: ListNode(), wire.Opaque, [ListNode()])
        except wire.WireError:
            continue
    with pytest.raises(wire.WireError, match="changed its type"):
        linked.decode(good, lambda kind: ListNode(), None, [[]])
    with pytest.raises(wire.WireError, match="impossible fields"):
        linked.decode(good.replace(b"next", b"__a_"), lambda kind: ListNode(), None)


@pytest.mark.parametrize(
    ("tests", "program", "passed"),
    [
        ("xs = [3, 1, 2]\ny = f(xs)\nassert y == 3\nassert xs == [1, 2]",
         "def f(xs): return xs.pop(0)", 2),
        ("k = f(xs := [5, 5, 6])\nassert k == 2\nassert xs[:k] == [5, 6]",
         "def f(xs): xs[:] = sorted(set(xs)); return len(xs)", 2),
        ("grid = [[0] * 2] * 2\nrow = grid[1]\nf(grid)\nassert row == [7, 0] and grid[1] is row",
         "def f(grid): grid[0][0] = 7", 1),
        ("xs = [1]\nf(xs, xs)\nassert xs == [1, 2, 3]",
         "def f(a, b): a.append(2); b.append(3)", 1),
        ("d = {}\ns = {1}\nx = f(d, more=s)\nassert d == {1: 2} and s == set() and x is None",
         "def f(d, more): d[more.pop()] = 2", 1),
        ("xs = [1]\nys = xs\ny = f(xs)\nassert y is xs\nassert ys == [1, 9]",
         "def f(xs): xs.append(9); return xs", 2),
        ("for xs in ([2, 1], [3]):\n    n = f(xs)\n    assert xs == [n]",
         "def f(xs): xs[:] = [len(xs)]; return xs[0]", 2),
        ("xs = [1, 2]\ny = f(xs)\nassert xs == [1]\ny = f(xs)\nassert xs == []",
         "def f(xs): return xs.pop()", 2),
    ],
)  # fmt: skip
def test_a_changed_argument_is_seen_as_in_one_process(tests, program, passed):
    assert verdict(tests, program) == (Outcome.PASS, "", passed, passed)
    space: dict = {}
    exec(f"{program}\n{tests}", space)


@pytest.mark.parametrize(
    ("tests", "program", "expected"),
    [
        ("xs = [2, 1]\nassert f(xs) == sorted(xs)", "def f(xs): xs.clear(); return []",
         "FAILED_TESTS"),
        ("xs = [2, 1]\nassert sorted(xs) == f(xs) and xs", "def f(xs): xs.clear(); return []",
         "FAILED_TESTS"),
        ("xs = [2, 1]\nassert f(xs) == sorted(xs)", "def f(xs): xs.sort(); return xs", "PASS"),
        ("xs = [2, 1]\nassert f(xs) == 1\nassert f(xs) == 2", "def f(xs): return xs.pop()", "PASS"),
        ("xs = [2, 1]\nassert f(xs) == 1\nassert f(xs) == 1", "def f(xs): return xs.pop()",
         "FAILED_TESTS"),
        ("xs = [2, 1]\nfor _ in range(2):\n    assert f(xs) == 2\nassert xs == [2, 1]",
         "def f(xs): y = xs[0]; xs.append(y); return y", "FAILED_TESTS"),
    ],
)  # fmt: skip
def test_a_program_cannot_spoil_what_its_answer_is_compared_with(tests, program, expected):
    assert verdict(tests, program)[0].name == expected


@pytest.mark.parametrize(
    ("tests", "program", "expected"),
    [
        ("for x in f(3):\n    assert x > 0", "def f(x): return []",
         ("FAILED_TESTS", "no_assertion", 0, 1)),
        ("def other():\n    assert f(1) == 1", "def f(x): return 1",
         ("FAILED_TESTS", "no_assertion", 0, 1)),
        ("async def check(c):\n    assert c(1) == 1", "def f(x): return 1", ("PASS", "", 1, 1)),
        ("try:\n    f(1)\nexcept KeyError:\n    pass\nelse:\n    assert False",
         "def f(x): raise KeyError", ("PASS", "", 1, 1)),
        ("import re\nassert f('a') == re.compile('a')", "import re\ndef f(x): return re.compile(x)",
         ("FAILED_TESTS", "cannot_cross", 0, 1)),
        ("class A:\n    pass\nassert f(A())", "def f(x): return x",
         ("FAILED_TESTS", "cannot_cross", 0, 1)),
        ("try:\n    ok = f(1).equals(2)\nexcept Exception:\n    ok = True\nassert ok",
         "class A:\n    def equals(self, x): return False\ndef f(x): return A()",
         ("FAILED_TESTS", "cannot_cross", 1, 1)),
    ],
)  # fmt: skip
def test_what_was_not_asserted_or_could_not_be_told_is_no_pass_and_says_so(
    tests, program, expected
):
    outcome, *rest = verdict(tests, program)
    assert (outcome.name, *rest) == expected


def test_tests_of_many_terms_are_judged_and_those_beyond_the_compiler_are_named():
    tests = "xs = [1]\nassert f(xs) == {}\nassert xs"
    program = "def f(xs): return 900"
    assert verdict(tests.format(" + ".join(["1"] * 900)), program) == (Outcome.PASS, "", 2, 2)
    _, reason, *_ = verdict(tests.format(" + ".join(["1"] * 9000)), program)
    assert re.match("unusable_tests: the tests do not compile: .*recursion", reason)


def test_a_caller_with_many_open_files_is_served_like_any_other():
    right = Response("t", "m", 0, "", "def f(x): return x")
    problem = Problem("t", "", "f", "assert f(1) == 1")
    for count in range(25, 60):  # whatever numbers the sockets of the zygotes get
        files = [os.open("/dev/null", os.O_RDONLY) for _ in range(count)]
        try:
            (found,) = execute([problem], [right])
        finally:
            for file in files:
                os.close(file)
        assert found.outcome is Outcome.PASS


# --- the weaker mode joint, and packages ---------------------------------------------------------

LOOPED = """
def check(candidate):
    assert candidate(1) == 2
    x = candidate(2)
    assert x == 3
    for n in range(2):
        assert candidate(n) == n + 1
"""
JOINT_PROGRAMS = {
    "def f(x): return x + 1": ("PASS", "", 4),
    "def f(x): return x + 1 if x < 2 else 1 / 0": ("FAILED_TESTS", "ZeroDivisionError", 3),
    "def f(x): return 2": ("FAILED_TESTS", "wrong_value", 2),
    "def f(x): raise KeyError": ("RUNTIME_ERROR", "KeyError", 0),
    "def g(x): pass": ("COMPILE_ERROR", "missing_entry_point", 0),
    "def f(x): return (": ("COMPILE_ERROR", "syntax", 0),
    'def f(x): return x + 1\n"""': ("COMPILE_ERROR", "syntax", 0),
    "import os\ndef f(x): os._exit(0)": ("RUNTIME_ERROR", "early_exit", 0),
    "def f(x):\n    while True: pass": ("RUNTIME_ERROR", "cpu_time", 0),
    "import subprocess\ndef f(x): subprocess.run(['true'])": ("RUNTIME_ERROR", "refused", 0),
}


def test_joint_verdicts_have_the_outcomes_and_reasons_of_plain_ones_and_say_what_they_are():
    problem = Problem("t", "def f(x):\n", "f", LOOPED)
    answers = [Response("t", "m", i, "", program) for i, program in enumerate(JOINT_PROGRAMS)]
    plain = execute([problem], answers, cpu_seconds=0.5)
    together = execute([joint.mark(problem)], answers, cpu_seconds=0.5)
    wanted = list(JOINT_PROGRAMS.values())
    assert [(e.outcome.name, e.reason, e.n_passed) for e in plain] == wanted
    assert [(e.outcome.name, e.reason, e.n_passed) for e in together] == wanted
    assert {e.isolation for e in together} == {plain[0].isolation + joint.SUFFIX}
    assert all(e.n_tests >= 3 for e in together)


def test_joint_tests_may_be_bare_assertions_on_a_method_and_keep_their_names_to_themselves():
    tests = "import re\nhelper = 5\nassert Solution().f('a') == re.compile('a')\n"
    problem = joint.mark(Problem("t", "", "Solution().f", tests))
    program = "import re\ndef helper(x): return re.compile(x)\nclass Solution:\n"
    program += "    def f(self, x): return helper(x)"
    (found,) = execute([problem], [Response("t", "m", 0, "", program)])
    assert (found.outcome, found.n_passed, found.n_tests) == (Outcome.PASS, 1, 1)


PACKAGE_PROGRAMS = {
    "import numpy as np\ndef f(x): return int(np.ones(x).sum())": "",
    "import numpy.testing, numpy.linalg\ndef f(x): return x": "",
    "import scipy\ndef f(x): return x": "ModuleNotFoundError",
    "import numpy\ndef f(x): open(numpy.__file__, 'a')": "refused",
    "import numpy, os\ndef f(x): os.listdir(os.path.dirname(numpy.__file__) + '/../pip')": "",
}


@pytest.mark.parametrize("level", ("namespaces", "landlock+seccomp"))
def test_programs_import_the_packages_that_are_named_and_no_others(level):
    if lanes.LEVELS.index(lanes.probe()) > lanes.LEVELS.index(level):
        pytest.skip(f"this host does not allow {level}")
    problem = Problem("t", "def f(x):\n", "f", "assert f(3) == 3\n")
    answers = [Response("t", "m", i, "", program) for i, program in enumerate(PACKAGE_PROGRAMS)]
    without = execute([problem], answers, exactly=level)
    assert {e.reason for e in without} == {"ModuleNotFoundError"}
    found = execute([problem], answers, exactly=level, packages=("numpy",))
    assert [e.reason for e in found[:4]] == list(PACKAGE_PROGRAMS.values())[:4]
    assert found[4].reason in ("refused", "FileNotFoundError")


def test_a_package_that_is_not_to_be_had_is_named():
    wrong = {"nosuchpackage": "not installed", "os": "part of Python", "a-b": "an import name"}
    for name, why in wrong.items():
        with pytest.raises(ValueError, match=f"package '{name}'.*{why}"):
            packages.view((name,))
