"""Jobs side by side: in processes of this machine, or spread over a Ray cluster.

To a cluster strings go out and strings come back, no other data is pickled. A worker there is a
process of a node that keeps its CPUs or its GPU, and what it has loaded, until the
call ends, and has one job at a time. A lost worker or node costs the jobs under way, which others
do again; nodes that join are used.
"""

import ctypes
import json
import os
import platform
import signal
import sys
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from importlib import import_module
from multiprocessing import get_context, parent_process
from types import ModuleType
from typing import Any, TypeVar

from rrtf import config

PLACES = ("local", "ray")
RETRIES = 8  # of a job whose worker or node was lost
LOOK_AGAIN = 5.0  # seconds until the nodes are counted anew while nothing finishes

Job = TypeVar("Job")

# What a worker may raise for its caller to raise again; the first that fits, so subclasses first.
_TOLD = (ValueError, FileNotFoundError, RuntimeError, ImportError, OSError)


def check_place(name: str) -> None:
    """ValueError for a cluster that is neither `local` nor `ray`."""
    if name not in PLACES:
        raise ValueError(f"unknown cluster {name!r}: expected one of {', '.join(PLACES)}")


def side_by_side(
    work: Callable[[Job], Any], jobs: Sequence[Job], *, processes: int
) -> Iterator[tuple[int, Any]]:
    """(number of the job, `work(job)`) as they end, by fresh processes of one thread each.

    One process is this one. An error of `work` is raised here, a process that is killed is an
    OSError; whatever ends the call, also the death of this process, ends the others at once.
    """
    if processes < 2:
        yield from ((number, work(job)) for number, job in enumerate(jobs))
        return
    try:
        with pool(processes) as beside:
            numbers = {beside.submit(work, job): number for number, job in enumerate(jobs)}
            for ended in as_completed(numbers):
                yield numbers[ended], ended.result()
    except BrokenProcessPool:
        raise OSError("a process was killed; what was finished is kept") from None


@contextmanager
def pool(
    processes: int, begin: Callable[..., None] | None = None, *arguments: Any
) -> Iterator[ProcessPoolExecutor]:
    """Fresh processes of one thread each, in each of which `begin(*arguments)` comes first.

    They end with the block however it ends, also by the death of this process.
    """
    made = ProcessPoolExecutor(processes, get_context("spawn"), _begin, (begin, arguments))
    try:
        yield made
    finally:
        for process in list(made._processes.values()):
            process.terminate()
        made.shutdown(cancel_futures=True)


def _begin(begin: Callable[..., None] | None, arguments: Sequence[Any]) -> None:
    """The first thing that a process beside this one does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the caller is interrupted, and ends the others
    config.set_threads(1)
    end_with_parent(parent_process().pid)
    if begin:
        begin(*arguments)


def end_with_parent(parent: int, how: int = signal.SIGKILL) -> None:
    """A signal for this process when `parent` ends, which started it; its end if it has."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, how)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:
        os._exit(1)


def spread(
    work: Callable[[dict, int], Any],
    jobs: Sequence[Job],
    *,
    message: Callable[[Job], dict],
    finished: Callable[[Job, Any], None],
    cpus: int = 1,
    gpu: bool = False,
) -> None:
    """`finished(job, work(message(job), cpus))` for every job, `work` on a node, as they end.

    `work` is a function of a module that has `version()`, the hash of the code that decides what
    `work` returns; a node with another is refused. Messages and results are what JSON holds.
    Every worker reserves `cpus` CPUs, or as many as the smallest node has. With `gpu` it reserves
    a GPU too if the cluster has any, and nodes without one get no job: they would compute in
    another precision.

    The cluster is the one that `$RAY_ADDRESS` names or this machine is part of, else one started
    here for this call. Whatever ends the call ends the jobs under way. Errors of `work` are raised
    here; ImportError where Ray is missing; RuntimeError for a node that may not work, for an
    unexpected error there, and for a job that was lost more than `RETRIES` times.
    """
    ray = _import_ray()
    if not jobs:
        return
    with _connected(ray):
        team = _Team(ray, work, cpus=cpus, gpu=gpu)
        try:
            _work_off(team, jobs, message, finished)
        finally:
            team.dismiss()


def _work_off(
    team: "_Team",
    jobs: Sequence[Job],
    message: Callable[[Job], dict],
    finished: Callable[[Job, Any], None],
) -> None:
    waiting, lost = deque(range(len(jobs))), Counter()
    while waiting or team.jobs():
        team.hire(len(waiting))
        for worker, number, answer in team.ended():
            if answer is None:
                lost[number] += 1
                if lost[number] > RETRIES:
                    what = "its workers do not start" if number is None else "a job is lost"
                    raise RuntimeError(f"Ray gave up: {what}, {lost[number]} times in a row")
                waiting.extendleft([] if number is None else [number])
                continue
            value = _value(answer)
            lost.pop(None, None)
            if number is not None:
                finished(jobs[number], value)
            if waiting:
                number = waiting.popleft()
                team.give(worker, number, json.dumps(message(jobs[number])))


class _Team:
    """The workers of one call and what each of them is doing."""

    def __init__(self, ray: ModuleType, work: Callable, *, cpus: int, gpu: bool):
        nodes = _alive(ray)
        self.ray, self.gpus = ray, int(gpu and any(n.get("GPU", 0) >= 1 for n in nodes))
        suited = [int(n["CPU"]) for n in nodes if n.get("CPU", 0) >= 1 and self._gpus_in(n)]
        self.cpus = min([cpus, *suited])
        module = import_module(work.__module__)
        self.told = (f"{work.__module__}:{work.__name__}", module.version(), self.cpus)
        self.kind = ray.remote(_Worker).options(num_cpus=self.cpus, num_gpus=self.gpus)
        self.calls: dict[Any, tuple[Any, int | None]] = {}  # to (worker, job; None: it starts)

    def _gpus_in(self, node: dict) -> int:
        return int(node.get("GPU", 0)) if self.gpus else 1

    def jobs(self) -> list[int]:
        """The jobs under way."""
        return [number for _, number in self.calls.values() if number is not None]

    def hire(self, waiting: int) -> None:
        """Starts workers for what waits: as many as fit, and one more, which a cluster that
        grows on demand grows for."""
        places = 1
        for node in _alive(self.ray):
            fit = int(node.get("CPU", 0)) // self.cpus
            places += min(fit, self._gpus_in(node)) if self.gpus else fit
        starting = len(self.calls) - len(self.jobs())
        for _ in range(min(places - len(self.calls), waiting - starting)):
            worker = self.kind.remote()
            self.calls[worker.begin.remote(*self.told)] = worker, None

    def give(self, worker: Any, number: int, message: str) -> None:
        """Sends a job to a worker that has none."""
        self.calls[worker.do.remote(message)] = worker, number

    def ended(self) -> Iterator[tuple[Any, int | None, str | None]]:
        """(worker, job, answer) of calls that have ended; the answer is None if it was lost."""
        ray = self.ray
        ready, _ = ray.wait(list(self.calls), num_returns=1, timeout=LOOK_AGAIN)
        for call in ready:
            worker, number = self.calls.pop(call)
            try:
                answer = ray.get(call)
            except ray.exceptions.RayTaskError as error:
                raise RuntimeError(f"unexpected error on a node: {error}") from error
            except ray.exceptions.RayError:
                ray.kill(worker)
                answer = None
            yield worker, number, answer

    def dismiss(self) -> None:
        """Ends all workers that are doing or waiting for something, at once."""
        for worker, _ in self.calls.values():
            self.ray.kill(worker)


class _Worker:
    """Lives on a node: told what to do by its name, then JSON in and JSON out."""

    def begin(self, work: str, version: str, cpus: int) -> str:
        """Says whether this node may work."""
        place, _, name = work.partition(":")
        self.cpus = cpus
        try:
            module = import_module(place)
            self.work = getattr(module, name)
            if module.version() != version:
                raise RuntimeError("another version of rrtf, Python or a library than the caller's")
        except _TOLD as error:
            return _report(error)
        return json.dumps({})

    def do(self, message: str) -> str:
        try:
            return json.dumps({"value": self.work(json.loads(message), self.cpus)})
        except _TOLD as error:
            return _report(error)


def _report(error: Exception) -> str:
    """An error as a worker tells it; what may be the node's fault names the node."""
    kind = next(kind for kind in _TOLD if isinstance(error, kind))
    where = "" if kind is ValueError else f"node {platform.node()}: "
    return json.dumps({kind.__name__: f"{where}{error}"})


def _value(answer: str) -> Any:
    told = json.loads(answer)
    for kind in _TOLD:
        if kind.__name__ in told:
            raise kind(told[kind.__name__])
    return told.get("value")


def _alive(ray: ModuleType) -> list[dict]:
    """The resources of every living node."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def _import_ray() -> ModuleType:
    try:
        import ray
    except ImportError:
        raise ImportError("a cluster needs Ray: pip install 'rrtf[ray]'") from None
    return ray


@contextmanager
def _connected(ray: ModuleType) -> Iterator[None]:
    """Joins the cluster at hand, or starts one of this machine's cores that ends with the call."""
    if ray.is_initialized():
        yield
        return
    quiet = {"log_to_driver": False, "logging_level": "WARNING"}
    ending = signal.getsignal(signal.SIGTERM)  # Ray puts its own in this place
    try:
        ray.init(address="auto", **quiet)
    except ConnectionError:
        if os.environ.get("RAY_ADDRESS"):
            raise
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        ray.init(address="local", include_dashboard=False, **quiet)
    if ending and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, ending)
    try:
        yield
    finally:
        ray.shutdown()
