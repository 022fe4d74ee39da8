"""The rules: each drops what it is for, spares what resembles it, and nothing goes uncounted."""

import os
import time
from dataclasses import replace
from pathlib import Path

import pytest
from scripted_teacher import reply

from rrtf import store
from rrtf.evolve import rules, seeds
from rrtf.records import Instruction

ROWS = Path(os.environ.get("RRTF_DATA", "")) / "code_alpaca" / "code_alpaca_20k.json.gz"
CODE = "def f(x):\n    return x\n"
PARENT = Instruction("s/1", "Return the sum of a list of numbers.", seed_id="s/1")
ASKED = "No heading, no comment on what you changed, no solution, no mention that it exists."


def _row(task="Return the given number as it is.", code=CODE, **more):
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
        ("It is of the", "only punctuation"),
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


def test_replies_that_never_came_or_broke_off_are_named_so():
    assert _failed("", error="HTTP 500") == "no reply: HTTP 500"
    assert _failed(GOOD, finish_reason="length") == "cut off at the longest reply"


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


def test_a_reply_that_never_comes_to_its_task_says_nothing():
    for text in (f"<think>\n{GOOD}", f"<think>{GOOD}</think>\n", "[THINK]Hm."):
        assert _failed(text) == "only punctuation and stop words"


@pytest.mark.skipif(not ROWS.exists(), reason="needs $RRTF_DATA")
def test_tasks_that_people_wrote_stay_as_they_are():
    tasks = [row["instruction"].strip() for _, row in store.read_rows(ROWS)]
    assert len(tasks) == 20022 and all(rules.rewritten(task) == task for task in tasks)
    assert sum(bool(rules.says_more(task, "")) for task in tasks) <= 1


def test_words_that_the_parent_has_are_no_traces():
    scheduling = "Sort each given task by its deadline and return the names."
    assert rules.leaves_traces(f"{scheduling} Use a heap of tuples.", scheduling) == ""
    assert rules.leaves_traces("Sort each given task.", PARENT.instruction)
    assert rules.leaves_traces("Sort each given task.") == "", "without a parent it may be honest"


def test_a_misdirection_adds_code_and_is_no_copy():
    text = (
        f"{PARENT.instruction}\n\n```python\ndef total(ns):\n    return max(ns)\n```\nIt is wrong."
    )
    assert _failed(text) == ""
    assert rules.rewritten(text) == text, "fences inside are part of the task"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (f"```python\n{CODE}```", ""),
        (CODE, ""),
        ("I'm sorry, I cannot do that.", "answer: an apology"),
        ("Unfortunately no input was provided.", "answer: an apology"),
        ("The answer is to sum all the numbers in a loop.", "answer: no Python code"),
        (PARENT.instruction, "answer: the task itself"),
        ("?", "answer: only punctuation and stop words"),
        ('```python\ndef f(x):\n    print("I\'m sorry, no")\n```', ""),
        ('def f(x):\n    return "I am sorry"\n', ""),
    ],
)
def test_an_answer_shows_that_its_task_cannot_be_answered(text, reason):
    assert rules.failed_answer(reply(text), PARENT.instruction) == reason


def test_a_long_answer_that_says_sorry_and_brings_code_stays():
    long = "I'm sorry for the length. " + "This step explains a detail. " * 20 + f"```\n{CODE}```"
    assert rules.failed_answer(reply(long), PARENT.instruction) == ""


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (_row(), ""),
        (_row("Write a JavaScript function that returns its argument."), "another language"),
        (_row("Write a function in C that adds two."), "another language"),
        (_row("Convert this Java method to Python code for me."), ""),
        (_row("Write a function in a = C - 3 form."), ""),
        (_row("Go through the list and return it."), ""),
        (_row("Return the HTML of a heading with the given text."), ""),
        (_row("Write HTML for a heading.", "<h1>a</h1>"), "another language"),
        (_row(code="```java\nint f(int x) { return x; }\n```"), "another language"),
        (_row(code=""), "no answer"),
        (_row(code="I'm sorry, I can't write that."), "the answer is an apology"),
        (_row(code="print 3"), "does not parse"),
        (_row(code="print(3)"), "defines no function"),
        (_row(code="class A:\n    pass"), "a class"),
        (_row(code="import numpy as np\ndef f(x):\n    return np.sum(x)"), "a package beside"),
        (_row(code="import numpy\ndef f(x):\n    return x\nprint(numpy.sum([1]))"), ""),
        (_row(code="def f(x):\n    return input(x)"), "reads input"),
        (_row(code="def f(x):\n    return x\nx = int(input())\nprint(f(x))"), ""),
        (_row(code="def f(n):\n    return f(n - 1)\nf = f(3)\nn = input()"), ""),
        (_row("Add two."), "less than 4 words"),
        (_row("word " * 301), "more than 300 words"),
        (_row(code="def f(x):\n" + "    x += 1\n" * 100 + "    return x"), "more than 100 lines"),
        (_row("Return the number. #Rewritten Test# Return it twice."), "words of the request"),
    ],
)  # fmt: skip
def test_rules_made_by_hand_drop_what_they_are_for_and_nothing_else(row, reason):
    kept, dropped = rules.sieve([row], threshold=rules.NEAR)
    assert bool(kept) != bool(dropped)
    found = dropped[0][1] if dropped else ""
    assert reason in found and bool(reason) == bool(found), found


def _tasks(*texts, **more):
    return [
        replace(_row(text), task_id=f"s/{n}", seed_id=f"s/{n}", **more)
        for n, text in enumerate(texts, start=1)
    ]


LONG = "Return the largest number of a list of whole numbers that is divisible by three and by five"


def test_of_equal_and_nearly_equal_tasks_the_senior_one_stays():
    other = LONG.replace("five", "seven")
    rows = _tasks(f"{LONG}.", f"  {LONG.upper()}.\n", f"{other}.", "Reverse the words of a text.")
    for order in (rows, rows[::-1]):
        kept, dropped = rules.sieve(order, threshold=rules.NEAR)
        assert {row.task_id for row in kept} == {"s/1", "s/4"}
        assert {row.task_id: why for row, why in dropped} == {
            "s/2": "the same task as another row",
            "s/3": "nearly the same task as another row",
        }
    assert len(rules.sieve(rows, threshold=0.95)[0]) == 3


def test_seniority_is_fewer_rounds_then_the_smaller_number():
    rows = _tasks(LONG, LONG)
    young = [replace(rows[0], depth=1, task_id="s/2"), replace(rows[1], task_id="s/10")]
    assert [row.task_id for row in rules.sieve(young, threshold=rules.NEAR)[0]] == ["s/10"]
    pair = [replace(rows[0], task_id="s/10"), replace(rows[1], task_id="s/9")]
    assert [row.task_id for row in rules.sieve(pair, threshold=rules.NEAR)[0]] == ["s/9"]


def test_a_child_that_is_near_its_own_parent_stays():
    rows = _tasks(LONG, f"{LONG} too", LONG.replace("five", "nine"))
    family = [replace(row, seed_id="s/1") for row in rows]
    assert (
        len(rules.sieve(family, threshold=rules.NEAR)[0]) == 3
        and len(rules.sieve(rows, threshold=rules.NEAR)[0]) < 3
    )


def test_every_row_is_kept_or_dropped_once():
    rows = _tasks(LONG, LONG, "Add.", "Write a Java program that adds.", "Reverse a given text.")
    kept, dropped = rules.sieve(rows, threshold=rules.NEAR)
    assert sorted([r.task_id for r in kept] + [r.task_id for r, _ in dropped]) == sorted(
        row.task_id for row in rows
    )
    assert sum(rules.reason_counts(dropped).values()) == len(dropped)


@pytest.mark.parametrize(
    ("file", "n", "least", "most"),
    [
        ("code_alpaca/code_alpaca_20k.json.gz", 20_022, 3_500, 4_500),
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
