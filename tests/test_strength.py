"""Faulty copies of a reference: what they are, what tests make of them, what is dropped."""

import ast
import math
import os
from pathlib import Path

import pytest
from conftest import LIMITS, execute

from rrtf import probes, store
from rrtf.records import Outcome, Problem
from rrtf.strength import examine
from rrtf.strength.examine import NO_REFERENCE, Strength
from rrtf.strength.mutants import OPERATORS, mutants

F, P = Outcome.FAILED_TESTS, Outcome.PASS
HEAD = 'def f(x, y=0):\n    """Says something."""\n'
FENCES = {"limits": LIMITS, "execute": execute}


def changes(body: str, operator: str, head: str = HEAD) -> set[str]:
    """`change` of every mutant of one operator of a function `f` with this body."""
    lines = "".join(f"    {line}\n" for line in body.splitlines())
    found = mutants(head + lines, "f", limit=10**6, seed=0, first_line=head.count("\n") + 1)
    return {mutant.change for mutant in found if mutant.operator == operator}


def problem(tests: str, body: str, *, task_id: str = "t/0", prompt: str = HEAD) -> Problem:
    return Problem(task_id, prompt, "f", tests, body)


WEAK = "def check(candidate):\n    assert candidate(3) is not False\n"
STRONG = (
    "def check(candidate):\n    for x in range(-9, 10):\n"
    "        assert candidate(x) == (2 * x if x > 3 else -1)\n"
)
BODY = "    if x > 3:\n        return 2 * x\n    return -1\n"


FAULTS = [  # operator, the body of a function, what is changed for what
    ("arithmetic", "return x + y", {"x + y -> x - y"}),
    ("arithmetic", "x //= y\nreturn x", {"x //= y -> x /= y", "x //= y -> x %= y"}),
    ("comparison", "return x < y", {"x < y -> x <= y", "x < y -> x > y"}),
    ("comparison", "return x in y", {"x in y -> x not in y"}),
    ("comparison", "return x is None", {"x is None -> x is not None"}),
    ("boolean", "return x and y", {"x and y -> x or y", "x and y -> x", "x and y -> y"}),
    ("negation", "return not x", {"not x -> x"}),
    ("negation", "return -x", {"-x -> x"}),
    ("negation", "return -0", set()),  # it is 0, which compiles to what is there already
    ("negation", "return [a for a in x if a]", {"a -> not a"}),
    ("condition", "if x: y = 1\nelse: y = 2\nreturn y", {"x -> True", "x -> False"}),
    ("condition", "return 1 if x < y else 2", {"x < y -> True", "x < y -> False"}),
    ("constant", "return 7", {"7 -> 8", "7 -> 6"}),
    ("constant", "return -1", {"1 -> 2", "1 -> 0"}),
    ("constant", "return 0 * x", {"0 -> 1", "0 -> -1"}),
    ("constant", "return True", {"True -> False"}),
    ("constant", "return ''", {"'' -> 'x'"}),
    ("constant", "return 'a'", {"'a' -> ''", "'a' -> 'ax'"}),
    ("bounds", "return x[y:]", {"y: -> :", "y: -> y + 1:", "y: -> y - 1:"}),
    ("bounds", "return x[::2]", {"::2 -> :"}),
    ("bounds", "return x[y]", {"x[y] -> x[y - 1]"}),
    ("bounds", "return range(x)",
     {"range(x) -> range(x + 1)", "range(x) -> range(x - 1)", "range(x) -> range(1, x)"}),
    ("arguments", "return zip(x, y)", {"zip(x, y) -> zip(y, x)", "zip(x, y) -> zip(x)"}),
    ("arguments", "return max(x, y)", {"max(x, y) -> max(x)"}),
    ("arguments", "return sorted(x, reverse=True)", {"sorted(x, reverse=True) -> sorted(x)"}),
    ("function", "return max(x)", {"max(x) -> min(x)"}),
    ("function", "return abs(x)", {"abs(x) -> x"}),
    ("function", "return x.lower()", {"x.lower() -> x.upper()", "x.lower() -> x"}),
    ("return", "return x == y",
     {f"return x == y -> return {value}" for value in (None, True, False)}),
    ("deletion", "x.append(y)\nreturn x", {"x.append(y) -> pass"}),
    ("deletion", "for a in x:\n    y = a\nreturn y", {"for a in x: ... -> pass"}),
    ("deletion", "y = x\nx = sorted(x)\nreturn x", {"x = sorted(x) -> pass"}),
    ("assignment", "x += y\nreturn x", {"x += y -> x = y"}),
    ("jump", "for a in x:\n    if a: break\n    y = a\nreturn y", {"break -> continue"}),
    ("jump", "for a in x:\n    if a: continue\n    y = a\nreturn y", {"continue -> break"}),
]  # fmt: skip


@pytest.mark.parametrize(("operator", "body", "expected"), FAULTS)
def test_a_mutant_is_the_small_fault_its_operator_says(operator, body, expected):
    assert changes(body, operator) == expected
    assert {row[0] for row in FAULTS} == set(OPERATORS)


PROGRAM = '''import math
LIMIT = 3
UNUSED = 4


def other(a):
    return a * 100


def helped(a):
    """Doc 5."""
    return a + LIMIT


def f(x: int=7) -> 'list[int]':
    """Doc 6."""
    import re
    out = [f'v{helped(n):03d}' for n in range(x) if n % 2 == 0 and n != 4]
    while len(out) > 8:
        out.pop()
    return out[1:]
'''


def test_mutants_compile_and_differ_from_each_other_and_from_the_reference_in_one_line():
    found = mutants(PROGRAM, "f", limit=1000, seed=1)
    texts = [mutant.program for mutant in found]
    assert len(found) > 30 and len(set(texts)) == len(texts)
    assert ast.unparse(ast.parse(PROGRAM)) not in texts
    before, shown = ast.unparse(ast.parse(PROGRAM)).splitlines(), PROGRAM.splitlines()
    for mutant in found:
        compile(mutant.program, "mutant.py", "exec")
        after = mutant.program.splitlines()
        if len(after) == len(before):
            pairs = zip(before, after, strict=True)
            (changed,) = [line for line, other in pairs if line != other]
            assert changed.strip() == shown[mutant.line - 1].strip()
    # `if False: ...` is its deletion; `-1 - 1` is `0 - 2`: one mutant each
    body = "if x: y = 1\nreturn y"
    both = changes(body, "deletion") | changes(body, "condition")
    assert "x -> True" in both and len(both) == 2
    assert len(changes("return 0 - 1", "constant")) == 2


def test_only_what_the_entry_point_needs_is_changed_and_no_text_or_import():
    found = mutants(PROGRAM, "f", limit=1000, seed=1)
    lines = {PROGRAM.splitlines()[mutant.line - 1].strip() for mutant in found}
    assert "return a + LIMIT" in lines and "LIMIT = 3" in lines
    assert not lines & {"return a * 100", "UNUSED = 4", '"""Doc 6."""', "import re"}
    for mutant in found:
        for kept in ("Doc 5.", "Doc 6.", "import re", "list[int]", ":03d", "'v"):
            assert kept in mutant.program.replace('"', "'"), mutant
    source = "class Solution:\n    def twice(self, n):\n        return n + n\n"
    found = mutants(source, "Solution().twice", limit=10, seed=0)
    assert {m.change for m in found} == {"n + n -> n - n", "return n + n -> return None"}
    for program in ("def f(:", "def g(x): return x", "f(" * 500):
        with pytest.raises(ValueError, match="the program does not"):
            mutants(program, "f", limit=3, seed=0)


def test_mutants_depend_on_the_seed_operators_take_turns_and_a_larger_limit_adds_some():
    some, every = (mutants(PROGRAM, "f", limit=n, seed=1) for n in (12, 1000))
    assert some == mutants(PROGRAM, "f", limit=12, seed=1)
    assert some != mutants(PROGRAM, "f", limit=12, seed=2)
    assert set(some) < set(mutants(PROGRAM, "f", limit=20, seed=1))
    assert mutants(PROGRAM, "f", limit=0, seed=1) == []
    kinds = {mutant.operator for mutant in every}
    for seed in range(5):
        found = mutants(PROGRAM, "f", limit=len(kinds), seed=seed)
        assert {mutant.operator for mutant in found} == kinds
    start = PROGRAM[: PROGRAM.index("    while")].count("\n") + 1
    below = mutants(PROGRAM, "f", limit=1000, seed=1, first_line=start)
    assert below and min(mutant.line for mutant in below) >= start


def test_a_reference_is_joined_to_code_and_stands_alone_after_prose():
    whole = "def f(x):\n    return x\n"
    assert examine.reference_program(problem("", BODY)) == HEAD + BODY
    assert examine.reference_program(problem("", whole, prompt="Say x.")) == whole
    joined = examine.reference_program(problem("", whole, prompt="import re\ndef f(x):\n"))
    assert joined == f"import re\ndef f(x):\n    pass\n\n{whole}"


def test_a_broken_reference_is_named_with_its_verdict_and_a_missing_one_too():
    bodies = {"t/right": BODY, "t/wrong": "    return 2 * x\n", "t/syntax": "    return 2 *\n"}
    rows = [problem(STRONG, body, task_id=name) for name, body in bodies.items()]
    found = examine.broken_references([*rows, problem(STRONG, "", task_id="t/none")], **FENCES)
    assert found.pop("t/syntax").startswith("COMPILE_ERROR")
    assert found == {"t/wrong": "FAILED_TESTS (wrong_value), 6 of 19", "t/none": NO_REFERENCE}


def test_problems_whose_reference_fails_are_dropped_and_counted_others_stay():
    rows = [problem(STRONG, BODY, task_id=name) for name in "abcd"]
    broken = {"a": "FAILED_TESTS", "b": NO_REFERENCE}
    kept, dropped = examine.drop_broken(rows, broken)
    assert [p.task_id for p in kept] == ["b", "c", "d"]
    assert dropped == {"problem: its own reference fails": 1}
    assert examine.drop_broken(rows, {}) == (rows, {})
    assert list(examine.ledger_row(rows, broken, rows[1:3]).values()) == [4, 1, 1, 2, 1]


@pytest.fixture(scope="module")
def measured() -> tuple[dict[str, str], dict[str, Strength]]:
    loop = "    n = 0\n    while n < 3:\n        n += 1\n    return n\n"
    rows = [
        problem(WEAK, BODY, task_id="t/weak"),
        problem(STRONG, BODY, task_id="t/strong"),
        problem("assert f(0) == 3", loop, task_id="t/loop"),
        problem("assert f(1) == 9", BODY, task_id="t/broken"),
        problem(WEAK, "", task_id="t/none"),
        problem("assert f(5) == 5\nassert f(7) == 7", "    return abs(x)\n", task_id="t/domain"),
    ]
    broken, found = examine.examine(rows, n_mutants=40, seed=0, **FENCES)
    return broken, {one.task_id: one for one in found}


def test_every_mutant_is_killed_or_survives_and_a_failing_reference_is_not_measured(measured):
    broken, found = measured
    for one in found.values():
        survived = [outcome == P for outcome in one.outcomes]
        assert one.n_killed + sum(survived) == one.n_mutants == len(one.operators)
        assert all(lives or not alike for lives, alike in zip(survived, one.alike, strict=True))
        assert one.strength == pytest.approx(one.n_killed / one.n_mutants)
        assert one.strength <= one.discounted <= 1
    assert found["t/weak"].strength < 0.2, "tests that see nothing"
    assert found["t/strong"].discounted == 1.0
    assert found["t/strong"].n_mutants == found["t/weak"].n_mutants > 8
    assert broken["t/none"] == NO_REFERENCE and broken["t/broken"].endswith("0 of 1")
    assert not set(broken) & set(found)


@pytest.mark.parametrize(
    ("name", "change", "outcome", "alike"),
    [
        ("t/loop", "line 5: n += 1 -> pass", Outcome.RUNTIME_ERROR, False),  # endless: killed
        # The weak tests call with 3 alone: it differs there, and nobody looks.
        ("t/weak", "line 3: x > 3 -> x >= 3", P, False),
        # No input of the tests' kind tells it apart.
        ("t/domain", "line 3: abs(x) -> x", P, True),
    ],
)
def test_a_survivor_is_a_suspect_unless_other_inputs_give_it_away(
    measured, name, change, outcome, alike
):
    one = measured[1][name]
    place = one.changes.index(change)
    assert (one.outcomes[place], one.alike[place]) == (outcome, alike)
    assert one.strength < one.discounted == 1.0 or not alike


def test_a_slow_reference_gets_the_full_time_and_its_mutants_too():
    spin = "    import time\n    end = time.process_time() + 0.6\n"
    spin += "    while time.process_time() < end:\n        pass\n    return x\n"
    slow = problem("assert f(1) == 1", spin)
    broken, (one,) = examine.examine([slow], n_mutants=1, seed=3, **FENCES)
    assert not broken and one.n_mutants == 1


def strong_as(task_id: str, killed: int, lived: int, alike: int = 0) -> Strength:
    n = killed + lived
    return Strength(
        task_id, ("constant",) * n, ("",) * n, (F,) * killed + (P,) * lived,
        (False,) * (n - alike) + (True,) * alike,
    )  # fmt: skip


def test_the_threshold_drops_exactly_the_weak_and_the_unknown():
    rows = [problem(WEAK, BODY, task_id=name) for name in ("a", "b", "c", "d", "e", "f")]
    known = [strong_as("a", 9, 1), strong_as("b", 8, 2), strong_as("c", 7, 3)]
    known += [strong_as("d", 0, 0), strong_as("f", 7, 3, alike=3)]  # suspects do not count
    assert (known[-1].strength, known[-1].discounted) == (0.7, 1.0)
    kept, dropped = examine.drop_weak(rows, known, min_strength=0.8)
    assert [p.task_id for p in kept] == ["a", "b", "f"]
    assert sorted(dropped.values()) == [1, 2] and len(kept) + 3 == len(rows)
    assert "0.8" in next(name for name, count in dropped.items() if count == 1)
    assert examine.drop_weak(rows, [], min_strength=0) == (rows, {})
    with pytest.raises(ValueError, match=r"min_strength 1\.5"):
        examine.drop_weak(rows, [], min_strength=1.5)


def test_tables_count_every_mutant_once_and_what_a_threshold_would_drop():
    found = [strong_as("a", 3, 2, alike=1), strong_as("b", 5, 0), strong_as("c", 0, 0)]
    fates = [row["so it is"] for row in examine.mutant_rows(found)]
    assert [fates.count(x) for x in ("killed", "missed", "like the reference")] == [8, 1, 1]
    (row,) = examine.operator_rows(found)
    assert (row["mutants"], row["killed"], row["missed"]) == (10, 8, 1)
    assert row["missed (%)"] == pytest.approx(100 / 9)
    assert math.isnan(found[2].strength), "and has no place in the distribution"
    some = [strong_as("a", 3, 1), found[2]]
    assert list(examine.shares(some).values()) == [[0.75], [0.75]]
    found[2] = strong_as("c", 1, 4)
    rows = [problem(WEAK, BODY, task_id=one.task_id) for one in found]
    for row in examine.threshold_rows(found):
        kept, _ = examine.drop_weak(rows, found, min_strength=row["min_strength"])
        assert row["dropped"] == len(rows) - len(kept)
        assert row["dropped, if suspects counted"] >= row["dropped"]


def test_the_weakest_problems_come_first_with_the_faults_they_miss(measured):
    rows = [problem(WEAK, BODY, task_id=name) for name in ("t/weak", "t/strong", "t/domain")]
    found = [one for one in measured[1].values() if one.task_id != "t/loop"]
    (row,) = examine.missed_rows(rows, found)
    assert row["problem"] == "t/weak" and row["reference"].startswith("if x > 3:")
    assert "x > 3 -> x >= 3" in row["faults missed"].splitlines()


def test_further_calls_have_the_types_of_those_in_the_tests():
    tests = "assert candidate([1, 2], 'ab', k={'a': 1.5}) == 1\nassert f([3], 'c', k={}) == 2"
    tests += "\nassert f(x) == 1\nassert f([1]) == 1\nassert g(1) == 1"
    shown = probes.literal_calls(tests, "f")
    assert shown[:2] == [{0: [1, 2], 1: "ab", "k": {"a": 1.5}}, {0: [3], 1: "c", "k": {}}]
    varied = probes.varied_calls(shown, ["x = 77", "y = 'zz'"], count=200, seed=1)
    assert varied == probes.varied_calls(shown, ["x = 77", "y = 'zz'"], count=200, seed=1)
    assert len(varied) == 200 and all(call.keys() == shown[0].keys() for call in varied)
    for call in varied:
        assert [type(value) for value in call.values()] == [list, str, dict]
        assert all(type(item) is int and item > 0 for item in call[0])
    assert any(77 in call[0] for call in varied) and any("zz" in call[1] for call in varied)
    assert len({str(call) for call in varied}) > 100
    assert probes.varied_calls([], [], count=5, seed=1) == []
    tests = "CASES = [([1], 2), ((3, x), 4), ((5, 6), 7)]\ndef check(candidate):\n"
    tests += "    for inputs, expected in CASES:\n        assert candidate(*inputs) == expected\n"
    assert probes.literal_calls(tests, "f") == [{0: 1}, {0: 5, 1: 6}], "of a loop over cases"
    assert probes.literal_calls("for row in [(1, 2), 3]:\n    f(*row)", "f") == [{0: 1, 1: 2}]
    assert probes.literal_calls("for row in rows:\n    f(*row)", "f") == []


@pytest.mark.slow
def test_humanevals_references_are_sound_and_its_tests_kill_most_mutants():
    file = Path(os.environ.get("RRTF_DATA", "")) / "humaneval" / "HumanEval.jsonl.gz"
    if not file.exists():
        pytest.skip("$RRTF_DATA holds no humaneval/HumanEval.jsonl.gz")
    problems = store.read(file, Problem)
    broken, found = examine.examine(problems, n_mutants=6, seed=0, **FENCES)
    assert broken == {} and len(found) == 164
    total = sum(one.n_mutants for one in found)
    assert sum(one.n_killed for one in found) / total > 0.8
