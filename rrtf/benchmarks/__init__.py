"""Public benchmarks by name, as problems in HumanEval form with tests that stand alone.

Modules: `catalogue` (which there are, where their rows lie, whether they are the right ones;
difficulty, date, level), `tasks` (rows to problems), `codereval` (which of its tasks can be
judged), `plus` (EvalPlus's sets and what references return).
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from rrtf import store
from rrtf.benchmarks import catalogue, codereval, plus, tasks
from rrtf.records import Problem

_TASKS: dict[str, Callable[[dict], Problem]] = {
    "humaneval": tasks.humaneval,
    "mbpp": tasks.mbpp,
    "mbpp-sanitized": tasks.mbpp_sanitized,
    "leetcode": tasks.leetcode,
    "leetcode-v0.2-train": partial(tasks.leetcode_dataset, source="leetcode-v0.2-train"),
    "leetcode-v0.3-test": partial(tasks.leetcode_dataset, source="leetcode-v0.3-test"),
    "humaneval-pro": partial(tasks.pro, source="humaneval-pro"),
    "mbpp-pro": partial(tasks.pro, source="mbpp-pro"),
    "nano-validation": partial(store.from_row, kind=Problem),
    "nano-test": partial(store.from_row, kind=Problem),
}
_PLUS = ("humaneval+", "mbpp+")
_JUDGED = {"codereval-subset": codereval.subset, "codereval": codereval.official}


def load(
    name: str,
    *,
    data: Path | None = None,
    since: str | None = None,
    joint: bool = False,
    packages: Sequence[str] = (),
    progress: Callable[[int, int], None] | None = None,
) -> list[Problem]:
    """The problems of a benchmark, in the order of its rows.

    Rows are looked for in the folder `data`, in `$RRTF_DATA`, in the Hugging Face cache and on the
    hub; the nano sets are made. `since`: only tasks created after this day (2022-07-01). Of
    CoderEval only the tasks whose reference passes in the sandbox are there; `refused` says why the
    others are not. `packages` are those of this environment that candidates may import; with
    `joint` tasks are added whose tests have to run in the candidate's process (`sandbox.joint`).
    `progress(done, total)` hears of references whose values a plus set computes, which it does
    once and for minutes.

    ValueError for an unknown name, wrong rows, a wrong hash, a benchmark without dates or a
    malformed one; FileNotFoundError with the places looked at; RuntimeError if a reference of the
    plus sets gives no value, or no sandbox can be started.
    """
    after = catalogue.created_after(name, since, data=data) if since else None
    if name in _PLUS:
        problems = plus.problems(catalogue.raw_rows(name, data), name, progress=progress)
    elif name in _JUDGED:
        problems = _JUDGED[name](data, joint=joint, packages=packages)[0]
    else:
        make = _TASKS[catalogue.entry(name).name]
        problems = [make(row) for row in catalogue.raw_rows(name, data)]
    return [p for p in problems if after is None or p.task_id in after]


def at_hand(names: Sequence[str]) -> tuple[dict[str, list[Problem]], dict[str, str]]:
    """(the tasks of those benchmarks whose rows are on this machine, where others were looked for).

    For an audit: all tasks, whatever stands behind ` since `; "test" is no benchmark. The hub is
    not asked. Errors as `load`.
    """
    wanted = [name for text in names if (name := text.partition(" since ")[0]) != "test"]
    absent = {name: looked for name in wanted if (looked := catalogue.missing(name))}
    return {name: load(name) for name in wanted if name not in absent}, absent


def refused(
    name: str, *, data: Path | None = None, joint: bool = False, packages: Sequence[str] = ()
) -> dict[str, str]:
    """Tasks of a benchmark that `load` leaves out: task_id -> why they cannot be judged here."""
    known = catalogue.entry(name).name
    return _JUDGED[known](data, joint=joint, packages=packages)[1] if known in _JUDGED else {}
