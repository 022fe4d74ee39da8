"""Verdicts of long lists of responses: saved shard by shard, on this machine or on a Ray cluster.

A shard is a number of distinct programs with their problems, limits and seed; its file is named
by the hash of all of that, of the sandbox's source and of Python's version. So a run that was
killed goes on where it was, and nothing that could change a verdict meets an old one.
"""

import ast
import hashlib
import json
import os
import platform
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass, replace
from functools import cache
from pathlib import Path
from types import ModuleType

from rrtf import sandbox, source, store
from rrtf.records import Execution, Outcome, Problem, Response

ENGINES = ("local", "ray")
SHARD_SIZE = 512  # distinct programs: one to two seconds of two cores
WALL_PER_CPU = 3  # seconds that a program may take, for each that it may compute
RETRIES = 8  # of a shard whose Ray worker or node was lost


@dataclass(frozen=True, slots=True)
class Saved:
    """One line of a shard's file: a verdict, and a seal over it, its program and its shard."""

    task_id: str
    outcome: Outcome
    reason: str
    n_passed: int
    n_tests: int
    isolation: str
    seal: str = ""


def execute(
    problems: Sequence[Problem],
    responses: Sequence[Response],
    *,
    engine: str = "local",
    workers: int = 2,
    shards: Path | None = None,
    shard_size: int = SHARD_SIZE,
    level: str = "landlock+seccomp",
    exactly: str | None = None,
    cpu_seconds: float = 2.0,
    wall_seconds: float = 6.0,
    memory_mb: int = 512,
    seed: int = 0,
    packages: Sequence[str] = (),
    progress: Callable[[int, int], None] | None = None,
) -> list[Execution]:
    """The verdict of every response, in the order of `responses`, as `sandbox.execute` gives it.

    `engine` is `local` or `ray`: the cluster that `$RAY_ADDRESS` names or this machine is part
    of, else one started here for this call. `workers` programs are judged at a time, by each of
    Ray's tasks, which reserve as many CPUs. Every finished shard is saved in the folder `shards`
    and found again; a lost process costs the shards under way. The rest as `sandbox.execute`.

    Errors as `sandbox.execute`. A damaged shard is a ValueError that names its file: it is not
    made anew in silence, because whatever changed it may have changed others. ImportError where
    Ray is wanted and missing.
    """
    if engine not in ENGINES:
        raise ValueError(f"unknown engine {engine!r}: expected one of {', '.join(ENGINES)}")
    if shard_size < 1 or workers < 1:
        raise ValueError(f"shard_size {shard_size}, workers {workers}: expected at least 1")
    limits = {"level": level, "exactly": exactly, "cpu_seconds": float(cpu_seconds)}
    limits |= {"wall_seconds": float(wall_seconds), "memory_mb": memory_mb, "seed": seed}
    limits |= {"packages": sorted(set(packages))}
    places = sandbox.distinct(problems, responses)
    firsts = [responses[where[0]] for where in places]
    copies = [len(where) for where in places]
    ledger = _Ledger(problems, firsts, limits, copies=copies, progress=progress)
    ledger.cut(shard_size, shards)
    (_run_here if engine == "local" else _run_on_ray)(ledger, workers)
    number = {place: n for n, where in enumerate(places) for place in where}
    return [
        replace(ledger.verdicts[number[place]], source=response.source, index=response.index)
        for place, response in enumerate(responses)
    ]


@cache
def version() -> str:
    """The hash of the code that decides verdicts: the sandbox's, comments and layout apart."""
    total = hashlib.sha256(platform.python_version().encode())
    for path in source.closure(ast.parse("import rrtf.sandbox")):
        total.update(ast.dump(source.parse(path.read_text(encoding="utf-8"), str(path))).encode())
    return total.hexdigest()


class _Ledger:
    """The distinct programs of one call, cut into shards, and their verdicts so far."""

    def __init__(
        self,
        problems: Sequence[Problem],
        programs: Sequence[Response],
        limits: dict,
        *,
        copies: Sequence[int],
        progress: Callable[[int, int], None] | None,
    ):
        self.problems = {problem.task_id: problem for problem in problems}
        self.programs, self.limits = programs, limits
        self.copies, self.progress = copies, progress  # copies: how many responses are this one
        self.total, self.told = sum(copies), 0
        self.verdicts: dict[int, Execution] = {}  # place in `programs` -> verdict

    def cut(self, size: int, folder: Path | None) -> None:
        """Makes the shards; takes up those that `folder` holds already."""
        n = len(self.programs)
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
            "limits": self.limits,
            "packages": sandbox.packages.versions(self.limits["packages"]),
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


def _rest(row: Saved | Execution) -> tuple[str, int, int, str]:
    return row.reason, row.n_passed, row.n_tests, row.isolation


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
        sandbox.execute(
            list(ledger.problems.values()),
            [ledger.programs[place] for place in left],
            workers=workers,
            finished=lambda new: ledger.add({left[i]: verdict for i, verdict in new.items()}),
            **ledger.limits,
        )


# --- Ray ---------------------------------------------------------------------------------------


def _run_on_ray(ledger: _Ledger, workers: int) -> None:
    """One task per shard, as many under way as keep the cluster busy."""
    ray = _import_ray()
    waiting, running = deque(ledger.left()), {}
    if not waiting:
        return
    with _connected(ray):
        smallest = min(int(n["Resources"].get("CPU", 0)) or workers for n in ray.nodes())
        cpus = min(workers, smallest)
        judge = ray.remote(_judge_shard).options(num_cpus=cpus, max_retries=RETRIES)
        try:
            while waiting or running:
                slots = int(ray.cluster_resources().get("CPU", 0)) // cpus
                while waiting and len(running) < 2 * slots + 1:
                    shard = waiting.popleft()
                    message = ledger.message(shard) | {"workers": cpus}
                    running[judge.remote(json.dumps(message))] = shard
                (ready,), _ = ray.wait(list(running), num_returns=1)
                ledger.add(_verdicts(ray, ready, running.pop(ready)))
        finally:
            for task in running:
                ray.cancel(task, force=True)


def _import_ray() -> ModuleType:
    try:
        import ray
    except ImportError:
        raise ImportError("engine 'ray' needs Ray: pip install 'rrtf[ray]'") from None
    return ray


@contextmanager
def _connected(ray: ModuleType) -> Iterator[None]:
    """Joins the cluster at hand, or starts one of this machine's cores that ends with the call."""
    if ray.is_initialized():
        yield
        return
    quiet = {"log_to_driver": False, "logging_level": "WARNING"}
    try:
        ray.init(address="auto", **quiet)
    except ConnectionError:
        if os.environ.get("RAY_ADDRESS"):
            raise
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        ray.init(address="local", include_dashboard=False, **quiet)
    try:
        yield
    finally:
        ray.shutdown()


def _judge_shard(message: str) -> str:
    """Runs on a node: JSON in, JSON out, so that Ray pickles nothing but strings.

    A node that may not judge (another version of the code, too weak an isolation) says so.
    """
    job = json.loads(message)
    here = platform.node()
    try:
        if job["version"] != version():
            raise RuntimeError("another version of rrtf or of Python than the caller's")
        asked = job["limits"].get("packages", ())
        if job.get("packages", {}) != sandbox.packages.versions(asked):
            raise RuntimeError(f"other packages than the caller's {job['packages']}")
        problems = [Problem(*row) for row in job["problems"]]
        responses = [Response(task_id, "", 0, "", program) for task_id, program in job["programs"]]
        found = sandbox.execute(problems, responses, workers=job["workers"], **job["limits"])
    except ValueError as error:
        return json.dumps({"ValueError": str(error)})
    except RuntimeError as error:
        return json.dumps({"RuntimeError": f"node {here}: {error}"})
    return json.dumps({"verdicts": [[e.task_id, e.outcome, *_rest(e)] for e in found]})


def _verdicts(ray: ModuleType, task: object, shard: range) -> dict[int, Execution]:
    try:
        answer = json.loads(ray.get(task))
    except ray.exceptions.RayError as error:
        raise RuntimeError(f"Ray gave up a shard of {len(shard)} programs: {error}") from error
    for kind in (ValueError, RuntimeError):
        if kind.__name__ in answer:
            raise kind(answer[kind.__name__])
    verdicts = [
        Execution(task_id, "", 0, Outcome(outcome), *rest)
        for task_id, outcome, *rest in answer["verdicts"]
    ]
    return dict(zip(shard, verdicts, strict=True))
