"""One task on a sheet: what was asked, every answer, its first failing test and the difference."""

import ast
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any

from rrtf.records import Execution, Outcome, Problem, Response
from rrtf.sandbox.wire import REASONS
from rrtf.stats import parse_label

Pieces = list[tuple[str, bool]]
LONG = 600  # characters of an assertion that are shown

CLOSE = 1e-6  # relative difference of numbers that count as equal beside others that do not
_STRING = r"""'(?:[^'\\\n]|\\.)*'|"(?:[^"\\\n]|\\.)*\""""
_NUMBER = r"(?<![\w.])-?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?"
_TOKEN = re.compile(rf"({_STRING})|({_NUMBER})|(\w+)|(.)", re.DOTALL)
_INSIDE = re.compile(r"\\.|.", re.DOTALL)
_SIGN = re.compile(r"within (\S+) of |(?:[<>!]=?|is not|in|not in|holding|not holding) ")


@dataclass(frozen=True, slots=True)
class Case:
    """One model's greedy answer to a chosen task and the first test it fails.

    The fields from `test` on are those of its `Execution`, and `assertion` the statement on the
    line that is named there; empty for an answer that passes.
    """

    kind: str
    task_id: str
    prompt: str
    reference: str
    model: str
    seed: int
    n_seeds: int
    answer: str
    outcome: Outcome
    reason: str
    n_passed: int
    n_tests: int
    test: int = 0
    assertion: str = ""
    called: str = ""
    expected: str = ""
    got: str = ""


def describe(
    chosen: Sequence[tuple[str, str]],
    problems: Sequence[Problem],
    responses: Sequence[Response],
    executions: Sequence[Execution],
    *,
    shown: Sequence[str],
) -> list[Case]:
    """The greedy answers of the `shown` methods to the chosen tasks.

    Of a method with several trainings the first is shown that ends as most of them do (passes or
    fails). A task of the kind "only X" also shows X. Methods without an answer are left out.
    """
    tasks = {problem.task_id: problem for problem in problems}
    answers = _greedy(responses, executions)
    cases = []
    for kind, name in chosen:
        for method in dict.fromkeys([*shown, kind.removeprefix("only ")]):
            if (method, name) not in answers:
                continue
            trainings, task = answers[method, name], tasks[name]
            seed = typical({at: run.outcome for at, (_, run) in trainings.items()})
            text, run = trainings[seed]
            told = (run.failed_test, assertion(task.tests, run), run.called, run.expected, run.got)
            cases.append(
                Case(kind, name, task.prompt, task.reference, method, seed, len(trainings),
                     text.text, run.outcome, run.reason, run.n_passed, run.n_tests, *told)
            )  # fmt: skip
    return cases


def assertion(tests: str, run: Execution) -> str:
    """The statement of the tests that failed first, of one that holds others its first line."""
    lines = tests.splitlines()
    if not 0 < run.failed_line <= len(lines):
        return ""
    text = lines[run.failed_line - 1].strip()
    try:
        nodes = [n for n in ast.walk(ast.parse(tests)) if isinstance(n, ast.Assert)]
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        nodes = []
    here = (ast.get_source_segment(tests, n) for n in nodes if n.lineno == run.failed_line)
    text = next(here, None) or text
    return text if len(text) <= LONG else text[:LONG] + " …"


def typical(outcomes: Mapping[int, Outcome]) -> int:
    """The first seed whose outcome passes or fails as most do; an even split counts as failing."""
    passes = [seed for seed, outcome in outcomes.items() if outcome == Outcome.PASS]
    most = 2 * len(passes) > len(outcomes)
    return min(seed for seed in outcomes if (seed in passes) == most)


def _greedy(
    responses: Sequence[Response], executions: Sequence[Execution]
) -> dict[tuple[str, str], dict[int, tuple[Response, Execution]]]:
    """(method, task id) -> training seed -> (its greedy answer, the verdict)."""
    texts = {(r.task_id, r.source): r for r in responses if not r.index}
    found: dict[tuple[str, str], dict[int, tuple[Response, Execution]]] = {}
    for run in executions:
        method, seed, temperature = parse_label(run.source)
        text = texts.get((run.task_id, run.source))
        if not (run.index or temperature) and text:
            found.setdefault((method, run.task_id), {})[seed] = (text, run)
    return found


def first_answers(
    responses: Sequence[Response], executions: Sequence[Execution], shown: Sequence[str]
) -> tuple[list[Response], list[Execution]]:
    """The greedy answers of the `shown` methods' first trainings, and their verdicts."""
    found = _greedy(responses, executions)
    pairs = [answers[min(answers)] for (name, _), answers in found.items() if name in shown]
    return [response for response, _ in pairs], [run for _, run in pairs]


def sheets(cases: Sequence[Case]) -> list[dict[str, Any]]:
    """One dict per task, as `tables.sheet` draws it: texts, and values in marked pieces."""
    groups: dict[tuple[str, str], list[Case]] = {}
    for case in cases:
        groups.setdefault((case.kind, case.task_id), []).append(case)
    return [
        {
            "title": f"{kind}: {task_id}",
            "task": group[0].prompt.rstrip("\n"),
            "reference": group[0].reference.rstrip("\n"),
            "answers": [answer(case) for case in group],
        }
        for (kind, task_id), group in groups.items()
    ]


def answer(case: Case) -> dict[str, Any]:
    """One answer of a sheet: verdict, failing test, and expected and returned side by side."""
    came = _is_value(case.got)
    both = case.expected and case.got and came
    pieces = [(case.expected, False)] if case.expected else [], [(case.got, False)] if came else []
    expected, returned = marked(case.expected, case.got) if both else pieces
    called = "" if case.called.partition("(")[2] in case.assertion else case.called
    return {
        "name": case.model + (f"\nseed {case.seed}" if case.n_seeds > 1 else ""),
        "answer": case.answer.strip("\n"),
        "verdict": verdict(case),
        "test": "\n".join(filter(None, [case.assertion, called])),
        "expected": expected,
        "returned": returned,
        "said": _said(case, came),
    }


def _said(case: Case, came: bool) -> str:
    """In words why no value came, where none did."""
    known = "signal" if case.reason.startswith("signal") else case.reason
    meaning = REASONS.get(known, ("", ""))[1] if case.reason else ""
    if case.got.startswith("raises"):
        return case.got
    return "" if came or case.outcome == Outcome.PASS else meaning or case.reason


def _is_value(text: str) -> bool:
    """Whether `got` of a verdict is a value, and not an exception or what stopped the program."""
    return bool(text) and not text.startswith(("raises ", "stopped: "))


def marked(expected: str, got: str) -> tuple[Pieces, Pieces]:
    """Both texts in pieces of (text, whether it differs).

    Strings are compared by character, everything else by word and number. Numbers that differ by
    at most the tolerance of the test, or by a millionth, are not marked beside others that differ
    by more.
    """
    sign = _SIGN.match(expected)
    tolerance = float(sign.group(1) or 0) if sign else 0.0
    before = sign.group() if sign else ""
    a, b = _tokens(expected[len(before) :]), _tokens(got)
    matcher = SequenceMatcher(None, a, b, autojunk=False)
    blocks = [(i, j, k, n) for tag, i, j, k, n in matcher.get_opcodes() if tag != "equal"]
    if matcher.ratio() < 0.5:
        blocks = _one_block(a, b)
    apart = [pair for block in blocks for pair in _apart(a, b, block, tolerance)] or [
        pair for block in blocks for pair in _whole(block)
    ]
    left, right = _pieces(a, {i for i, _ in apart}), _pieces(b, {j for _, j in apart})
    return [(before, False)] * bool(before) + left, right


def _tokens(text: str) -> list[str]:
    found = []
    for match in _TOKEN.finditer(text):
        string = match.group(1)
        found += _INSIDE.findall(string) if string else [match.group()]
    return found


def _one_block(a: Sequence[str], b: Sequence[str]) -> list[tuple[int, int, int, int]]:
    """Everything between the common beginning and the common end."""
    start = end = 0
    shorter = min(len(a), len(b))
    while start < shorter and a[start] == b[start]:
        start += 1
    while end < shorter - start and a[-1 - end] == b[-1 - end]:
        end += 1
    block = (start, len(a) - end, start, len(b) - end)
    return [block] if block[0] < block[1] or block[2] < block[3] else []


def _whole(block: tuple[int, int, int, int]) -> list[tuple[int, int]]:
    """(place in the one or -1, place in the other or -1) of everything in a block."""
    i, j, k, n = block
    return [(at, -1) for at in range(i, j)] + [(-1, at) for at in range(k, n)]


def _apart(
    a: Sequence[str], b: Sequence[str], block: tuple[int, int, int, int], tolerance: float
) -> list[tuple[int, int]]:
    i, j, k, n = block
    if j - i != n - k:
        return _whole(block)
    pairs = zip(range(i, j), range(k, n), strict=True)
    return [(x, y) for x, y in pairs if a[x] != b[y] and not _close(a[x], b[y], tolerance)]


def _close(a: str, b: str, tolerance: float) -> bool:
    try:
        return math.isclose(float(a), float(b), rel_tol=CLOSE, abs_tol=tolerance)
    except ValueError:
        return False


def _pieces(tokens: Sequence[str], apart: set[int]) -> Pieces:
    pieces: Pieces = []
    for at, token in enumerate(tokens):
        differs = at in apart
        if pieces and pieces[-1][1] == differs:
            pieces[-1] = (pieces[-1][0] + token, differs)
        else:
            pieces.append((token, differs))
    return pieces


def verdict(case: Case) -> str:
    """The judge's word and which test failed, in one sentence."""
    situation = case.outcome.name.replace("_", " ").lower()
    if case.outcome == Outcome.PASS:
        return f"passes all {case.n_tests} tests"
    held = f"{case.n_passed} of {case.n_tests} tests hold"
    which = f"; the first that fails is test {case.test}" if case.test else ""
    return f"{situation} ({case.reason}): {held}{which}"


# Every answer is of one kind; the order is from right to hopeless.
KINDS = {
    "passes": "every test holds",
    "some tests wrong": "runs; some tests hold, the first that fails compares a wrong value",
    "all tests wrong": "runs; no test holds, the first compares a wrong value",
    "wrong type": "the first failing test is given None, or another type than it expects",
    "some tests raise": "the first failing test raises, others do not",
    "name error": "cannot run: an unknown name, attribute or module",
    "type error": "cannot run: TypeError, ValueError",
    "other error": "cannot run: any other exception",
    "too slow": "ran out of CPU time or waited too long",
    "stopped": "memory, output, a refused call, an early exit, a signal",
    "no program": "does not compile, or does not define the function",
}
_SLOW = ("cpu_time", "wall_time", "starved")
_NAME = ("NameError", "UnboundLocalError", "AttributeError", "ImportError", "ModuleNotFoundError")
_TYPE = ("TypeError", "ValueError")
_NUMBERS = frozenset(("int", "float", "complex"))


def kind(run: Execution) -> str:
    """Which of KINDS an answer is.

    A wrong type is what the tests could not use, or another type than they expected.
    """
    if run.outcome == Outcome.PASS:
        return "passes"
    if run.outcome == Outcome.COMPILE_ERROR:
        return "no program"
    if run.reason in _SLOW:
        return "too slow"
    if run.outcome == Outcome.FAILED_TESTS:
        if run.reason == "wrong_type" or returned(run) in ("None", "another type"):
            return "wrong type"
        if run.reason != "wrong_value":
            return "some tests raise"
        return "some tests wrong" if run.n_passed else "all tests wrong"
    if run.reason in REASONS or run.reason.startswith("signal_"):
        return "stopped"
    if run.reason in _NAME:
        return "name error"
    return "type error" if run.reason in _TYPE else "other error"


def returned(run: Execution) -> str:
    """What the first failing test was given: None, another type, a wrong value, or nothing."""
    if not _is_value(run.got):
        return "nothing"
    wanted, got = _type(run.expected), _type(run.got)
    if not wanted or not got or wanted == got or {wanted, got} <= _NUMBERS:
        return "wrong value"
    return "None" if got == "NoneType" else "another type"


def _type(text: str) -> str:
    """The type's name of a value as the judge shows it; '' where it shows none."""
    if not text or _SIGN.match(text) or text[0] == "…" or text in ("a true value", "a false value"):
        return ""
    try:
        return type(ast.literal_eval(text)).__name__
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        first = {"'": "str", '"': "str", "[": "list", "(": "tuple", "{": "dict"}.get(text[0])
        return first or re.match(r"<?\w*", text).group()


def taxonomy(executions: Sequence[Execution], *, shown: Sequence[str]) -> dict[str, dict[str, int]]:
    """`method, greedy` or `method, T=0.8` -> kind -> number of answers, over all training seeds.

    Every row has all KINDS and adds up to the number of its answers. `shown` picks and orders
    methods (all, as they come, where empty).
    """
    counts: dict[tuple[str, float], Counter] = {}
    for run in executions:
        method, _, temperature = parse_label(run.source)
        counts.setdefault((method, temperature), Counter())[kind(run)] += 1
    order = list(shown) or list(dict.fromkeys(method for method, _ in counts))
    keys = sorted((key for key in counts if key[0] in order), key=lambda k: (order.index(k[0]), k))
    return {
        f"{method}, " + (f"T={warmth:g}" if warmth else "greedy"): {
            name: counts[method, warmth][name] for name in KINDS
        }
        for method, warmth in keys
    }


def taxonomy_rows(found: Mapping[str, Mapping[str, int]]) -> list[dict[str, Any]]:
    """`taxonomy` as a table: one row per kind that occurs, one column per group, then the sum."""
    rows: list[dict[str, Any]] = []
    for name, meaning in KINDS.items():
        counts = {group: kinds[name] for group, kinds in found.items()}
        if any(counts.values()):
            rows.append({"kind": name, **counts, "meaning": meaning})
    sums = {group: sum(kinds.values()) for group, kinds in found.items()}
    return [*rows, {"kind": "all answers", **sums, "meaning": ""}]


def given(executions: Sequence[Execution], *, shown: Sequence[str]) -> list[dict[str, Any]]:
    """What first failing tests of greedy answers were given, a row for each method of `shown`.

    Over all trainings; rows add up to `failing`.
    """
    counts: dict[str, Counter] = {name: Counter() for name in shown}
    for run in executions:
        method, _, temperature = parse_label(run.source)
        if method in counts and not temperature and run.outcome != Outcome.PASS:
            counts[method][returned(run)] += 1
    columns = ("wrong value", "another type", "None", "nothing")
    return [
        {"model": method, **{name: found[name] for name in columns}, "failing": found.total()}
        for method, found in counts.items()
    ]


def changes(
    executions: Sequence[Execution], *, before: str, after: str, temperature: float = 0.0
) -> list[dict[str, Any]]:
    """Which outcome becomes which: a row per outcome of `before`, a column per one of `after`.

    Answers are paired by task and index; every training of `after` is compared with the training
    of `before` of the same seed, or with its first where there is none. ValueError if an answer
    of `after` has no counterpart.
    """
    runs: dict[str, dict[int, dict[tuple[str, int], Outcome]]] = {before: {}, after: {}}
    for run in executions:
        method, seed, warmth = parse_label(run.source)
        if method in runs and warmth == temperature:
            runs[method].setdefault(seed, {})[run.task_id, run.index] = run.outcome
    first = min(runs[before], default=None)
    counts: Counter = Counter()
    for seed, answers in runs[after].items():
        partner = runs[before].get(seed, runs[before].get(first, {}))
        for key, outcome in answers.items():
            if key not in partner:
                raise ValueError(f"{key[0]}: {after} answered it, {before} did not")
            counts[partner[key], outcome] += 1
    return [_row(name, counts, before, after) for name in sorted(Outcome, reverse=True)]


def _row(outcome: Outcome, counts: Counter, before: str, after: str) -> dict[str, Any]:
    cells = {f"{after}: {o.name}": counts[outcome, o] for o in sorted(Outcome, reverse=True)}
    return {before: outcome.name, **cells, "all": sum(cells.values())}


def outcomes(executions: Sequence[Execution], temperature: float) -> dict[str, dict[str, int]]:
    """Method -> outcome -> count, over all seeds, of the answers drawn at `temperature`."""
    counts: dict[str, Counter] = {}
    for run in executions:
        method, _, warmth = parse_label(run.source)
        if warmth == temperature:
            counts.setdefault(method, Counter())[run.outcome.name] += 1
    return {method: dict(found) for method, found in counts.items()}


def reasons(
    executions: Sequence[Execution], temperature: float, *, shown: Sequence[str]
) -> list[dict[str, Any]]:
    """Why answers fail: outcome and reason with the share of each method's answers, in percent."""
    counts: dict[tuple[str, str], Counter] = {}
    totals: Counter = Counter()
    for run in executions:
        method, _, warmth = parse_label(run.source)
        if warmth == temperature and method in shown:
            totals[method] += 1
            if run.outcome != Outcome.PASS:
                key = (run.outcome.name, run.reason)
                counts.setdefault(key, Counter())[method] += 1
    order = sorted(counts, key=lambda key: (-counts[key].total(), key))
    return [
        {"outcome": outcome, "reason": reason, **_shares(counts[outcome, reason], totals, shown)}
        for outcome, reason in order
    ]


def _shares(found: Counter, totals: Mapping[str, int], shown: Sequence[str]) -> dict[str, float]:
    return {name: 100 * found[name] / totals[name] for name in shown if totals[name]}
