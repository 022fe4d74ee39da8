"""One task on a sheet: what was asked, every answer, its first failing test and the difference."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rrtf.cases import difference, replay
from rrtf.records import Execution, Outcome, Problem, Response
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
    fails). A task of the kind "only X" also shows X. `call` is `rrtf.sandbox.call`: failing
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
    """One dict per task, as `figures.sheet` draws it: texts, and values in marked pieces."""
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
    expected, returned = difference.marked(case.expected, case.returned, tolerance=case.tolerance)
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
