"""The audit: planted leaks are found, by the detector that should, and what is clean stays."""

import ast
import copy
import gzip
import json
import os
import re
import sys
import types
from collections import Counter
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import bench_labels
import numpy as np
import pytest
import restyling
from conftest import AUDIT
from conftest import call as fenced_call
from conftest import judge as fenced_judge
from typer.testing import CliRunner

from rrtf import benchmarks, probes, similarity, stats, store
from rrtf.__main__ import app
from rrtf.audit import detectors, running, verdict, views
from rrtf.audit import plants as audit_plants
from rrtf.audit import rows as audit_rows
from rrtf.audit.rows import Corpus, Row, from_fields, from_problem, guess_fields
from rrtf.figures import charts, tables
from rrtf.records import Leak, Problem, Response
from rrtf.sandbox import lanes


@dataclass(frozen=True)
class Returned:
    value: object
    error: str = ""


def call(programs, inputs):
    """The sandbox's `call` for programs written in this file."""
    return [tuple(_one(code, name, args) for args in inputs) for code, name in programs]


def _one(code, name, args):
    space = {}
    try:
        exec(code, space)
        return Returned(space[name](*copy.deepcopy(args)))
    except Exception as error:
        return Returned(None, type(error).__name__)


def exam(name: str, head: str, text: str, body: str, *asserts: str) -> Problem:
    return Problem(
        task_id=f"t/{name}",
        prompt=f'def {name}({head}):\n    """{text}\n    """\n',
        entry_point=name,
        tests="def check(candidate):\n" + "".join(f"    assert {line}\n" for line in asserts),
        reference="".join(f"    {line}\n" for line in body.split("\n")),
    )


def problem(task_id: str, text: str, body: str, tests: str, name: str = "f", x: str = "xs"):
    return replace(exam(name, x, text, body, f"candidate({tests}) == 0"), task_id=task_id)


SUM_EVEN = "Return the sum of the even numbers of a list of integers. An empty list gives zero."
REVERSE = "Given a list of strings, reverse each word and join all of them with a single space."
TASKS = [
    problem("t/sum", SUM_EVEN, "return sum(x for x in xs if x % 2 == 0)", "[1, 2]"),
    problem("t/join", REVERSE, "return ' '.join(x[::-1] for x in xs)", "['a']"),
    problem("t/digits", "Sum the digits.", "return sum(int(d) for d in str(n))", "12", x="n"),
    problem("t/swap", "Swap the case of every letter.", "return s.swapcase()", "'aB'", x="s"),
    problem("t/top", "Name the key of the largest value.", "return max(d, key=d.get)",
            "{'a': 1}", x="d"),
]  # fmt: skip
LOOP = "total = 0\nfor v in values:\n    if v % 2 == 0:\n        total += v\nreturn total"
PLANTS = {
    "verbatim": replace(TASKS[0], task_id="verbatim"),
    "layout": problem("layout", REVERSE.upper().replace(", ", ",\n      "), "return xs", "['a']"),
    "renamed": problem("renamed", "Add up what two divides.",
                       "return sum(v for v in values if v % 2 == 0)", "[3]", "g", "values"),
    "restyled": problem("restyled", "Add up what two divides.", LOOP, "[3]", "g", "values"),
    "reordered": problem(
        "reordered",
        "An empty list gives zero. Return the sum of the even numbers of a list of integers.",
        "return 0", "[1, 2]",
    ),
    "clean": problem("clean", "Return the largest of the odd numbers.",
                     "return max(x for x in xs if x % 2)", "[1]"),
}  # fmt: skip


def rows(problems) -> list[Row]:
    return [from_problem(p) for p in problems]


def run(problems, tasks=TASKS, **options) -> verdict.Audit:
    train, held_out = rows(problems), rows(tasks)
    behaviour = detectors.observe([*train, *held_out], call, n_random=20, seed=1)
    return verdict.audit(train, {"test": held_out}, replace(AUDIT, **options), behaviour=behaviour)


def found(result: verdict.Audit, task_id: str) -> set[str]:
    return {leak.detector for leak in result.leaks if leak.task_id == task_id}


@pytest.fixture(scope="module")
def planted() -> verdict.Audit:
    return run(PLANTS.values(), ngram_share=0.5, minhash_threshold=0.6)


@pytest.mark.parametrize(
    ("name", "by", "not_by", "reason"),
    [
        ("verbatim", {"exact text", "5-gram", "embedding", "behaviour"}, set(), "exact text"),
        ("layout", {"normalised text"}, {"exact text"}, "normalised text"),
        ("renamed", {"code", "behaviour"}, {"exact text"}, "code"),
        ("restyled", {"behaviour"}, {"code", "minhash code"}, "behaviour"),
        ("clean", set(), {"behaviour", "code"}, None),
    ],
)
def test_a_plant_is_found_by_the_detectors_that_should_and_goes_for_the_first(
    planted, name, by, not_by, reason
):
    assert by <= found(planted, name) and not not_by & found(planted, name)
    assert planted.dropped.get(name) == reason


def test_the_tables_count_the_same_findings_and_the_policy_decides_what_goes(planted):
    assert found(planted, "verbatim") == set(planted.detectors) and len(planted.detectors) == 12
    assert "restyled" in {leak.task_id for (leak,) in views.only_by(planted, "behaviour")}
    counted = views.certificate(planted, {"test": rows(TASKS)}, {})["rows"]
    assert counted["in"] == counted["kept"] + sum(counted["dropped"].values()) == len(PLANTS)
    matrix, table = views.agreement_matrix(planted), views.detector_rows(planted)
    assert matrix == [list(column) for column in zip(*matrix, strict=True)]
    assert [matrix[i][i] for i in range(len(matrix))] == [row["pairs"] for row in table]
    hidden = {row["what"]: row["count"] for row in views.out_of_sight(planted)}
    assert hidden["tasks that no 8-gram finds: too short, or all shared with others"] == 3
    assert hidden["rows that repeat another's function"] == 2
    assert run(PLANTS.values(), ngram_share=0.5, minhash_threshold=0.6) == planted
    worst = views.worst_pairs(planted, 3)  # the first is the one most detectors found
    assert worst[0][0].task_id == "verbatim" and len(worst[0]) == len(planted.detectors)
    title, left, right = views.compare(worst, rows(PLANTS.values()), {"test": rows(TASKS)})[0]
    assert title.startswith("verbatim and t/sum: exact text (1.00), normalised text")
    assert left == right == TASKS[0].prompt + TASKS[0].reference
    # reordered sentences are found by words and excused when the programs differ
    excused = {leak.detector for leak in planted.collisions if leak.task_id == "reordered"}
    assert {"5-gram", "minhash text"} <= excused and found(planted, "reordered") == set()
    assert set(run([PLANTS["restyled"]], remove_on=["code"]).dropped) == set()
    assert run([PLANTS["verbatim"]], remove_on=["13-gram"]).dropped == {"verbatim": "13-gram"}


def test_the_evidence_of_an_ngram_leak_is_the_longest_shared_run():
    row = Row("r", "Please return the sum of the even numbers of a list, now")
    sides = Corpus([row]), Corpus.of_benchmarks({"b": rows(TASKS[:1])})
    (leak,) = detectors.ngram_overlap(*sides, n=5, share=0.4)
    assert leak.evidence == "return the sum of the even numbers of a list"
    assert leak.score == 6 / 13  # 10 shared words hold 6 of the 13 5-grams of 17 words
    assert detectors.ngram_overlap(*sides, n=5, share=0.6) == []


def test_chance_agreement_on_the_fixed_probes_is_told_apart_by_random_ones():
    inputs = [args[0] for args in probes.probe_inputs(("list[int]",), n_random=0, seed=1)]
    trick = problem(
        "trick", "Known lists only.",
        f"if xs in {inputs!r}:\n    return sum(x for x in xs if x % 2 == 0)\nreturn -1", "[1]",
    )  # fmt: skip
    result = run([trick])
    assert "behaviour" not in found(result, "trick")
    assert [leak.detector for leak in result.collisions if leak.detector == "behaviour"]


def test_constant_functions_and_errors_are_no_behaviour():
    tasks = [problem("t/zero", "Return zero.", "return 0", "[1]"),
             problem("t/raise", "Fail.", "raise ValueError(xs)", "[1]")]  # fmt: skip
    same = [replace(t, task_id=f"r{i}", prompt=t.prompt.replace("xs", "ys").replace(".", "!?"))
            for i, t in enumerate(tasks)]  # fmt: skip
    result = run(same, tasks)
    assert not verdict.pairs([*result.leaks, *result.collisions], "behaviour")


def test_rows_that_repeat_or_that_no_detector_can_judge_are_listed():
    without = replace(PLANTS["clean"], reference="")
    broken = replace(PLANTS["clean"], task_id="broken", reference="    raise KeyError(xs)\n")
    result = run([without, broken, PLANTS["renamed"], PLANTS["restyled"]])
    assert result.unseen == {"rows": ("clean", "broken"), "test": ()}
    assert result.duplicates == (("renamed", "restyled"),)
    assert detectors.too_short(Corpus(rows(TASKS)), 8) == ("t/digits", "t/swap", "t/top")
    assert result.too_short[5] == ("t/digits",)


def test_an_identical_program_runs_once():
    seen = []

    def counting(programs, inputs):
        seen.extend(programs)
        return call(programs, inputs)

    detectors.observe(rows([TASKS[0], replace(TASKS[0], task_id="again")]), counting,
                  n_random=0, seed=1)  # fmt: skip
    assert len(seen) == 1


def test_answers_show_each_program_on_each_probe():
    members = dict(zip("ab", rows([PLANTS["renamed"], PLANTS["clean"]]), strict=True))
    behaviour = detectors.observe(list(members.values()), call, n_random=2, seed=1)
    shown = views.answers(members, behaviour, n_random=2, seed=1)
    assert len(shown) == probes.N_FIXED + 2
    assert {"arguments": "[1, 2, 3, 4, 5, 6]", "a": "12", "b": "5"} in shown


def test_the_nearest_task_by_behaviour_comes_with_the_resemblance_of_its_words():
    train, held_out = rows([PLANTS["restyled"]]), rows(TASKS)
    behaviour = detectors.observe([*train, *held_out], call, n_random=20, seed=1)
    (near,) = views.nearest(train, held_out, behaviour)
    assert (near.benchmark_task_id, near.agreement) == ("t/sum", 1.0)
    assert 0.0 <= near.resemblance < 0.3


@pytest.fixture(scope="module")
def nano_problems() -> list[Problem]:
    spec = "ints: keep_even > square"
    text = "Keep the even numbers. Then return the squares of them."
    body = "ys = [x for x in xs if x % 2 == 0]\nreturn [y * y for y in ys]"
    made = problem("nano/1", text, body, "[1, 2]")
    return [replace(made, spec=spec)]


def test_disguises_keep_the_function_and_change_the_words_and_behaviour_recalls_them(nano_problems):
    (original,) = rows(nano_problems)
    for name, plants in audit_plants.planted(nano_problems, seed=1).items():
        (row,) = rows(plants)
        seen = detectors.observe([row, original], call, n_random=20, seed=1)
        assert seen[row] == seen[original], name
        assert (row.text == original.text) == (name == "copied")
    table = audit_plants.recall_rows(nano_problems, call, AUDIT, n_random=20)
    assert [row["behaviour"] for row in table] == [1.0] * len(table)
    assert [row["exact text"] for row in table] == [1.0, 0.0, 0.0, 0.0], "the copy alone"
    assert audit_plants.recall_rows([], call, AUDIT, n_random=20) == []


@pytest.mark.parametrize(
    ("work", "told"),
    [
        (lambda: run([PLANTS["clean"]], remove_on=["telepathy"]), "'telepathy'"),
        (lambda: run([PLANTS["clean"], PLANTS["clean"]]), "clean"),
        (lambda: verdict.audit(rows([PLANTS["clean"]]), {"test": rows(TASKS)}, AUDIT,
                               behaviour=None), "behaviour"),
        (lambda: audit_plants.planted(TASKS, seed=1), "t/sum"),
    ],
)  # fmt: skip
def test_wrong_arguments_name_the_mistake(work, told):
    with pytest.raises(ValueError, match=told):
        work()


def test_where_no_probe_fits_any_program_behaviour_finds_nothing_and_all_rows_are_unseen():
    strange = [replace(p, tests="", reference="") for p in TASKS]
    result = run([replace(p, task_id=f"own/{p.task_id}") for p in strange], tasks=strange)
    assert "behaviour" in result.detectors and len(result.unseen["rows"]) == len(strange)
    assert {leak.detector for leak in result.leaks}.isdisjoint({"behaviour"})


def test_free_rows_take_the_last_function_as_their_program():
    row = {"instruction": "Add.", "input": "", "output": "def a(x):\n    return x\ndef b(y):\n"
           "    return y + 1\nprint(b(1))"}  # fmt: skip
    fields = guess_fields([row], where="file")
    read = from_fields(row, task_id="r/0", fields=fields)
    assert (read.entry_point, read.text) == ("b", "Add.")
    with pytest.raises(ValueError, match=r"f:3: no text in field 'output', but int"):
        from_fields(row | {"output": 3}, task_id="r/0", fields=fields, where="f:3")


def test_humaneval_copied_into_the_rows_is_found_again_and_nothing_else():
    folder = Path(os.environ.get("RRTF_DATA", ""))
    path = folder / "humaneval" / "HumanEval.jsonl.gz"
    if not os.environ.get("RRTF_DATA") or not path.exists():
        pytest.skip("RRTF_DATA names no folder with humaneval")
    tasks = store.read(path, Problem)
    copies = [replace(t, task_id=f"copy/{i}") for i, t in enumerate(tasks)]
    settings = replace(AUDIT, remove_on=("exact text", "code"))
    result = verdict.audit(rows(copies), {"humaneval": rows(tasks)}, settings, behaviour=None)
    own = {(f"copy/{i}", t.task_id) for i, t in enumerate(tasks)}
    for name in ("exact text", "normalised text", "minhash text", "minhash code"):
        pairs = {(row, task) for row, _, task in verdict.pairs(result.leaks, name)}
        assert own <= pairs and len(pairs - own) <= 4, name
    assert len(result.dropped) == len(tasks)


def test_the_sandbox_sees_what_the_programs_return():
    members = rows([*TASKS, *PLANTS.values()])
    fenced = partial(fenced_call, workers=1, isolation="none")
    seen = detectors.observe(members, fenced, n_random=4, seed=1)
    assert seen == detectors.observe(members, call, n_random=4, seed=1)


def test_the_pictures_show_every_detector_and_every_kind_of_row(planted):
    found = charts.found_and_chance(views.detector_rows(planted))
    heat = charts.heat(planted.detectors, views.agreement_matrix(planted), "both")
    for figure in (found, heat):
        ticks = [label.get_text() for label in figure.axes[0].get_yticklabels()]
        assert ticks == list(planted.detectors)
    near = [views.Neighbour("a", "x", 1.0, 0.1), views.Neighbour("b", "x", 0.5, 0.9)]
    legend = charts.words_and_behaviour(near).axes[0].get_legend()
    shown = [text.get_text() for text in legend.get_texts()]
    assert shown == ["other function (1)", "same function (1)"]
    shown = tables.side_by_side([("a < b", "if x < 1: return one two", "while x < 1: stop")]).data
    assert "a &lt; b" in shown and shown.count(';color:inherit">x &lt; 1:</mark>') == 2
    assert "No pairs" in tables.side_by_side([]).data


def test_one_leak_shows_two_programs_with_one_set_of_answers(nano_problems):
    text, shown = audit_plants.one_leak([*TASKS, *nano_problems], call, n_random=3, seed=1)
    assert len(text) == 1 and text[0][1] != text[0][2]
    assert all(row["held out"] == row["disguised"] for row in shown)
    assert audit_plants.one_leak(TASKS, call, n_random=3, seed=1) == ([], [])


def test_a_wrong_answer_that_solves_a_held_out_problem_is_found():
    asked = PLANTS["clean"]
    texts = ["    return max(x for x in xs if x % 2)\n", f"    {TASKS[0].reference.strip()}\n"]
    right, wrong = (
        Response(asked.task_id, "teacher", index, text, asked.prompt + text)
        for index, text in enumerate(texts)
    )
    sets = {"all": [right, wrong], "right": [right]}
    how = dict(told=asdict(AUDIT) | {"random_probes": 20}, call=call)
    found = verdict.audit_answers(sets, [asked], {"test": TASKS}, **how)
    assert list(found["all"].dropped) == ["clean#teacher-1"]
    assert {leak.benchmark_task_id for leak in found["all"].leaks} == {"t/sum"}
    assert not found["right"].dropped and found["right"].n_rows == 1
    stranger = replace(right, task_id="another")
    with pytest.raises(ValueError, match="another: an answer, but no such problem"):
        verdict.audit_answers({"all": [stranger]}, [asked], {"test": TASKS}, **how)


ADD = "def add(a, b):\n    return a + b\n"


@pytest.mark.parametrize(
    "row, told",
    [
        ({"instruction": "a", "input": "", "output": "b"},
         "description: instruction, input; answer: output"),
        ({"prompt": "a", "completion": "b", "id": "x"}, "description: prompt; answer: completion"),
        ({"text": "a", "meta": {"a": 1}}, "description: text"),
        ({"text": "a", "code": "b", "test_list": ["c"]}, "description: text; answer: code"),
        ({"description": "a", "solutions": ["b"]}, "description: description; answer: solutions"),
        ({"content": "a", "path": "x"}, "description: content"),
        ({"messages": [{"role": "user", "content": "a"}], "n": 3}, "description: messages"),
        ({"problem": "a", "solution": "b", "tests": "c"},
         "description: problem; answer: solution"),
        ({"instruction": "a", "completions": [{"model": "m", "response": "b"}], "target": [1]},
         "description: instruction"),
    ],
)  # fmt: skip
def test_the_fields_are_guessed_by_their_names_and_told(row, told):
    assert audit_rows.guess_fields([row], where="f").told() == told
    with pytest.raises(ValueError, match=r"f: .*body, title"):
        audit_rows.guess_fields([{"body": "a", "title": "b", "n": 3}], where="f")
    assert audit_rows.named_fields(["title", "response"]) == audit_rows.Fields(
        ("title",), ("response",)
    )


@pytest.mark.parametrize(
    "text, words, code",
    [
        (ADD, "", ADD),
        (f"Here it is:\n```python\n{ADD}```\nDone.", "Here it is:\n\nDone.", ADD),
        (f"~~~\n{ADD}~~~", "", ADD),
        (f"As follows.\n\n{ADD}\nPrints 15.", "As follows.", ADD + "\n"),
        (f"```java\nint x;\n```\n{ADD}", f"```java\nint x;\n```\n{ADD}", ""),
        ("Add two numbers.", "Add two numbers.", ""),
        ("[1, 2, 3]", "[1, 2, 3]", ""),
        ("print(1)", "", "print(1)"),
        ("import the data, then def", "import the data, then def", ""),
    ],
)
def test_code_is_told_from_words(text, words, code):
    assert audit_rows.words_and_code(text) == (words, code)


def test_a_row_is_its_question_in_words_and_its_answer_in_code():
    fields = audit_rows.Fields(("instruction", "input"), ("output",))
    given = {"instruction": "Fix it.", "input": "def old():\n    pass\n", "output": ADD}
    row = audit_rows.from_fields(given, task_id="r", fields=fields)
    assert (row.text, row.code, row.entry_point) == ("Fix it.", ADD, "add")
    assert "def old" in row.whole, "what only the question holds is searched too"
    unanswered = audit_rows.from_fields(given | {"output": None}, task_id="r", fields=fields)
    assert unanswered.entry_point == "old"


OTHER = "def add(a, b):\n    return sum([a, b])\n"


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Add.", "chosen": ADD, "rejected": OTHER},
        {"prompt": "Add.", "responses": [ADD, OTHER], "sources": ["a", "b"], "scores": [1, 0]},
        {name: [{"role": "user", "content": "Add."}, {"role": "assistant", "content": answer}]
         for name, answer in (("chosen", ADD), ("rejected", OTHER))},
        {"prompt": 'def add(a, b):\n    """Add."""\n', "completions": [
            ADD.partition("\n")[2], OTHER.partition("\n")[2]]},
    ],
    ids=["pairs", "groups", "pairs of messages", "continuations"],
)  # fmt: skip
def test_every_answer_of_a_pair_or_group_is_searched(row):
    read = audit_rows.from_fields(row, task_id="r", fields=guess_fields([row], where="f"))
    assert read.text == "Add.", "once, and where it is a docstring too"
    functions = set(Corpus([read]).functions[0].values())
    alone = [set(similarity.canonical_functions(answer).values()) for answer in (ADD, OTHER)]
    assert functions == alone[0] | alone[1] and len(functions) == 2
    assert len({one.key for one in running.functions_in(read.code)}) == 2
    sources = [one.source for one in running.functions_in(read.code)]
    assert [source.count("def add") for source in sources] == [1, 1], "each without the other"


def test_messages_count_by_their_roles():
    turns = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Add."},
             {"role": "assistant", "content": None, "tool_calls": [{}]},
             {"role": "tool", "content": [{"type": "text", "text": ADD}]}]  # fmt: skip
    shared = [{"from": "human", "value": "Add."}, {"from": "gpt", "value": ADD}]
    for name, messages in (("messages", turns), ("conversations", shared)):
        fields = audit_rows.guess_fields([{name: messages}], where="f")
        row = audit_rows.from_fields({name: messages}, task_id="r", fields=fields)
        assert (row.text, row.code) == ("Add.", ADD)
    with pytest.raises(ValueError, match="f:1: messages: a message of role 'moderator'"):
        audit_rows.from_fields({"messages": [{"role": "moderator", "content": "a"}]}, task_id="r",
                          fields=audit_rows.Fields(("messages",), ()), where="f:1")  # fmt: skip


def test_a_task_without_a_function_head_is_described_by_its_string_up_to_the_examples():
    prompt = 'import math\n\n"""\nAdd up.\n\nExample 1:\nInput: 3\n"""\n'
    task = Problem("t", prompt, "Solution().add", "", "class Solution:\n    pass\n")
    assert audit_rows.from_problem(task).text == "\nAdd up.\n"
    nano = audit_rows.from_problem(benchmarks.load("nano-test")[0])
    assert nano.text and not nano.text.startswith("def")


fenced = partial(fenced_call, workers=1, isolation="none", cpu_seconds=1.0)
judged_by = partial(fenced_judge, workers=1, isolation="none")


SUM_EVEN = exam("sum_even", "xs", "Return the sum of the even numbers.",
                "return sum(x for x in xs if x % 2 == 0)",
                "candidate([1, 2, 4]) == 6", "candidate([]) == 0", "candidate([3, 8]) == 8",
                )  # fmt: skip
REPEAT = exam("repeat", "text, times", "Write the text so many times.", "return text * times",
              "candidate('ab', 2) == 'abab'", "candidate(times=3, text='x') == 'xxx'")  # fmt: skip
UNIQUE = exam("unique", "xs", "The distinct elements.", "return list(dict.fromkeys(xs))",
              "set(candidate([3, 1, 3])) == {1, 3}", "set(candidate([2])) == {2}")  # fmt: skip
METHOD = Problem(
    "t/method", "class TreeNode:\n    pass\n\n", "Solution().double",
    "def check(candidate):\n    assert candidate(n=4) == 9\n    assert candidate(n=1) == 3\n",
    "class Solution:\n    def double(self, n: int) -> int:\n        return 2 * n + 1\n",
)  # fmt: skip
EXAMS = [SUM_EVEN, REPEAT, UNIQUE, METHOD]


def coded(code: str, task_id: str = "r", text: str = "") -> Row:
    return Row(task_id, text, code)


def passes(code: str, tasks=EXAMS, **options) -> dict[str, str]:
    """Task -> evidence for one row of this code."""
    leaks = running.passes_tests([coded(code)], "b", tasks, call=fenced, judge=judged_by, **options)
    assert all((k.task_id, k.benchmark, k.detector) == ("r", "b", "execution") for k in leaks)
    return {leak.benchmark_task_id: leak.evidence for leak in leaks}


LOOP = "def f(values):\n    t = 0\n    for v in values:\n        if not v % 2:\n            t += v\n    return t\n"  # noqa: E501


EVEN = "sum(v for v in vs if v % 2 == 0)"
HELPED = "import operator\nTWO = 2\ndef even(v):\n    return operator.mod(v, TWO) == 0\n"
RECURSIVE = (
    "def sum_even(xs):\n    if not xs:\n        return 0\n"
    "    return (xs[0] if xs[0] % 2 == 0 else 0) + sum_even(xs[1:])\n"
)


@pytest.mark.parametrize(
    ("code", "exam"),
    [
        (LOOP, "sum_even"),  # other words, another style
        ("import no_such_module\nname = input('who?')\n" + LOOP + "print(f([1]))\nexit(3)\n",
         "sum_even"),
        (HELPED + "def f(vs):\n    return sum(filter(even, vs))\n", "sum_even"),
        (f"class N:\n    def total(self, vs):\n        return {EVEN}\n", "sum_even"),
        (f"class N:\n    @staticmethod\n    def t(vs):\n        return {EVEN}\n", "sum_even"),
        (f"total = lambda vs: {EVEN}\n", "sum_even"),
        (f"def outer(batches):\n    def total(vs):\n        return {EVEN}\n"
         "    return list(map(total, batches)), len(batches)\n", "sum_even"),
        ("def f(count, word):\n    return word * count\n", "repeat"),  # another order
        ("def twice(n):\n    return 1 + n + n\n", "method"),
        (METHOD.reference.replace("Solution", "Other"), "method"),
        (RECURSIVE, "sum_even"),  # bears the name that it is tried under
        ("def repeat(n, s):\n    return s + repeat(n - 1, s) if n else ''\n", "repeat"),
        ("def f(xs):\n    return set(xs)\n", "unique"),  # the tests allow another container
        ("def f(xs):\n    return sum(xs)\n", None),
        ("def f(xs):\n    raise NotImplementedError\n", None),
        ("def f(xs:\n", None),
        ("SELECT name FROM people;", None),
    ],
)  # fmt: skip
def test_a_function_that_solves_a_task_is_found_whatever_it_is_called_and_wherever_it_stands(
    code, exam
):
    assert set(passes(code)) == ({f"t/{exam}"} if exam else set())


def test_a_function_that_hangs_or_leaves_on_one_task_is_still_found_with_another():
    far = exam("far", "n", "Half.", "return n // 2", "candidate(1000000000) == 500000000",
               "candidate(900000001) == 450000000", "candidate(800000002) == 400000001",
               )  # fmt: skip
    slow = "def f(n):\n    t = 0\n    while t < n:\n        t += 1\n    return t * 2 + 1\n"
    assert set(passes(slow, [far, METHOD])) == {"t/method"}
    leaves = "import os\ndef f(n):\n    if n > 1000:\n        os._exit(1)\n    return n * 2 + 1\n"
    far = exam("far", "n", "More.", "return n + n + 1", "candidate(10**6) == 2 * 10**6 + 1")
    for order in ([far, METHOD], [METHOD, far]):
        assert set(passes(leaves, order)) == {"t/method"}
    unanswered = replace(SUM_EVEN, reference="")
    assert set(passes(LOOP, [unanswered])) == {"t/sum_even"}, "tried on its tests at once"


def test_one_sweep_tells_of_every_call_what_it_tells_alone():
    codes = [
        "def f(x, seen=[]):\n    seen.append(x)\n    return x is int or seen\n",
        "def f(x):\n    if x == 2:\n        raise KeyError\n    return {x: (x, None, 1.5, b'')}\n",
        "def f(x):\n    while x == 2:\n        pass\n    return str(x)\n",
        "def f(x):\n    return map(str, [x]) if x == 1 else f if x else object()\n",
        "from collections import Counter\ndef f(x):\n    return Counter('a')\n",
        "import sys\ndef f(x):\n    return sys.exit(1) if x == 2 else x\n",
    ]
    functions = [function for code in codes for function in running.functions_in(code)]
    inputs = [(1,), (2,), ("a",), ([],), (int,)]  # a class cannot be sent with the others
    asked = []

    def counting(programs, inputs):
        asked.extend((entry, len(inputs)) for _, entry in programs)
        return fenced(programs, inputs)

    swept = running._called(functions, inputs, counting)
    assert told(swept) == told(running._one_by_one(functions, inputs, fenced))
    assert Counter(asked)["rrtf_swept", 1] == 6 and Counter(asked)["rrtf_timed", 1] == 5
    assert Counter(asked)["rrtf_timed", 5] == 2, "what leaves the process, and once more after that"
    assert [r.value for r in swept[3][:2]] == [running.Foreign(True, [t]) for t in "1"] + [
        running.Foreign(True, [])]  # fmt: skip
    assert swept[3][3].value == running.Foreign(True, None)
    forged = [Returned(value) for value in (("==", [1]), ("=", [1, 2]), ("=x", [1]), "==", None)]
    for answer in forged:
        assert running._swept(functions[:1], inputs[:2], lambda *_, a=answer: [(a,)]) == [[]]


def told(results: list[list]) -> list[list]:
    """Of each call whether it returned, whether it was not heard out, and its plain value."""
    foreign = (lanes.wire.Opaque, running.Foreign)
    counted = ("{'a': 1}", "Counter({'a': 1})")
    return [
        [(not r.error, r.error == running.UNHEARD,
          "" if isinstance(r.value, foreign) or repr(r.value) in counted else repr(r.value))
         for r in of_one]
        for of_one in results
    ]  # fmt: skip


def test_who_reads_no_attribute_is_not_tried_where_objects_must_be_told_apart():
    node = "class Node:\n    def __init__(self, v):\n        self.v = v\n"
    tests = "def check(f):\n" + "".join(f"    assert f(Node({n})) == {n + 1}\n" for n in (1, 2))
    task = Problem("t/node", node, "after", tests, "def after(n):\n    return n.v + 1\n")
    (exam,) = running.examine([task], fenced)
    assert not exam.examples and exam.fields == {"v"}
    codes = ("return n.v + 1", "return getattr(n, 'v') + 1", "return n.w", "return 2")
    functions = [f for c in codes for f in running.functions_in(f"def f(n):\n    {c}\n")]
    promised = running.promising(functions, [exam], call=fenced)
    assert [one.key for one in promised] == [function.key for function in functions[:2]]
    assert set(passes(f"def f(n):\n    {codes[0]}\n", [task])) == {"t/node"}
    constant = replace(task, tests=tests.replace("== 2", "> 0").replace("== 3", "> 0"),
                       reference="def after(n):\n    return 3\n")  # fmt: skip
    for other in (
        constant,
        replace(task, prompt=node + "    def __len__(self):\n        return 1\n"),
    ):
        (exam,) = running.examine([other], fenced)
        assert not exam.fields, "one result, or an operator, needs no attribute"


def test_equal_code_runs_once_is_reported_for_every_row_and_saved(tmp_path):
    asked = []

    def counting(programs, inputs):
        asked.extend(entry for _, entry in programs)
        return fenced(programs, inputs)

    rows = [coded(LOOP, "a"), coded(LOOP.replace("values", "numbers"), "b"), coded("x = 1", "c")]
    how = {"call": counting, "judge": judged_by, "shards": tmp_path}
    first, again = (running.passes_tests(rows, "b", [SUM_EVEN], **how) for _ in range(2))
    assert [(leak.task_id, leak.evidence) for leak in first] == [
        ("a", "f passes 3 of 3 tests"), ("b", "f passes 3 of 3 tests")]  # fmt: skip
    assert first == again and asked.count("rrtf_swept") == 1


def test_the_score_is_the_share_of_further_calls_that_agree():
    weak = exam("weak", "n", "Double.", "return n + n", "candidate(2) == 4", "candidate(0) == 0")
    rows = [
        coded("def f(n):\n    return n * n\n", "square"),
        coded("def g(k):\n    return 2 * k\n", "g"),
    ]
    square, double = running.passes_tests(rows, "b", [weak], call=fenced, judge=judged_by)
    assert square.score < 0.9 and double.score == 1.0


def test_examples_are_what_the_tests_ask_and_the_reference_returns():
    looped = replace(
        SUM_EVEN,
        tests="def check(f):\n    for n in (2, 4):\n        assert f(list(range(n))) >= 0\n",
    )
    (exam,) = running.examine([looped], fenced)
    assert set(map(repr, exam.examples)) == {"(([0, 1, 2, 3],), 2)", "(([0, 1],), 0)"}


@pytest.mark.parametrize(("value", "expected", "same"), [
    (1, 1.0004, True), (1, 1.1, False), (True, 1, True), (10**400, 1.5, False),
    ([1, 2], (2, 1), True), ([1, 1], {1}, True), ([1], [1, 2], False), ([], [], True),
    ({"a": [1]}, {"a": (1,)}, True), ({"a": 1}, {"b": 1}, False), ("a", "b", False),
    (iter([]), [1], True), (iter([]), True, True), (None, 0, False), (1j, 1j, True),
    (running.Foreign(True, [1]), (1,), True), (running.Foreign(True, ["a", "b"]), "ab", True),
    (running.Foreign(True, []), 1, False), (running.Foreign(True, []), [1], False),
    (running.Foreign(False, None), True, False), (running.Foreign(False, None), [1], True),
    (running.Foreign(True, [(1, 2)]), {1: 2}, True), (running.Foreign(True, [1]), None, False),
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


BIG = (
    "def big(xs):\n    "
    + "\n    ".join(f"a{i} = xs[{i}] + {i}" for i in range(12))
    + "\n    return a1\n"
)
CHANCE_SIDES = Corpus.of_benchmarks({
    "b": [
        Row("short", "Join all strings of a list.", "def j(x):\n    return ''.join(x)", "j"),
        Row("long", "Shuffle numbered pebbles between two baskets.", BIG, "big"),
    ]
})  # fmt: skip


def judged(text: str, benchmark_task: str, score: float = 1.0, copies: int = 1) -> bool:
    rows = [coded("", f"r{i}", text) for i in range(copies)]
    rows += [coded("", f"other{i}", f"Sort the words of a text, letter {i}.") for i in range(20)]
    leaks = [Leak(f"r{i}", "b", benchmark_task, "execution", score, "f passes 2 of 2 tests")
             for i in range(copies)]  # fmt: skip
    return ("r0", "b", benchmark_task) in verdict.coincidences(leaks, Corpus(rows), CHANCE_SIDES)


def test_a_short_function_under_other_words_is_a_coincidence_and_under_the_same_words_a_leak():
    assert judged("Remove the vowels of a text.", "short")
    assert not judged("Write code that joins the strings of a list", "short")


def test_a_long_function_is_a_leak_under_any_words_unless_everybody_has_it_or_it_acts_otherwise():
    other = "Compute a tax."
    assert not judged(other, "long")
    assert judged(other, "long", copies=verdict.COMMON)
    assert judged(other, "long", score=0.9)
    assert not judged("Pebbles move between baskets; shuffle them.", "long", score=0.9)


LONG = "Return the sum of the squares of all numbers of a list that are not negative."
SOLUTION = "    return sum(x * x for x in xs if x >= 0)\n"


def asked_as(task_id: str, text: str, body: str = SOLUTION, name: str = "f") -> Row:
    code = f"def {name}(xs):\n{body}"
    return Row(task_id, text, code, name, answer=body)


def plain(task_id: str, text: str, code: str = "") -> Row:
    return Row(task_id, text, code, "g" * bool(code), answer=code)


def both(rows, *tasks) -> tuple[Corpus, Corpus]:
    return Corpus(rows), Corpus.of_benchmarks({"b": tasks})


def named(leaks) -> set[tuple[str, str, str]]:
    return {(leak.task_id, leak.benchmark_task_id, leak.detector) for leak in leaks}


def test_a_description_or_solution_inside_a_longer_row_is_a_substring_exact_or_normalised():
    rows = [
        plain("verbatim", f"Please do this. {LONG} And be quick."),
        plain("loose", f"Please do this: {LONG.upper()}\nAnd be quick."),
        plain("reordered", "Of all numbers of a list return the sum of the squares."),
    ]
    leaks = detectors.substrings(*both(rows, asked_as("t", LONG, "    pass\n")), n=8)
    assert named(leaks) == {("verbatim", "t", "exact substring"),
                            ("verbatim", "t", "normalised substring"),
                            ("loose", "t", "normalised substring")}  # fmt: skip
    assert leaks[0].evidence.startswith("description, 16 words: return the sum of")
    code = f"import math\n\ndef g(xs):\n    print(xs)\n{SOLUTION}\nprint(g([1]))\n"
    row = plain("r", "Other words.", code)
    exact, loose = detectors.substrings(*both([row], asked_as("t", LONG)), n=8)
    assert (exact.detector, loose.detector) == detectors.SUBSTRINGS
    assert exact.evidence.startswith("solution, ")
    short = both([plain("r", "Now add one to it and go on.")], asked_as("t", "Add one to it.", ""))
    assert detectors.substrings(*short, n=4) and not detectors.substrings(*short, n=5)


def test_every_substring_is_found_that_a_slow_search_finds():
    rng = np.random.default_rng(1)
    texts = [" ".join(rng.choice(list("abc"), size=n)) for n in rng.integers(2, 60, 60)]
    tasks = [asked_as(f"t{i}", text, "") for i, text in enumerate(texts[:30])]
    rows = [plain(f"r{i}", text) for i, text in enumerate(texts[30:])]
    slow = {(r.task_id, t.task_id) for r in rows for t in tasks
            if len(t.text.split()) >= 3 and f" {t.text} " in f" {r.text} "}  # fmt: skip
    leaks = detectors.substrings(*both(rows, *tasks), n=3)
    assert {(leak.task_id, leak.benchmark_task_id) for leak in leaks} == slow and slow


def test_ngrams_that_tasks_share_identify_none_of_them():
    asks = "Write a function to find the area of a {}."
    tasks = [asked_as(name, asks.format(name)) for name in ("rhombus", "pentagon", "hexagon")]
    rows = [plain("circle", asks.format("circle")), plain("own", asks.format("pentagon"))]
    leaks = detectors.ngram_overlap(*both(rows, *tasks), n=5, share=0.6)
    assert named(leaks) == {("own", "pentagon", "5-gram")}
    again = [*tasks, asked_as("same words", asks.format("pentagon"))]
    leaks = detectors.ngram_overlap(*both(rows, *again), n=5, share=0.6)
    assert {leak.benchmark_task_id for leak in leaks} == {"pentagon", "same words"}
    assert detectors.too_short(Corpus([*tasks, asked_as("short", "Find it.")]), 5) == ("short",)


def test_the_method_of_a_class_is_compared_by_its_code():
    body = "        total = 0\n        for x in xs:\n            total += x\n        return total\n"
    code = f"class Solution:\n    def add(self, xs):\n{body}"
    asked = Row("t", LONG, f"import math\n{code}", "Solution().add", answer=code)
    copy = code.replace("total", "s").replace("add", "plus").replace("xs", "values")
    (leak,) = detectors.same_code(*both([plain("r", "Other.", copy)], asked))
    assert leak.benchmark_task_id == "t" and leak.evidence.startswith("def v0(v1, v2):")


def test_neighbours_by_tfidf_are_those_of_shared_rare_words():
    tasks = [asked_as("roman", "Convert a roman numeral to an integer."),
             asked_as("prime", "Tell whether a number is prime."),
             asked_as("sum", "Add all numbers of a list.")]  # fmt: skip
    rows = [plain("near", "Write a program: convert an integer roman numeral."),
            plain("far", "Which wine goes with fish and a number of herbs?")]  # fmt: skip
    leaks = detectors.neighbours(*both(rows, *tasks), threshold=0.5)
    assert named(leaks) == {("near", "roman", "embedding")}
    same = detectors.neighbours(*both([plain("r", tasks[1].text)], *tasks), threshold=0.99)
    assert [round(leak.score, 4) for leak in same] == [1.0]


def test_the_latent_space_is_the_same_every_time_and_unknown_words_resemble_no_task():
    words = [[f"w{i % 97}", f"v{i * i % 131}", f"u{i % 7}", f"t{i}"] for i in range(400)]
    first, second = (detectors.latent(words[:50], words) for _ in range(2))
    assert first[0].shape == (50, detectors.DIMENSIONS)
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    close = detectors.close(*first, 0.5)
    assert {(i, i) for i in range(50)} <= {(i, j) for i, j, _ in close}
    ours, theirs = detectors.latent([["list", "qux", "quux"], [], ["list"]], [["list", "sum"]])
    cosines = ours @ theirs.T
    assert cosines[1, 0] == 0 and cosines[0, 0] < cosines[2, 0] <= 1


def test_the_latent_space_is_that_of_the_singular_vectors_without_those_of_no_task():
    draw = np.random.default_rng(2)
    words = [[f"w{n}" for n in draw.zipf(1.4, size=20) % 90] for _ in range(40)]
    _, theirs = detectors.latent([], [*words, words[0], []])
    names = sorted({word for task in words for word in task})
    counts = np.array([[task.count(name) for name in names] for task in [*words, words[0]]])
    rarity = np.log(43 / (1 + (counts > 0).sum(axis=0))) + 1
    weights = np.where(counts, 1 + np.log(np.maximum(counts, 1)), 0) * rarity
    plain = detectors.unit(weights)  # fewer tasks than dimensions: nothing is lost
    assert theirs.shape == (42, 40) and not theirs[41].any()
    assert np.allclose(theirs[:41] @ theirs[:41].T, plain @ plain.T, atol=1e-5)


def test_any_sentence_model_can_embed_and_a_missing_package_is_named(monkeypatch):
    class Model:
        def __init__(self, name):
            self.axes = name.split("-")

        def encode(self, texts, show_progress_bar):
            return [[2.0 * text.count(axis) for axis in self.axes] for text in texts]

    module = types.SimpleNamespace(SentenceTransformer=Model)
    monkeypatch.setitem(sys.modules, "sentence_transformers", module)
    rows = [plain("r", "red red"), plain("q", "blue")]
    sides = both(rows, asked_as("t", "red"), asked_as("u", "none"))
    embed = detectors.by_name("red-blue")
    leaks = detectors.neighbours(*sides, threshold=0.9, embed=embed)
    assert named(leaks) == {("r", "t", "embedding")}
    assert leaks[0].evidence == "sentence embeddings"
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(ValueError, match=r"any/model.*sentence-transformers"):
        detectors.by_name("any/model")


SETTINGS = replace(AUDIT, remove_on=("exact text", "code"))


def judged_rows(rows, tasks, **options) -> verdict.Audit:
    options = {"generic_nodes": 40, "settings": SETTINGS} | options
    return verdict.audit(rows, {"b": tasks}, behaviour=None, **options)


SHORT = "    return len(xs)\n"


LARGE = (
    "    best, run = 0, 0\n    for x in xs:\n        run = run + x if x > 0 else 0\n"
    "        if run > best:\n            best = run\n    return best - min(xs)\n"
)


BOTH = [asked_as("small", LONG, SHORT), asked_as("large", "Find the best run of a list.", LARGE)]


def test_generic_code_is_chance_under_other_words_and_larger_code_a_leak():
    count = "def g(v):\n    return len(v)\n"
    rows = [plain("a", "Count them.", count),
            plain("b", "Do.", f"def g(xs):\n{LARGE}".replace("best", "top"))]  # fmt: skip
    sizes = [similarity.nodes(similarity.canonical_functions(t.code)["f"]) for t in BOTH]
    assert sizes[0] < 40 <= sizes[1]
    result = judged_rows(rows, BOTH)
    assert {(k.task_id, k.detector) for k in result.collisions} == {
        ("a", "code"), ("a", "minhash code")}  # fmt: skip
    assert dict(result.dropped) == {"b": "code"}
    assert "fewer than 40 nodes" in result.rule
    same = judged_rows([plain("a", LONG, count)], BOTH[:1])
    assert not same.collisions and dict(same.dropped) == {"a": "exact text"}, "the same words"


def test_findings_of_an_execution_join_the_others_under_the_same_rule():
    rows = [plain("a", "Count them."), plain("b", "Find the best run of a list")]
    assert "execution" not in judged_rows(rows, BOTH).detectors
    passed = [Leak(r, "b", t, "execution", 1.0, "passes 3 of 3 tests")
              for r, t in (("a", "small"), ("b", "large"))]  # fmt: skip
    removing = replace(SETTINGS, remove_on=("execution",))
    result = judged_rows(rows, BOTH, executed=passed, settings=removing)
    assert result.detectors[-1] == "execution"
    assert dict(result.dropped) == {"b": "execution"}
    assert [leak.task_id for leak in result.collisions if leak.detector == "execution"] == ["a"]
    assert result.rule.endswith(f"counts as a leak. {verdict.CHANCE_RULE}")


def test_tables_by_task_by_row_and_by_stage_count_the_same_leaks():
    tasks = [asked_as("t", LONG), asked_as("u", "Find the best run of a list.", LARGE)]
    rows = [plain("a", LONG), plain("b", LONG, f"def g(xs):\n{LARGE}"), plain("c", "Other.")]
    exact = replace(SETTINGS, remove_on=("exact text",))
    stages = {"seeds": rows[2:], "final": rows}
    audits = {name: judged_rows(some, tasks, settings=exact) for name, some in stages.items()}
    by_task = {(r["benchmark"], r["task"]): r["rows"] for r in views.task_rows(audits["final"])}
    assert by_task == {("b", "t"): 2, ("b", "u"): 1}
    by_row = {r["row"]: (r["tasks"], r["removed"]) for r in views.row_rows(audits["final"])}
    assert by_row == {"a": (1, True), "b": (2, True)}
    first, last = views.stage_rows(audits)
    assert (first["set"], first["tasks leaked"], last["tasks leaked"]) == ("seeds", 0, 2)
    assert (last["exact text"], last["code"], last["rows leaking"]) == (1, 1, 2)


NANO = benchmarks.load("nano-validation")
LEAKED = from_problem(NANO[0])
HIDING = [
    {"instruction": "Name a colour.", "input": "", "output": "blue", "n": 1},
    {"instruction": f"Please do this.\n{LEAKED.text}", "input": "", "output": "```\nx\n```"},
    {"instruction": "Write the same.", "input": "", "output": LEAKED.code},
]


def verb(*words: object):
    return CliRunner().invoke(app, ["audit", *map(str, words)])


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "rows.jsonl"
    store.write(path, HIDING)
    return path


def test_the_page_stands_alone_and_marks_what_is_shared(file, tmp_path):
    page = tmp_path / "r.html"
    assert verb(file, "--benchmarks", "nano-validation", "--report", page).exit_code == 0
    text = page.read_text()
    assert "<mark" in text and "The worst pairs" in text and "rows:2" in text
    assert not re.search(r'(?:src|href)\s*=\s*"', text) and "@import" not in text


def test_the_same_rows_in_other_files_have_the_same_certificate_but_for_the_file(file, tmp_path):
    zipped, clean = tmp_path / "rows.jsonl.gz", tmp_path / "a.json"
    zipped.write_bytes(gzip.compress(file.read_bytes()))
    papers = []
    for path in (file, zipped):
        verb(path, "--benchmarks", "nano-validation", "--certificate", tmp_path / "p.json")
        papers.append(store.read_json(tmp_path / "p.json"))
    assert papers[0]["sha256"].pop("file") != papers[1]["sha256"].pop("file")
    assert [paper.pop("what") for paper in papers] == [str(file), str(zipped)]
    assert papers[0] == papers[1]
    clean.write_text(json.dumps([{"text": "What rhymes with orange?"}] * 2))
    result = verb(clean, "--benchmarks", "nano-validation,nano-test")
    assert result.exit_code == 0 and "2 rows: 2 stay, 0 go" in result.stdout


@pytest.mark.skipif(lanes.probe() not in lanes.LEVELS[:2], reason="needs an isolated sandbox")
def test_what_passes_a_tasks_tests_in_other_words_is_found_by_running_it_alone(tmp_path):
    task = next(t for t in NANO if len(ast.dump(ast.parse(t.prompt + t.reference))) > 900)
    code = restyling.renamed(restyling.inside(task.prompt + task.reference, task.entry_point))[0]
    rows = tmp_path / "rows.jsonl"
    told = "Schreibe ein Programm."
    store.write(rows, [{"instruction": told, "output": code}, {"instruction": told, "output": "1"}])
    common = (rows, "--benchmarks", "nano-validation")
    plain, ran = tmp_path / "plain.jsonl", tmp_path / "ran.jsonl"
    assert verb(*common, "--out", plain).exit_code == 0
    assert not list(store.read_rows(plain))
    saved = tmp_path / "shards"
    result = verb(*common, "--out", ran, "--execute", "--workers", 1, "--shards", saved)
    assert result.exit_code == 0, result.stderr
    found = [row for _, row in store.read_rows(ran)]
    assert {(row["task_id"], row["detector"]) for row in found} == {("rows:1", "execution")}
    assert task.task_id in {row["benchmark_task_id"] for row in found}
    assert any(saved.rglob("*.jsonl"))


def test_the_labels_are_the_guides_and_equal_weights_have_wilsons_interval():
    one, other = (bench_labels.labels(bench_labels.LABELS / f"labels_{r}.jsonl") for r in "ab")
    pairs = [json.loads(line) for line in
             (bench_labels.LABELS / "pairs.jsonl").read_text().splitlines()]  # fmt: skip
    assert [*one] == [*other] == [pair["pair"] for pair in pairs] == [*range(1, 301)]
    assert Counter(pair["stratum"] for pair in pairs) == bench_labels.STRATA
    # Of 10, both say yes to 4 and no to 3: 0.7, by chance 0.6 * 0.5 + 0.4 * 0.5 = 0.5.
    sides = "yyyyyynnnn", "yyyynnnnny"
    assert bench_labels.kappa(*sides).value == pytest.approx((0.7 - 0.5) / (1 - 0.5))
    even = [((f"row {at}", "b", "t"), 2.0, float(at < 3)) for at in range(10)]
    share, wilson = bench_labels.weighted(even), stats.wilson(3, 10)
    assert (share.value, share.low, share.high) == pytest.approx(
        (wilson.value, wilson.low, wilson.high)
    )
    heavy = bench_labels.weighted([*even, (("row 0", "b", "t"), 20.0, 1.0)])
    assert heavy.value == pytest.approx(26 / 40)
    assert heavy.high - heavy.low > share.high - share.low, "one row carries half of the weight"
