"""Evolution through a model: families whole, nothing lost, order without effect, failures named."""

import ast
from collections import Counter

import pytest
from scripted_teacher import ADDED, CODE, Teacher, kind, reply, task_of

from rrtf.evolve import asking, offline, rules, stage, testing
from rrtf.evolve.seeds import as_problem, read_seeds
from rrtf.records import Instruction

WEIGHTS = dict.fromkeys(asking.methods(), 1)
TASK = "Return the sum of a list of numbers."


def _seeds(count=6):
    return [
        Instruction(f"s/{n}", f"{TASK} Variant {n}.", output=CODE, seed_id=f"s/{n}", source="s")
        for n in range(1, count + 1)
    ]


def _grow(teacher, seeds=None, *, rounds=2, **more):
    how = {"rounds": rounds, "weights": WEIGHTS, "generator": "m", "decoding": asking.freely(0)}
    how |= {"after_failure": "retry"} | more
    return stage.evolve_rows(_seeds() if seeds is None else seeds, ask=teacher, **how)


def test_every_row_has_its_family_tree_and_its_answer():
    seeds = _seeds()
    evolved, failed = _grow(Teacher(), seeds)
    known = {row.task_id: row for row in [*seeds, *evolved]}
    assert len(evolved) + len(failed) == 2 * len(seeds)
    for row in evolved:
        line = offline.lineage(row, known)
        assert [r.depth for r in line] == list(range(row.depth + 1))
        assert line[0].task_id == row.seed_id and row.operator in WEIGHTS
        assert (row.generator, row.prompt_version) == ("m", asking.version())
        assert row.output == CODE.strip() and ADDED in row.instruction


def test_attempts_are_evolved_or_failed_for_every_teacher():
    for text in ("", "I'm sorry, I cannot help with that.", "...", TASK, "ok"):
        evolved, failed = _grow(Teacher(evolve=text))
        assert not evolved and len(failed) == 12, text
        assert all(reason for _, reason in failed)


def test_neither_the_order_of_rows_nor_their_chunks_matter():
    seeds = _seeds()
    whole = _grow(Teacher(), seeds)
    turned = _grow(Teacher(), seeds[::-1])
    parts = [_grow(Teacher(), seeds[at : at + 2]) for at in (0, 2, 4)]
    for other in (turned, ([r for p in parts for r in p[0]], [r for p in parts for r in p[1]])):
        for mine, theirs in zip(whole, other, strict=True):
            assert sorted(map(repr, mine)) == sorted(map(repr, theirs))


def test_a_request_depends_on_its_row_alone_and_no_two_rows_share_a_seed():
    teacher, other = Teacher(), Teacher()
    _grow(teacher)
    _grow(other, _seeds()[::-1])
    assert Counter(teacher.asks) == Counter(other.asks)
    seeds = [ask.seed for ask in teacher.asks]
    assert len(set(seeds)) == len(seeds) and all(0 <= seed < 2**31 for seed in seeds)
    third = Teacher()
    _grow(third, decoding=asking.freely(1))
    assert not set(seeds) & {ask.seed for ask in third.asks}


def test_the_five_methods_are_all_asked_for_in_our_words():
    teacher = Teacher()
    _grow(teacher, _seeds(40), rounds=1)
    asked = [ask.messages[-1][1] for ask in teacher.asks if kind(ask) == "evolve"]
    for text in asking.wording()["methods"].values():
        assert sum(text in said for said in asked) >= 2
    assert all(said.count("<<<") == 1 for said in asked)


def test_a_failed_row_is_tried_again_unless_told_to_stop():
    def once(ask):  # fails in the first round only
        first = ADDED not in task_of(ask) and seen[task_of(ask)] == 0
        seen[task_of(ask)] += 1
        return "I'm sorry, I can't." if first else f"{task_of(ask)} {ADDED}"

    seen: Counter = Counter()
    evolved, failed = _grow(Teacher(evolve=once))
    assert len(evolved) == 6 and len(failed) == 6
    assert all(row.depth == 1 and row.task_id.endswith("/r2") for row in evolved)
    assert {row.parent_id for row in evolved} == {seed.task_id for seed in _seeds()}
    seen = Counter()
    evolved, failed = _grow(Teacher(evolve=once), after_failure="stop")
    assert not evolved and len(failed) == 6, "no branch goes on"


def test_a_task_that_is_not_answered_is_no_evolution():
    evolved, failed = _grow(Teacher(answer="I'm sorry, but I cannot do this."), rounds=1)
    assert not evolved
    assert rules.reason_counts(failed) == {"answer: an apology": 6}
    silent = Teacher(answer=reply("", error="no reply in 6 attempts"))
    assert rules.reason_counts(_grow(silent, rounds=1)[1]) == {"answer: no reply": 6}


def test_no_answer_is_asked_for_a_task_that_failed():
    teacher = Teacher(evolve="!!!")
    _grow(teacher, rounds=1)
    assert {kind(ask) for ask in teacher.asks} == {"evolve"}


def test_rows_that_were_evolved_before_are_not_evolved_beside_their_seeds():
    seeds = _seeds()
    evolved, _ = _grow(Teacher(), seeds, rounds=1)
    with pytest.raises(ValueError, match="s/1/r1 is among the seeds"):
        _grow(Teacher(), [*seeds, *evolved], rounds=1)
    again, failed = _grow(
        Teacher(evolve=lambda ask: f"{task_of(ask)} Sort the kept numbers by size first."),
        evolved,
        rounds=1,
    )
    assert not failed and {row.depth for row in again} == {2}
    assert {row.seed_id for row in again} == {seed.task_id for seed in seeds}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"weights": {"shorten": 1}}, "unknown methods"),
        ({"weights": dict.fromkeys(WEIGHTS, 0)}, "above 0"),
        ({"after_failure": "again"}, "retry or stop"),
    ],
)
def test_settings_out_of_range_are_refused(change, told):
    with pytest.raises(ValueError, match=told):
        _grow(Teacher(), **change)


def test_braces_and_markers_in_a_task_reach_the_model_as_they_are():
    task = 'Fill "{task} {method}" with <<< and {head}.'
    teacher = Teacher()
    _grow(teacher, [Instruction("s/1", task, seed_id="s/1")], rounds=1)
    assert task in teacher.asks[0].messages[-1][1]
    assert teacher.asks[0].messages[-1][1].count("{task}") == 1


def test_the_input_of_a_seed_goes_to_the_model_with_its_task():
    row = Instruction("s/1", "Reverse it.", input="[1, 2]", seed_id="s/1")
    teacher = Teacher()
    _grow(teacher, [row], rounds=1)
    assert "Reverse it.\n\nInput:\n[1, 2]" in teacher.asks[0].messages[-1][1]


def test_the_wording_changes_its_version_and_none_of_its_fields_is_left_over():
    number, _, digest = asking.version().partition("-")
    assert number.isdigit() and len(digest) == 8
    for section in ("evolve", "answer", "again", "inputs"):
        assert {"system", "user"} == set(asking.wording()[section])
    teacher = Teacher()
    rows, _ = _grow(teacher, _seeds(2), rounds=1)
    how = {"answers": 5, "inputs": 10, "least_share": 0.6, "decoding": asking.freely(0)}

    def call(asked, *_, **__):
        return [(_Nothing(),)] * len(asked)

    testing.add_tests(rows, ask=teacher, call=call, **how)
    for ask in teacher.asks:
        assert not any(f"{{{name}}}" in ask.messages[-1][1] for name in ("task", "head", "count"))


class _Nothing:
    value, error = None, "judge_limit"


# --- rows as people have them ------------------------------------------------------------------


def _read(*rows, **more):
    places = [(f"f.jsonl:{n}", row) for n, row in enumerate(rows, start=1)]
    return read_seeds(places, source="f", **more)


def test_rows_are_read_by_the_names_they_have():
    rows, names = _read({"prompt": "Add.", "response": "x = 1"}, {"prompt": "Sub.", "response": ""})
    assert [row.task_id for row in rows] == ["f/1", "f/2"]
    assert names == {"instruction": "prompt", "output": "response"}
    assert rows[0].output == "x = 1" and rows[0].seed_id == "f/1"
    renamed, _ = _read({"q": "Add.", "prompt": "no"}, renamed={"q": "instruction"})
    assert renamed[0].instruction == "Add."


def test_fields_that_only_later_rows_have_are_read_too():
    rows, names = _read(
        {"instruction": "Add."}, {"instruction": "Sub.", "input": "3", "output": "x"}
    )
    assert (rows[0].input, rows[1].input, rows[1].output) == ("", "3", "x") and len(names) == 3
    with pytest.raises(ValueError, match="instruction: expected text, found NoneType"):
        _read({"instruction": "Add."}, {"prompt": "Sub."})


def test_words_for_no_input_are_none():
    for text in ("", "<noinput>", "No input", "N/A", "none", " - "):
        assert _read({"instruction": "Add.", "input": text})[0][0].input == "", text
    assert _read({"instruction": "Add.", "input": "nonempty"})[0][0].input == "nonempty"


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([{"code": "x"}], "f.jsonl:1: no field with a task's text.*it has code"),
        ([{"instruction": "a b"}, {"instruction": 3}], "f.jsonl:2: instruction: expected text"),
        ([{"instruction": "  "}], "f.jsonl:1: instruction: empty"),
        ([{"instruction": "a", "output": ["x"]}], "output: expected text, found list"),
        ([["a"]], "f.jsonl:1: expected an object, found list"),
        ([{"instruction": "a", "id": 1}, {"instruction": "b", "id": 1}], "'1' is the id of f.json"),
        ([], "f: no rows in it"),
    ],
)
def test_rows_that_cannot_be_read_are_named(rows, told):
    with pytest.raises(ValueError, match=told):
        _read(*rows)


def test_a_family_that_rows_bring_is_kept():
    row = {"task_id": "s/1/r1", "instruction": "Add.", "seed_id": "s/1", "parent_id": "s/1"}
    row |= {"operator": "deepen", "depth": 1, "generator": "m", "prompt_version": "1-a"}
    (found,), _ = _read(row)
    assert (found.seed_id, found.parent_id, found.operator, found.depth) == (
        "s/1", "s/1", "deepen", 1,
    )  # fmt: skip


# --- rows as problems --------------------------------------------------------------------------


def test_a_function_becomes_a_problem_whose_prompt_does_not_show_its_helpers():
    code = (
        "import math\nimport os\n\nLIMIT = 3\n\ndef helper(n):\n    return min(n, LIMIT)\n\n"
        "def roots(ns, *, deep=0):\n    # all of them\n"
        "    return [math.sqrt(helper(n)) for n in ns]\n\nprint(roots([4]))\nns = input()\n"
    )
    task = 'Say """so""" and \\n.'
    problem = as_problem(Instruction("t", task, output=f"Sure:\n```python\n{code}\n```"))
    assert problem.entry_point == "roots"
    assert "import math" in problem.prompt and "import os" not in problem.prompt
    assert "helper" not in problem.prompt and "# all of them" in problem.reference
    space: dict = {}
    exec(problem.prompt + problem.reference, space)
    assert space["roots"]([4, 9]) == [3**0.5] * 2
    assert ast.get_docstring(ast.parse(problem.prompt + problem.reference).body[1]).strip() == task


def test_rows_without_a_function_keep_their_text_and_code():
    problem = as_problem(Instruction("t", "Print it.", output="print(1)"))
    assert (problem.prompt, problem.entry_point, problem.reference) == ("Print it.", "", "print(1)")


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("def f(x): return x", "one line"),
        ('def f(x):\n    """Doc."""', "returns nothing"),
        ("def f():\n    return 1", "no argument"),
        ("def f(x):\n    print(x)", "returns nothing"),
        ("def f(x):\n    yield x\n    return 1", "generator"),
        ("class A:\n    def f(self, x):\n        return x", "a class"),
        ("x = 1", "no function"),
        ("def f(x:\n", "parse"),
        ("def f(x, *, y):\n    return x + y", "keyword"),
        ("D = 3\ndef f(x, y=D):\n    return x + y", "signature"),
        ("async def f(x):\n    return x", "no function"),
    ],
)
def test_code_that_is_not_function_level_says_why(code, reason):
    from rrtf.evolve.seeds import function_of

    with pytest.raises(ValueError, match=reason):
        function_of(code, "A task.")


def test_decorators_inner_functions_and_tabs_survive():
    from rrtf.evolve.seeds import function_of

    code = (
        "from functools import lru_cache\n\n@lru_cache\ndef f(x):\n\t'''Old.'''\n\n"
        "\tdef g(y):\n\t\treturn y\n\treturn g(x)\n"
    )
    found = function_of(code, "New\ntext.")
    assert "@lru_cache" in found.head and "Old" not in found.head + found.body
    space: dict = {}
    exec(found.head + found.body, space)
    assert space["f"](3) == 3 and found.parameters == (1, 1)
