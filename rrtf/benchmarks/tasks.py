"""Rows of the field's benchmarks as problems in HumanEval form.

A problem's `prompt` is what a model continues, prompt + reference is a program, and `tests` is
Python source that stands alone: written to JSON lines, any harness of HumanEval's kind runs it.
"""

import ast
import base64
import builtins
import hashlib
import json
import pickletools
import re
import textwrap
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rrtf import prompts, store
from rrtf.records import STDIN, Problem
from rrtf.sandbox.instrument import EITHER
from rrtf.sandbox.joint import is_joint

# The standard-library part of what DeepSeek's harness puts in front of every program.
LEETCODE_IMPORTS = """import collections
import copy
import datetime
import functools
import hashlib
import heapq
import itertools
import math
import re
import statistics
import string
import sys
from collections import *
from typing import *

"""

MOST_INPUT = 4 << 20  # bytes of one standard input
_PLAIN = """def plain(value):  # JSON has no tuples
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


"""
FORMS = (
    "HumanEval's (prompt, entry_point, test); inputs and outputs of APPS, TACO, PRIME "
    "(input_output, or inputs and outputs, with fn_name or without), of LiveCodeBench "
    "(public_test_cases), open-r1 (verification_info), CodeContests (public_tests), DeepCoder "
    "(tests), rllm (ground_truth), Codeforces (official_tests) and test_cases; BigCodeBench's "
    "(complete_prompt, entry_point, test); KodCode's (test, which imports from solution); "
    "code-r1's (functional, pytest); lists of assertions (test_list, test_cases, unit_tests, "
    "assertions)"
)
ASSERTIONS = "assertions"
READ_AS = "read as "  # before the name of the form, in `source`
_CASES = ("public_test_cases", "verification_info", "tests", "official_tests", "test_cases")
_LISTS = ("test_list", "test_cases", "unit_tests", "assertions", "tests")
_KEYS = {"input_output", "inputs", "public_tests", "reward_model", "functional", *_CASES, *_LISTS}
_TEXTS = (*prompts.QUESTIONS, "input")
_NATIVE = (
    "HumanEval's form is task_id, prompt, entry_point, test, and a benchmark in another is read "
    "by its name"
)


@dataclass(frozen=True, slots=True)
class _Read:
    """What a row's tests are: their form's name, what they call, their source, one to be shown."""

    form: str
    entry_point: str
    tests: str
    example: str = ""


def problem(row: Mapping, where: str) -> Problem:
    """A row of somebody's tasks, read by what it contains (`FORMS`); `source` says as what.

    Tests of inputs and outputs become assertions: of calls, in which tuples are the lists that JSON
    has instead and an output may stand in a list of one, as APPS writes it; or, where no function
    is named, of the whole program as a function from text to text (`STDIN`, which
    `sandbox.judge.OutputCheck` compares). The task's words become a docstring that any program may
    follow. A row without a `task_id` is called by its hash.

    ValueError names `where` it stands and what it holds that is not read here: other languages,
    checkers of several right answers, interactive tasks, pickled tests that are more than a text.
    """
    try:
        found = _humaneval_like(row, where) or _other_form(row)
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError, zlib.error) as error:
        told = str(error) or type(error).__name__
        raise ValueError(told if told.startswith(where) else f"{where}: {told}") from None
    text = "\0".join((found.prompt, found.entry_point, found.tests))
    return replace(found, task_id=found.task_id or hashlib.sha256(text.encode()).hexdigest()[:16])


def problems_of(
    rows: Iterable[tuple[int, Any]], *, file: str, joint: bool = False
) -> list[Problem]:
    """The problems of (line number, row); ValueError names the file and the line.

    Tests that ask for the weaker mode `sandbox.joint` are refused unless `joint`.
    """
    lines: dict[str, int] = {}
    problems = []
    for number, row in rows:
        where = f"{file}:{number}"
        try:
            problem = _any_form(row, where)
        except ValueError as error:
            raise ValueError(f"{error}{_expected(row)}") from None
        if not problem.tests.strip():
            raise ValueError(f"{where}: {problem.task_id} has no test")
        if row.get("plus_input") is not None:
            raise ValueError(
                f"{where}: the tests of `plus_input` are not part of `test`: name the benchmark "
                "(humaneval+ or mbpp+) instead of its file, or remove the field"
            )
        if is_joint(problem) and not joint:
            raise ValueError(
                f"{where}: {problem.task_id} asks for its tests to run in the candidate's own "
                "process, where a program can forge the verdict: --joint accepts that"
            )
        if problem.task_id in lines:
            first = lines[problem.task_id]
            raise ValueError(f"{where}: {problem.task_id} stands in line {first} too")
        lines[problem.task_id] = number
        problems.append(problem)
    if not problems:
        raise ValueError(f"{file}: no problems in it")
    return problems


def _any_form(row: Any, where: str) -> Problem:
    """A row in HumanEval's form, or in one of the others that `FORMS` names."""
    if isinstance(row, Mapping) and is_other_form(row):
        return problem(row, where)
    return _with_words(store.from_row(row, Problem, where), row)


def _expected(row: Any) -> str:
    other = isinstance(row, Mapping) and not row.get("entry_point")
    return "" if other and "test" not in row else f"; {_NATIVE}"


def forms(problems: Sequence[Problem]) -> list[str]:
    """As what tasks in other forms than HumanEval's were read, one line for each."""
    counts = Counter(p.source for p in problems if p.source.startswith(READ_AS))
    return [f"{n} task{'s' * (n > 1)} {source}" for source, n in counts.items()]


def is_other_form(row: Mapping) -> bool:
    """Whether a row holds tests, but in another form than HumanEval's."""
    imports = "from solution import" in str(row.get("test"))
    own = row.get("entry_point") and _has_text(row) and not _of_bigcodebench(row)
    other = _of_bigcodebench(row) or _of_rllm(row) or not _KEYS.isdisjoint(row)
    return not own and (imports or other)


def _of_bigcodebench(row: Mapping) -> bool:
    """HumanEval's form, but its tests are methods of a `TestCase`, and it has two prompts."""
    return "prompt" not in row and bool(row.get("complete_prompt"))


def _has_text(row: Mapping) -> bool:
    """Whether a row's tests are Python."""
    return any(isinstance(row.get(name), str) and row[name].strip() for name in ("test", "tests"))


def _humaneval_like(row: Mapping, where: str) -> Problem | None:
    """A row that names its function; tests of other forms are read, its prompt stays as it is."""
    name = row.get("entry_point")
    if _of_bigcodebench(row):
        row = {**row, "prompt": row["complete_prompt"], "source": READ_AS + "BigCodeBench's"}
    if name and not _has_text(row):
        asked = {"fn_name": name, **row}
        read = next((found for reader in _READERS if (found := reader(asked))), None)
        if read and read.entry_point != name and read.form != ASSERTIONS:
            raise ValueError(f"entry_point {name}, but its tests are of {read.entry_point}")
        row = {**row, "tests": read.tests, "source": READ_AS + read.form} if read else row
    if not name or not (row.get("test") or row.get("tests")):
        return None
    native = {"task_id": "", "prompt": "", **row}
    native |= {"prompt": ""} if isinstance(native["prompt"], list) else {}
    found = store.from_row(native, Problem, where)
    if not found.tests.strip():
        raise ValueError("no test")
    return _with_words(found, row)


def _other_form(row: Mapping) -> Problem:
    for name in ("checker", "generated_checker", "interactive", "is_interactive"):
        if row.get(name):
            raise ValueError(
                f"{name}: its answers are judged by a program of its own, not read here"
            )
    row = _unwrapped(row)
    read = next((found for reader in _READERS if (found := reader(row))), None)
    if read is None:
        raise ValueError(f"no test in a form that is read here: {FORMS} (it has {', '.join(row)})")
    task_id = next((row[n] for n in _IDS if isinstance(row.get(n), str | int)), "")
    prompt = _asked(row, read.entry_point, read.example)
    form = READ_AS + read.form
    if prefix := row.get("prefix"):  # what code-r1's grader puts before the program
        prompt = f"{prefix}\n{prompt}"
    if read.form.startswith(_WITH_IMPORTS):
        prompt = prompts.CONTEST_IMPORTS + prompt
    return Problem(str(task_id), prompt, read.entry_point, read.tests, _reference(row), form)


# Forms whose own graders put imports before the program.
_WITH_IMPORTS = ("inputs and outputs", "public_test_cases", "tests", "functional")
_IDS = ("task_id", "question_id", "id", "problem_id", "uid", "name")


_SOLUTIONS = ("solution", "canonical_solution", "solutions", "code", "gold_standard_solution",
              "reference")  # fmt: skip
_FORMATS = ("input_format", "output_format")  # of Codeforces, beside the description


def _with_words(found: Problem, row: Mapping) -> Problem:
    """A problem whose prompt asks nothing gets the words beside it: LeetCodeDataset."""
    if not prompts.asks_nothing(found):
        return found
    others = {**row, "prompt": None} if found.prompt else row
    return replace(found, prompt=found.prompt + _asked(others, found.entry_point))


def _asked(row: Mapping, entry_point: str, example: str = "") -> str:
    """The words of a row as a docstring, with its starter code; nothing where it has neither.

    Words that do not name the function are followed by an `example` of its call, or by its name.
    """
    words = next((text for name in _TEXTS if (text := _words(row.get(name)))), "")
    words = "\n\n".join([words, *filter(None, (_words(row.get(name)) for name in _FORMATS))])
    starter = row.get("starter_code") or ""
    told = words if starter in words else f"{words}\n\nStarter code:\n{starter}"
    name = entry_point.rpartition(".")[2]
    if told and entry_point != STDIN and not re.search(rf"\b{re.escape(name)}\b", told):
        told += f"\n{example or f'The function is called {name}.'}"
    return docstring(told) if told else ""


def _words(value: object) -> str:
    """A text, or what the user says first in messages; nothing for what is neither."""
    if not isinstance(value, list):
        return value.strip() if isinstance(value, str) else ""
    try:
        return next((text for role, text in prompts.turns(value) if role == "user"), "")
    except ValueError:
        return ""


def _reference(row: Mapping) -> str:
    """The first Python program that a row gives as a solution, without a fence around it."""
    held = next((row[name] for name in _SOLUTIONS if row.get(name)), "")
    if _is_list(held):
        held = _json(held, "solutions")
    first = held[0] if isinstance(held, list) and held else held
    code = prompts.code_of(first) if isinstance(first, str) else ""
    return f"{code}\n" if prompts.parses(code) and code else ""


def _json(value: object, name: str) -> object:
    """A value, or the one whose JSON a text is."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        raise ValueError(f"{name}: not JSON") from None


def _unwrapped(row: Mapping) -> Mapping:
    """A row of verl or rllm with what its `ground_truth` tests, and stands beside, as fields."""
    model, about = row.get("reward_model"), row.get("extra_info")
    about = about if isinstance(about, Mapping) else {}
    held = model.get("ground_truth") if isinstance(model, Mapping) else None
    for own in (row, about):  # rllm keeps its rows there when it trains by verl
        if not held and _of_rllm(own):
            return {**own, "tests": _json(own["ground_truth"], "ground_truth")}
    held = _json(held, "ground_truth") if held else None
    beside = {name: about[name] for name in ("reference", "prefix") if about.get(name)}
    if isinstance(held, list):
        texts = all(isinstance(one, str) for one in held)
        return {**beside, **row, "test_list" if texts else "test_cases": held}
    if not isinstance(held, Mapping):
        return row
    found = {"functional": held.get("functional"), "test": held.get("pytest")}
    found["input_output"] = held if "inputs" in held else None
    return {**beside, **row, **{name: value for name, value in found.items() if value}}


def _of_rllm(row: Mapping) -> bool:
    """Whether a list of tests, or its JSON, is the `ground_truth` of a row that has no others."""
    return _KEYS.isdisjoint(row) and _is_list(row.get("ground_truth"))


def _apps(row: Mapping) -> _Read | None:
    """`inputs`, `outputs` and perhaps `fn_name`, in `input_output` or by themselves."""
    held = row.get("input_output")
    held = _json(held, "input_output") if held else row
    if "inputs" not in held and isinstance(row.get("tests"), str | Mapping):
        held = _json(row["tests"], "tests")
    if not isinstance(held, Mapping) or "inputs" not in held or "outputs" not in held:
        return None
    return _paired(row, "inputs and outputs", held["inputs"], held["outputs"], held.get("fn_name"))


def _code_contests(row: Mapping) -> _Read | None:
    sets = [row.get(n) or {} for n in ("public_tests", "private_tests", "generated_tests")]
    if "public_tests" not in row or not all(isinstance(one, Mapping) for one in sets):
        return None
    inputs, outputs = (
        [text for one in sets for text in one.get(n, ())] for n in ("input", "output")
    )
    return _paired(row, "CodeContests", inputs, outputs, None)


_OUTPUTS = {"output", "expected_output"}


def _cases(row: Mapping) -> _Read | None:
    """Lists of objects with `input` and `output`: LiveCodeBench, open-r1, DeepCoder, Codeforces."""
    name = next((n for n in _CASES if row.get(n)), "")
    about = _json(row.get("metadata") or {}, "metadata")
    if name == "public_test_cases":
        cases = [*_json(row[name], name), *_private(row.get("private_test_cases") or [])]
    else:
        cases = _json(row.get(name), name) if name else None
    if isinstance(cases, Mapping):
        if (language := cases.get("language", "python")) not in ("python", "python3"):
            raise ValueError(f"{name}: tests of {language} programs")
        about, cases = dict(about) | dict(cases), cases.get("test_cases")
    if not isinstance(cases, list) or not cases or not isinstance(cases[0], Mapping):
        return None
    kinds = {case.get("type", case.get("testtype", "stdin")) for case in cases}
    function = cases[0].get("fn_name") or about.get("fn_name") or about.get("func_name")
    if len(kinds) > 1 or not kinds <= {"stdin", "stdin_stdout", "functional", "function_call"}:
        raise ValueError(f"{name}: tests of the kinds {', '.join(map(str, kinds))}")
    if not all("input" in case and _OUTPUTS & case.keys() for case in cases):
        raise ValueError(f"{name}: a test without input or output")
    inputs = [case["input"] for case in cases]
    outputs = [case.get("output", case.get("expected_output")) for case in cases]
    if kinds <= {"stdin", "stdin_stdout"}:
        return _paired(row, name, inputs, outputs, None)
    if not function:
        raise ValueError(f"{name}: calls, but no name of the function")
    return _paired(row, name, inputs, outputs, function)


def _call(given: object, output: object) -> tuple[list, object]:
    """(arguments, output) of a test: LiveCodeBench and PRIME write each of them as a line of JSON.

    Where the arguments are no text, an output that is one is the value itself.
    """
    if isinstance(given, str):
        arguments = [_json(line, "input of a call") for line in given.split("\n") if line.strip()]
        return arguments, _json(output, "output of a call")
    return given if isinstance(given, list) else [given], output


def _private(value: object) -> list:
    """LiveCodeBench's hidden tests: JSON, or its base64 of zlib of a pickled text of JSON.

    No pickle is executed: of its instructions only those that hold one text are read.
    """
    if not isinstance(value, str) or value.lstrip()[:1] in ("[", "{"):
        return _json(value, "private_test_cases")
    unpacker = zlib.decompressobj()
    data = unpacker.decompress(base64.b64decode(value, validate=True), store.LONGEST)
    if unpacker.unconsumed_tail:
        raise ValueError(f"private_test_cases: unpack to more than {store.LONGEST >> 20} MiB")
    steps = [(step.name, held) for step, held, _ in pickletools.genops(data)]
    texts = [held for name, held in steps if name.endswith("BINUNICODE") or name == "BINUNICODE8"]
    other = {name for name, _ in steps} - _OF_A_TEXT
    if other or len(texts) != 1:
        raise ValueError("private_test_cases: a pickle of more than one text, which nothing opens")
    return _json(texts[0], "private_test_cases")


_OF_A_TEXT = {"PROTO", "FRAME", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "MEMOIZE",
              "BINPUT", "LONG_BINPUT", "STOP"}  # fmt: skip


def _paired(row: Mapping, form: str, inputs: list, outputs: list, function: object) -> _Read:
    """Assertions of inputs and outputs, side by side."""
    if not isinstance(inputs, list) or not isinstance(outputs, list) or not inputs:
        raise ValueError(f"{form}: no tests")
    if len(inputs) != len(outputs):
        raise ValueError(f"{form}: {len(inputs)} inputs but {len(outputs)} outputs")
    if not function:
        return _Read(f"{form}, standard input", STDIN, _printed(inputs, outputs))
    if not str(function).isidentifier():
        raise ValueError(f"{form}: {function!r} is no name of a function")
    calls = [_call(*pair) for pair in zip(inputs, outputs, strict=True)]
    json.dumps(calls, allow_nan=False)  # ValueError: there is no literal of it
    if form == "inputs and outputs":
        calls = [([*map(_keyed, given[:1]), *given[1:]], _keyed(output)) for given, output in calls]
    wrapped = all(isinstance(output, list) and len(output) == 1 for _, output in calls)
    wrapped &= form != "public_test_cases"  # LiveCodeBench wraps none
    lines = []
    for given, output in calls:
        call = f"candidate({', '.join(map(repr, given))})"
        if wrapped:
            lines.append(f"    assert plain({call}) in ({output!r}, {output[0]!r})")
        elif isinstance(output, list | dict):
            lines.append(f"    assert plain({call}) == {output!r}")
        else:
            lines.append(f"    assert {call} == {output!r}")
    head = _PLAIN if "plain(" in "".join(lines) else ""
    shown = " ".join(str(row.get(name) or "") for name in ("starter_code", *_TEXTS))
    entry = f"Solution().{function}" if "class Solution" in shown else str(function)
    tests = EITHER + head + "def check(candidate):\n" + "\n".join(lines) + "\n"
    return _Read(f"{form}, calls", entry, tests)


def _keyed(value: object) -> object:
    """A dictionary, alone or in a list of one, with whole numbers as keys if JSON's can be such.

    As APPS and PRIME read the first argument and the output, because JSON knows texts only.
    """
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], dict):
        return [_keyed(value[0])]
    try:
        return {int(k): v for k, v in value.items()} if isinstance(value, dict) else value
    except ValueError:
        return value


def _printed(inputs: list, outputs: list) -> str:
    lines = []
    for given, output in zip(inputs, outputs, strict=True):
        text, printed = (
            "\n".join(map(str, v)) if isinstance(v, list) else v for v in (given, output)
        )
        if not isinstance(text, str) or not isinstance(printed, str):
            raise ValueError(f"a standard input or output that is no text: {text!r:.40}")
        if max(len(text.encode()), len(printed.encode())) > MOST_INPUT:
            raise ValueError(f"a standard input or output of more than {MOST_INPUT >> 20} MiB")
        lines.append(f"assert candidate({text!r}) == {printed!r}\n")
    return "".join(lines)


def _kodcode(row: Mapping) -> _Read | None:
    """Functions of pytest that import what they test from `solution`."""
    text = row.get("test")
    if not isinstance(text, str) or "solution" not in text:
        return None
    found = [node for node in ast.parse(text).body if isinstance(node, ast.ImportFrom)]
    names = [alias.name for node in found if node.module == "solution" for alias in node.names]
    if len(names) != 1:
        raise ValueError(
            f"test: imports {', '.join(names) or 'nothing'} from solution, not one name"
        )
    return _Read("pytest functions", names[0], text)


def _functional(row: Mapping) -> _Read | None:
    """Code-r1's assertions, or a `check` that is called with the function at the end."""
    held = row.get("functional")
    text = "\n".join(held) if isinstance(held, list) else held
    if not isinstance(text, str) or not text.strip():
        return None
    body = ast.parse(text).body
    call = body[-1].value if isinstance(body[-1], ast.Expr) else None
    if not (isinstance(call, ast.Call) and ast.unparse(call.func) == "check" and call.args):
        found = _asserted({"test_list": [text]})
        return found and replace(found, form="functional", example="")
    tests = "".join(text.splitlines(keepends=True)[: body[-1].lineno - 1])
    return _Read("functional", ast.unparse(call.args[0]), tests)


def _is_list(value: object) -> bool:
    return isinstance(value, list) or (isinstance(value, str) and value.lstrip().startswith("["))


def _asserted(row: Mapping) -> _Read | None:
    """A list of assertions, of which all call one function that they do not define."""
    held = next((_json(row[n], n) for n in _LISTS if _is_list(row.get(n))), None)
    if not held or not all(isinstance(one, str) and "assert" in one for one in held):
        return None
    called = _called(held)
    common = [n for n in called[0] if all(n in c for c in called) and not hasattr(builtins, n)]
    if not common:
        raise ValueError("assertions: no function that all of them call")
    setup = row.get("test_setup_code") or "\n".join(row.get("test_imports") or ())
    tests = "\n".join([setup, *held]).lstrip() + "\n"
    return _Read(ASSERTIONS, common[0], tests, example=held[0])


_READERS = (_apps, _code_contests, _cases, _kodcode, _functional, _asserted)


def humaneval(row: Mapping) -> Problem:
    """A row of HumanEval, as it is."""
    return Problem(
        row["task_id"], row["prompt"], row["entry_point"], row["test"],
        row["canonical_solution"], "humaneval",
    )  # fmt: skip


def mbpp(row: Mapping) -> Problem:
    """A row of MBPP: its text and first assertion are the prompt, its three assertions the tests.

    The further `challenge_test_list` of 11 rows is not part of the customary tests.
    """
    setup = _unix(row["test_setup_code"])
    return _mbpp(row, row["text"], setup.splitlines(), "mbpp")


def mbpp_sanitized(row: Mapping) -> Problem:
    """A row of the sanitized MBPP, with the imports of its tests."""
    return _mbpp(row, row["prompt"], row["test_imports"], "mbpp-sanitized")


def _mbpp(row: Mapping, text: str, setup: list[str], source: str) -> Problem:
    task_id, code = f"Mbpp/{row['task_id']}", _unix(row["code"])
    tests = [_unix(test) for test in row["test_list"]]
    return Problem(
        task_id,
        docstring(f"{text}\n{tests[0]}"),
        _tested_function(code, tests, task_id),
        "\n".join([*setup, *tests]) + "\n",
        code + "\n",
        source,
    )


def _unix(text: str) -> str:
    return text.replace("\r\n", "\n")


def _tested_function(code: str, tests: list[str], task_id: str) -> str:
    """The function that `code` defines and every one of `tests` calls, the outermost of them."""
    defined = {node.name for node in ast.parse(code).body if isinstance(node, ast.FunctionDef)}
    called = _called(tests)
    common = [name for name in called[0] if name in defined and all(name in c for c in called)]
    if not common:
        raise ValueError(f"{task_id}: no function of the reference is called in all its tests")
    return common[0]


def pro(row: Mapping, source: str) -> Problem:
    """A row of HumanEval Pro or MBPP Pro: a task, and a second one that is solved by calling it.

    Both are told, and the answer is the whole program; the code before the first task's function
    (imports, helpers) and the second one's imports are the prompt's own.
    """
    task_id = f"{'HumanEvalPro' if 'humaneval' in source else 'MbppPro'}/{row['id']}"
    raw, new = _unix(row["raw_problem"]), _unix(row["new_problem"])
    before = re.sub(r"^#.*\n", "", raw[: raw.rfind("\ndef ") + 1], flags=re.MULTILINE)
    imports = re.findall(r"^(?:import|from) .*$", new, re.MULTILINE)
    before = "\n".join([before.strip("\n"), *imports]).strip("\n")
    tasks = f"{raw.strip()}\n\n{new.strip()}"
    told = docstring(f"Solve both tasks, the second one with calls of the first.\n\n{tasks}")
    code = raw + _unix(row["raw_solution"]) + "\n" + new + _unix(row["new_solution"])
    tests = _unix(row["test_code"])
    statements = [ast.unparse(node) for node in ast.parse(tests).body]
    return Problem(
        task_id,
        (f"{before}\n\n\n" if before else "") + told,
        _tested_function(code, statements, task_id),
        tests.strip("\n") + "\n",
        code.strip("\n") + "\n",
        source,
    )


def _called(tests: list[str]) -> list[list[str]]:
    """The names that each of the tests calls, the outermost first."""
    return [
        [
            node.func.id
            for node in ast.walk(ast.parse(test))
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        ]
        for test in tests
    ]


def docstring(text: str) -> str:
    """`text` as a statement of its own that any program may follow."""
    safe = text.replace("\\", "\\\\").replace('"""', '\\"\\"\\"')
    return f'"""\n{safe.strip()}\n"""\n'


def leetcode_dataset(row: Mapping, source: str) -> Problem:
    """A row of LeetCodeDataset: imports and node classes, then the question and its first lines.

    The reference is a whole class; responses too are to give it whole.
    """
    meta = row["meta"]
    question = f"{meta['question_title'].strip()}\n\nStarter code:\n{meta['lang_code'].strip()}"
    return Problem(
        row["task_id"],
        row["prompt"].rstrip("\n") + "\n\n\n" + docstring(question),
        row["entry_point"],
        row["test"],
        row["completion"],
        source,
    )


def leetcode(row: Mapping) -> Problem:
    """A row of DeepSeek's LeetCode contests; there are no references.

    Its bare assertions on one `Solution()` become a `check` of its method; the imports that its
    harness adds become part of the prompt.
    """
    methods = set(re.findall(r"my_solution\.(\w+)\(", row["test"]))
    body = row["test"].replace("my_solution = Solution()\n", "")
    if len(methods) != 1 or "Solution()" in body:
        raise ValueError(f"{row['task_id']}: expected assertions on one method of my_solution")
    (method,) = methods
    body = body.replace(f"my_solution.{method}(", "candidate(").strip("\n")
    return Problem(
        row["task_id"],
        LEETCODE_IMPORTS + row["prompt"],
        f"Solution().{method}",
        "def check(candidate):\n" + textwrap.indent(body, "    ") + "\n",
        source="leetcode",
    )


def codereval(row: Mapping, source: str = "codereval-subset") -> Problem:
    """A row of CoderEval's standalone subset: its test function becomes `check`.

    Where the signature is annotated with names that its file has lost, annotations stay unread.
    """
    imports = row["prefix"].strip("\n")
    prompt = f"{imports}\n\n\n{row['input_raw'].rstrip()}\n".lstrip("\n")
    if _unknown_annotations(prompt):
        prompt = f"from __future__ import annotations\n\n{prompt}"
    head = rf"^def test_+{row['name']}\(\):"
    tests = row["suffix"].partition("\nif __name__")[0]
    body, found = re.subn(head, "def check(candidate):", tests, flags=re.MULTILINE)
    if found != 1:
        raise ValueError(f"{row['_id']}: expected one function test_{row['name']}")
    return Problem(
        row["_id"],
        prompt,
        row["name"],
        f"{imports}\n\n\n{body.strip()}\n".lstrip("\n"),
        "\n\n" + row["reference"],
        source,
    )


def _unknown_annotations(source: str) -> set[str]:
    """Names in the annotations of a function head that nothing in `source` imports."""
    used, imported = set(), set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.arg | ast.FunctionDef):
            shown = node.annotation if isinstance(node, ast.arg) else node.returns
            used |= {n.id for n in ast.walk(shown) if isinstance(n, ast.Name)} if shown else set()
        elif isinstance(node, ast.Import | ast.ImportFrom):
            imported |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
    return used - imported - set(dir(builtins))
