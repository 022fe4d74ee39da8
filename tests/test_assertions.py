"""Tests that are data: what counts as such, and that they are judged as the same tests as code."""

import ast
import contextlib
import os
import signal
from collections.abc import Sequence
from pathlib import Path

import pytest
from conftest import execute

from rrtf import benchmarks
from rrtf.benchmarks import catalogue
from rrtf.records import Execution, Outcome, Problem, Response
from rrtf.sandbox import assertions, court, instrument, lanes
from rrtf.strength import mutants

FOLDER = Path(__file__).parent / "hostile"
DATA = os.environ.get("RRTF_DATA")


def problem(tests: str, *, prompt: str = "", entry_point: str = "f", task_id: str = "t") -> Problem:
    return Problem(task_id, prompt, entry_point, tests)


def respond(*programs: str, task_id: str = "t") -> list[Response]:
    return [Response(task_id, "model", i, "", program) for i, program in enumerate(programs)]


def is_data(tests: str, **about: str) -> bool:
    one = problem(tests, **about)
    return "cases" in instrument.prepare(one.prompt, one.entry_point, one.tests)


@contextlib.contextmanager
def all_as_code():
    """Every test is taken for code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(assertions, "cases", lambda tree, entry_point: None)
        instrument.prepare.cache_clear()
        yield
    instrument.prepare.cache_clear()


def both_ways(
    problems: Sequence[Problem], responses: Sequence[Response], **options
) -> tuple[list[Execution], list[Execution]]:
    """The verdicts as usual, and with every test taken for code."""
    usual = execute(problems, responses, **options)
    with all_as_code():
        return usual, execute(problems, responses, **options)


# --- what is data ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "tests",
    [
        "assert f(1) == 2",
        '"""About f."""\nLIMIT = {"a": [1, None], "b": {2}}\nassert f(1, key=[2]) == -2.5, "why"',
        "METADATA = {}\n\ndef check(candidate):\n    '''Checks.'''\n    pass\n"
        "    assert True, 'hint'\n    assert candidate('a', {1: (b'c', 2j)}) != {3, 4}\n",
        "assert f()\nassert not f({})\nassert f(x=None) is None\nassert f([()]) is not True",
        "assert abs(f(1.5) - 2 / 3) < 1e-6\nassert abs(f(0) - -1) <= 10 ** -0\nassert f(2 ** 70)",
        "assert f(1 + 2 * 3 - 4) == [10 ** 40]",
    ],
)
def test_assertions_about_one_call_with_literals_are_data(tests):
    assert is_data(tests)


@pytest.mark.parametrize(
    "tests",
    [
        "x = f(1)\nassert x == 2", "for i in (1, 2):\n    assert f(i) == i", "assert f(g(1)) == 2",
        "assert f(1) == g(2)", "assert f(f(1)) == 2", "assert f(1) == 2 == 2",
        "assert f(1) == 2 and f(2) == 3", "assert f(1) in (2, 3)", "assert f(1) is 2",
        "assert f(1) == float('nan')", "assert f(*[1]) == 2", "assert f(**{'a': 1}) == 2",
        "assert f(1)[0] == 2", "assert f(f'{1}') == 2", "assert f(...) == 2",
        "assert f({2, 1}) == 3", "assert f([1] * 3) == 3", "assert f(2 ** 5000) == 3",
        "assert f(2 ** -1) == 3", "assert f(1 / 0) == 3", "assert f({[]: 1}) == 3",
        "assert f(1) == {**{}}", "assert g(1) == 2", "import math\nassert f(1) == 2",
        "assert f(1) == 2\nassert abs(f(1) - f(2)) < 1", "abs = 3\nassert abs(f(1) - 2) < 1",
        "f = 3\nassert f(1) == 2", "_rrtf_holds = 3\nassert f(1) == 2", "assert False\nassert f(1)",
        "def check(f, g):\n    assert f(1) == 2", "def check(f=3):\n    assert f(1) == 2",
        "def check(f: print(3)):\n    assert f(1) == 2",
        "def check(f) -> print(3):\n    assert f(1) == 2",
        "@print\ndef check(f):\n    assert f(1) == 2", "def check(abs):\n    assert abs(1) == 2",
        "def check(candidate):\n    x = 1\n    assert candidate(1) == 2",
        "def check(candidate):\n    assert candidate(1) == 2\nassert f(1) == 2",
        "def check(candidate):\n    assert f(1) == 2",
        "def check(candidate):\n    assert candidate(1) == 2\ncheck = 3",
        "def check(candidate):\n    assert candidate(1)\ndef check(candidate):\n    pass",
        "async def check(candidate):\n    assert candidate(1) == 2",
        "class A:\n    assert f(1) == 2",
        "assert f(" + "[" * 90 + "1" + "]" * 90 + ") == " + "-" * 900 + "1",
    ],
)  # fmt: skip
def test_all_other_tests_are_code(tests):
    assert assertions.cases(ast.parse(tests), "f") is None


def test_tests_of_a_builtin_and_those_that_use_what_the_prompt_binds_are_code():
    assert not is_data("assert abs(1) == 2", entry_point="abs")
    prompt = "class check:\n    pass\n"
    tests = "def check(candidate):\n    assert candidate(1) == 2"
    assert not is_data(tests, prompt=prompt)
    assert is_data(tests, prompt='"""check this"""\n')
    assert is_data("assert candidate(1)", entry_point="Solution().f")
    assert not is_data("assert candidate(1)", prompt="candidate = 3", entry_point="Solution().f")


def test_data_that_asserts_nothing_is_no_test():
    with pytest.raises(ValueError, match="assert nothing"):
        is_data("def check(candidate):\n    assert True\n    pass")


# --- judged alike ------------------------------------------------------------------------------

EVERY_FORM = """def check(candidate):
    assert candidate(0) == [1, (2.0, {"a": None})], "equal"
    assert candidate(1) != 0
    assert candidate(2)
    assert not candidate(3)
    assert candidate(4) is None
    assert candidate(5) is not False
    assert abs(candidate(6) - 1.5) < 1e-6
    assert abs(candidate(7) - 2) <= 1 / 2
    assert candidate(8, key=[1]) == {1, 2}
    assert candidate(9) == True
"""
ANSWERS = (
    *("[1, (2.0, {'a': None})]", "[1, [2.0, {'a': None}]]", "1", "0", "None", "False", "True"),
    *("1.5", "2.5", "float('nan')", "float('inf')", "10**400", "'1.5'", "{1, 2}", "{2, 1.0}"),
    *("frozenset({1, 2})", "{1: 2}.keys()", "object()", "A()", "(x for x in ())", "1j", "int"),
    *("[[]] * 200000", "'x' * 10**7", "nested(150)", "nested(250)", "1/0", "[].pop()", "stop()"),
    *("os._exit(0)", "sys.exit()", "lose()", "garble()", "[A(), A()]", "MemoryError", "huge()"),
)
PROGRAM = """
import os, sys
class A:
    def __eq__(self, other): return True
    def __bool__(self): return False
class Stop(BaseException): pass
def stop(): raise Stop("stop" * 100)
def nested(depth): return [nested(depth - 1)] if depth else []
def lose(): os.closerange(3, 9)
def garble(): os.write(3, b"x" * 99)
def huge(): return [0] * 10**9
def f(n, key=None):
    values = [{answers}]
    return eval(values[n % len(values)])
"""


def test_every_form_says_of_every_kind_of_value_what_it_says_as_code():
    assert is_data(EVERY_FORM)
    right = ("[1, (2.0, {'a': None})]", "1", "1", "0", "None", "1", "1.5", "2.25", "{1, 2}", "1")
    mixed = [[answer, *right[1:]] for answer in ANSWERS]
    mixed += [[answer] for answer in ANSWERS] + [[*right[:5], a, *right[6:]] for a in ANSWERS]
    programs = [PROGRAM.replace("{answers}", ", ".join(map(repr, a))) for a in [right, *mixed]]
    programs += ["def f(", "def g(): pass", "raise KeyError", "import os; os._exit(3)", "\0", "f=1"]
    slow = {"cpu_seconds": 10.0, "wall_seconds": 30.0}  # 200,000 lists on a busy machine
    usual, as_code = both_ways([problem(EVERY_FORM)], respond(*programs), **slow)
    assert usual == as_code
    assert usual[0].outcome is Outcome.PASS and usual[0].n_tests == 10
    assert len({(e.outcome, e.reason) for e in usual}) > 12


TESTS = (
    "def check(candidate):\n    assert candidate(1, 2) == 3\n"
    "    assert candidate(0, 0) == 0\n    assert candidate(-1, 1) == 0\n"
)


@pytest.mark.slow
def test_hostile_programs_get_the_same_verdict_from_data_and_from_code():
    assert is_data(TESTS, entry_point="add")
    sources = {path.stem: path.read_text() for path in sorted(FOLDER.glob("*.py"))}
    sources = {name: text for name, text in sources.items() if "# entry: " not in text}
    limits = {"cpu_seconds": 3.0, "wall_seconds": 4.0, "workers": 2}  # 0.9 s of CPU for a list
    responses = [Response("t", name, 0, "", text) for name, text in sources.items()]
    found = both_ways([problem(TESTS, entry_point="add")], responses, **limits)
    for usual, as_code in zip(*found, strict=True):
        stated = sources[usual.source].split("# expect: ")[1].splitlines()[0].split()[1:]
        if len(stated) < 2:  # else the reason hangs on the moment
            assert usual == as_code
        assert (usual.outcome, usual.n_tests) == (as_code.outcome, as_code.n_tests)


@pytest.mark.slow
@pytest.mark.skipif(not DATA, reason="$RRTF_DATA is not set")
@pytest.mark.parametrize(
    ("name", "share"),
    [("humaneval", 0.9), ("mbpp", 0.95), ("mbpp-sanitized", 0.7), ("leetcode-v0.2-train", 0.9),
     ("leetcode-v0.3-test", 0.9)],
)  # fmt: skip
def test_the_rows_of_the_benchmarks_are_judged_alike_as_data_and_as_code(name, share):
    if not (Path(DATA) / catalogue.entry(name).file).exists():
        pytest.skip(f"$RRTF_DATA holds no {name}")
    problems = benchmarks.load(name, data=Path(DATA))
    data = [p for p in problems if is_data(p.tests, prompt=p.prompt, entry_point=p.entry_point)]
    assert len(data) >= share * len(problems)
    responses = []
    for one in data:
        right = one.prompt + one.reference
        faulty = mutants.mutants(right, one.entry_point, limit=1, seed=0)
        responses += respond(right, *(m.program for m in faulty), task_id=one.task_id)
    usual, as_code = both_ways(data, responses, cpu_seconds=4.0, wall_seconds=20.0)
    differ = [(a, b) for a, b in zip(usual, as_code, strict=True) if a != b]
    assert [pair for pair in differ if "cpu_time" not in (pair[0].reason, pair[1].reason)] == []
    assert len(differ) <= 0.002 * len(usual)  # which took as long as the limit


# --- the clerk ---------------------------------------------------------------------------------

RIGHT = "def f(): return 1"
COLLIDING = """
import os, struct, sys
def f():
    frame = sys._getframe()
    while "link" not in frame.f_locals:
        frame = frame.f_back
    link = frame.f_locals["link"]
    items = [(i * (2**61 - 1)).to_bytes(10, "little", signed=True) for i in range(40000)]
    data = b"VS" + struct.pack("<I", len(items))
    data += b"".join(b"i" + struct.pack("<I", 10) + item for item in items)
    data = struct.pack("<I8sI", len(data), link.nonce, link.number) + data
    while data:
        data = data[os.write(link.fd, data):]
"""


def judged_in_turn(*programs: str, **options) -> list[Execution]:
    """Verdicts of programs for a problem each, one job after the other in one lane."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lanes, "PROGRAMS_PER_JOB", 1)
        return judged([("assert f() == 1", program) for program in programs], **options)


def judged(cases: Sequence[tuple[str, str]], **options) -> list[Execution]:
    """Verdicts of (tests, program) for a problem each, in one lane."""
    problems = [problem(tests, task_id=f"t{i}") for i, (tests, _) in enumerate(cases)]
    responses = [r for i, (_, p) in enumerate(cases) for r in respond(p, task_id=f"t{i}")]
    return execute(problems, responses, workers=1, **options)


def boot_with(patch: pytest.MonkeyPatch, **constants: float) -> None:
    """Lanes whose court has other constants."""
    assert all(hasattr(court, name) for name in constants)
    lines = "".join(f"court.{name} = {value}\n" for name, value in constants.items())
    start = lanes._BOOT.replace("main()\n", "")
    patch.setattr(lanes, "_BOOT", f"{start}from rrtf.sandbox import court\n{lines}main()\n")


def clerks() -> set[int]:
    """Processes that a court has forked: nothing of theirs has children."""
    parents: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has just ended
            if b"judge".hex().encode() in (path / "cmdline").read_bytes():
                state, parent = (path / "stat").read_text().rpartition(")")[2].split()[:2]
                parents[int(path.name)] = int(parent) if state != "Z" else 0
    mine = {os.getpid()}
    for _ in range(4):
        mine |= {pid for pid, parent in parents.items() if parent in mine}
    return {pid for pid in mine - {os.getpid()} if pid not in parents.values()}


def test_a_value_that_takes_the_clerk_too_long_fails_its_own_program_only(monkeypatch):
    boot_with(monkeypatch, JUDGE_CPU_SECONDS=0.7)
    found = judged_in_turn(RIGHT, COLLIDING, RIGHT)
    assert [e.reason for e in found] == ["", "judge_limit", ""]
    with all_as_code():
        assert judged_in_turn(RIGHT, COLLIDING, RIGHT) == found


def test_a_clerk_that_dies_is_replaced_and_its_program_judged_again():
    seen: list[set[int]] = []

    def kill_the_clerk(_) -> None:
        seen.append(clerks())
        if len(seen) in (1, 2):
            (clerk,) = seen[-1]
            os.kill(clerk, signal.SIGKILL)

    found = judged_in_turn(*[RIGHT] * 5, finished=kill_the_clerk)
    assert [e.outcome for e in found] == [Outcome.PASS] * 5
    assert len(seen) == 5 and len(set().union(*seen)) == 3 and seen[2] == seen[3]


@pytest.mark.parametrize(
    ("constants", "is_replaced"),
    [
        ({"CLERK_PROBLEMS": 2, "CLERK_GROWTH_KB": 1 << 20}, True),
        ({"CLERK_GROWTH_KB": 4 << 10}, True),
        ({"CLERK_GROWTH_KB": 1 << 20}, False),
    ],
)
def test_a_clerk_is_replaced_after_a_while_and_when_it_has_grown(
    monkeypatch, constants, is_replaced
):
    boot_with(monkeypatch, **constants)
    seen: list[set[int]] = []
    grows = "def f(): return 'x' * (3 << 20)"
    found = judged_in_turn(RIGHT, grows, RIGHT, RIGHT, finished=lambda _: seen.append(clerks()))
    assert [e.outcome is Outcome.PASS for e in found] == [True, False, True, True]
    assert (seen[0] != seen[2]) is is_replaced and len(seen[0]) == len(seen[2]) == 1


def test_problems_of_data_are_judged_in_one_job_and_get_the_verdicts_that_they_get_alone(
    monkeypatch,
):
    together, start = [], lanes.Lane.start
    count = lambda lane: together.append(len(lane.job.runs)) or start(lane)  # noqa: E731
    monkeypatch.setattr(lanes.Lane, "start", count)
    boot_with(monkeypatch, JUDGE_CPU_SECONDS=0.7)
    data, exits = "assert f() == 1", "import os\ndef f(): os._exit(3)"
    cases = [
        (data, RIGHT, ""),
        (data, RIGHT + "0", "wrong_value"),
        (data, exits, "early_exit"),
        ("x = f()\nassert x == 1", RIGHT, ""),
        ("assert f(", RIGHT, "unusable_tests"),
    ] * 4
    cases += [(data, COLLIDING, "judge_limit"), *[(data, RIGHT, "")] * 6]
    found = judged([case[:2] for case in cases])
    assert [e.reason.partition(":")[0] for e in found] == [reason for _, _, reason in cases]
    assert max(together) == 3 and len(together) < len(cases)


def test_code_between_data_is_judged_in_a_process_of_its_own():
    tests = ("assert f() == 1", "x = f()\nassert x == 1") * 3
    problems = [problem(text, task_id=f"t{i}") for i, text in enumerate(tests)]
    responses = [r for p in problems for r in respond(RIGHT, RIGHT + "0", task_id=p.task_id)]
    found = execute(problems, responses, workers=1)
    assert [e.outcome is Outcome.PASS for e in found] == [True, False] * 6
