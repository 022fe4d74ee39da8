"""Verdicts of long lists of responses: saved shard by shard, on this machine or on a Ray cluster.

A shard is a number of distinct programs with their problems, limits and seed; its file is named
by the hash of all of that, of the sandbox's source and of Python's version. So a run that was
killed goes on where it was, and nothing that could change a verdict meets an old one.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, asdict, astuple, dataclass, fields, replace
from pathlib import Path
from textwrap import dedent

from rrtf import store
from rrtf.cluster import check_place, spread
from rrtf.records import Execution, Outcome, Problem, Response
from rrtf.sandbox import executor
from rrtf.sandbox.executor import Limits
from rrtf.sandbox.packages import versions

SHARD_SIZE = 512  # distinct programs: one to two seconds of two cores
WALL_PER_CPU = 3  # seconds that a program may take, for each that it may compute


@dataclass(frozen=True, slots=True)
class Saved:
    """One line of a shard's file: a verdict, and a seal over it, its program and its shard."""

    task_id: str
    outcome: Outcome
    reason: str
    n_passed: int
    n_tests: int
    isolation: str
    failed_test: int = 0
    failed_line: int = 0
    called: str = ""
    expected: str = ""
    got: str = ""
    seal: str = ""


def execute(
    problems: Sequence[Problem],
    responses: Sequence[Response],
    *,
    limits: Limits,
    workers: int,
    cluster: str,
    shards: Path | None = None,
    hash_seed: int = 0,
    packages: Sequence[str] = (),
    progress: Callable[[int, int], None] | None = None,
) -> list[Execution]:
    """The verdict of every response, in the order of `responses`, as `executor.execute` gives it.

    `cluster` is `local` or `ray`, as `cluster.spread` finds it. `workers` programs are judged at
    a time, on a cluster by each of its workers, which reserve as many CPUs. Every finished shard
    is saved in the folder `shards` and found again; a lost process costs the shards under way.
    The rest as `executor.execute`.

    Errors as `executor.execute`. A damaged shard is a ValueError that names its file: it is not
    made anew in silence, because whatever changed it may have changed others. ImportError where
    Ray is wanted and missing.
    """
    check_place(cluster)
    if workers < 1:
        raise ValueError(f"workers {workers}: expected at least 1")
    places = executor.distinct(problems, responses)
    firsts = [responses[where[0]] for where in places]
    copies = [len(where) for where in places]
    ledger = _Ledger(
        {problem.task_id: problem for problem in problems},
        firsts,
        copies,
        limits=limits,
        hash_seed=hash_seed,
        packages=sorted({*packages}),
        progress=progress,
    )
    ledger.cut(shards)
    (_run_here if cluster == "local" else _run_on_cluster)(ledger, workers)
    number = {place: n for n, where in enumerate(places) for place in where}
    return [
        replace(ledger.verdicts[number[place]], source=response.source, index=response.index)
        for place, response in enumerate(responses)
    ]


def version() -> str:
    """The hash of the code that decides verdicts: the sandbox's, comments and layout apart."""
    return store.version("rrtf.sandbox")


@dataclass(eq=False)
class _Ledger:
    """The distinct programs of one call, cut into shards, and their verdicts so far."""

    problems: dict[str, Problem]
    programs: Sequence[Response]
    copies: Sequence[int]  # how many responses are this program
    _: KW_ONLY
    limits: Limits
    hash_seed: int
    packages: list[str]
    progress: Callable[[int, int], None] | None

    def __post_init__(self):
        self.total, self.told = sum(self.copies), 0
        self.verdicts: dict[int, Execution] = {}  # place in `programs` -> verdict

    def cut(self, folder: Path | None) -> None:
        """Makes the shards; takes up those that `folder` holds already."""
        n, size = len(self.programs), SHARD_SIZE
        self.size, self.shards = size, [range(at, min(at + size, n)) for at in range(0, n, size)]
        self.missing = [len(shard) for shard in self.shards]
        self.paths = []
        for shard in self.shards if folder else ():
            path = store.shard_path(folder, self.message(shard))
            self.paths.append(path)
            if path.exists():
                self._note(self._load(path, shard))

    def left(self) -> list[range]:
        """The shards whose verdicts are not complete."""
        return [s for s, missing in zip(self.shards, self.missing, strict=True) if missing]

    def message(self, shard: range) -> dict:
        """Everything that the verdicts of a shard depend on, as JSON has it."""
        programs = [self.programs[place] for place in shard]
        tasks = [self.problems[name] for name in dict.fromkeys(p.task_id for p in programs)]
        return {
            "problems": [[p.task_id, p.prompt, p.entry_point, p.tests] for p in tasks],
            "programs": [[p.task_id, p.program] for p in programs],
            "limits": asdict(self.limits),
            "hash_seed": self.hash_seed,
            "packages": self.packages,
            "versions": versions(self.packages),
            "version": version(),
        }

    def add(self, new: dict[int, Execution]) -> None:
        """Takes verdicts by their places and saves every shard that they complete."""
        self._note(new)
        for number in {place // self.size for place in new} if self.paths else ():
            if not self.missing[number]:
                path = self.paths[number]
                verdicts = [self.verdicts[place] for place in self.shards[number]]
                store.write(path, _sealed(path.stem, verdicts))

    def _note(self, new: dict[int, Execution]) -> None:
        for place in new:
            self.missing[place // self.size] -= 1
            self.told += self.copies[place]
        self.verdicts.update(new)
        if self.progress:
            self.progress(self.told, self.total)

    def _load(self, path: Path, shard: range) -> dict[int, Execution]:
        rows = store.read(path, Saved)
        verdicts = [
            Execution(self.programs[place].task_id, "", 0, Outcome(row.outcome), *_rest(row))
            for place, row in zip(shard, rows, strict=False)
        ]
        if len(rows) != len(shard) or rows != _sealed(path.stem, verdicts):
            raise ValueError(
                f"{path}: damaged: its lines are not the {len(shard)} verdicts that were sealed; "
                "find out what changed it, then delete it to have its programs judged again"
            )
        return dict(zip(shard, verdicts, strict=True))


_REST = tuple(field.name for field in fields(Execution))[4:]  # who and the outcome come before


def _rest(row: Saved | Execution) -> tuple:
    return tuple([getattr(row, name) for name in _REST])


def _sealed(shard: str, verdicts: Sequence[Execution]) -> list[Saved]:
    """The lines of a shard's file; the seals find damage, they are no signatures."""
    rows = []
    for place, verdict in enumerate(verdicts):
        row = Saved(verdict.task_id, verdict.outcome, *_rest(verdict))
        text = json.dumps([shard, place, *astuple(row)])
        rows.append(replace(row, seal=hashlib.sha256(text.encode()).hexdigest()[:16]))
    return rows


def _run_here(ledger: _Ledger, workers: int) -> None:
    """One call of the sandbox for all that is left: its zygotes are started once."""
    left = [place for shard in ledger.left() for place in shard]
    if left:
        executor.execute(
            list(ledger.problems.values()),
            [ledger.programs[place] for place in left],
            limits=ledger.limits,
            workers=workers,
            hash_seed=ledger.hash_seed,
            packages=ledger.packages,
            finished=lambda new: ledger.add({left[i]: verdict for i, verdict in new.items()}),
        )


def _run_on_cluster(ledger: _Ledger, workers: int) -> None:
    """One job per shard; each reserves as many CPUs as it judges programs at a time."""

    def finished(shard: range, found: list) -> None:
        verdicts = [
            Execution(task_id, "", 0, Outcome(outcome), *rest) for task_id, outcome, *rest in found
        ]
        ledger.add(dict(zip(shard, verdicts, strict=True)))

    shards = ledger.left()
    spread(judge, shards, message=ledger.message, finished=finished, cpus=workers)


def judge(job: dict, workers: int) -> list:
    """The verdicts of a shard on a node of a cluster, `job` as `_Ledger.message` has it.

    RuntimeError where the node may not judge: other packages, too weak an isolation.
    """
    here = versions(job["packages"])
    if job["versions"] != here:
        raise RuntimeError(f"other packages than the caller's {job['versions']}: {here}")
    problems = [Problem(*row) for row in job["problems"]]
    responses = [Response(task_id, "", 0, "", program) for task_id, program in job["programs"]]
    found = executor.execute(
        problems,
        responses,
        limits=Limits(**job["limits"]),
        workers=workers,
        hash_seed=job["hash_seed"],
        packages=job["packages"],
    )
    return [[e.task_id, e.outcome, *_rest(e)] for e in found]


def verdict_rows(responses: Sequence[Response], executions: Sequence[Execution]) -> list[dict]:
    """One row per response: who, what was decided and why, k of n, under which isolation."""
    return [
        {
            "source": e.source,
            "answer": dedent(r.text).strip("\n"),
            "outcome": e.outcome.name,
            "reason": e.reason,
            "passed": f"{e.n_passed} of {e.n_tests}",
            "isolation": e.isolation,
        }
        for r, e in zip(responses, executions, strict=True)
    ]


def outcome_counts(executions: Sequence[Execution]) -> dict[str, dict[str, int]]:
    """For each source, how many of its responses fall into which situation."""
    counts = Counter((e.source, e.outcome) for e in executions)
    sources = sorted({e.source for e in executions})
    return {s: {outcome.name: counts[s, outcome] for outcome in Outcome} for s in sources}


def reason_rows(executions: Sequence[Execution]) -> list[dict]:
    """Outcome, reason and a column of counts per source, in the order of the situations."""
    sources = sorted({e.source for e in executions})
    counts = Counter((e.outcome, e.reason, e.source) for e in executions)
    keys = sorted({(e.outcome, e.reason) for e in executions})
    return [
        {"outcome": outcome.name, "reason": reason}
        | {source: counts[outcome, reason, source] for source in sources}
        for outcome, reason in keys
    ]


def fraction_passing(executions: Sequence[Execution]) -> dict[str, float]:
    """The fraction of each source's responses that pass."""
    return {
        source: counts[Outcome.PASS.name] / sum(counts.values())
        for source, counts in outcome_counts(executions).items()
    }
