"""Which tasks: who solves what, and which cases are worth a look. Every choice is a rule."""

import ast
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rrtf.evaluate.results import grid, methods
from rrtf.records import Problem, TaskScore
from rrtf.stats import Metric

GAIN, LOSS, WRONG = "largest gain", "largest loss", "all wrong"
LINE = 110  # characters of a task's first line


def evaluated(names: Sequence[str], scores: Sequence[TaskScore]) -> list[str]:
    """`names`, in the place of each that was not evaluated the last that was and is not named."""
    there = methods(scores)
    spare = [name for name in there if name not in names]
    found = [name if name in there else (spare.pop() if spare else "") for name in names]
    return [name for name in found if name]


def solved_rates(scores: Sequence[TaskScore], method: str, metric: Metric) -> dict[str, float]:
    """Task id -> pass@k, averaged over the method's training seeds.

    ValueError if its seeds were scored on different tasks, or it has no such scores.
    """
    return {name: sum(found) / len(found) for name, found in _columns(scores, method, metric)}


def _columns(scores: Sequence[TaskScore], method: str, metric: Metric) -> list[tuple]:
    """(task id, pass@k of every training seed) in order of task id."""
    rows = [r for r in scores if r.model == method and r.temperature == metric.temperature]
    names = sorted({row.task_id for row in rows})
    by_seed = grid(rows, method, metric)
    for seed, values in by_seed.items():
        if len(values) != len(names):
            raise ValueError(
                f"{method}, seed {seed}: {len(values)} of {len(names)} tasks for {metric.name}"
            )
    return list(zip(names, zip(*by_seed.values(), strict=True), strict=True))


def choose(
    scores: Sequence[TaskScore],
    *,
    a: str,
    b: str,
    greedy: Metric,
    sampled: Metric | None = None,
    per_kind: int,
    rivals: Sequence[str] = (),
) -> list[tuple[str, str]]:
    """(kind, task id): where `a` gains most on `b`, loses most, what one rival alone solves, and
    what nobody solves.

    Gain and loss are greedy differences, averaged over seeds; the difference in the share of
    samples that pass, then the task id, break ties. "All wrong" are the tasks no method solves
    greedily with any seed, those with the fewest passing samples first. "Only X" are tasks that X
    alone of the `rivals` solves, those first that the others solve least often in samples. A
    task is shown once, under its first kind; a kind may have fewer than `per_kind` tasks.
    """
    by_method = {name: solved_rates(scores, name, greedy) for name in methods(scores)}
    share = Metric(1, sampled.temperature) if sampled else None
    often = {n: solved_rates(scores, n, share) if share else {} for n in by_method}
    tasks = sorted(by_method[a])
    change = {t: (by_method[a][t] - by_method[b][t], _lead(often, a, [b], t)) for t in tasks}
    gains = sorted((t for t in tasks if change[t][0] > 0), key=lambda t: _down(change[t], t))
    losses = sorted((t for t in tasks if change[t][0] < 0), key=lambda t: (*change[t], t))
    wrong = [t for t in tasks if not any(found.get(t) for found in by_method.values())]
    wrong.sort(key=lambda t: (sum(found.get(t, 0.0) for found in often.values()), t))
    kinds = {GAIN: gains, LOSS: losses}
    for name, others in _others(rivals):
        solved = by_set(scores, rivals, greedy).get((name,), [])
        order = sorted(solved, key=lambda t: (-_lead(often, name, others, t), t))
        kinds[f"only {name}"] = order
    chosen: dict[str, str] = {}
    for kind, names in [*kinds.items(), (WRONG, wrong)]:
        new = [name for name in names if name not in chosen]
        chosen |= dict.fromkeys(new[:per_kind], kind)
    return [(kind, name) for name, kind in chosen.items()]


def _down(change: tuple[float, float], name: str) -> tuple[float, float, str]:
    return -change[0], -change[1], name


def _others(names: Sequence[str]) -> list[tuple[str, list[str]]]:
    return [(name, [other for other in names if other != name]) for name in names]


def _lead(often: Mapping[str, Mapping[str, float]], a: str, others: list[str], task: str) -> float:
    """How much more often samples of `a` pass than those of the best of `others`."""
    return often[a].get(task, 0.0) - max((often[n].get(task, 0.0) for n in others), default=0.0)


def by_set(
    scores: Sequence[TaskScore], names: Sequence[str], metric: Metric
) -> dict[tuple[str, ...], list[str]]:
    """The methods that solve a task -> the tasks, in order of id; every task is in one set.

    A method solves a task if most of its training seeds do (greedily, or with any sample).
    ValueError if the methods were scored on different tasks.
    """
    solvers = {name: _solved(scores, name, metric) for name in names}
    tasks = next(iter(solvers.values()), {})
    for name, solved in solvers.items():
        if solved.keys() != tasks.keys():
            odd = sorted(solved.keys() ^ tasks.keys())[0]
            raise ValueError(f"{names[0]} and {name} were scored on different tasks: {odd}")
    found: dict[tuple[str, ...], list[str]] = {}
    for task in tasks:
        key = tuple(name for name in names if solvers[name][task])
        found.setdefault(key, []).append(task)
    return found


def _solved(scores: Sequence[TaskScore], method: str, metric: Metric) -> dict[str, bool]:
    return {
        name: sum(rate > 0 for rate in found) > len(found) / 2
        for name, found in _columns(scores, method, metric)
    }


def overlap(
    scores: Sequence[TaskScore], names: Sequence[str], metrics: Sequence[Metric]
) -> list[dict[str, Any]]:
    """Tasks by the set of methods that solve them: the rows of the paper's Fig 5.

    A method solves a task if most of its training seeds do (greedily, or with any sample).
    Rows `solved_by`, then one count per metric; every subset of `names` has a row.
    """
    found = {metric.name: by_set(scores, names, metric) for metric in metrics}
    return [
        {"solved_by": list(subset)} | {n: len(sets.get(subset, ())) for n, sets in found.items()}
        for subset in _subsets(names)
    ]


def _subsets(names: Sequence[str]) -> list[tuple[str, ...]]:
    """Every subset, single names first, the empty one last."""
    masks = sorted(range(1, 2 ** len(names)), key=lambda mask: (mask.bit_count(), mask))
    return [tuple(n for bit, n in enumerate(names) if mask >> bit & 1) for mask in [*masks, 0]]


def regions(rows: Sequence[Mapping[str, Any]], column: str) -> dict[tuple[str, ...], int]:
    """Rows of `overlap` (or of the paper's Fig 5) as solvers -> count."""
    return {tuple(row["solved_by"]): row[column] for row in rows}


def solved_counts(rows: Sequence[Mapping[str, Any]], column: str) -> dict[str, int]:
    """Method -> number of tasks it solves, from the rows of `overlap`."""
    counts: Counter = Counter()
    for row in rows:
        counts.update({name: row[column] for name in row["solved_by"]})
    return dict(counts)


def alone(
    scores: Sequence[TaskScore],
    names: Sequence[str],
    metric: Metric,
    problems: Sequence[Problem] = (),
) -> list[dict[str, str]]:
    """The tasks that some of `names` solve and others do not: one row per task.

    Tasks of single methods first, then those that only a pair solves; `task` is the first line
    of its prompt where `problems` are given. A method solves a task if most of its seeds do.
    """
    lines = {problem.task_id: first_line(problem) for problem in problems}
    found = by_set(scores, names, metric)
    rows = []
    for subset in _subsets(names):
        if 0 < len(subset) < len(names):
            for name in found.get(subset, []):
                row = {"solved only by": " and ".join(subset), "task_id": name}
                rows.append(row | ({"task": lines.get(name, "")} if problems else {}))
    return rows


def first_line(problem: Problem) -> str:
    """What a task asks, on one line: its docstring up to the examples, cut at LINE characters."""
    text = " ".join(_question(problem).partition(">>>")[0].split())
    return text if len(text) <= LINE else text[: LINE - 2].rsplit(" ", 1)[0] + " …"


def _question(problem: Problem) -> str:
    """The docstring of the function asked for, else the last text of the prompt, else all of it."""
    name = problem.entry_point.rpartition(".")[2]
    for end in ("", "\n    pass\n", "\n        pass\n"):
        try:
            tree = ast.parse(problem.prompt.rstrip() + end)
        except SyntaxError:
            continue
        nodes = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name == name]
        texts = [ast.get_docstring(node) for node in nodes]
        texts += [n.value.value for n in tree.body[::-1] if _is_text(n)]
        return next((text for text in texts if text), problem.prompt)
    return problem.prompt


def _is_text(node: ast.stmt) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )
