"""Our pass@k of published samples beside the published figure, with the extraction used.

    python tests/benchmarks/bench_published.py --data FOLDER [--only NAME] [--forms] [--workers 2]

FOLDER/generations holds samples of five models, FOLDER/codereval those of PanGu-Coder. They are
read as `python -m rrtf grade` reads them. A figure printed in a paper or a README is compared as
printed; where only verdicts are published, their rate is the figure, on the tasks that the
benchmark still has. `apart` counts the samples whose verdict differs (bench_agreement.py explains
them). With --forms every program that passes is written in the forms that models answer in, and
read back by `auto`. The exit status is 1 where a printed figure, or a form, is not matched.
"""

import argparse
import ast
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rrtf import prompts, store
from rrtf.evaluate import grade, samples
from rrtf.records import Execution, Outcome, Problem

ENDLESS = (20.0, 40.0)  # CPU and wall seconds: the extended tests would wait for 60 s
HUMANEVAL = {"qwen2.5-coder-1.5b": "43.9", "qwen2.5-coder-7b": "61.6",
             "starcoder2-15b-instruct": "72.6"}  # fmt: skip


@dataclass(frozen=True)
class Published:
    """A file of samples, how it is read, and what was published of it.

    `printed` is pass@1 in percent as printed; `verdicts` gives the published ones, line by line.
    """

    file: str
    benchmark: str
    printed: str = ""
    renamed: tuple[str, ...] = ()
    extract: str = "auto"
    verdicts: Callable[[Path], list[bool]] | None = None
    options: Mapping[str, bool] = field(default_factory=dict)


def field_of(name: str) -> Callable[[Path], list[bool]]:
    """The verdicts that stand in the lines themselves."""
    return lambda path: [bool(row[name]) for _, row in store.read_rows(path)]


def results(*parts: str) -> Callable[[Path], list[bool]]:
    """The verdicts of EvalPlus's results beside a file: right on all of these parts."""

    def read(path: Path) -> list[bool]:
        beside = path.with_name(path.name.replace(".jsonl", ".eval_results.json"))
        of_task = store.read_json(beside)["eval"]
        tasks = [row["task_id"] for _, row in store.read_rows(path)]
        return [all(of_task[t][0][f"{part}_status"] == "pass" for part in parts) for t in tasks]

    return read


def of_pangu(path: Path) -> list[bool]:
    return [
        bool(run["is_pass"]) for _, row in store.read_rows(path) for run in row["generate_results"]
    ]


def published() -> Iterator[Published]:
    """Those with a printed figure first."""
    for model, printed in HUMANEVAL.items():
        file = f"generations/{model}/humaneval.jsonl.gz"
        yield Published(file, "humaneval", printed, verdicts=results("base"))
    file = "generations/evol-replit-3b/humaneval.jsonl.gz"
    yield Published(file, "humaneval", "31.1", verdicts=field_of("passed"))
    file, code = "generations/gpt-3.5-turbo/humaneval_n10.jsonl.gz", ("code=solution",)
    yield Published(file, "humaneval", "77.0", code, verdicts=field_of("published_pass"))
    file = "codereval/pangu-coder_raw_generations.jsonl.gz"
    names, part = ("_id=task_id", "code=completion"), {"allow_unknown": True}
    yield Published(file, "codereval-subset", "", names, verdicts=of_pangu, options=part)
    both, some = results("base", "plus"), {"allow_unknown": True}
    for model in HUMANEVAL:
        yield Published(f"generations/{model}/humaneval.jsonl.gz", "humaneval+", verdicts=both)
        name = f"generations/{model}/mbpp"
        yield Published(f"{name}.jsonl.gz", "mbpp+", verdicts=both, options=some)
        yield Published(f"{name}.eval_results.json.gz", "mbpp+", options=some)


def judge(one: Published, data: Path, workers: int) -> tuple[list[Execution], list[bool]]:
    """(our verdicts, the published ones of the same samples, if there are any)."""
    problems = grade.load_problems(one.benchmark, data=data)
    path = data / one.file
    unknown = one.options.get("allow_unknown", False)
    how = {"extract": one.extract, "renamed": one.renamed, "allow_unknown": unknown}
    found, _ = samples.read(str(path), problems, **how)
    cpu, wall = ENDLESS if one.benchmark.endswith("+") else (None, None)
    how = {"memory_mb": 512, "isolation": "landlock+seccomp"}
    limits = grade.limits(one.benchmark, cpu_seconds=cpu, wall_seconds=wall, **how)
    executions = grade.execute(
        problems, [s.response for s in found], limits=limits, workers=workers, cluster="local"
    )
    if one.verdicts is None:
        return executions, []
    theirs, known = one.verdicts(path), {problem.task_id for problem in problems}
    field_name = next(
        (t.partition("=")[0] for t in one.renamed if t.endswith("=task_id")), "task_id"
    )
    tasks = [row[field_name] for _, row in store.read_rows(path)]
    tasks = [task for task in tasks for _ in range(len(theirs) // len(tasks))]
    return executions, [v for v, task in zip(theirs, tasks, strict=True) if task in known]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=os.environ.get("RRTF_DATA") is None,
                        default=os.environ.get("RRTF_DATA"))  # fmt: skip
    parser.add_argument("--only", default="", help="files or benchmarks whose name contains this")
    parser.add_argument("--forms", action="store_true", help="also read programs back as answers")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    print(f"{'file':52}{'benchmark':18}{'extract':9}{'tasks':>6}{'n':>4}  {'k':>3}{'ours':>8}"
          f"{'verdicts':>10}{'printed':>9}{'apart':>7}  equal")  # fmt: skip
    failed = 0
    for one in published():
        if options.only in f"{one.file} {one.benchmark}":
            failed += not compare(one, Path(options.data), options.workers)
    if options.forms:
        failed += read_back(Path(options.data), options.only)
    sys.exit(1 if failed else 0)


def compare(one: Published, data: Path, workers: int) -> bool:
    """Prints one file's lines, pass@1 and pass@n; false where a printed figure is not ours."""
    executions, theirs = judge(one, data, workers)
    ours = [run.outcome is Outcome.PASS for run in executions]
    claims = [
        Execution(run.task_id, "", run.index, Outcome(4 if said else 1), "", 0, 0, "")
        for run, said in zip(executions, theirs, strict=True)
    ] if theirs else []  # fmt: skip
    ks = sorted({1, min(samples.sizes(executions)[""].values())})
    rates = {k: rate(executions, k) for k in ks}
    said = {k: rate(claims, k) for k in ks} if theirs else {}
    apart = sum(a != b for a, b in zip(ours, theirs, strict=True)) if theirs else None
    matched = True
    for k in ks:
        same = not said or f"{rates[k]:.3f}" == f"{said[k]:.3f}"
        if k == 1 and one.printed:
            same = f"{rates[1]:.1f}" == one.printed
            matched = same
        n_tasks = len({run.task_id for run in executions})
        claimed = f"{said[k]:.3f}" if said else ""
        printed = one.printed if k == 1 else ""
        line = f"{one.file:52}{one.benchmark:18}{one.extract:9}{n_tasks:6}{ks[-1]:4}  {k:3}"
        line += f"{rates[k]:8.3f}{claimed:>10}{printed:>9}{'' if apart is None else apart:>7}  "
        print(line + ("yes" if same else "NO"), flush=True)
    return matched


def rate(executions: Sequence[Execution], k: int) -> float:
    (found,) = grade.sample_rates(executions, (k,))[""]
    return 100 * found.value


# --- answers in other forms --------------------------------------------------------------------

FORMS = {
    "a fenced block": "```python\n{}```",
    "a block without a language": "```\n{}```\n",
    "a block of tildes": "~~~python\n{}~~~\n",
    "a block that never ends": "Here you are:\n```python\n{}",
    "a chat, with an example": "Sure! This does it:\n\n```python\n{}```\n\nIt takes O(n) time.\n\n"
    "```python\nprint(solve())\n```\n",
    "a chat, the example first": "It is called so:\n```python\nx = solve()\n```\nand is:\n"
    "```python\n{}```\n",
    "a block whose opening the prompt had": "{}```\n\nThis works by induction.\n",
    "prose without a block": "{}\nThis goes through all numbers, as it should.\n",
    "tags": "{}\n[/PYTHON]",
    "an end token": "{}<|endoftext|>",
    "an end token, and on": "{}</s>\nimport os\n\ndef main():\n    x = [",
    "Windows line ends": "{}",
}


def read_back(data: Path, only: str) -> int:
    """Prints, per form, how many programs `auto` finds again; returns how many it does not."""
    lost = 0
    for name, file in (("humaneval", "qwen2.5-coder-7b"), ("mbpp+", "starcoder2-15b-instruct")):
        if only not in f"{file} {name}":
            continue
        known = {problem.task_id: problem for problem in grade.load_problems(name, data=data)}
        rows = store.read_rows(data / f"generations/{file}/{name.rstrip('+')}.jsonl.gz")
        texts = [(known[r["task_id"]], r["completion"]) for _, r in rows if r["task_id"] in known]
        whole = [(p, text.strip("\n") + "\n") for p, text in texts if syntax(text)]
        bodies = [(p, body) for p, text in whole if (body := continuation(p, text))]
        for kind, cases in (("whole programs", whole), ("continuations", bodies)):
            for form, pattern in FORMS.items() if cases else ():
                missed = [p.task_id for p, text in cases if not found_again(p, text, form, pattern)]
                lost += len(missed)
                told = f"   not: {', '.join(missed[:5])}" if missed else ""
                print(
                    f"{name:12}{kind:16}{form:40}{len(cases) - len(missed):5} of {len(cases)}{told}"
                )
    return lost


def found_again(problem: Problem, text: str, form: str, pattern: str) -> bool:
    written = pattern.format(text)
    if form == "Windows line ends":
        written = written.replace("\n", "\r\n")
    return syntax(prompts.extract(problem, written)) == syntax(prompts.extract(problem, text))


def continuation(problem: Problem, text: str) -> str:
    """What a whole program adds to its prompt; empty where it does not begin with that."""
    prompt = problem.prompt.strip()
    found = text.strip()
    return found[len(prompt) :].lstrip("\n") + "\n" if found.startswith(prompt) else ""


def syntax(program: str) -> str:
    """A program as its syntax tree; empty where it is none."""
    return ast.dump(ast.parse(program)) if prompts.parses(program) else ""


if __name__ == "__main__":
    main()
