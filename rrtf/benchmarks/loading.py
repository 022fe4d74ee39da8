"""A benchmark by its name: its problems, and the tasks that are refused, each with its reason."""

import ast
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from rrtf import sandbox
from rrtf.benchmarks import catalogue, plus, tasks
from rrtf.records import Outcome, Problem, Response

_TASKS: dict[str, Callable[[dict], Problem]] = {
    "humaneval": tasks.humaneval,
    "mbpp": tasks.mbpp,
    "mbpp-sanitized": tasks.mbpp_sanitized,
    "leetcode": tasks.leetcode,
    "leetcode-v0.2-train": partial(tasks.leetcode_dataset, source="leetcode-v0.2-train"),
    "leetcode-v0.3-test": partial(tasks.leetcode_dataset, source="leetcode-v0.3-test"),
}
_PLUS = ("humaneval+", "mbpp+")
_CPU_SECONDS, _WALL_SECONDS = 10.0, 30.0  # for a reference


def load(name: str, *, data: Path | None = None) -> list[Problem]:
    """The problems of a benchmark, in the order of its rows.

    Rows are looked for in the folder `data`, in `$RRTF_DATA`, in the Hugging Face cache and on the
    hub. Of codereval-subset only the tasks whose reference passes in the sandbox are there;
    `refused` says why the others are not. ValueError for an unknown name, wrong rows or a wrong
    hash; FileNotFoundError with the places looked at; RuntimeError if a reference of the plus sets
    gives no value, or no sandbox can be started.
    """
    if name in _PLUS:
        return plus.problems(catalogue.rows(name, data), name)
    if name == "codereval-subset":
        return _codereval(data)[0]
    return [_TASKS[catalogue.entry(name).name](row) for row in catalogue.rows(name, data)]


def refused(name: str, *, data: Path | None = None) -> dict[str, str]:
    """Tasks of a benchmark that `load` leaves out: task_id -> why they cannot be judged here."""
    return _codereval(data)[1] if catalogue.entry(name).name == "codereval-subset" else {}


def omitted(problems: Sequence[Problem]) -> dict[str, str]:
    """Problems of the plus sets whose tests lack inputs, and the line of the tests that says so."""
    return {
        problem.task_id: problem.tests.partition("\n")[0].removeprefix("# ")
        for problem in problems
        if problem.tests.startswith("# ") and " inputs are left out" in problem.tests[:200]
    }


def _codereval(data: Path | None) -> tuple[list[Problem], dict[str, str]]:
    """(problems whose reference passes in the sandbox, reasons of the others)."""
    problems = [tasks.codereval(row) for row in catalogue.rows("codereval-subset", data)]
    reasons: dict[str, str] = {}
    for problem in problems:
        if foreign := _foreign_imports(problem.tests + problem.reference):
            what = ", ".join(foreign)
            reasons[problem.task_id] = f"needs {what}: candidates have the standard library only"
    runnable = [problem for problem in problems if problem.task_id not in reasons]
    answers = [Response(p.task_id, "reference", 0, "", p.prompt + p.reference) for p in runnable]
    for found in sandbox.execute(
        runnable, answers, cpu_seconds=_CPU_SECONDS, wall_seconds=_WALL_SECONDS
    ):
        if found.outcome is not Outcome.PASS:
            reasons[found.task_id] = (
                f"its own reference does not pass in the sandbox: {found.reason}, "
                f"{found.n_passed} of {found.n_tests} assertions"
            )
    order = [problem.task_id for problem in problems]
    kept = [problem for problem in problems if problem.task_id not in reasons]
    return kept, {task_id: reasons[task_id] for task_id in order if task_id in reasons}


def _foreign_imports(source: str) -> list[str]:
    """Top-level packages that `source` imports and Python does not bring."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.partition(".")[0])
    return sorted(found - sys.stdlib_module_names)
