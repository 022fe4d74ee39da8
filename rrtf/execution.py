"""Verdicts of long lists of responses: saved shard by shard, on this machine or on a Ray cluster.

A shard is a number of distinct programs with their problems, limits and seed; its file is named
by the hash of all of that, of the sandbox's source and of Python's version. So a run that was
killed goes on where it was, and nothing that could change a verdict meets an old one.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, asdict, dataclass, replace
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

    Errors as `executor.execute`, of shards as `store.through_shards`. ImportError where Ray is
    wanted and missing.
    """
    check_place(cluster)
    if workers < 1:
        raise ValueError(f"workers {workers}: expected at least 1")
    places = executor.distinct(problems, responses)
    call = _Call(
        {problem.task_id: problem for problem in problems},
        responses,
        [places[at : at + SHARD_SIZE] for at in range(0, len(places), SHARD_SIZE)],
        limits=limits,
        hash_seed=hash_seed,
        packages=sorted({*packages}),
        workers=workers,
        tell=lambda done: progress(done, len(responses)) if progress else None,
    )
    work = call.here if cluster == "local" else call.on_cluster
    verdicts = store.through_shards(
        shards, call.batches, key=call.message, kind=Execution, work=work
    )
    if responses:
        call.tell(len(responses))
    own = {place: one for where, one in zip(places, verdicts, strict=True) for place in where}
    return [
        replace(own[place], source=response.source, index=response.index)
        for place, response in enumerate(responses)
    ]


def version() -> str:
    """The hash of the code that decides verdicts: the sandbox's, comments and layout apart."""
    return store.version("rrtf.sandbox")


Batch = list[list[int]]  # of each distinct program, the places of the responses that are it


@dataclass(frozen=True, slots=True)
class _Call:
    """All that one call judges, in shards, and how; `tell` is given the responses judged so far."""

    problems: dict[str, Problem]
    responses: Sequence[Response]
    batches: list[Batch]
    _: KW_ONLY
    limits: Limits
    hash_seed: int
    packages: list[str]
    workers: int
    tell: Callable[[int], None]

    def message(self, batch: Batch) -> dict:
        """Everything that the verdicts of a shard depend on, as JSON has it."""
        programs = [self.responses[where[0]] for where in batch]
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

    def here(self, left: Sequence[int], put: store.Put) -> None:
        """One call of the sandbox for all that is left: its zygotes are started once."""
        asked = [(n, place) for n in left for where in self.batches[n] for place in where]
        waiting, known = Counter(n for n, _ in asked), len(self.responses) - len(asked)
        found: dict[int, Execution] = {}

        def finished(new: dict[int, Execution]) -> None:
            for at, verdict in new.items():
                number, place = asked[at]
                found[place] = replace(verdict, source="", index=0)
                waiting[number] -= 1
            for number in {asked[at][0] for at in new}:
                if not waiting[number]:
                    put(number, [found[where[0]] for where in self.batches[number]])

        executor.execute(
            list(self.problems.values()),
            [self.responses[place] for _, place in asked],
            limits=self.limits,
            workers=self.workers,
            hash_seed=self.hash_seed,
            packages=self.packages,
            finished=finished,
            progress=lambda done, _: self.tell(known + done),
        )

    def on_cluster(self, left: Sequence[int], put: store.Put) -> None:
        """One job per shard; each reserves as many CPUs as it judges programs at a time."""
        sizes = [sum(map(len, batch)) for batch in self.batches]
        waiting = sum(sizes[number] for number in left)

        def finished(number: int, rows: list) -> None:
            nonlocal waiting
            put(number, [store.from_row(row, Execution) for row in rows])
            waiting -= sizes[number]
            self.tell(len(self.responses) - waiting)

        def message(number: int) -> dict:
            return self.message(self.batches[number])

        spread(judge, left, message=message, finished=finished, cpus=self.workers)


def judge(job: dict, workers: int) -> list:
    """The verdicts of a shard on a node of a cluster, `job` as `_Call.message` has it.

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
    return [store.to_row(verdict) for verdict in found]


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
