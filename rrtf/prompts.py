"""Prompt formats, and the program inside a response.

A format decides what the model reads; `extract` decides what is executed. The same format is
used when sampling and when training.
"""

import ast
import re
from collections.abc import Callable, Sequence

from rrtf.records import Problem

STOPS = ("\nclass", "\ndef", "\n#", "\nif", "\nprint")  # raw continuations of base models

_FENCE = re.compile(r"```[ \t]*(?:python|py|python3)?[ \t]*\n(.*?)(?:\n```|\Z)", re.DOTALL)


def starcoder(problem: Problem) -> str:
    """Signature first, as in HumanEval; the trailing newline is left to the model."""
    return problem.prompt.rstrip("\n")


def pangu(problem: Problem) -> str:
    """The paper's format: the docstring in triple quotes, then the signature (section 4.2)."""
    head, signature, docstring = split_prompt(problem)
    return f'"""\n{docstring}\n"""\n{head}{signature}'


def instruction(problem: Problem) -> str:
    """WizardCoder's form: the task as an instruction, the answer after `### Response:`."""
    return (
        "Below is an instruction that describes a task. Write a response that completes it.\n\n"
        f"### Instruction:\nComplete this Python function:\n{problem.prompt.rstrip()}\n\n"
        "### Response:"
    )


FORMATS: dict[str, Callable[[Problem], str]] = {
    "starcoder": starcoder,
    "pangu": pangu,
    "wizardcoder": instruction,
}


def format_prompt(problem: Problem, style: str) -> str:
    """The text a model of `style` (`starcoder`, `pangu`, `wizardcoder`) is given."""
    if style not in FORMATS:
        raise ValueError(f"unknown prompt format {style!r}: expected one of {', '.join(FORMATS)}")
    return FORMATS[style](problem)


def split_prompt(problem: Problem) -> tuple[str, str, str]:
    """(what precedes the function, its signature line, its docstring) of a HumanEval prompt."""
    source = problem.prompt.rstrip() + "\n    pass\n"
    try:
        tree = ast.parse(source)
    except SyntaxError as error:
        raise ValueError(
            f"{problem.task_id}: the prompt is not a function head ({error})"
        ) from None
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == problem.entry_point:
            lines = source.splitlines(keepends=True)
            body_line = node.body[0].lineno - 1
            head = "".join(lines[: node.lineno - 1])
            signature = "".join(lines[node.lineno - 1 : body_line]).rstrip("\n")
            return head, signature, ast.get_docstring(node) or ""
    raise ValueError(f"{problem.task_id}: the prompt does not define {problem.entry_point}")


def cut(text: str, stops: Sequence[str] = STOPS) -> str:
    """`text` up to the first stop sequence."""
    ends = [at for stop in stops if (at := text.find(stop)) >= 0]
    return text[: min(ends)] if ends else text


def extract(problem: Problem, text: str, how: str = "auto") -> str:
    """The program to execute: the problem's prompt followed by what the response adds.

    `how`: `raw` (a continuation of the prompt, cut at the first stop), `fenced` (the first
    Markdown code block), `program` (the whole text), or `auto`, which takes a fenced block where
    there is one, else a whole program where the text defines the entry point, else `raw`. The
    prompt stays in front also of whole programs: imports and helpers live there.
    """
    if how not in ("auto", "raw", "fenced", "program"):
        raise ValueError(f"unknown extraction {how!r}: expected auto, raw, fenced or program")
    fence = _FENCE.search(text) if how in ("auto", "fenced") else None
    if fence:
        text, how = fence.group(1), "auto"
    whole = how == "program" or (
        how == "auto" and re.search(rf"^def {re.escape(problem.entry_point)}\b", text, re.MULTILINE)
    )
    if whole:
        return f"{problem.prompt.rstrip()}\n    pass\n\n{text}"
    return problem.prompt.rstrip("\n") + _on_new_line(cut(text))


def _on_new_line(completion: str) -> str:
    """Continuations start on a fresh line, whether or not the model wrote the line break."""
    return completion if completion.startswith("\n") else "\n" + completion
