"""Anybody's rows: which fields are read, where the code is found, which rows are refused."""

import pytest

from rrtf import benchmarks
from rrtf.audit import rows
from rrtf.records import Problem

CODE = "def add(a, b):\n    return a + b\n"


@pytest.mark.parametrize(
    "row, told",
    [
        ({"instruction": "a", "input": "", "output": "b"},
         "description: instruction, input; answer: output"),
        ({"prompt": "a", "completion": "b", "id": "x"}, "description: prompt; answer: completion"),
        ({"text": "a", "meta": {"a": 1}}, "description: text"),
        ({"content": "a", "path": "x"}, "description: content"),
        ({"messages": [{"role": "user", "content": "a"}], "n": 3}, "description: messages"),
        ({"problem": "a", "solution": "b", "tests": "c"},
         "description: problem; answer: solution"),
    ],
)  # fmt: skip
def test_the_fields_are_guessed_by_their_names_and_told(row, told):
    assert rows.guess_fields([row], where="f").told() == told


def test_rows_without_a_known_text_field_say_what_they_have():
    with pytest.raises(ValueError, match=r"f: no field holds text .* it has body, title"):
        rows.guess_fields([{"body": "a", "title": "b", "n": 3}], where="f")


def test_named_fields_are_answers_where_they_are_called_so():
    assert rows.named_fields(["title", "response"]) == rows.Fields(("title",), ("response",))


@pytest.mark.parametrize(
    "text, words, code",
    [
        (CODE, "", CODE),
        (f"Here it is:\n```python\n{CODE}```\nDone.", "Here it is:\n\nDone.", CODE),
        (f"~~~\n{CODE}~~~", "", CODE),
        (f"As follows.\n\n{CODE}\nPrints 15.", "As follows.", CODE + "\n"),
        (f"```java\nint x;\n```\n{CODE}", f"```java\nint x;\n```\n{CODE}", ""),
        ("Add two numbers.", "Add two numbers.", ""),
        ("[1, 2, 3]", "[1, 2, 3]", ""),
        ("print(1)", "", "print(1)"),
        ("import the data, then def", "import the data, then def", ""),
    ],
)
def test_code_is_told_from_words(text, words, code):
    assert rows.words_and_code(text) == (words, code)


def test_a_row_is_its_question_in_words_and_its_answer_in_code():
    fields = rows.Fields(("instruction", "input"), ("output",))
    given = {"instruction": "Fix it.", "input": "def old():\n    pass\n", "output": CODE}
    row = rows.from_fields(given, task_id="r", fields=fields)
    assert (row.text, row.code, row.entry_point) == ("Fix it.", CODE, "add")
    assert "def old" in row.whole, "what only the question holds is searched too"
    unanswered = rows.from_fields(given | {"output": None}, task_id="r", fields=fields)
    assert unanswered.entry_point == "old"


def test_messages_count_by_their_roles():
    turns = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Add."},
             {"role": "assistant", "content": [{"type": "text", "text": CODE}]}]  # fmt: skip
    shared = [{"from": "human", "value": "Add."}, {"from": "gpt", "value": CODE}]
    for name, messages in (("messages", turns), ("conversations", shared)):
        fields = rows.guess_fields([{name: messages}], where="f")
        row = rows.from_fields({name: messages}, task_id="r", fields=fields)
        assert (row.text, row.code) == ("Add.", CODE)
    with pytest.raises(ValueError, match="f:1: messages: a message of role 'moderator'"):
        rows.from_fields({"messages": [{"role": "moderator", "content": "a"}]}, task_id="r",
                          fields=rows.Fields(("messages",), ()), where="f:1")  # fmt: skip


def test_a_task_without_a_function_head_is_described_by_its_string_up_to_the_examples():
    prompt = 'import math\n\n"""\nAdd up.\n\nExample 1:\nInput: 3\n"""\n'
    task = Problem("t", prompt, "Solution().add", "", "class Solution:\n    pass\n")
    assert rows.from_problem(task).text == "\nAdd up.\n"
    nano = rows.from_problem(benchmarks.load("nano-test")[0])
    assert nano.text and not nano.text.startswith("def")
