"""Evolution: families whole, nothing lost, what goes has its reason, and references pass."""

import ast
import contextlib
import io
import json
import os
import time
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from conftest import LIMITS, call, execute
from scripted_endpoint import ScriptedEndpoint
from scripted_teacher import ADDED, CODE, Teacher, kind, reply, task_of
from typer.testing import CliRunner

from rrtf import __main__, config, store
from rrtf.engines import endpoint
from rrtf.evolve import asking, offline, rules, seeds, stage, testing
from rrtf.evolve.seeds import as_problem, function_of, read_seeds
from rrtf.evolve.testing import parse_inputs, vote, write_tests
from rrtf.nano import evolution
from rrtf.nano.problems import build
from rrtf.records import Instruction, Outcome, Problem, Response
from rrtf.strength import examine

URL = "http://127.0.0.1:9/v1"
NANO_WEIGHTS = {"constrain": 3, "specialise": 3, "deepen": 3, "misdirect": 1, "tighten": 1}


@pytest.fixture(scope="module")
def nano_seeds():
    return build("finetune", 40, shard_size=40, workers=2)[0]


def evolve(nano_seeds, **options):
    how = {
        "weights": NANO_WEIGHTS, "isolation": LIMITS.isolation, "seed": 0, "rounds": 1,
        "workers": 1,
    }  # fmt: skip
    return offline.evolve_problems(nano_seeds, **how | options)


@pytest.fixture(scope="module")
def grown(nano_seeds):
    return evolve(nano_seeds, rounds=2, seed=1, workers=2)


def test_attempts_are_evolved_or_dropped_and_every_child_knows_its_parent_and_its_round(
    nano_seeds, grown
):
    evolved, dropped = grown
    first = [problem for problem in evolved if problem.depth == 1]
    assert len(nano_seeds) + len(first) == len(evolved) + sum(dropped.values())
    known = {problem.task_id: problem for problem in [*nano_seeds, *evolved]}
    for problem in evolved:
        line = offline.lineage(problem, known)
        assert [p.depth for p in line] == list(range(problem.depth + 1))
    assert max(Counter(p.task_id for p in evolved).values()) == 1
    drawn = Counter(offline.draw_method(NANO_WEIGHTS, 0, f"t/{i}") for i in range(5500))
    assert abs(drawn["constrain"] - 1500) < 150 and abs(drawn["tighten"] - 500) < 100, "by weight"


def test_evolution_does_not_depend_on_processes_or_on_the_order_of_seeds(nano_seeds, grown):
    other, _ = evolve(nano_seeds[::-1], seed=1)
    first = {p.task_id: p for p in grown[0] if p.depth == 1}
    shared = {p.task_id: p for p in other if p.task_id in first}
    assert len(shared) >= len(first) - 2, "only which of two equal behaviours stays may differ"
    assert all(first[name] == problem for name, problem in shared.items())


def test_a_users_problems_split_by_task_id_alone():
    rows = [Problem(f"mine/{i}", "", "f", "") for i in range(200)]
    whole, again = (offline.split_problems(order, seed=0) for order in (rows, rows[::-1]))
    assert {k: set(v) for k, v in whole.items()} == {k: set(v) for k, v in again.items()}
    assert sum(map(len, whole.values())) == 200


def one(name, **more):
    return Problem(name, "", "f", "", **more)


WEIGHTS = dict.fromkeys(asking.methods(), 1)


@pytest.mark.parametrize(
    ("work", "told"),
    [
        (lambda: offline.lineage(one("child", parent_id="gone"), {}), "child.*gone"),
        (lambda: evolve([one("HumanEval/0")]), "HumanEval/0"),
        (lambda: evolve([], weights={"shorten": 1}), "shorten"),
        (lambda: offline.split_problems([one("a")] * 2, seed=0), "'a'"),
        (lambda: offline.split_problems([one("a")], seed=0), "1 problems"),
        pytest.param(lambda: offline.nano_world(5000, 2), "1000 seeds", marks=pytest.mark.slow),
        (lambda: grown_by(Teacher(), weights={"shorten": 1}), "shorten"),
        (lambda: grown_by(Teacher(), weights=dict.fromkeys(WEIGHTS, 0)), "above 0"),
        (lambda: grown_by(Teacher(), after_failure="again"), "retry or stop"),
        (lambda: _add([code_row()], least_share=0.5), "0.5"),  # which two outputs could have
        (lambda: _add([code_row()], least_share=1.1), "1.1"),
        (lambda: _add([code_row()], answers=1), "1"),
    ],
)
def test_what_cannot_be_evolved_or_split_is_named(work, told):
    with pytest.raises(ValueError, match=told):
        work()


TASK = "Return the sum of a list of numbers."


def some_seeds(count=6):
    return [
        Instruction(f"s/{n}", f"{TASK} Variant {n}.", output=CODE, seed_id=f"s/{n}", source="s")
        for n in range(1, count + 1)
    ]


def grown_by(teacher, seeds=None, *, rounds=2, **more):
    how = {"rounds": rounds, "weights": WEIGHTS, "generator": "m", "decoding": asking.freely(0)}
    how |= {"after_failure": "retry"} | more
    return stage.evolve_rows(some_seeds() if seeds is None else seeds, ask=teacher, **how)


def test_every_row_has_its_family_tree_and_its_answer():
    seeds = some_seeds()
    evolved, failed = grown_by(Teacher(), seeds)
    known = {row.task_id: row for row in [*seeds, *evolved]}
    assert len(evolved) + len(failed) == 2 * len(seeds)
    for row in evolved:
        line = offline.lineage(row, known)
        assert [r.depth for r in line] == list(range(row.depth + 1))
        assert line[0].task_id == row.seed_id and row.operator in WEIGHTS
        assert (row.generator, row.prompt_version) == ("m", asking.version())
        assert row.output == CODE.strip() and ADDED in row.instruction


def test_attempts_are_evolved_or_failed_for_every_teacher_and_no_failed_task_is_answered():
    for text in ("", "I'm sorry, I cannot help with that.", "...", TASK, "ok"):
        teacher = Teacher(evolve=text)
        evolved, failed = grown_by(teacher)
        assert not evolved and len(failed) == 12, text
        assert all(reason for _, reason in failed)
        assert {kind(ask) for ask in teacher.asks} == {"evolve"}


def test_neither_the_order_of_rows_nor_their_chunks_matter():
    seeds = some_seeds()
    whole = grown_by(Teacher(), seeds)
    turned = grown_by(Teacher(), seeds[::-1])
    parts = [grown_by(Teacher(), seeds[at : at + 2]) for at in (0, 2, 4)]
    for other in (turned, ([r for p in parts for r in p[0]], [r for p in parts for r in p[1]])):
        for mine, theirs in zip(whole, other, strict=True):
            assert sorted(map(repr, mine)) == sorted(map(repr, theirs))


def test_a_request_depends_on_its_row_alone_and_no_two_rows_share_a_seed():
    teacher, other = Teacher(), Teacher()
    grown_by(teacher)
    grown_by(other, some_seeds()[::-1])
    assert Counter(teacher.asks) == Counter(other.asks)
    seeds = [ask.seed for ask in teacher.asks]
    assert len(set(seeds)) == len(seeds) and all(0 <= seed < 2**31 for seed in seeds)
    third = Teacher()
    grown_by(third, decoding=asking.freely(1))
    assert not set(seeds) & {ask.seed for ask in third.asks}


def test_the_five_methods_are_all_asked_for_in_our_words():
    teacher = Teacher()
    grown_by(teacher, some_seeds(40), rounds=1)
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
    evolved, failed = grown_by(Teacher(evolve=once))
    assert len(evolved) == 6 and len(failed) == 6
    assert all(row.depth == 1 and row.task_id.endswith("/r2") for row in evolved)
    assert {row.parent_id for row in evolved} == {seed.task_id for seed in some_seeds()}
    seen = Counter()
    evolved, failed = grown_by(Teacher(evolve=once), after_failure="stop")
    assert not evolved and len(failed) == 6, "no branch goes on"


def test_a_task_that_is_not_answered_is_no_evolution():
    evolved, failed = grown_by(Teacher(answer="I'm sorry, but I cannot do this."), rounds=1)
    assert not evolved
    assert rules.reason_counts(failed) == {"answer: an apology": 6}
    silent = Teacher(answer=reply("", error="no reply in 6 attempts"))
    assert rules.reason_counts(grown_by(silent, rounds=1)[1]) == {"answer: no reply": 6}


def test_rows_that_were_evolved_before_are_not_evolved_beside_their_seeds():
    seeds = some_seeds()
    evolved, _ = grown_by(Teacher(), seeds, rounds=1)
    with pytest.raises(ValueError, match="s/1/r1 is among the seeds"):
        grown_by(Teacher(), [*seeds, *evolved], rounds=1)
    again, failed = grown_by(
        Teacher(evolve=lambda ask: f"{task_of(ask)} Sort the kept numbers by size first."),
        evolved,
        rounds=1,
    )
    assert not failed and {row.depth for row in again} == {2}
    assert {row.seed_id for row in again} == {seed.task_id for seed in seeds}


@pytest.mark.parametrize(
    ("task", "more"), [('Fill "{task} {method}" with <<< and {head}.', ""), ("Reverse.", "[1, 2]")]
)
def test_a_task_reaches_the_model_as_it_is_with_its_input(task, more):
    teacher = Teacher()
    grown_by(teacher, [Instruction("s/1", task, input=more, seed_id="s/1")], rounds=1)
    asked = teacher.asks[0].messages[-1][1]
    assert task + (f"\n\nInput:\n{more}" if more else "") in asked
    assert asked.count("{task}") == task.count("{task}")


def test_the_wording_changes_its_version_and_none_of_its_fields_is_left_over():
    number, _, digest = asking.version().partition("-")
    assert number.isdigit() and len(digest) == 8
    for section in ("evolve", "answer", "again", "inputs"):
        assert {"system", "user"} == set(asking.wording()[section])
    teacher = Teacher()
    rows, _ = grown_by(teacher, some_seeds(2), rounds=1)
    how = {"answers": 5, "inputs": 10, "least_share": 0.6, "decoding": asking.freely(0)}

    def call(asked, *_, **__):
        return [(_Nothing(),)] * len(asked)

    testing.add_tests(rows, ask=teacher, call=call, **how)
    for ask in teacher.asks:
        assert not any(f"{{{name}}}" in ask.messages[-1][1] for name in ("task", "head", "count"))


class _Nothing:
    value, error = None, "judge_limit"


def _read(*rows, **more):
    places = [(f"f.jsonl:{n}", row) for n, row in enumerate(rows, start=1)]
    return read_seeds(places, source="f", **more)


def test_of_messages_the_first_question_and_answer_are_a_row():
    said = [("human", "Add."), ("gpt", "x = 1"), ("human", "Why?"), ("gpt", "So.")]
    shared = {"id": "a", "conversations": [{"from": who, "value": text} for who, text in said]}
    rows, names = _read(shared, {"messages": [{"role": "user", "content": "Sub."}]})
    assert [(row.task_id, row.instruction) for row in rows] == [("a", "Add."), ("f/2", "Sub.")]
    assert [row.output for row in rows] == ["x = 1", ""]
    assert names == {"instruction": "instruction", "output": "output"}
    with pytest.raises(ValueError, match=r"f.jsonl:1: a message of role 'moderator'"):
        _read({"messages": [{"role": "moderator", "content": "a"}]})


def test_rows_are_read_by_the_names_they_have():
    rows, names = _read({"prompt": "Add.", "response": "x = 1"}, {"prompt": "Sub.", "response": ""})
    assert [row.task_id for row in rows] == ["f/1", "f/2"]
    assert names == {"instruction": "prompt", "output": "response"}
    assert rows[0].output == "x = 1" and rows[0].seed_id == "f/1"
    renamed, _ = _read({"q": "Add.", "prompt": "no"}, renamed={"q": "instruction"})
    assert renamed[0].instruction == "Add."
    (own,), _ = _read({"text": "Add.", "code": "x = 1", "test_list": []})  # MBPP's
    assert (own.instruction, own.output) == ("Add.", "x = 1")
    later = {"instruction": "Sub.", "input": "3", "output": "x"}
    rows, names = _read({"instruction": "Add."}, later)
    assert (rows[0].input, rows[1].input, rows[1].output) == ("", "3", "x") and len(names) == 3
    for none in ("", "<noinput>", "No input", "N/A", " - "):
        assert _read({"instruction": "Add.", "input": none})[0][0].input == ""
    assert _read({"instruction": "Add.", "input": "nonempty"})[0][0].input == "nonempty"
    family = {"seed_id": "s/1", "parent_id": "s/1", "operator": "deepen", "depth": 1}
    more = {"generator": "m", "prompt_version": "1-a"}
    (found,), _ = _read({"task_id": "s/1/r1", "instruction": "Add."} | family | more)
    assert {name: getattr(found, name) for name in family} == family


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([{"code": "x"}], "f.jsonl:1: .*code"),
        ([{"instruction": "a b"}, {"instruction": 3}], "f.jsonl:2: instruction"),
        ([{"instruction": "a"}, {"prompt": "b"}], "f.jsonl:2: instruction"),
        ([{"instruction": "  "}], "f.jsonl:1: instruction"),
        ([{"instruction": "a", "output": ["x"]}], "output.*list"),
        ([["a"]], "f.jsonl:1: .*list"),
        ([{"instruction": "a", "id": 1}, {"instruction": "b", "id": 1}], "'1'.*f.jsonl:1"),
        ([], "f: no rows"),
    ],
)
def test_rows_that_cannot_be_read_are_named(rows, told):
    with pytest.raises(ValueError, match=told):
        _read(*rows)


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
    plain = as_problem(Instruction("t", "Print it.", output="print(1)"))
    assert (plain.prompt, plain.entry_point, plain.reference) == ("Print it.", "", "print(1)")


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("def f(x): return x", "one line"), ('def f(x):\n    """Doc."""', "returns nothing"),
        ("def f():\n    return 1", "no argument"), ("def f(x):\n    print(x)", "returns nothing"),
        ("def f(x):\n    yield x\n    return 1", "generator"),
        ("class A:\n    def f(self, x):\n        return x", "a class"), ("x = 1", "no function"),
        ("def f(x:\n", "parse"), ("def f(x, *, y):\n    return x + y", "keyword"),
        ("D = 3\ndef f(x, y=D):\n    return x + y", "signature"),
        ("async def f(x):\n    return x", "no function"),
    ],
)  # fmt: skip
def test_code_that_is_not_function_level_says_why(code, reason):
    with pytest.raises(ValueError, match=reason):
        function_of(code, "A task.")


def test_decorators_inner_functions_and_tabs_survive():
    code = (
        "from functools import lru_cache\n\n@lru_cache\ndef f(x):\n\t'''Old.'''\n\n"
        "\tdef g(y):\n\t\treturn y\n\treturn g(x)\n"
    )
    found = function_of(code, "New\ntext.")
    assert "@lru_cache" in found.head and "Old" not in found.head + found.body
    space: dict = {}
    exec(found.head + found.body, space)
    assert space["f"](3) == 3 and found.parameters == (1, 1)


ALPACA = Path(os.environ.get("RRTF_DATA", "")) / "code_alpaca" / "code_alpaca_20k.json.gz"
PARENT = Instruction("s/1", "Return the sum of a list of numbers.", seed_id="s/1")
ASKED = "No heading, no comment on what you changed, no solution, no mention that it exists."


PLAIN = "def f(x):\n    return x\n"


def a_row(task="Return the given number as it is.", code=PLAIN, **more):
    return Instruction("s/1", task, output=code, **({"seed_id": "s/1"} | more))


def _failed(text, **how):
    return rules.failed_evolution(reply(text, **how), PARENT, ASKED)


GOOD = f"{PARENT.instruction} Leave out numbers that are odd and negative."


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (GOOD, ""),
        (f'"{GOOD}"', ""),
        (PARENT.instruction, "adds nothing"),
        (PARENT.instruction.upper() + " !!", "adds nothing"),
        ("Of a list of numbers return the sum", "adds nothing"),
        (f"{PARENT.instruction} {PARENT.instruction}", "adds nothing"),
        ("", "only punctuation"),
        ("... --- ...", "only punctuation"),
        ("Here it is, and so on.\n", "only punctuation"),
        (f"<think>\n{GOOD}", "only punctuation"),
        (f"<think>{GOOD}</think>\n", "only punctuation"),
        ("[THINK]Hm.", "only punctuation"),
        ("I'm sorry, but I can't help with rewriting that.", "apology"),
        ("As an AI language model, I do not evolve tasks myself.", "apology"),
        (f"#Rewritten Test#\n{GOOD}", "words of the request in the task"),
        (f"{GOOD} The new task must be harder than the original task.", "words of the request"),
        (f"{GOOD} {ASKED}", "sentences of the request"),
    ],
)
def test_an_evolution_fails_for_the_reasons_of_wizardlm(text, reason):
    found = _failed(text)
    assert reason in found and bool(found) == bool(reason), found
    assert _failed(text, error="HTTP 500") == "no reply: HTTP 500"
    assert _failed(text, finish_reason="length").startswith("cut off")


def test_words_that_the_parent_has_are_no_traces_and_fences_inside_are_part_of_the_task():
    scheduling = "Sort each given task by its deadline and return the names."
    assert rules.leaves_traces(f"{scheduling} Use a heap of tuples.", scheduling) == ""
    assert rules.leaves_traces("Sort each given task.", PARENT.instruction)
    assert rules.leaves_traces("Sort each given task.") == "", "without a parent it may be honest"
    code = "```python\ndef total(ns):\n    return max(ns)\n```"
    misdirection = f"{PARENT.instruction}\n\n{code}\nIt is wrong."
    assert _failed(misdirection) == "" and rules.rewritten(misdirection) == misdirection


SAID_AROUND = (
    "{}", "<think>\nMaybe\n```python\nx\n```\n</think>\n\n{}", "Hm.\n</think>\n{}",
    "<thinking>hm</thinking>\n{}", "```text\n{}\n```", "```md\n{}\n```", "````\n{}\n````",
    "~~~plaintext\n{}\n~~~", "```text\n{}\n```\n\nI added one more condition.",
    "Certainly! Here is a more challenging version of your task:\n\n{}",
    "Sure, here it is:\n~~~\n{}\n~~~", "Sure, here is a harder task: {}",
    "Certainly! Here is a more demanding version.\n\n{}", "Okay, let's make it harder.\n\n{}",
    "Great question! Below is the modified problem statement.\n\n{}",
    "Below is a more demanding version of the task:\n\n{}", "This is the harder task:\n\n{}",
    "I've made the task slightly harder as follows:\n\n{}", "**Rewritten Task:**\n\n{}",
    "# Harder task\n\n{}", "Task: {}", "New task:\n{}", "## Problem Statement\n{}",
    "Assistant: {}", "[/INST] {}", "<task>\n{}\n</task>", "<answer>{}</answer>", "<<<\n{}\n>>>",
    '"{}"', "\u201c{}\u201d", "**{}**", "\\boxed{{{}}}", "---\n{}\n---",
    "{}\n\nLet me know if you want an even harder version!", "{}\n\nI hope this helps!",
    "{}\n\nThis version adds a requirement.",
)  # fmt: skip


@pytest.mark.parametrize("around", SAID_AROUND)
def test_what_is_said_around_a_task_is_no_part_of_it(around):
    for task in (
        "Write f, which adds.",
        "Here: write f.",
        "Below is a list; return its sum:\n\n[1, 2]",
        "Use this:\n```python\nx = 1\n```\nand add.",
    ):
        if "\n" not in task or "{}" in (around[:2], around[-2:]):
            assert rules.rewritten(around.format(task)) == task
            assert rules.rewritten("> " + task.replace("\n", "\n> ")) == task


@pytest.mark.parametrize(
    "around",
    ["<reflection>hm</reflection>\n{}", "<scratchpad>hm</scratchpad>\n\n{}", "{}<|im_end|>",
     "{}</s>", "<|channel|>analysis<|message|>hm<|channel|>final<|message|>{}<|return|>",
     "{}\n\n---\nExplanation: I added a condition.", "<s>[INST]{}",
     "Certainly!\n\n```\n{}\n```\nLet me know if you need anything else!",
     "\u597d\u7684\uff0c\u4e0b\u9762\u662f\u9898\u76ee\uff1a\n\n{}"],
)  # fmt: skip
def test_a_task_with_other_words_around_it_is_dropped_for_them(around):
    assert _failed(around.format(GOOD)) == "words beside the task"


@pytest.mark.parametrize(
    "part", ["\n", "\n \n", "> ", ">\n> ", "Task: ", "<a>", "sure: ", "this is a ", "a ", "I ",
             "<|", '"', "```\n", "here is the task ", "---\n", "**", "<think>", "\n\nI "],
)  # fmt: skip
def test_a_hostile_reply_takes_no_time(part):
    began = time.process_time()
    for text in (part * 50_000, "This is " + part * 50_000, part * 50_000 + "</a>"):
        rules.says_more(rules.rewritten(text), "")
    assert time.process_time() - began < 3


@pytest.mark.skipif(not ALPACA.exists(), reason="needs $RRTF_DATA")
def test_tasks_that_people_wrote_stay_as_they_are():
    tasks = [row["instruction"].strip() for _, row in store.read_rows(ALPACA)]
    assert len(tasks) == 20022 and all(rules.rewritten(task) == task for task in tasks)
    assert sum(bool(rules.says_more(task, "")) for task in tasks) <= 1


LONG_WINDED = "I'm sorry for the length. " + "This step explains a detail. " * 20


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (f"```python\n{PLAIN}```", ""),
        (PLAIN, ""),
        ("I'm sorry, I cannot do that.", "answer: an apology"),
        ("Unfortunately no input was provided.", "answer: an apology"),
        ("The answer is to sum all the numbers in a loop.", "answer: no Python code"),
        (PARENT.instruction, "answer: the task itself"),
        ("?", "answer: only punctuation and stop words"),
        ('```python\ndef f(x):\n    print("I\'m sorry, no")\n```', ""),
        ('def f(x):\n    return "I am sorry"\n', ""),
        (f"{LONG_WINDED}```\n{PLAIN}```", ""),
    ],
)
def test_an_answer_shows_that_its_task_cannot_be_answered(text, reason):
    assert rules.failed_answer(reply(text), PARENT.instruction) == reason


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (a_row(), ""),
        (a_row("Write a JavaScript function that returns its argument."), "another language"),
        (a_row("Write a function in C that adds two."), "another language"),
        (a_row("Convert this Java method to Python code for me."), ""),
        (a_row("Write a function in a = C - 3 form."), ""),
        (a_row("Go through the list and return it."), ""),
        (a_row("Return the HTML of a heading with the given text."), ""),
        (a_row("Write HTML for a heading.", "<h1>a</h1>"), "another language"),
        (a_row(code="```java\nint f(int x) { return x; }\n```"), "another language"),
        (a_row(code=""), "no answer"),
        (a_row(code="I'm sorry, I can't write that."), "the answer is an apology"),
        (a_row(code="print 3"), "does not parse"),
        (a_row(code="print(3)"), "defines no function"),
        (a_row(code="class A:\n    pass"), "a class"),
        (a_row(code="import numpy as np\ndef f(x):\n    return np.sum(x)"), "a package beside"),
        (a_row(code="import numpy\ndef f(x):\n    return x\nprint(numpy.sum([1]))"), ""),
        (a_row(code="def f(x):\n    return input(x)"), "reads input"),
        (a_row(code="def f(x):\n    return x\nx = int(input())\nprint(f(x))"), ""),
        (a_row(code="def f(n):\n    return f(n - 1)\nf = f(3)\nn = input()"), ""),
        (a_row("Add two."), "less than 4 words"),
        (a_row("word " * 301), "more than 300 words"),
        (a_row(code="def f(x):\n" + "    x += 1\n" * 100 + "    return x"), "more than 100 lines"),
        (a_row("Return the number. #Rewritten Test# Return it twice."), "words of the request"),
    ],
)  # fmt: skip
def test_rules_made_by_hand_drop_what_they_are_for_and_nothing_else(row, reason):
    kept, dropped = rules.sieve([row], threshold=rules.NEAR)
    assert bool(kept) != bool(dropped)
    found = dropped[0][1] if dropped else ""
    assert reason in found and bool(reason) == bool(found), found


def tasks_as(*texts, **more):
    return [
        replace(a_row(text), task_id=f"s/{n}", seed_id=f"s/{n}", **more)
        for n, text in enumerate(texts, start=1)
    ]


LONG = "Return the largest number of a list of whole numbers that is divisible by three and by five"


def sieved(rows, threshold=rules.NEAR):
    return rules.sieve(rows, threshold=threshold)


def test_of_equal_and_nearly_equal_tasks_the_senior_one_stays():
    other = LONG.replace("five", "seven")
    rows = tasks_as(f"{LONG}.", f"  {LONG.upper()}.\n", f"{other}.", "Reverse the words of a text.")
    for order in (rows, rows[::-1]):
        kept, dropped = sieved(order)
        assert {row.task_id for row in kept} == {"s/1", "s/4"}
        assert {row.task_id: why for row, why in dropped} == {
            "s/2": "the same task as another row",
            "s/3": "nearly the same task as another row",
        }
    assert len(sieved(rows, 0.95)[0]) == 3
    young, old = tasks_as(LONG, LONG)  # fewer rounds, then the smaller number
    for first, name in (({"depth": 1, "task_id": "s/2"}, "s/10"), ({"task_id": "s/9"}, "s/9")):
        pair = [replace(young, **first), replace(old, task_id="s/10")]
        assert [row.task_id for row in sieved(pair)[0]] == [name]
    near = tasks_as(LONG, f"{LONG} too", LONG.replace("five", "nine"))
    family = [replace(row, seed_id="s/1") for row in near]
    assert len(sieved(family)[0]) == 3 > len(sieved(near)[0]), "a child may be near its own parent"


@pytest.mark.parametrize(
    ("file", "n", "least", "most"),
    [
        pytest.param(
            "code_alpaca/code_alpaca_20k.json.gz", 20_022, 3_500, 4_500, marks=pytest.mark.slow
        ),
        ("evolved/evol-codealpaca-2k-1.json.gz", 1_966, 400, 600),
    ],
)
def test_real_rows_are_sieved_into_whole_counts_and_parsing_functions(file, n, least, most):
    path = Path(os.environ.get("RRTF_DATA", "")) / file
    if not os.environ.get("RRTF_DATA") or not path.exists():
        pytest.skip(f"$RRTF_DATA has no {file}")
    rows, _ = seeds.read_seeds(store.rows(str(path)), source="x")
    kept, dropped = rules.sieve(rows, threshold=rules.NEAR)
    assert len(rows) == n == len(kept) + len(dropped) and least < len(kept) < most
    for row in kept[::50]:
        problem = seeds.as_problem(row)
        compile(problem.prompt + problem.reference, row.task_id, "exec")
        assert problem.entry_point


CALL = partial(call, workers=1, cpu_seconds=1.0, wall_seconds=3.0)


def code_row(code=CODE, number=1):
    task = "Return the sum of the numbers that are not odd and negative."
    return Instruction(f"s/{number}", task, output=code, seed_id=f"s/{number}", source="s")


def _add(rows, teacher=None, **more):
    how = {"answers": 5, "inputs": 10, "least_share": 0.6, "decoding": asking.freely(0)} | more
    return testing.add_tests(rows, ask=teacher or Teacher(), call=CALL, **how)


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
        *((text, "literal") for text in (
            "[__import__('os').system('true')]", "[2 ** 99]", "[[0] * 9]", "[" * 5000, "[...]")),
        ("[1, 2, 3]", "other arguments"),
        (f"['{'a' * 6000}']", "too long"),
    ],
)  # fmt: skip
def test_what_is_no_literal_is_never_run_and_counted(text, reason):
    found, ((told, count),) = parse_inputs(text, (1, 1))[0], parse_inputs(text, (1, 1))[1].items()
    assert found == [] and reason in told and count == 1
    assert parse_inputs("[1]\n[1]\n[1.0]", (1, 1))[0] == [(1,), (1.0,)], "equal ones count once"


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


def _verdict(problem, program):
    (run,) = execute([problem], [Response(problem.task_id, "", 0, "", program)], workers=1)
    return run


def test_tests_compare_floats_with_tolerance_and_the_rest_exactly():
    values = [0.3, [1.0, 2], {"a": (0.1,)}, float("inf"), float("nan"), "x", [1, 2]]
    problem = Problem("t", "", "f", write_tests([(n,) for n in range(len(values))], values))
    right = f"nan, inf = float('nan'), float('inf')\nV = {values!r}\ndef f(n):\n    return V[n]\n"
    run = _verdict(problem, right)
    assert (run.outcome, run.n_passed, run.n_tests) == (Outcome.PASS, 7, 7)
    near = right.replace("[0.3,", "[0.1 + 0.2,")
    assert _verdict(problem, near).n_passed == 7
    wrong = right.replace("[1, 2]]", "(1, 2)]").replace("0.1,", "0.11,").replace("inf, nan", "1, 2")
    assert _verdict(problem, wrong).n_passed == 3


def test_problems_with_tests_have_a_reference_that_passes_and_tests_that_see():
    found = _add([code_row(number=n) for n in (1, 2)])
    assert len(found.rows) == 2 and not found.dropped
    assert found.inputs == {"kept": 10}
    problems = [problem for _, problem in found.rows]
    assert problems[0].tests.count("assert") == 5
    broken, strengths = examine.examine(
        problems, n_mutants=10, seed=0, limits=LIMITS, execute=execute
    )
    assert not broken and all(one.n_mutants and one.strength > 0.5 for one in strengths)


def test_rows_are_problems_or_dropped_and_a_wrong_answer_gives_way_to_one_that_others_share():
    rows = [code_row(), code_row("print(1)", 2), code_row("def f(:", 3)]
    found = _add(rows)
    assert len(found.rows) + len(found.dropped) == len(rows)
    assert {row.task_id for row, _ in found.dropped} == {"s/2", "s/3"}
    ((row, problem),) = _add([code_row("def total(numbers):\n    return len(numbers)\n")]).rows
    assert "n % 2" in row.output and "n % 2" in problem.reference
    assert _verdict(problem, problem.prompt + problem.reference).outcome == Outcome.PASS
    changes = "def total(numbers):\n    numbers.append(1)\n    return numbers\n"
    ((_, problem),) = _add([code_row(changes)], Teacher(again=f"```python\n{changes}```")).rows
    assert "candidate([7]) == [7, 1]" in problem.tests, "a fresh argument each time"


def test_answers_that_are_all_one_text_are_counted_and_told(run, teacher):
    found = _add([code_row(number=n) for n in range(4)])
    assert (found.n_trials, found.n_alike) == (4, 4)
    other = "def total(numbers):\n    return sum(n for n in numbers if not (n % 2 and n < 0))\n"
    assert _add([code_row(other)]).n_alike == 0
    teacher()
    assert "one text" in words_of(run("--rounds", 0, "--tests", "--workers", 1).output)


COUNTED = iter(range(1, 100))
ZERO = "def total(numbers):\n    return 0\n"


@pytest.mark.parametrize(
    ("own", "teacher", "why", "inputs"),
    [
        (CODE, Teacher(again=lambda _: f"def total(numbers):\n    return {next(COUNTED)}\n"),
         "fewer than 3 inputs", {"the answers disagree": 5}),
        (CODE, Teacher(again=reply("", error="HTTP 500")), "fewer", {"the answers disagree": 5}),
        (CODE, Teacher(inputs="I cannot think of any."), "fewer", {}),
        (CODE, Teacher(inputs="f([1, 2])"), "fewer", {}),
        (ZERO, Teacher(again=ZERO), "one output for all inputs", {"kept": 5}),
    ],
)  # fmt: skip
def test_answers_that_agree_on_too_little_leave_no_tests(own, teacher, why, inputs):
    found = _add([code_row(own)], teacher)
    assert not found.rows and [why in told for _, told in found.dropped] == [True]
    assert found.inputs == inputs


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
    found = _add([code_row(code)], Teacher(again=f"```python\n{code}```"), answers=3)
    assert not found.rows
    (told,) = found.inputs
    assert reason in told and sum(found.inputs.values()) == 5


def test_cutting_rows_into_calls_changes_nothing(monkeypatch):
    rows = [code_row(number=n) for n in range(1, 6)]
    whole = _add(rows)
    monkeypatch.setattr(testing, "ROWS_PER_CALL", 2)
    assert _add(rows) == whole
    turned = _add(rows[::-1])
    assert sorted(map(repr, turned.rows)) == sorted(map(repr, whole.rows))


def test_the_model_is_shown_the_head_and_never_the_body():
    teacher = Teacher()
    _add([code_row()], teacher, answers=3, inputs=7)
    assert len(teacher.asks) == 3
    for ask in teacher.asks:
        assert "def total(numbers):" in ask.messages[-1][1] and "sum(" not in ask.messages[-1][1]
    assert "Give 7 different inputs" in teacher.asks[0].messages[-1][1]


def file_rows(count=24):
    """Tasks that share no three words in a row."""
    names = [f"{a}{b}{c}" for a in "bdfg" for b in "aeiou" for c in "lmnr"]
    return [
        {"instruction": f"Add {names[n]} to {names[n + 30]} and {names[n + 50]}.", "output": CODE}
        for n in range(count)
    ]


@pytest.fixture
def stage_of(tmp_path):
    """settings -> the stage, writing into `tmp_path`."""

    def open_stage(**settings):
        values = config.resolve("smoke", "evolve", {f"evolve.{k}": v for k, v in settings.items()})
        return store.Stage("01_evolve", "smoke", values, tmp_path)

    return open_stage


HOW = {"rounds": 1, "weights": dict.fromkeys(evolution.METHODS, 1), "seed": 3, "workers": 1}


@pytest.fixture
def small_world(monkeypatch):
    """Twelve nano seeds in the place of the whole small world, which takes longer to make."""
    problems = build("finetune", 16, shard_size=16, workers=2)[0]
    world = {"seeds": problems[:12], "evolvable": problems[:12], "train": problems[:12]}
    world |= {"validation": problems[12:14], "test": problems[14:]}
    monkeypatch.setattr(offline, "nano_world", lambda *_: dict(world))
    return world


def test_without_a_model_the_stage_is_what_it_was(stage_of, small_world):
    opened = stage_of()
    world = stage.open_world(opened, n_seeds=12, workers=1)
    grown = stage.grow(opened, world, **HOW)
    assert world == small_world
    how = HOW | {"isolation": opened.settings["isolation"]}
    assert (grown.evolved, grown.dropped) == offline.evolve_problems(world["seeds"], **how)
    assert grown.train == grown.evolved and grown.test == world["test"] and not grown.rows


def test_nano_seeds_are_put_to_a_model_as_tasks_in_words(stage_of, small_world):
    opened = stage_of(engine=URL, model="m")
    world = stage.open_world(opened, n_seeds=12, workers=1)
    teacher = Teacher()
    grown = stage.grow(opened, world, ask=teacher, **HOW)
    assert all('"""' not in row.instruction and "def " in row.output for row in world["rows"])
    assert world["rows"][0].instruction in teacher.asks[0].messages[-1][1]
    assert as_problem(world["rows"][0]).entry_point == small_world["seeds"][0].entry_point
    prose = stage.instruction_of(Problem("a/1", "Add two numbers.", "", ""))
    assert prose.instruction == "Add two numbers."
    assert grown.test == world["test"] and {p.depth for p in grown.train} == {1}
    assert {row.generator for row in grown.rows} == {"m"}


def test_families_of_a_file_are_held_out_whole(stage_of, tmp_path):
    store.write(tmp_path / "rows.jsonl", file_rows())
    opened = stage_of(engine=URL, model="m", problems=str(tmp_path / "rows.jsonl"))
    world = stage.open_world(opened, n_seeds=24, workers=1)
    grown = stage.grow(opened, world, ask=Teacher(), **HOW)
    sets = (grown.train, grown.validation, grown.test)
    assert all(sets) and sum(map(len, sets)) == 48 and len(grown.evolved) == 24
    family = {row.task_id: row.seed_id for row in grown.rows}
    homes = [{family.get(p.task_id, p.task_id) for p in problems} for problems in sets]
    assert not (homes[0] & homes[1] or homes[0] & homes[2] or homes[1] & homes[2])
    assert str(tmp_path / "rows.jsonl") in opened.inputs


@pytest.mark.slow
def test_the_notebook_runs_through_an_endpoint_by_its_parameters_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("RRTF_HOME", str(tmp_path / "home"))
    store.write(tmp_path / "rows.jsonl", file_rows())
    teacher = Teacher()
    monkeypatch.setattr(endpoint, "ask", lambda asks, **_: teacher(asks))
    changed = {"profile": "smoke", "problems": str(tmp_path / "rows.jsonl"), "rounds": 1}
    changed |= {"engine": URL, "model": "m", "n_seeds": 24, "workers": 1}
    names: dict = {"display": lambda *_: None}
    with contextlib.redirect_stdout(io.StringIO()) as said:
        for cell in store.cells(config.home() / "notebooks" / "01_evolve.ipynb"):
            if cell["cell_type"] == "code":
                exec(store.text(cell), names)
            if cell["id"] == "parameters":
                names |= changed
    folder = config.run_dir("smoke") / "01_evolve"
    rows = store.read(folder / "families.jsonl", Instruction)
    assert len(rows) == 24 and all(row.generator == "m" for row in rows)
    assert store.read(folder / "train.jsonl", Problem) and (folder / "manifest.json").exists()
    assert "Turn the programming task below" in said.getvalue()


TASKS = (
    "Return the sum of a list of whole numbers.",
    "Add up the prices of everything in a shopping basket.",
    "Compute what one team scored from its points per game.",
)
VERB_ROWS = [{"instruction": task, "input": "", "output": CODE} for task in TASKS]


@pytest.fixture
def teacher(monkeypatch):
    """Puts a scripted teacher in the endpoint's place; what it was told lies in `.options`."""

    def install(**replaced):
        double = Teacher(**replaced)

        def ask(asks, **options):
            double.options = options
            return double(asks)

        monkeypatch.setattr(endpoint, "ask", ask)
        return double

    return install


@pytest.fixture
def run(tmp_path):
    """Calls the verb on rows written to a file in `tmp_path`."""
    store.write(tmp_path / "rows.jsonl", VERB_ROWS)

    def call(*more, seeds="rows.jsonl", url=URL, **kwargs):
        place = seeds if seeds == "-" else str(tmp_path / seeds)
        asked = ["--engine", url, "--model", "m"] if url else []
        return CliRunner().invoke(
            __main__.app, ["evolve", place, *asked, *map(str, more)], **kwargs
        )

    return call


def words_of(text):
    return " ".join(text.split())


def test_what_is_asked_for_reaches_the_endpoint(run, teacher, tmp_path):
    double = teacher()
    options = ["--concurrency", 3, "--attempts", 2, "--rate", 60, "--spend", 99, "--timeout", 5]
    options += ["--temperature", 0.5, "--top-p", 0.8, "--max-new-tokens", 77, "--api-key-env", "K"]
    done = run("--out", tmp_path / "o.jsonl", "--weights", "0,0,0,0,1", *options)
    assert done.exit_code == 0, done.output
    told = double.options
    assert told["endpoint"] == endpoint.Endpoint(URL, "m", "K")
    assert told["replies"] == tmp_path / "o.jsonl.replies"
    names = ("concurrency", "attempts", "requests_per_minute", "max_spend_tokens", "timeout")
    assert [told[name] for name in names] == [3, 2, 60, 99, 5]
    asked = double.asks[0]
    assert (asked.temperature, asked.top_p, asked.max_tokens) == (0.5, 0.8, 77)
    assert {row.operator for row in store.read(tmp_path / "o.jsonl", Instruction)} == {
        "", "tighten",
    }  # fmt: skip


def test_no_rounds_sieve_rows_without_a_request(run, teacher, tmp_path):
    double = teacher()
    rows = [*VERB_ROWS, {"instruction": "Write a Java program that adds.", "output": "x"}]
    store.write(tmp_path / "rows.jsonl", rows)
    done = run("--rounds", 0)
    assert done.exit_code == 0 and not double.asks
    assert "4 rows -1 another language than Python 3 kept" in words_of(done.output)
    assert "4 rows" in run("--rounds", 0, "--no-clean", "--out", tmp_path / "o.jsonl").output


def test_requests_without_a_reply_are_said_and_can_be_asked_again(run, teacher):
    silent = teacher(evolve=reply("", error="HTTP 500"))
    done = run()
    assert done.exit_code == 1 and {kind(ask) for ask in silent.asks} == {"evolve"}
    assert "-3 no reply" in words_of(done.output)
    assert "3 requests have no reply; the same command asks them again: HTTP 500" in done.output
    assert "no reply to any of 3 requests" in done.output
    teacher(answer=reply("", error="HTTP 500"))
    assert run("--rounds", 2).exit_code == 1


def test_rows_come_from_standard_input_and_go_to_standard_output(run, teacher):
    teacher()
    lines = "".join(json.dumps(row) + "\n" for row in VERB_ROWS)
    done = run("--out", "-", seeds="-", input=lines)
    assert done.exit_code == 0, done.output
    assert [json.loads(line)["depth"] for line in done.stdout.splitlines()].count(1) == 3


def test_replies_that_are_saved_are_not_asked_for_again(run, tmp_path):
    """The real client against a server that counts: the second run needs no server at all."""
    files = [tmp_path / "o.jsonl", tmp_path / "d.jsonl"]
    given = "--out", files[0], "--dropped", files[1]
    with ScriptedEndpoint(lambda prompt, number: "ok") as server:
        first = run(*given, url=server.url)
    before = [file.read_bytes() for file in files]
    again = run(*given, url=server.url)
    assert first.exit_code == again.exit_code == 0, first.output + again.output
    assert before == [file.read_bytes() for file in files]
