"""Recall on planted leaks, by kind and detector, and false alarms on rows known to be clean.

    python tests/benchmarks/bench_audit_planted.py --data FOLDER [--only humaneval] [--every 6]

Planted are HumanEval's 164 tasks and every sixth of MBPP's, under each disguise of
`disguises`; a plant whose solution no longer passes the task's own tests is left out and
counted. A plant counts as found by a detector that reports it with its own task, and the rule does
not take that for chance. `any` counts what at least one detector finds.

Clean rows are the 386 problems and references of LeetCodeDataset v0.3 test: of 2024 and 2025, three
years after HumanEval and MBPP, by other authors, as new problems of contests. A row is a false
alarm if any detector calls it a leak of any of the tasks.
"""

import argparse
import os
import resource
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import disguises

from rrtf import benchmarks, execution
from rrtf.audit import detectors, running, verdict
from rrtf.audit.rows import Corpus, Row, from_problems
from rrtf.records import Leak, Problem
from rrtf.sandbox import executor

TARGETS = ("humaneval", "mbpp")
SETTINGS = detectors.Settings(
    substring_words=10,
    ngram_sizes=(5, 8, 13),
    ngram_share=0.7,
    minhash_threshold=0.7,
    minhash_permutations=128,
    shingle=3,
    embedding_threshold=0.8,
    remove_on=detectors.EQUALITIES,
    seed=1,
)
ANY, BEFORE = "any", "any, chance included"
Pairs = Mapping[str, set[tuple[str, str, str]]]  # detector -> (row, benchmark, task)


@dataclass(frozen=True, slots=True)
class Targets:
    """The benchmarks, and what was seen of their tasks once for all kinds."""

    problems: Mapping[str, list[Problem]]
    tasks: Mapping[str, list[Row]]
    behaviour: Mapping
    workers: int

    @property
    def judge(self) -> running.Judge:
        limits = executor.Limits(4.0, 12.0, 512, "landlock+seccomp")
        return partial(execution.execute, limits=limits, workers=self.workers, cluster="local")


def observe(rows: Sequence[Row], workers: int) -> dict:
    limits = executor.Limits(0.5, 6.0, 512, "landlock+seccomp")
    call = partial(executor.call, limits=limits, workers=workers)
    return detectors.observe(rows, call, n_random=20, seed=1)


def targets(problems: Mapping[str, list[Problem]], workers: int) -> Targets:
    tasks = {name: from_problems(members) for name, members in problems.items()}
    every = [task for members in tasks.values() for task in members]
    return Targets(problems, tasks, observe(every, workers), workers)


def found(rows: Sequence[Row], against: Targets) -> Pairs:
    """What each detector calls a leak, what any does, and what is called so or chance."""
    limits = executor.Limits(2.0, 6.0, 512, "landlock+seccomp")
    call = partial(executor.call, limits=limits, workers=against.workers)
    executed = [
        leak
        for name, problems in against.problems.items()
        for leak in running.passes_tests(rows, name, problems, call=call, judge=against.judge)
    ]
    sides = Corpus(rows), Corpus.of_benchmarks(against.tasks)
    by_chance = verdict.coincidences(executed, *sides)
    seen = {**against.behaviour, **observe(rows, against.workers)}
    nodes = verdict.GENERIC_NODES
    result = verdict.audit(rows, against.tasks, SETTINGS, behaviour=seen, generic_nodes=nodes)
    leaks: list[Leak] = [*result.leaks]
    leaks += [leak for leak in executed if not verdict.pairs([leak]) & by_chance]
    pairs = {name: verdict.pairs(leaks, name) for name in (*result.detectors, detectors.EXECUTION)}
    every = verdict.pairs([*leaks, *result.collisions, *executed])
    return pairs | {ANY: verdict.pairs(leaks), BEFORE: every}


def recall(against: Targets, planted: Mapping[str, list[Problem]]) -> dict[str, dict[str, float]]:
    """Kind -> detector -> share of the plants that are found with their own task."""
    table = {}
    for kind in disguises.KINDS:
        plants = {
            name: disguises.sound(disguises.disguised(of, kind), of, against.judge)
            for name, of in planted.items()
        }
        own, rows = set(), []
        for name, members in plants.items():
            for plant in members:
                row = Row(f"{name}/{plant.row.task_id}", plant.row.text, plant.row.code,
                                plant.row.entry_point)  # fmt: skip
                rows.append(row)
                own.add((row.task_id, name, plant.task_id))
        left = sum(map(len, planted.values())) - len(rows)
        pairs = found(rows, against)
        table[kind] = {name: len(of & own) / len(own) for name, of in pairs.items()}
        shown = ", ".join(f"{name} {100 * share:.1f}" for name, share in table[kind].items())
        print(f"{kind}: {len(rows)} plants, {left} left out; {shown}", flush=True)
    return table


def alarms(against: Targets, data: Path) -> dict[str, list]:
    """Detector -> the findings on clean rows that it calls leaks."""
    clean = benchmarks.load("leetcode-v0.3-test", data=data)
    rows = [Row(row.task_id, row.text, row.code, row.entry_point) for row in from_problems(clean)]
    pairs = found(rows, against)
    return {name: sorted(of) for name, of in pairs.items()} | {
        "rows": [row.task_id for row in rows]
    }


def print_table(table: Mapping[str, Mapping[str, float]], false: Mapping[str, list]) -> None:
    kinds = [*table]
    print("\npercent of the planted found, and rows of the clean called a leak\n")
    for number, kind in enumerate(kinds, start=1):
        print(f"  {number}  {kind}")
    print("\n" + " " * 24 + "".join(f"{n:>8}" for n in range(1, len(kinds) + 1)) + "   clean rows")
    n_clean = len(false["rows"])
    for name in table[kinds[0]]:
        shares = "".join(f"{100 * table[kind][name]:8.1f}" for kind in kinds)
        wrong = len({row for row, _, _ in false[name]})
        print(f"{name:24}{shares}   {wrong} of {n_clean} ({100 * wrong / n_clean:.1f} %)")
    for row, benchmark, task in false[ANY]:
        names = [
            d
            for d in false
            if d not in ("rows", ANY, BEFORE) and (row, benchmark, task) in false[d]
        ]
        print(f"  false alarm: {row} and {task} ({', '.join(names)})")


def cpu_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=os.environ.get("RRTF_DATA") is None,
                        default=os.environ.get("RRTF_DATA"))  # fmt: skip
    parser.add_argument("--every", type=int, default=6, help="which of MBPP's tasks are planted")
    parser.add_argument("--only", choices=TARGETS, help="one benchmark instead of both")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    started = time.monotonic()
    data = Path(options.data)
    names = (options.only,) if options.only else TARGETS
    problems = {name: benchmarks.load(name, data=data) for name in names}
    steps = {"humaneval": 1, "mbpp": options.every}
    planted = {name: members[:: steps[name]] for name, members in problems.items()}
    against = targets(problems, options.workers)
    print_table(recall(against, planted), alarms(against, data))
    print(f"\n{cpu_seconds():.0f} CPU seconds, {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
