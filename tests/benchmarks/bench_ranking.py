"""How good is the ranking? Answers ranked by few tests against what many tests say of them.

    python tests/benchmarks/bench_ranking.py --data FOLDER [--keep FOLDER] [--tasks 20]
    python tests/benchmarks/bench_ranking.py --nano data/ablation_bfloat16.jsonl

FOLDER/generations holds published answers of five models. Those of one task are a group, programs
that differ in layout only once, as in stage 04, and get stage 04's score from 1, 2, 4, ... of the
task's base tests, drawn in ORDERS orders (a task that has fewer gives all), then from all of them.
The truth is HumanEval+ and MBPP+: base and plus inputs together. Of the groups that hold right and
wrong answers

- top-1: the chance that the best is right, drawn among those of the highest score;
- bottom-1: the chance that the worst is wrong, drawn among those of the lowest;
- Spearman: between score and share of the truth's tests passed, 0 where all scores are equal.

`k/n` scores with the share of tests on top (`pass_ratio`), which the paper has not. `believed` is
the share of wrong ones among the answers that pass all tests they were ranked by. In hundredths,
with intervals from a bootstrap over tasks. `strength` is the share of the reference's mutants that
the same tests kill, those like the reference left out (`strength.examine`, N_MUTANTS a task).

--keep saves verdicts, so that a run goes on where it was. --nano prints what a weaker ranking costs
a student instead: study 2 of the ablation, pass@1 by how many of 12 assertions decided.
"""

import argparse
import math
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import bench_agreement
import numpy as np
from scipy.stats import rankdata, spearmanr

from rrtf import config, execution, prompts, rank, stats
from rrtf.ablation import registration, runs
from rrtf.benchmarks import catalogue, plus
from rrtf.records import Execution, Outcome, Problem, Response
from rrtf.sandbox.executor import Limits
from rrtf.strength.examine import Strength, examine

ORDERS = 2
N_MUTANTS = 8  # stage 04's
MOST = 16  # tests, before all
SCORES = dict(zip(Outcome, (0.0, 1.0, 2.0, 3.0), strict=True))  # stage 04's in every profile
RANKED = Limits(2.0, 6.0, 512, "landlock+seccomp")  # the profile nano's
TRUTH = Limits(10.0, 60.0, 2048, "landlock+seccomp")  # a few right answers to MBPP+ need more
ALL = 0  # how many tests: all of the base
BINS = (0.0, 0.5, 0.8, 0.95, 1.0)  # of strength; the last for itself
GPT = "gpt-3.5-turbo"
GROUPS = {  # name: (benchmark, which answers)
    "HumanEval+, gpt-3.5-turbo, 10 answers": ("humaneval+", lambda r: r.source == GPT),
    "HumanEval+, five models, one each": ("humaneval+", lambda r: r.index == 0),
    "HumanEval+, all 14 answers": ("humaneval+", lambda r: True),
    "MBPP+, three models, one each": ("mbpp+", lambda r: True),
}


@dataclass(frozen=True)
class Ranked:
    """A group under `count` tests in one order: what they said, and what is true of its answers."""

    task_id: str
    count: int
    runs: tuple[Execution, ...]
    right: tuple[bool, ...]
    shares: tuple[float, ...]  # of the truth's tests passed
    strength: float

    def scores(self, pass_ratio: float) -> list[float]:
        how = {"tie": 0.0, "pass_ratio": pass_ratio}
        return [rank.score(run, False, SCORES, **how) for run in self.runs]

    @property
    def mixed(self) -> bool:
        return len(set(self.right)) == 2

    @property
    def top(self) -> float:
        scores = self.scores(0.0)
        best = max(scores)
        return _mean(r for s, r in zip(scores, self.right, strict=True) if s == best)

    @property
    def bottom(self) -> float:
        scores = self.scores(0.0)
        worst = min(scores)
        return _mean(not r for s, r in zip(scores, self.right, strict=True) if s == worst)

    def spearman(self, pass_ratio: float) -> float:
        scores = self.scores(pass_ratio)
        return 0.0 if len(set(scores)) == 1 else float(spearmanr(scores, self.shares)[0])

    @property
    def believed(self) -> float:
        """Of the answers that pass, the share of wrong ones; NaN where none passes."""
        passing = zip(self.runs, self.right, strict=True)
        return _mean(not r for e, r in passing if e.outcome is Outcome.PASS)


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return sum(found) / len(found) if found else math.nan


def answers(data: Path, benchmark: str) -> list[Response]:
    """The published answers, numbered within their model; of equal programs the first."""
    name = benchmark.removesuffix("+")
    found = []
    for model in bench_agreement.EVALPLUS:
        found += bench_agreement.evalplus(data, model, name, "base", model)
    if name == "humaneval":
        found += bench_agreement.evol_replit(data, "evol-replit-3b")
        found += bench_agreement.gpt(data, GPT)
    counts: dict[tuple[str, str], int] = defaultdict(int)
    numbered = []
    for one in found:
        at = counts[one.name, one.task_id]
        counts[one.name, one.task_id] += 1
        numbered.append(Response(one.task_id, one.name, at, "", one.program))
    return numbered


def weakened(rows: Sequence[Mapping], benchmark: str) -> dict[str, tuple[int, Problem]]:
    """Name of a problem -> (how many tests, the task judged by so many of its base tests).

    The expected values are those that the whole task's tests were written with.
    """
    inputs = [[plus._inputs(row, part, benchmark) for part in plus.PARTS] for row in rows]
    known = plus.values(
        [
            plus.Reference(row["task_id"], row["prompt"] + row["canonical_solution"],
                           row["entry_point"], (*base, *further))
            for row, (base, further) in zip(rows, inputs, strict=True)
        ]
    )  # fmt: skip
    made: dict[str, tuple[int, Problem]] = {}
    for row, (base, _), values in zip(rows, inputs, known, strict=True):
        task = row["task_id"]

        def put(name: str, count: int, places: Sequence[int], row=row, base=base, values=values):
            given, expected = [base[at] for at in places], [values[at] for at in places]
            tests = plus._tests(row, [given], expected, benchmark)
            fields = row["prompt"], row["entry_point"], tests, row["canonical_solution"]
            made[name] = count, Problem(name, *fields, benchmark)

        put(f"{task} all", ALL, range(len(base)))
        for order in range(ORDERS):
            key = partial(config.derive_seed, 0, task, str(order))
            drawn = sorted(range(len(base)), key=lambda at, key=key: key(str(at)))
            for count in (2**power for power in range(len(base).bit_length())):
                if count < len(base) and count <= MOST:
                    put(f"{task} {order} {count}", count, sorted(drawn[:count]))
    return made


def measured(
    data: Path, benchmark: str, tasks: int, keep: Path | None
) -> tuple[dict[str, list[Response]], dict[str, list[Execution]], dict[str, tuple], dict]:
    """(answers by task, their truth, problem name -> (count, verdicts), name -> strength)."""
    rows = catalogue.raw_rows(benchmark, data)
    rows = rows[:: max(1, len(rows) // tasks)] if tasks else rows
    known = {row["task_id"] for row in rows}
    by_task: dict[str, list[Response]] = defaultdict(list)
    for one in answers(data, benchmark):
        if one.task_id in known:
            by_task[one.task_id].append(one)
    judge = partial(execution.execute, workers=1, cluster="local", shards=keep)
    whole = plus.problems(rows, benchmark)
    every = [one for some in by_task.values() for one in some]
    truth: dict[str, list[Execution]] = defaultdict(list)
    for run in judge(whole, every, limits=TRUTH):
        truth[run.task_id].append(run)
    weak = weakened(rows, benchmark)
    problems = [problem for _, problem in weak.values()]
    asked = [replace(one, task_id=name) for name in weak for one in by_task[name.partition(" ")[0]]]
    found: dict[str, list[Execution]] = defaultdict(list)
    for run in judge(problems, asked, limits=RANKED):
        found[run.task_id].append(run)
    how = {"n_mutants": N_MUTANTS, "seed": 0, "limits": RANKED, "execute": judge}
    strong = {one.task_id: one for one in examine(problems, **how)[1]}
    return by_task, truth, {name: (weak[name][0], found[name]) for name in weak}, strong


def groups(
    chosen, by_task: Mapping, truth: Mapping, found: Mapping, strong: Mapping[str, Strength]
) -> list[Ranked]:
    """One for every task, order and number of tests, of the answers that are `chosen`."""
    made = []
    for name, (count, verdicts) in found.items():
        task = name.partition(" ")[0]
        places, seen = [], set()
        for at, one in enumerate(by_task[task]):
            form = prompts.form_of(one.program)
            if chosen(one) and form not in seen:
                seen.add(form)
                places.append(at)
        said = [truth[task][at] for at in places]
        made.append(
            Ranked(
                task,
                count,
                tuple(verdicts[at] for at in places),
                tuple(run.outcome is Outcome.PASS for run in said),
                tuple(run.n_passed / run.n_tests for run in said),
                strong[name].discounted if name in strong else math.nan,
            )
        )
    return made


def by_count(made: Sequence[Ranked]) -> dict[int, dict[str, list[Ranked]]]:
    """Tests -> task -> its groups in all orders; a task with fewer tests gives all of them."""
    whole = {one.task_id: one for one in made if one.count == ALL}
    counts = sorted({one.count for one in made} - {ALL})
    table: dict[int, dict[str, list[Ranked]]] = {}
    for count in [*counts, ALL]:
        rows: dict[str, list[Ranked]] = defaultdict(list)
        for one in made:
            if one.count == count:
                rows[one.task_id].append(one)
        table[count] = {task: rows.get(task) or [one] for task, one in whole.items()}
    return table


def told(values: Sequence[float], clusters: Sequence[str] | None = None) -> str:
    """A mean with its interval over tasks, in hundredths; those that are NaN left out."""
    kept = [at for at, value in enumerate(values) if not math.isnan(value)]
    names = [clusters[at] for at in kept] if clusters else kept
    if len(set(names)) < 2:
        return "-"
    found = stats.bootstrap([values[at] for at in kept], names, seed=0, n_resamples=4000)
    value, low, high = (round(100 * v) for v in (found.value, found.low, found.high))
    return f"{value} [{low}, {high}]"


def correlation(x: Sequence[float], y: Sequence[float]) -> str:
    """Spearman's between tasks, in hundredths, with a percentile interval over tasks."""
    pairs = [(a, b) for a, b in zip(x, y, strict=True) if not (math.isnan(a) or math.isnan(b))]
    if len(pairs) < 3 or any(len(set(side)) == 1 for side in zip(*pairs, strict=True)):
        return "-"
    data = np.array(pairs)
    drawn = np.random.default_rng(0).integers(0, len(data), (1000, len(data)))
    ranks = rankdata(np.concatenate([data[None], data[drawn]]), axis=1)  # (1 + R, T, 2)
    ranks -= ranks.mean(axis=1, keepdims=True)
    spreads = np.sqrt((ranks**2).sum(axis=1)).prod(axis=1)
    found = ranks.prod(axis=2).sum(axis=1) / np.maximum(spreads, 1e-9)
    low, high = np.quantile(found[1:], [stats.TAIL, 1 - stats.TAIL])
    value, low, high = (round(100 * v) for v in (found[0], low, high))
    return f"{value} [{low}, {high}] of {len(pairs)} tasks"


HEAD = ("top-1", "bottom-1", "Spearman", "Spearman k/n", "believed")


def columns(one: Ranked) -> list[float]:
    """The figures of HEAD; those about order are NaN where all answers are right, or all wrong."""
    parts = [one.top, one.bottom, one.spearman(0.0), one.spearman(0.5)] if one.mixed else []
    return [*(parts or [math.nan] * 4), one.believed]


def show(name: str, made: Sequence[Ranked]) -> None:
    whole = [one for one in made if one.count == ALL]
    mixed = [one for one in whole if one.mixed]
    right = _mean(_mean(one.right) for one in mixed)
    size = _mean(len(one.runs) for one in mixed)
    print(f"\n{name}: {len(whole)} tasks, of which {len(mixed)} have right and wrong answers")
    print(f"({size:.1f} distinct ones each, {100 * right:.0f} % right)\n")
    print(f"{'tests':>14}" + "".join(f"{title:>18}" for title in HEAD))
    for count, tasks in by_count(made).items():
        rows = [[columns(one) for one in some] for some in tasks.values()]
        means = [
            [_mean(v for v in side if not math.isnan(v)) for side in zip(*row, strict=True)]
            for row in rows
        ]
        cells = [told(list(side)) for side in zip(*means, strict=True)]
        print(f"{count or 'all':>14}" + "".join(f"{cell:>18}" for cell in cells))
    print(f"{'strength':>14}")
    for low, high in zip(BINS, [*BINS[1:], math.inf], strict=True):
        some = [one for one in made if low <= one.strength < high]
        names = [one.task_id for one in some]
        if not some:
            continue
        cells = [told(list(side), names) for side in zip(*map(columns, some), strict=True)]
        label = f"{low:.2f} to {high:.2f}" if high < math.inf else "1"
        print(f"{label:>14}" + "".join(f"{cell:>18}" for cell in cells) + f"  {len(some)} groups")
    print("  Spearman between tasks: strength and ...")
    for count, tasks in by_count(made).items():
        rows = [some[0] for some in tasks.values()]
        strong = [one.strength for one in rows]
        wrong = correlation(strong, [-one.believed for one in rows])
        top = correlation(strong, [one.top if one.mixed else math.nan for one in rows])
        print(f"  {count or 'all':>5}: right ones among those that pass {wrong}; top-1 {top}")


def nano(ledger: Path) -> None:
    """pass@1 of study 2's arms by how right the teacher is and how many assertions decided.

    `minus 12's` is what fewer cost, on the seeds that both have; families of tasks are not kept.
    """
    lines = [line for line in runs.read(ledger) if line.n_test]
    arms = [arm for arm in registration.read().arms if arm.errors == "systematic"]
    names = {(arm.data, arm.objective, arm.accuracy, arm.tests): arm.name for arm in arms}
    print("| learnt from, how | teacher right, % | assertions | seeds | wrong targets, % |", end="")
    print(" pass@1, % | minus 12's |\n| --- |" + " --- |" * 6)
    for (data, objective, accuracy, tests), name in sorted(names.items()):
        made = {line.seed: line for line in lines if line.arm == name}
        cells = [f"{data}, {objective}", str(accuracy), str(tests), str(len(made))]
        if made:
            marks = {seed: runs.unpacked(x.solved, x.n_test) for seed, x in sorted(made.items())}
            wrong = 100 * _mean(x.wrong / x.prompts for x in made.values())
            cells += [f"{wrong:.1f}", spread(stats.mean_rate(list(marks.values())))]
            whole = names.get((data, objective, accuracy, registration.ALL_TESTS))
            other = {
                line.seed: runs.unpacked(line.solved, line.n_test)
                for line in lines
                if line.arm == whole and whole != name and line.seed in marks
            }
            if other:
                both = [marks[seed] for seed in other], list(other.values())
                cells.append(spread(stats.crossed(*both, paired=len(other) > 1), "+"))
        print("|", *(f"{cell} |" for cell in [*cells, *[""] * (7 - len(cells))]))


def spread(found: stats.Estimate, sign: str = "") -> str:
    value, low, high = (format(100 * v, f"{sign}.1f") for v in (found.value, found.low, found.high))
    return f"{value} [{low}, {high}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("RRTF_DATA"))
    parser.add_argument("--keep", type=Path, help="folder for verdicts")
    parser.add_argument("--tasks", type=int, default=0, help="about so many of each benchmark")
    parser.add_argument("--nano", type=Path, help="the ablation's ledger")
    options = parser.parse_args()
    if options.nano:
        nano(options.nano)
        return
    for benchmark in ("humaneval+", "mbpp+"):
        found = measured(Path(options.data), benchmark, options.tasks, options.keep)
        for name, (of, chosen) in GROUPS.items():
            if of == benchmark:
                show(name, groups(chosen, *found))


if __name__ == "__main__":
    main()
