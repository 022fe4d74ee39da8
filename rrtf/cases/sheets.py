"""One task on a sheet: what was asked, every answer, its first failing test and the difference."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rrtf.cases import replay
from rrtf.records import Execution, Outcome, Problem, Response
from rrtf.sandbox.wire import REASONS
from rrtf.stats import parse_label


@dataclass(frozen=True, slots=True)
class Case:
    """One model's greedy answer to a chosen task and the first test it fails.

    The fields from `how` on are those of `replay.Failure`, empty for an answer that passes.
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
    how: str = ""
    test: int = 0
    assertion: str = ""
    called: str = ""
    expected: str = ""
    returned: str = ""
    tolerance: float = 0.0
    said: str = ""


_COPIED = ("how", "test", "assertion", "called", "expected", "returned", "tolerance", "said")


def describe(
    chosen: Sequence[tuple[str, str]],
    problems: Sequence[Problem],
    responses: Sequence[Response],
    executions: Sequence[Execution],
    call: Callable[..., list[tuple]],
    *,
    shown: Sequence[str],
) -> list[Case]:
    """The greedy answers of the `shown` methods to the chosen tasks.

    Of a method with several trainings the first is shown that ends as most of them do (passes or
    fails). A task of the kind "only X" also shows X. `call` is `executor.call`: failing
    answers run there once more, up to the test they fail. Methods without an answer are left out.
    """
    tasks = {problem.task_id: problem for problem in problems}
    answers = _greedy(responses, executions)
    wanted = []
    for kind, name in chosen:
        for method in dict.fromkeys([*shown, kind.removeprefix("only ")]):
            if (method, name) in answers:
                trainings = answers[method, name]
                seed = typical({at: run.outcome for at, (_, run) in trainings.items()})
                wanted.append((kind, (method, seed, len(trainings)), *trainings[seed]))
    found = {
        (failure.task_id, failure.source): failure
        for failure in replay.failures(
            problems, [row[2] for row in wanted], [row[3] for row in wanted], call
        )
    }
    cases = []
    for kind, training, text, run in wanted:
        failure, problem = found.get((run.task_id, run.source)), tasks[run.task_id]
        told = {name: getattr(failure, name) for name in _COPIED} if failure else {}
        cases.append(
            Case(kind, run.task_id, problem.prompt, problem.reference, *training,
                 text.text, run.outcome, run.reason, run.n_passed, run.n_tests, **told)
        )  # fmt: skip
    return cases


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
    expected, returned = replay.marked(case.expected, case.returned, tolerance=case.tolerance)
    if not (case.expected and case.returned):
        expected, returned = [(case.expected, False)], [(case.returned, False)]
    return {
        "name": case.model + (f"\nseed {case.seed}" if case.n_seeds > 1 else ""),
        "answer": case.answer.strip("\n"),
        "verdict": verdict(case),
        "test": "\n".join(filter(None, [case.assertion, case.called])),
        "expected": expected if case.expected else [],
        "returned": returned if case.returned else [],
        "said": case.said,
    }


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
_SLOW = ("cpu_time", "wall_time")
_NAME = ("NameError", "UnboundLocalError", "AttributeError", "ImportError", "ModuleNotFoundError")
_TYPE = ("TypeError", "ValueError")
_NUMBERS = frozenset(("int", "float", "complex"))


def kind(run: Execution, failure: replay.Failure | None = None) -> str:
    """Which of KINDS an answer is.

    The judge reports a wrong type only for values that are no plain data; what else the first
    failing test was given is known from its `failure`, and without it counts as a wrong value.
    """
    if run.outcome == Outcome.PASS:
        return "passes"
    if run.outcome == Outcome.COMPILE_ERROR:
        return "no program"
    if run.reason in _SLOW:
        return "too slow"
    if run.outcome == Outcome.FAILED_TESTS:
        return _wrong(run, failure)
    if run.reason in REASONS or run.reason.startswith("signal_"):
        return "stopped"
    if run.reason in _NAME:
        return "name error"
    return "type error" if run.reason in _TYPE else "other error"


def _wrong(run: Execution, failure: replay.Failure | None) -> str:
    if run.reason == "wrong_type" or (failure and returned(failure) in ("None", "another type")):
        return "wrong type"
    if run.reason != "wrong_value":
        return "some tests raise"
    return "some tests wrong" if run.n_passed else "all tests wrong"


def returned(failure: replay.Failure) -> str:
    """What the first failing test was given: None, another type, a wrong value, or nothing."""
    if len(failure.types) != 2:
        return {replay.VALUE: "wrong value"}.get(failure.how, "nothing")
    wanted, got = failure.types
    if wanted == got or {wanted, got} <= _NUMBERS:
        return "wrong value"
    return "None" if got == "NoneType" else "another type"


def taxonomy(
    executions: Sequence[Execution],
    *,
    shown: Sequence[str],
    failures: Sequence[replay.Failure] = (),
) -> dict[str, dict[str, int]]:
    """`method, greedy` or `method, T=0.8` -> kind -> number of answers, over all training seeds.

    Every row has all KINDS and adds up to the number of its answers. `shown` picks and orders
    methods (all, as they come, where empty). `failures` of the first failing tests refine the
    kinds (see `kind`); give all of an answer's group or none, else groups do not compare.
    """
    known = {(f.task_id, f.source, f.index): f for f in failures}
    counts: dict[tuple[str, float], Counter] = {}
    for run in executions:
        method, _, temperature = parse_label(run.source)
        found = kind(run, known.get((run.task_id, run.source, run.index)))
        counts.setdefault((method, temperature), Counter())[found] += 1
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


def given(failures: Sequence[replay.Failure]) -> list[dict[str, Any]]:
    """What the first failing tests were given, counted per method; rows add up to `failing`."""
    counts: dict[str, Counter] = {}
    for failure in failures:
        method = parse_label(failure.source)[0]
        counts.setdefault(method, Counter())[returned(failure)] += 1
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
