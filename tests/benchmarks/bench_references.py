"""How many references of each benchmark pass, and which do not.

    python tests/benchmarks/bench_references.py --data FOLDER [--only NAME] [--workers 2]

Every benchmark of the catalogue whose rows are at hand, each reference judged by its task's own
tests in the sandbox. CoderEval's tasks come twice: as they are judged by default, and with the
weaker mode `joint` and numpy, which is then said. A reference that fails is named with its reason,
and so are tasks that a benchmark refuses. Exit status 1 if a failure is not among those known here.
"""

import argparse
import os
import sys
import time
from pathlib import Path

from rrtf import benchmarks
from rrtf.benchmarks import catalogue
from rrtf.records import Outcome, Response
from rrtf.sandbox import executor
from rrtf.sandbox.joint import SUFFIX, is_joint

LIMITS = executor.Limits(60.0, 120.0, 512, "landlock+seccomp")
WEAKER = {"joint": True, "packages": ("numpy",)}
KNOWN = {  # benchmark -> reason of failing references -> how many
    "leetcode-v0.2-train": {"ModuleNotFoundError": 13, "wrong_value": 1},
}


def omitted(problems: list) -> dict[str, str]:
    """Problems of the plus sets whose tests lack inputs, and the line of the tests that says so."""
    return {
        problem.task_id: problem.tests.partition("\n")[0].removeprefix("# ")
        for problem in problems
        if problem.tests.startswith("# ") and " inputs are left out" in problem.tests[:200]
    }


def references(name: str, data: Path | None, workers: int, **options) -> bool:
    """Prints one line and the exceptions below it; whether these are the known ones."""
    start = time.monotonic()
    try:
        problems = benchmarks.load(name, data=data, **options)
        left_out = benchmarks.refused(name, data=data, **options)
    except FileNotFoundError as error:
        print(f"{name:36} not at hand: {error}")
        return True
    asked = [problem for problem in problems if problem.reference]
    answers = [Response(p.task_id, "", 0, "", p.prompt + p.reference) for p in asked]
    packages = options.get("packages", ())
    how = {"limits": LIMITS, "workers": workers, "packages": packages}
    found = executor.execute(asked, answers, **how)
    failed = [run for run in found if run.outcome is not Outcome.PASS]
    joint = sum(run.isolation.endswith(SUFFIX) for run in found)
    what = f"{name}{', joint and numpy' if options else ''}"
    told = f", {joint} of them joint" * bool(joint)
    bare = len(problems) - len(asked)
    told += f", {bare} tasks have no reference" * bool(bare)
    told += f", {len(left_out)} of {catalogue.entry(name).rows} tasks refused" * bool(left_out)
    told += f", {len(omitted(problems))} with inputs left out" * name.endswith("+")
    passed = f"{len(found) - len(failed)} of {len(found)}"
    print(f"{what:36} {passed:>13}{told} ({time.monotonic() - start:.0f} s)", flush=True)
    names = {problem.task_id: problem.entry_point for problem in problems}
    for run in failed:
        print(f"    {run.task_id} ({names[run.task_id]}): {run.reason}, {run.n_passed} of "
              f"{run.n_tests}")  # fmt: skip
    for line in _by_task(name, data, problems, left_out):
        print(f"    {line}")
    for task_id, why in omitted(problems).items():
        print(f"    {task_id}: {why}")
    reasons: dict[str, int] = {}
    for run in failed:
        reasons[run.reason] = reasons.get(run.reason, 0) + 1
    return reasons == KNOWN.get(name, {})


def _by_task(name: str, data: Path | None, problems: list, left_out: dict) -> list[str]:
    """Of a benchmark that refuses tasks: each task, its level, and how it is judged, or why not."""
    if not left_out:
        return []
    joint = {problem.task_id: is_joint(problem) for problem in problems}
    return [
        f"{told['function']:34}{told['level']:16}"
        + (f"refused: {left_out[task]}" if task in left_out else "joint" if joint[task] else "runs")
        for task, told in catalogue.facts(name, data=data).items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("RRTF_DATA"))
    parser.add_argument("--only", default="", help="benchmarks whose name contains this")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    data = Path(options.data) if options.data else None
    expected = True
    for name in catalogue.names():
        if options.only in name:
            expected &= references(name, data, options.workers)
            if name.startswith("codereval"):
                expected &= references(name, data, options.workers, **WEAKER)
    sys.exit(0 if expected else 1)


if __name__ == "__main__":
    main()
