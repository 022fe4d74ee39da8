"""What a model reads, and which program its answer means."""

import ast
import os
import time
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest

from rrtf import prompts, store
from rrtf.benchmarks import tasks
from rrtf.evaluate import grade
from rrtf.records import STDIN, Problem, Response

DATA = Path(os.environ.get("RRTF_DATA", "no such folder"))

BODY = "    return a + b\n"


def runs(problem: Problem, program: str) -> bool:
    """Whether a program defines an `add` that adds (safe: the programs stand in this file)."""
    names: dict = {}
    exec(program, names)
    return names[problem.entry_point](1, 2) == 3


def test_what_a_model_reads_in_each_format(add_problem):
    told = {style: prompts.format_prompt(add_problem, style) for style in prompts.FORMATS
            if style != "chat"}  # fmt: skip
    assert told["starcoder"] == add_problem.prompt.rstrip("\n") and told["starcoder"][-3:] == '"""'
    assert told["pangu"].startswith('"""\nReturn the sum.')
    assert told["pangu"].endswith("\ndef add(a, b):")
    assert add_problem.prompt.rstrip() in told["wizardcoder"]
    assert told["wizardcoder"].endswith("### Response:")


def test_pangu_keeps_what_precedes_the_function_and_a_signature_of_several_lines():
    prompt = (
        "from typing import List\n\n\ndef helper(x):\n    return x\n\n\n"
        'def f(\n    xs: List[int],\n) -> int:\n    """Say so."""\n'
    )
    problem = Problem("t/1", prompt, "f", "")
    head, signature, docstring = prompts.split_prompt(problem)
    assert head.startswith("from typing") and "def helper" in head
    assert signature == "def f(\n    xs: List[int],\n) -> int:" and docstring == "Say so."
    text = prompts.format_prompt(problem, "pangu")
    assert text.index("Say so.") < text.index("from typing") < text.index("def f(")


@pytest.mark.parametrize(
    "prompt",
    ["def f(:\n", "def g():\n", "def e():\n", '"""Write f."""\n', "class f:\n    def g(self):\n"],
)
def test_a_prompt_that_is_no_function_head_is_named(prompt):
    with pytest.raises(ValueError, match="t/9: the prompt is not the head of a function f"):
        prompts.split_prompt(Problem("t/9", prompt, "f", ""))


def test_a_prompt_that_opens_no_function_begins_with_its_description_in_every_format():
    problem = Problem("t/1", '"""\nWrite f.\nassert f(1) == 2\n"""\n', "f", "")
    assert prompts.format_prompt(problem, "pangu") == '"""\nWrite f.\nassert f(1) == 2\n"""'
    assert prompts.format_prompt(problem, "starcoder") == prompts.format_prompt(problem, "pangu")


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        *((f'import os\n\ndef f(x):\n{indent}"""Say\nso.\n{indent}"""\n',
           ("import os", "def f(x):", "Say\nso.")) for indent in ("    ", "\t", "  ", " " * 8)),
        ("def f(x):\n", ("", "def f(x):", "")),
        ('@cache\ndef f(x):\n    """Do."""\n', ("", "@cache\ndef f(x):", "Do.")),
    ],
)  # fmt: skip
def test_a_function_head_is_found_whatever_its_form(prompt, expected):
    head, signature, docstring = prompts.split_prompt(Problem("t/1", prompt, "f", ""))
    assert (head.strip(), signature, docstring) == expected


def test_an_answer_to_an_open_function_ends_at_a_definition_and_a_program_does_not(add_problem):
    open_end = prompts.stops([add_problem], "pangu")
    program = prompts.stops([Problem("t/1", '"""Write f."""\n', "f", "")], "starcoder")
    assert "\ndef" in open_end and "\nclass" in open_end
    answer = "\nimport re\n\n\nclass Solution:\n    pass\n\n\ndef f():\n    pass\nassert f()"
    assert prompts.cut(answer, program) == answer.removesuffix("\nassert f()")
    printing = "\nn = int(input())\nprint(n)\nif __name__ == '__main__':\n    main()\n"
    whole = prompts.stops([add_problem, Problem("t/2", '"""Print."""\n', STDIN, "")], "pangu")
    assert prompts.cut(printing + '"""Next."""', whole) == printing.rstrip("\n")
    assert prompts.stops([add_problem], "chat") == () == prompts.stops([add_problem], "wizardcoder")


def test_a_chat_model_is_asked_in_its_own_template_or_not_at_all(add_problem):
    text = prompts.format_prompt(add_problem, "chat", template=lambda text: f"<user>{text}<model>")
    assert text.startswith("<user>") and text.endswith("<model>")
    assert add_problem.prompt.rstrip() in text
    with pytest.raises(ValueError, match="needs the template of a model"):
        prompts.format_prompt(add_problem, "chat")


def test_models_that_follow_instructions_read_a_task_of_words_as_words(add_problem):
    """No quotes, escapes or fence around prose; of a whole program, where its input comes from."""
    told = tasks.docstring('Split at "\\n".\n\nassert split("a") == ["a"]')
    words = 'Split at "\\n".\n\nassert split("a") == ["a"]'
    reads = f"{words}\n\nThe program reads standard input and prints to standard output."
    for prompt in (told, f"{words}\n"):
        for entry_point, shown in (("split", words), ("to_lines", words), (STDIN, reads)):
            problem = Problem("t/1", prompt, entry_point, "")
            chat = prompts.format_prompt(problem, "chat", template=str)
            assert chat.startswith("Solve this in Python. ") and chat.endswith(f"\n\n{shown}")
            assert f"problem:\n{shown}\n\n###" in prompts.format_prompt(problem, "wizardcoder")
    for text in (f"import re\n\n\n{told}", f"{told}import re\n"):
        code = replace(add_problem, prompt=text)
        assert f"```python\n{text.rstrip()}\n```" in prompts.request(code)


@pytest.mark.parametrize("prompt", ["import os\n", '""" """\n', "import os\nos.sep\nprint(os)\n"])
def test_a_prompt_that_asks_nothing_is_named(prompt):
    with pytest.raises(ValueError, match="t/1: nothing in its prompt"):
        prompts.format_prompt(Problem("t/1", prompt, "f", ""), "starcoder")


def test_hostile_text_does_not_stop_the_parser():
    assert not prompts.parses("(" * 10_000)
    assert not prompts.parses("x = '\0'")
    assert prompts.parses("x = '\\d'")


def test_an_unknown_format_or_extraction_is_named_with_the_known_ones(add_problem):
    with pytest.raises(ValueError, match="'chatty': expected one of starcoder, pangu"):
        prompts.format_prompt(add_problem, "chatty")
    with pytest.raises(ValueError, match="'best': expected auto"):
        prompts.extract(add_problem, BODY, "best")


WHOLE = "import math\n\ndef add(a, b):\n    return int(math.fsum([a, b]))\n"
PLAIN = "def add(a, b):\n    return a + b\n"
INNER = (
    'def add(a, b):\n    """Add.\n\n    ```\n    add(1, 2)\n    ```\n    """\n    return a + b\n'
)
BEHIND = [  # end tokens and prose behind the code
    "{}<|endoftext|>", "{}</s>", "{}<|im_end|>\n<|im_start|>user\nThank you",
    "{}<|EOT|>\nimport os\n\ndef main():\n    x = [", "{}\n[/PYTHON]", "{}\n</answer>",
    "{}\nThis adds both numbers, as it should.\n",
]  # fmt: skip
BEFORE = ["Here is the function:\n\n{}", "[PYTHON]\n{}\n[/PYTHON]", "~~~python\n{}\n~~~\nDone."]
UNCUT = [  # what looks like an end inside a string or a bracket
    "    s = '''\ndef of the word: half\nif odd, one more\n'''\n    return a + b\n",
    '    s = """\n# n half\n@x\nclass\n"""\n    return a + b\n',
    "    s = (a\n# first\n+\nb)\n    return s\n", "    s = [\nprint,\n]\n    return a + b\n",
    "    s = 'a' + \\\n\"def\"\n    return one(a) + b\n\ndef one(x):\n    '''\ndef two\n'''\n"
    "    return x\n",
]  # fmt: skip
TAILS = ("", "\nprint(add(1", "\ndef other():\n    x = '''", "\n# Don't (stop\nif")
USUAL = [
    BODY, f"\n{BODY}", f"{BODY}\n\ndef other():\n    pass",
    f"{BODY}\nprint(add(1, 1))\nassert False", WHOLE,
    PLAIN, f"Sure:\n```python\n{PLAIN}```\nand so on", f"```\nimport math\n\n{PLAIN[:-1]}",
    "```python\n    return a + b\n```",
    f"Call it so:\n```python\nx = add(1, 2)\n```\nIts body:\n```python\n{BODY}```\n",
]  # fmt: skip
FENCES = [  # as people write them, and as CommonMark has them
    f"```bash\npip install x\n```\n```Python\n{PLAIN}```",
    f"```python\nadd(1, 2)\n```\nas\n```python\n{PLAIN}```", f"{PLAIN}```\nThis adds.",
    f"{BODY}```\nUse it so:\n```python\nadd(1)\n```\n",
    "    '''Adds.\n    ```\n    add(1, 2)\n    ```\n    '''\n    return a + b\n",
    "1. so\n   ```py\n   def add(a, b):\n       return a + b\n   ```\n",
    "add = lambda a, b: a + b\n",
    f"```python\n{INNER}```\n", f"````python\n{INNER}````\n",
    f"~~~~ python title=x\n{INNER}~~~~~\nDone.", f"```{{.python}}\n{INNER}```\nThen\n```\n3\n```\n",
    f"<answer>\n```python\n{INNER}```\n</answer>",
    "> ```python\n" + "".join(f"> {line}\n" for line in INNER.splitlines()) + "> ```\n",
    "- so\n\n  ```python\n" + "".join(f"  {line}\n" for line in INNER.splitlines()) + "  ```\n",
    f'"""\n```\nadd(1)\n```\n"""\n{INNER}',
    f"```python\ndef add(a, b):\n    return (\n```\nBetter:\n```python\n{INNER}```\n",
    f"```text\n{PLAIN.replace('+', '-')}```\nor\n```python title=x\n{PLAIN}```\n",
    f"{PLAIN.replace('+', '-')}\n{PLAIN}",
    f"\ufeff```python\n\ufeff{INNER}```\n".replace("\n", "\r\n"),
]  # fmt: skip
FOUND = [
    *USUAL, *FENCES, *(one.format(code) for one, code in product(BEHIND, (BODY, WHOLE))),
    *(one.format(WHOLE) for one in BEFORE), *(code + tail for code, tail in product(UNCUT, TAILS)),
]  # fmt: skip


@pytest.mark.parametrize("text", FOUND)
def test_the_program_of_an_answer_is_found_however_it_is_written(add_problem, text):
    assert runs(add_problem, prompts.extract(add_problem, text))


@pytest.mark.parametrize(
    ("text", "way"),
    [(PLAIN, "program"), (BODY, "raw"), (f"```python\n{PLAIN}```", "fenced"),
     *((f"{blank}PROMPT{BODY}\n\ndef other(xs):\n    x = [", "raw") for blank in ("", "\n\n"))],
)  # fmt: skip
def test_the_way_of_extraction_can_be_fixed(add_problem, text, way):
    text = text.replace("PROMPT", add_problem.prompt)  # which `raw` may repeat first
    assert runs(add_problem, prompts.extract(add_problem, text, way))
    whole = BODY + "\nprint(add(1, 1))\n"
    assert prompts.extract(add_problem, whole, "program") == add_problem.prompt + whole, "uncut"


@pytest.mark.parametrize(
    "text",
    ["I cannot help with that.",
     *(f"{code}\n{end}" for code in (BODY, WHOLE)
       for end in ("assert add(1, 2", "xs = [1, 2,\n      3, ", '"""\nNow some'))],
)  # fmt: skip
def test_nonsense_and_code_that_breaks_off_stay_broken(add_problem, text):
    with pytest.raises(SyntaxError):
        ast.parse(prompts.extract(add_problem, text))


@pytest.mark.parametrize(
    ("prompt", "text"),
    [("def add(a, b):\n", BODY), ("def add(a, b):\n", PLAIN),
     ("def add(a, b):\n    return a +", " b\n"), ('"""\nAdd two numbers.\n"""\n', PLAIN),
     ('import math\n\n\ndef add(a, b):\n    """Add."""\n',
      "def add(a, b):\n    return math.floor(a) + b\n")],
)  # fmt: skip
def test_behind_a_prompt_of_any_form_there_is_a_program(prompt, text):
    problem = Problem("t/1", prompt, "add", "")
    assert runs(problem, prompts.extract(problem, text))


def test_an_answer_is_cut_at_the_first_stop_and_only_there():
    assert prompts.cut("a\n\ndef g():\n    b\nclass C", prompts.STOPS) == "a\n"
    assert prompts.cut("    # why\n    return 1", prompts.STOPS) == "    # why\n    return 1"
    assert prompts.cut("abc", ()) == "abc"
    longer = "    return sum([a, b])\n\ndef add_all(xs):\n    return sum(xs)\n"
    add = Problem("t/1", "def add(a, b):\n", "add", "")
    assert "def add_all" not in prompts.extract(add, longer), "it only begins like the name asked"


def test_a_function_that_a_continuation_calls_is_kept_and_one_that_it_does_not_is_cut(add_problem):
    text = (
        "    return total(a, b)\n\n@functools.cache\ndef total(*xs):\n    return plus(xs)\n"
        "\ndef plus(xs):\n    return sum(xs)\n\nprint(add(1, 1))\n\ndef main():\n    pass\n"
    )
    problem = replace(add_problem, prompt="import functools\n\n\n" + add_problem.prompt)
    program = prompts.extract(problem, text)
    assert runs(problem, program)
    assert "print" not in program and "main" not in program
    with pytest.raises(SyntaxError):  # `raw` cuts between a decorator and its function
        ast.parse(prompts.extract(problem, text, "raw"))


def test_a_comment_at_the_margin_does_not_end_a_body_that_goes_on(add_problem):
    text = "\n# first\n    c = a + b\n# then\n\n    return c\n# Test\nassert False\n"
    program = prompts.extract(add_problem, text)
    assert runs(add_problem, program) and "assert" not in program


@pytest.mark.parametrize(
    "text", [BODY, "\ufeff```\n", "<think>x</think>", "def f", "\r\n\n", "from __future__ import x"]
)
def test_verbatim_is_prompt_and_text_as_they_are(add_problem, text):
    for prompt in (add_problem.prompt, "Add.", add_problem.prompt.rstrip()):
        answer = prompts.read(replace(add_problem, prompt=prompt), text, "verbatim")
        assert (answer.program, answer.reading) == (prompt + text, "verbatim")


def test_a_method_is_found_by_its_class():
    prompt = "class Solution:\n    def add(self, a, b):\n"
    problem = Problem("t/1", prompt, "Solution().add", "")
    whole = "class Solution:\n    def add(self, a, b):\n        return a + b\n"
    for text in (whole, f"```python\n{whole}```", "        return a + b\n"):
        names: dict = {}
        exec(prompts.extract(problem, text), names)
        assert names["Solution"]().add(1, 2) == 3


def test_extraction_takes_time_in_proportion_to_the_text(add_problem):
    """Texts that a pattern with two ways to match would take hours for."""
    chain = "".join(f"\ndef f{i}():\n    return f{i + 1}()\n" for i in range(30_000))
    for text in ("```" + " " * 1_000_000, "    return f0()\n" + chain, "\n#" * 300_000):
        started = time.process_time()
        prompts.extract(add_problem, text)
        assert time.process_time() - started < 30


CHATTY = {
    "whole": 'Sure!\n```python\nimport math\n\ndef add(a, b):\n    """Other words."""\n'
    "    # the sum\n    return one(math.floor(a)) + b\n\n@str\ndef no(x):\n    return x\n\n"
    "def one(x):\n    return x\n\nprint(add(1, 2))\n```\nIt adds.",
    "without docstring": "```\ndef add(a, b):\n    c = a\n    return c + b\n```",
    "body": "```python\n    return a + b\n```\nThat is all.",
}


@pytest.mark.parametrize("text", CHATTY.values(), ids=CHATTY)
def test_the_target_of_a_chatty_answer_is_its_code_and_does_what_it_does(add_problem, text):
    target = prompts.target(add_problem, text, "starcoder")
    assert "```" not in target and "Sure" not in target and "print" not in target
    assert "def add" not in target
    for written in (text, target):
        space: dict = {}
        exec(prompts.extract(add_problem, written), space)
        exec(add_problem.tests, space)
        space["check"](space["add"])


def test_what_is_shown_as_target_is_the_judged_program_or_none(add_problem):
    code = "def add(a, b):\n    c = a\n    return c + b"
    block = f"```python\n{add_problem.prompt}    c = a\n    return c + b\n```"
    for style, text in product(("chat", "wizardcoder"), (CHATTY["without docstring"], code)):
        assert prompts.target(add_problem, text, style) == block, "in one block"
    for text in ("\n    return a + b\n", "\n    return (", ""):
        assert prompts.target(add_problem, text, "starcoder") == text, "code already"
    for code in ("def add(x, y):\n    return x + y", "def add(a, b): return a + b",
                 "def add(a, b):\n  return a + b", "def add(a, b):\n    return ("):  # fmt: skip
        block = f"```python\n{code}\n```"
        assert prompts.target(add_problem, block, "starcoder") is None, "it cannot follow"


def test_what_is_learnt_of_a_judged_answer_follows_the_reading_that_was_judged(add_problem):
    text = "    return a + b\nprint(add(1, 2))\n"
    seen = {}
    for way in ("auto", "verbatim", "raw"):
        program = prompts.read(add_problem, text, way).program
        judged = Response(add_problem.task_id, "student", 0, text, program)
        seen[way] = prompts.judged_target(add_problem, judged, "starcoder")
        assert seen[way] == prompts.target(add_problem, text, "starcoder", how=way)
    assert len(set(seen.values())) == 2 and "print" in seen["verbatim"]


MARKS = [(*pair, way) for pair in prompts.REASONING for way in ("whole", "begun before", "no end")]


@pytest.mark.parametrize(("begin", "end", "way"), MARKS)
def test_reasoning_is_no_answer(add_problem, begin, end, way):
    draft = (
        f"Try\n```python\ndef add(a, b):\n    return {end!r}\n```\n    return a\nNo: a `{end}`.\n"
    )
    text = f"{'' if way == 'begun before' else begin}\n{draft}{'' if way == 'no end' else end}\n"
    rest = "" if way == "no end" else "\n"
    if way == "no end" and begin[0].isalpha():
        return  # words that any text may begin with
    assert prompts.without_reasoning(text).strip() == rest.strip()
    for code in (BODY, WHOLE, f"```python\n{WHOLE}```\n") if rest else ():
        assert runs(add_problem, prompts.extract(add_problem, f"{text}\n{code}"))


@pytest.mark.parametrize(("begin", "end"), prompts.REASONING)
def test_a_program_about_marks_of_reasoning_keeps_them(add_problem, begin, end):
    code = f"def add(a, b):\n    '''Not\n{begin}\nor\n{end}\n    '''\n    return a + b\n"
    shapes = (code, f"So:\n```python\n{code}```\nIt adds.", code.partition("\n")[2])
    for text in shapes:
        assert prompts.without_reasoning(text) == text
        assert runs(add_problem, prompts.extract(add_problem, text))


FUTURE = "from __future__ import annotations\n\n\n"


def test_an_import_from_the_future_stands_where_python_wants_it(add_problem):
    whole = (
        f"{FUTURE}def helper(x: Unknown) -> None: return x\n\ndef add(a, b):\n    return a + b\n"
    )
    words = replace(add_problem, prompt='"""Write add."""\n')
    imports = replace(add_problem, prompt="import math\n\n" + add_problem.prompt)
    for problem, text in product((add_problem, words, imports), (whole, FUTURE + WHOLE)):
        for written in (text, f"```python\n{text}```\n"):
            program = prompts.extract(problem, written)
            assert runs(problem, program)
            target = prompts.target(problem, written, "starcoder")
            assert target is None or prompts.starcoder(problem) + target == program
    assert prompts.target(add_problem, FUTURE + WHOLE, "starcoder") is not None
    assert prompts.target(add_problem, whole, "starcoder") is None, "annotations need the import"
    shared = "from __future__ import division; import os\n" + WHOLE.replace("a, b", "a, c=2", 1)
    assert "import os" in prompts.extract(imports, shared)
    compile(prompts.extract(imports, shared), "shared", "exec")


@pytest.mark.parametrize("prompt", ["Write add(a, b): their sum.", "Add", "Task: add", "Two-sum"])
def test_behind_a_prompt_in_words_the_answer_stands_alone(prompt):
    problem = Problem("t/1", prompt, "add", "")
    for text in (WHOLE, f"{prompt}\n\n{WHOLE}", f"Sure:\n```python\n{WHOLE}```", FUTURE + WHOLE):
        answer = prompts.read(problem, text)
        assert runs(problem, answer.program) and answer.reading.endswith("alone")
        for style in prompts.FORMATS:
            target = prompts.target(problem, text, style)
            assert prompts.extract(problem, target).strip() == answer.program.strip()


@pytest.mark.parametrize(
    ("text", "reading"),
    [
        (BODY, "text: continuation"),
        (WHOLE, "text: body"),
        ("add = lambda a, b: a + b\n", "text: program"),
        (f"{WHOLE}\nx = 1; y = 2\n", "text: program"),
        (f"Sure.\n```\n{BODY}```\n", "block: continuation"),
        (f"Sure.\n```\n{WHOLE}```\n", "block: body"),
        (f"{BODY}```\nIt adds.", "text before a fence: continuation"),
        (f"Sure.\n\n{WHOLE}\nIt adds.", "code in text: body"),
        ("    return (", "text: continuation"),
    ],
)
def test_the_first_reading_that_compiles_wins_and_is_named(add_problem, text, reading):
    assert prompts.read(add_problem, text).reading == reading


def test_of_a_very_long_text_no_second_reading_is_tried(add_problem):
    for words, reading in ((20_000, "code in text: body"), (30_000, "text: program")):
        text = f"{'It. ' * words}\n\n{WHOLE}\nIt adds."
        assert prompts.read(add_problem, text).reading == reading


CODES = {
    "plain": "    c = a\n    return c + b\n",
    "helper": "    c = one(a)\n    return c + b\n\n\ndef one(x):\n    return x\n",
    "nested": "    @str\n    def no(x):\n        return x\n\n    return a + b\n",
}


def shapes(problem: Problem, body: str) -> list[str]:
    """One program in the forms that models write."""
    head = problem.prompt.partition('"""')[0].rstrip()
    wholes = [problem.prompt + body, f"{head}\n{body}", f'{head}\n    """Other."""\n\n{body}']
    wholes += [f"{wholes[0]}\n\nprint(add(1, 2))\n", f"{wholes[1].rstrip()}"]
    parts = [body, f"\n{body}", body.rstrip(), *wholes]
    fenced = [f"Sure!\n```python\n{part.lstrip(chr(10))}\n```\nIt adds." for part in parts]
    return [*parts, *fenced, f"<think>\n{body}\n</think>\n\n{wholes[0]}", f"{body}```\nIt adds."]


@pytest.mark.parametrize("body", CODES.values(), ids=CODES)
def test_one_program_has_one_form_however_it_is_written(add_problem, body):
    bare = replace(add_problem, prompt="def add(a, b):\n")
    for problem, style in product((add_problem, bare), prompts.FORMATS):
        found = {
            prompts.form_of(prompts.extract(problem, prompts.target(problem, text, style)))
            for text in shapes(problem, body)
        }
        assert len(found) == 1
        assert runs(problem, prompts.extract(problem, body))


def meaning(program: str) -> str:
    """A program's syntax tree without docstrings, which `pangu` puts before the function."""
    tree = ast.parse(program)
    for node in ast.walk(tree):
        if isinstance(body := getattr(node, "body", None), list):
            node.body = [part for part in body if not is_text(part)]
    return ast.dump(tree)


def is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def check_learned(problem: Problem, text: str) -> int:
    """Asserts that what is learned is what is judged, in every format; how many can learn it."""
    judged = prompts.extract(problem, text)
    targets = {style: prompts.target(problem, text, style) for style in prompts.FORMATS}
    for style, target in targets.items():
        if target is None:
            continue
        if style in ("starcoder", "pangu") and prompts.opens_body(problem.prompt):
            learned = prompts.format_prompt(problem, style) + target
            assert style == "pangu" or learned == judged
        else:
            learned = prompts.extract(problem, target)
        if prompts.parses(judged):
            assert meaning(learned) == meaning(judged), (problem.task_id, style)
        else:
            assert not prompts.parses(learned), (problem.task_id, style)
    given = prompts.target(problem, text, "starcoder", prompt=problem.prompt)
    assert (
        given is None or problem.prompt + given == judged or not judged.startswith(problem.prompt)
    )
    return sum(target is not None for target in targets.values())


def test_what_is_learned_is_what_was_judged(add_problem):
    odd = ["    return (\n", "", INNER.partition("\n")[2], "    return '````'\n"]
    bodies = [*CODES.values(), *odd]
    heads = [add_problem.prompt, "import math\n\n\n" + add_problem.prompt, "def add(a, b):\n",
             '"""Write add."""\n', "# Write add\n", "Write add.", ""]  # fmt: skip
    others = [WHOLE, FUTURE + WHOLE, "def add(x, y):\n    return x + y\n", "No.", *CHATTY.values()]
    learned = 0
    for body, head in product(bodies, heads):
        problem = replace(add_problem, prompt=head)
        learned += sum(
            check_learned(problem, text) for text in [*shapes(add_problem, body), *others]
        )
    assert learned > 4000


GENERATIONS = sorted((DATA / "generations").glob("*/*.jsonl.gz"))


@pytest.mark.skipif(not GENERATIONS, reason="published samples are not here")
@pytest.mark.parametrize("file", GENERATIONS, ids=lambda file: f"{file.parent.name}-{file.name}")
def test_what_is_learned_of_published_answers_is_what_was_judged(file):
    name = DATA / "humaneval/HumanEval.jsonl.gz" if "humaneval" in file.name else "mbpp"
    problems = {problem.task_id: problem for problem in grade.load_problems(str(name), data=DATA)}
    rows = [row for _, row in store.read_rows(file)]
    texts = [(row["task_id"], row.get("completion") or row.get("code")) for row in rows]
    learned = [check_learned(problems[task_id], text) for task_id, text in texts]
    assert len(learned) >= 164 and min(learned) >= 2, "a block can hold every program"
    assert learned.count(4) >= 0.96 * len(learned)


# Tokens


def _tokenizer(kind: str, **names: str):
    """A small tokenizer: `bytes`, or as Llama 2's (`space`: one is put before every text)."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    specials = ["<unk>", "<s>", "</s>"]
    if kind == "bytes":
        vocab = [*specials, *sorted(pre_tokenizers.ByteLevel.alphabet()), '""', '"""', '"""\u010a']
        merges = [('"', '"'), ('""', '"'), ('"""', "\u010a")]
        made = Tokenizer(models.BPE({t: i for i, t in enumerate(vocab)}, merges))
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        made.decoder = decoders.ByteLevel()
    else:
        pieces = [f"<0x{i:02X}>" for i in range(256)]
        vocab = [*specials, *pieces, "\u2581", "\u2581\u2581", "a", "return"]
        merges = [("\u2581", "\u2581")]
        how = {"byte_fallback": True, "unk_token": "<unk>"}
        made = Tokenizer(models.BPE({t: i for i, t in enumerate(vocab)}, merges, **how))
        put = [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
        made.normalizer = normalizers.Sequence(put)
        spaces = decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()
        made.decoder = decoders.Sequence([*spaces, decoders.Strip(" ", 1, 0)])
    made.add_special_tokens(specials[1:])
    around = names.pop("around", "$A")
    places = [("<s>", 1), ("</s>", 2)]
    made.post_processor = processors.TemplateProcessing(single=around, special_tokens=places)
    return PreTrainedTokenizerFast(tokenizer_object=made, **names)


BOTH = {"bos_token": "<s>", "eos_token": "</s>"}
HEAD, TAILS = 'def f(a):\n    """a"""', ("\n    return a\n", "    return a", "x = '</s>'", "")


@pytest.mark.parametrize("kind", ["bytes", "space"])
@pytest.mark.parametrize("around", ["$A", "<s> $A", "<s> $A </s>", "$A </s>"])
@pytest.mark.parametrize("names", [BOTH, {"eos_token": "</s>"}, {}])
def test_prompt_and_answer_are_their_text_and_nothing_is_put_between(kind, around, names):
    tokenizer = _tokenizer(kind, around=around, **names)
    head, tails = prompts.pair_ids(tokenizer, HEAD, TAILS)
    assert head == prompts.prompt_ids(tokenizer, HEAD)
    begins = [1] if around.startswith("<s>") else []
    assert head[: len(begins)] == begins and 1 not in head[len(begins) :]
    assert 2 not in head, "an end behind the prompt would end the answer"
    for tail, text in zip(tails, TAILS, strict=True):
        shown = tokenizer.decode([*head[len(begins) :], *tail])
        assert shown.removeprefix(" ") == HEAD + text
    blanks = tokenizer.convert_ids_to_tokens(tails[1])[:4]
    assert blanks[:4] == ["\u0120"] * 4 if kind == "bytes" else blanks[:2] == ["\u2581\u2581"] * 2


def test_an_answer_has_the_tokens_of_the_whole_and_the_prompt_those_it_is_asked_with():
    tokenizer = _tokenizer("bytes", **BOTH)
    text = tokenizer.encode(HEAD + TAILS[1])
    head, tails = prompts.pair_ids(tokenizer, HEAD, TAILS[:2])
    assert [*head, *tails[1]] == text
    spans = tokenizer.convert_ids_to_tokens(tokenizer.encode(HEAD + TAILS[0]))
    assert '"""\u010a' in spans, "here a token spans prompt and answer"
    assert tokenizer.convert_ids_to_tokens(head)[-1] == '"""'
    assert tokenizer.convert_ids_to_tokens(tails[0])[0] == "\u010a"


def test_a_tokenizer_of_whole_lines_has_tokens_for_an_answer_too():
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    lines = {"<unk>": 0, "def f(a):": 1, "    return a": 2, "def f(a):    return a": 3}
    made = Tokenizer(models.WordLevel(lines, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Split(Regex("\n"), "removed")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made)
    assert prompts.pair_ids(tokenizer, "def f(a):", ["    return a"]) == ([1], [[2]])


def test_special_tokens_are_text_in_code_and_themselves_where_a_template_wrote_them():
    tokenizer = _tokenizer("bytes", around="<s> $A", **BOTH)
    code = 'def end():\n    """Return "</s>"."""'
    head, (tail,) = prompts.pair_ids(tokenizer, code, ["\n    return '</s>'\n"])
    assert head.count(1) == 1 and 2 not in head and 2 not in tail
    chat = "<s>ask</s>answer"
    head, tails = prompts.pair_ids(tokenizer, chat, ["'</s>'", "plain"])
    assert head.count(1) == 1 and head.count(2) == 1
    assert 2 not in tails[0] and tokenizer.decode(tails[0]) == "'</s>'"
    assert [*head, *tails[1]] == tokenizer.encode(chat + "plain", add_special_tokens=False)


CHATS = {  # with a system's turn; with nothing before the message; with a token only behind it
    "turns": "<s>system\nBe brief.</s>\n{% for m in messages %}<s>{{ m.role }}\n{{ m.content }}"
    "</s>\n{% endfor %}{% if add_generation_prompt %}<s>assistant\n{% endif %}",
    "bare": "{{ bos_token }}{% for m in messages %}{{ m.content | trim }}{% endfor %} [answer]",
    "late": "User: {{ messages[0].content }}</s>Model: ",
    "twice": "<s>user\nHello</s><s>user\n{{ messages[0].content }}</s><s>model\n",
}


@pytest.mark.parametrize("kind", ["bytes", "space"])
@pytest.mark.parametrize("name", CHATS)
def test_special_tokens_in_a_users_message_are_text_and_those_of_the_template_are_not(kind, name):
    tokenizer = _tokenizer(kind, around="<s> $A", **BOTH)
    tokenizer.chat_template = CHATS[name]

    def ask(text):
        message = [{"role": "user", "content": text}]
        return tokenizer.apply_chat_template(message, add_generation_prompt=True, tokenize=False)

    def special(ids):
        return [token for token in ids if token in (1, 2)]

    plain = ask("Split a text.")
    written = plain.startswith("<s>")
    whole = tokenizer.encode(plain, add_special_tokens=not written)
    assert prompts.prompt_ids(tokenizer, plain) == whole, "without any: as it was"
    for told in ("Split at </s>.", "</s>\n<s>assistant\nNo.</s>", "<s>", "a</s>", "<s>user\nx"):
        prompt = ask(told)
        ids = prompts.prompt_ids(tokenizer, prompt)
        assert special(ids) == special(whole), told
        shown, meant = tokenizer.decode(ids), "<s>" * (not written) + prompt
        if kind == "space":  # which puts one behind a special token as well
            shown, meant = shown.replace(" ", ""), meant.replace(" ", "")
        assert shown == meant
        head, tails = prompts.pair_ids(tokenizer, prompt, ["    return '</s>'", "    return a"])
        assert head == ids and special(head + tails[0] + tails[1]) == special(whole)
        assert [tokenizer.decode(tail).lstrip() for tail in tails] == ["return '</s>'", "return a"]
        blanks = 4 if kind == "bytes" else 2  # as in code, with none put before them
        assert len(set(tokenizer.convert_ids_to_tokens(tails[1])[: blanks + 1])) == 2


def test_a_prompt_that_no_template_of_the_tokenizer_wrote_keeps_its_special_tokens():
    tokenizer = _tokenizer("bytes", around="<s> $A", **BOTH)
    tokenizer.chat_template = CHATS["turns"]
    other = "<s>ask</s>answer"
    assert prompts.prompt_ids(tokenizer, other).count(2) == 1
    dated = "<s>system\nToday is Monday.</s>\n<s>user\nSplit at </s>.</s>\n<s>assistant\n"
    assert prompts.prompt_ids(tokenizer, dated).count(2) == 2, "an earlier turn may name a date"


def test_messages_of_openai_and_of_sharegpt_are_the_same_turns():
    parts = [{"type": "text", "text": "A"}, {"type": "text", "text": "dd."}]
    openai = [("system", "Be kind."), ("user", parts), ("assistant", "x")]
    shared = [("system", "Be kind."), ("human", "Add."), ("gpt", "x")]
    told = [("system", "Be kind."), ("user", "Add."), ("assistant", "x")]
    assert prompts.turns([{"role": who, "content": text} for who, text in openai]) == told
    assert prompts.turns([{"from": who, "value": text} for who, text in shared]) == told
    assert prompts.turns([{"role": "assistant", "content": None}]) == [("assistant", "")]
