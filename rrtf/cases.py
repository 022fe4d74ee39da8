"""Single tasks, chosen by rule: who solves what, where an answer fails, how often and why.

The paper shows three hand-picked tasks (Figs 6 to 8) and one overlap of solved sets (Fig 5);
here both come from the scores, so that nobody chooses the flattering ones.
"""

import ast
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rrtf.metrics import Metric, grid, label, methods, parse_label
from rrtf.records import Execution, Outcome, Problem, Response, TaskScore

KINDS = ("largest gain", "largest loss", "all wrong")


@dataclass(frozen=True, slots=True)
class Case:
    """One model's greedy answer to a chosen task; `failing_test` is the first that fails."""

    kind: str
    task_id: str
    prompt: str
    reference: str
    model: str
    seed: int
    answer: str
    outcome: Outcome
    reason: str
    n_passed: int
    n_tests: int
    failing_test: str


def rates(scores: Sequence[TaskScore], method: str, metric: Metric) -> dict[str, float]:
    """Task id -> pass@k, averaged over the method's training seeds."""
    names = sorted({row.task_id for row in scores})
    by_seed = grid(scores, method, metric).values()
    columns = zip(*by_seed, strict=True)
    return {name: sum(task) / len(task) for name, task in zip(names, columns, strict=True)}


def choose(
    scores: Sequence[TaskScore],
    *,
    a: str,
    b: str,
    greedy: Metric,
    sampled: Metric,
    per_kind: int,
) -> list[tuple[str, str]]:
    """(kind, task id): where `a` gains most on `b`, loses most, and what nobody solves.

    Gain and loss are greedy differences, averaged over seeds; the sampled difference, then the
    task id, break ties. "All wrong" are the tasks no method solves greedily with any seed, those
    with the fewest passing samples first. A kind may have fewer than `per_kind` tasks.
    """
    changes = {}
    before, after = (rates(scores, name, greedy) for name in (b, a))
    before_often, after_often = (rates(scores, name, sampled) for name in (b, a))
    for name in before:
        changes[name] = (after[name] - before[name], after_often[name] - before_often[name])
    gains = sorted((n for n in changes if changes[n][0] > 0), key=lambda n: _down(changes[n], n))
    losses = sorted((n for n in changes if changes[n][0] < 0), key=lambda n: (*changes[n], n))
    solved = {name: 0.0 for name in changes}
    often = dict(solved)
    for method in methods(scores):
        for name, rate in rates(scores, method, greedy).items():
            solved[name] += rate
        for name, rate in rates(scores, method, sampled).items():
            often[name] += rate
    wrong = sorted((n for n in solved if not solved[n]), key=lambda n: (often[n], n))
    chosen = zip(KINDS, (gains, losses, wrong), strict=True)
    return [(kind, name) for kind, names in chosen for name in names[:per_kind]]


def _down(change: tuple[float, float], name: str) -> tuple[float, float, str]:
    return -change[0], -change[1], name


def examples(problem: Problem) -> list[tuple[tuple, Any]]:
    """(arguments, expected value) of every literal `assert candidate(...) == ...` of the tests."""
    found = []
    for node in ast.walk(ast.parse(problem.tests)):
        match node:
            case ast.Assert(
                test=ast.Compare(
                    left=ast.Call(func=ast.Name(id="candidate"), args=args, keywords=[]),
                    ops=[ast.Eq()],
                    comparators=[expected],
                )
            ):
                try:
                    found.append(
                        (tuple(ast.literal_eval(a) for a in args), ast.literal_eval(expected))
                    )
                except ValueError:
                    continue
    return found


def failing_test(problem: Problem, results: Sequence[Any]) -> str:
    """The first example that `results` get wrong, as text; empty if all are right.

    `results` are the sandbox's answers to `examples`, in that order, each with `value`, `error`.
    """
    for (args, expected), result in zip(examples(problem), results, strict=True):
        shown = f"{problem.entry_point}({', '.join(map(repr, args))}) == {expected!r}"
        if result.error:
            return f"{shown}\nraises {result.error}"
        if result.value != expected:
            return f"{shown}\nreturns {result.value!r}"
    return ""


def describe(
    chosen: Sequence[tuple[str, str]],
    problems: Sequence[Problem],
    responses: Sequence[Response],
    executions: Sequence[Execution],
    call: Callable[..., list[tuple]],
    *,
    shown: Sequence[str],
) -> list[Case]:
    """The greedy answers of the `shown` methods (first training seed) to the chosen tasks.

    `call` is `rrtf.sandbox.call`: failing answers run there once more, to name the test.
    """
    tasks = {problem.task_id: problem for problem in problems}
    texts = {(r.task_id, r.source): r for r in responses if r.index == 0}
    verdicts = {(e.task_id, e.source): e for e in executions if e.index == 0}
    seeds = first_seeds(executions)
    cases = []
    for kind, name in chosen:
        for method in shown:
            if method not in seeds:
                continue
            key = (name, label(method, seeds[method], 0.0))
            text, verdict, problem = texts[key], verdicts[key], tasks[name]
            broken = ""
            if verdict.outcome != Outcome.PASS and examples(problem):
                inputs = [args for args, _ in examples(problem)]
                broken = failing_test(
                    problem, call([(text.program, problem.entry_point)], inputs)[0]
                )
            cases.append(
                Case(kind, name, problem.prompt, problem.reference, method, seeds[method],
                     text.text, verdict.outcome, verdict.reason, verdict.n_passed,
                     verdict.n_tests, broken)
            )  # fmt: skip
    return cases


def first_seeds(executions: Sequence[Execution]) -> dict[str, int]:
    """Method -> its smallest training seed."""
    seeds: dict[str, int] = {}
    for source in dict.fromkeys(run.source for run in executions):
        method, seed, _ = parse_label(source)
        seeds[method] = min(seed, seeds.get(method, seed))
    return seeds


def overlap(
    scores: Sequence[TaskScore], names: Sequence[str], metrics: Sequence[Metric]
) -> list[dict[str, Any]]:
    """Tasks by the set of methods that solve them: the rows of the paper's Fig 5.

    A method solves a task if most of its training seeds do (greedily, or with any sample).
    Rows `solved_by`, then one count per metric; every subset of `names` has a row.
    """
    subsets = [
        tuple(name for bit, name in enumerate(names) if mask >> bit & 1)
        for mask in range(1, 2 ** len(names))
    ]
    rows: list[dict[str, Any]] = [{"solved_by": list(subset)} for subset in [*subsets, ()]]
    for metric in metrics:
        solvers = {name: _solved(scores, name, metric) for name in names}
        tasks = next(iter(solvers.values()))
        counts = Counter(tuple(name for name in names if solvers[name][task]) for task in tasks)
        for row in rows:
            row[metric.name] = counts[tuple(row["solved_by"])]
    return rows


def regions(rows: Sequence[Mapping[str, Any]], column: str) -> dict[tuple[str, ...], int]:
    """Rows of `overlap` (or of the paper's Fig 5) as solvers -> count."""
    return {tuple(row["solved_by"]): row[column] for row in rows}


def solved_counts(rows: Sequence[Mapping[str, Any]], column: str) -> dict[str, int]:
    """Method -> number of tasks it solves, from the rows of `overlap`."""
    counts: Counter = Counter()
    for row in rows:
        counts.update({name: row[column] for name in row["solved_by"]})
    return dict(counts)


def side_by_side(group: Sequence[Case]) -> list[dict[str, str]]:
    """The cases of one task as table rows: the task and its reference, then every answer."""
    first = group[0]
    task = {"model": "task", "answer": first.prompt + first.reference, "outcome": "", "test": ""}
    return [task] + [
        {
            "model": case.model,
            "answer": case.answer.strip("\n") + "\n",
            "outcome": f"{case.outcome.name}\n{case.reason}\n{case.n_passed} of {case.n_tests}",
            "test": case.failing_test,
        }
        for case in group
    ]


def _solved(scores: Sequence[TaskScore], method: str, metric: Metric) -> dict[str, bool]:
    names = sorted({row.task_id for row in scores})
    columns = list(zip(*grid(scores, method, metric).values(), strict=True))
    return {
        name: sum(rate > 0 for rate in task) > len(task) / 2
        for name, task in zip(names, columns, strict=True)
    }


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
