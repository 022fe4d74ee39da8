"""Lanes: pairs of zygotes seen from the caller, the levels they can reach, jobs and retries."""

import marshal
import os
import re
import selectors
import shutil
import socket
import subprocess
import sys
import tempfile
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import cache
from itertools import cycle
from pathlib import Path

from rrtf.sandbox import wire
from rrtf.sandbox.instrument import prepare
from rrtf.sandbox.kernel import SAMPLE, SAMPLE_TESTS
from rrtf.sandbox.packages import view

LEVELS = ("namespaces", "landlock+seccomp", "process", "none")  # strongest first
PROGRAMS_PER_JOB = 16
TRIES = 3  # of a job whose sandbox failed
START_SECONDS = 60.0  # for a zygote to say that it stands, also on a crowded machine

_BOOT = (
    "import sys, types\n"
    "for name, path in (('rrtf', sys.argv[1]), ('rrtf.sandbox', sys.argv[1] + '/sandbox')):\n"
    "    sys.modules[name] = types.ModuleType(name)\n"
    "    sys.modules[name].__path__ = [path]\n"
    "from rrtf.sandbox.zygote import main\n"
    "main()\n"
)


@dataclass(eq=False)
class Tests:
    """One problem's tests and `programs`: a judge is told of them by `message`.

    `rows[i]` is what was said of program i.
    """

    name: str
    message: Callable[[], dict]
    programs: Sequence
    rows: dict[int, tuple]


Run = tuple[Tests, int]  # the tests and which of their programs


@dataclass(eq=False)
class Job:
    """What a judge is given at once: programs of one problem, or of several that are data."""

    runs: list[Run]
    tries: int = 0
    is_alone: bool = False  # no others are to be judged with it

    @property
    def left(self) -> list[Run]:
        """The runs of which nothing was said."""
        return [(tests, i) for tests, i in self.runs if i not in tests.rows]

    def joins(self) -> bool:
        """Whether it may be judged together with others: a first try, of tests that are data."""
        with suppress(Unusable):
            messages = [tests.message() for tests in dict.fromkeys(t for t, _ in self.runs)]
            fresh = not (self.tries or self.is_alone)
            return fresh and all("cases" in m and not m["reads_input"] for m in messages)
        return False

    def encode(self) -> bytes:
        """The head that `wire.JOB` says, then messages and programs with their message's number.

        Marshalled: a judge trusts its caller.
        """
        number = {tests: at for at, tests in enumerate(dict.fromkeys(t for t, _ in self.runs))}
        messages = [tests.message() for tests in number]
        programs = [(number[tests], tests.programs[i]) for tests, i in self.runs]
        data = marshal.dumps((messages, programs))
        most_runs = max(len(m["cases"]) if m.get("reads_input") else 1 for m in messages)
        n_data = len(messages) if "cases" in messages[0] else 0
        return wire.JOB.pack(len(data), n_data, most_runs) + data


class SandboxFailure(Exception):
    """A zygote could not be started or is gone."""


class Unusable(ValueError):
    """Tests that cannot be run; no program's fault."""


class Lane:
    """One judges' zygote and one workers' zygote, and the socket to the first.

    Judge and worker take turns, so a lane stays on one `cpu` (if given): waking each other across
    two would cost more than it gains.
    """

    def __init__(self, level: str, settings: dict, cpu: int | None = None):
        self.cpu = cpu
        self.buffer, self.words = bytearray(), bytearray()
        self.job: Job | None = None
        self.broken = False
        # Only these have a folder on the host's disk; a namespace has its own, Landlock none.
        self.scratch = tempfile.mkdtemp(prefix="rrtf-scratch-") if level in LEVELS[2:] else ""
        self.log = tempfile.TemporaryFile()  # noqa: SIM115
        self.processes: list[subprocess.Popen] = []
        self.socket: socket.socket | None = None
        try:
            self._start(settings | {"level": level, "scratch": self.scratch, "cpu": cpu})
        except BaseException:
            self.close()
            raise

    def _start(self, settings: dict) -> None:
        nursery, for_worker = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket, for_judge = socket.socketpair()
        with nursery, for_worker, for_judge:
            self._launch(settings | {"role": "worker", "control": for_worker.fileno()})
            for_worker.close()  # so that a zygote which dies is seen as the end of the line
            _await(nursery, "workers'")
            fds = {"control": for_judge.fileno(), "nursery": nursery.fileno()}
            settings |= {"preload": [], "packages": {}}
            self._launch(settings | {"role": "judge", "sample": _sample()} | fds)
        _await(self.socket, "judges'")

    def _launch(self, settings: dict) -> None:
        root = str(Path(__file__).resolve().parent.parent)
        flags = ["-P", "-s", "-S", "-W", "ignore", "-X", "utf8"]
        process = subprocess.Popen(
            [sys.executable, *flags, "-c", _BOOT, root, wire.encode(settings).hex()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self.log,
            pass_fds=[settings[name] for name in ("control", "nursery") if name in settings],
            env=_environment(settings["seed"]),
            start_new_session=True,
        )
        self.processes.append(process)

    def start(self) -> None:
        """Sends the lane's job to its judge."""
        self.job.tries += 1
        try:
            self.socket.sendall(self.job.encode())
        except OSError as error:
            raise SandboxFailure(f"the judges' zygote is gone: {error}") from None

    def receive(self) -> str | None:
        """Takes what has arrived; the way the job ended, or None while it goes on."""
        try:
            data = self.socket.recv(1 << 18)
        except ConnectionError:
            data = b""
        if not data:
            raise SandboxFailure("the judges' zygote is gone")
        self.buffer += data
        return self._parse()

    def last_words(self) -> str:
        self.log.seek(0)
        return self.log.read()[-2000:].decode(errors="replace")

    def _parse(self) -> str | None:
        buffer, ended = self.buffer, None
        while len(buffer) >= 5 and len(buffer) >= 5 + (size := _size(buffer, 1)):
            kind, content = buffer[:1], bytes(buffer[5 : 5 + size])
            del buffer[: 5 + size]
            if kind == b"R":
                self.words += content
            else:
                ended = content.decode()
        return ended

    def rows(self) -> Iterator[tuple]:
        """The rows that the judge has said in full."""
        while len(self.words) >= 4 and len(self.words) >= 4 + (size := _size(self.words, 0)):
            yield wire.decode(bytes(self.words[4 : 4 + size]), wire.Opaque)
            del self.words[: 4 + size]

    def close(self) -> None:
        """Hangs up, which ends both zygotes and all they started; kills what does not follow."""
        if self.socket:
            self.socket.close()
        for process in reversed(self.processes):
            try:
                process.wait(2)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.log.close()
        if self.scratch:
            shutil.rmtree(self.scratch, ignore_errors=True)


@cache
def _sample() -> str:
    """The job that a judges' zygote warms up with, as hexadecimal digits."""
    message = {"seed": 0} | prepare("", "add", SAMPLE_TESTS)
    job = Job([(Tests("sample", lambda: message, [SAMPLE], {}), 0)])
    return job.encode()[wire.JOB.size :].hex()


def _size(buffer: bytes | bytearray, at: int) -> int:
    return int.from_bytes(buffer[at : at + 4], "little")


def _await(line: socket.socket, whose: str) -> None:
    """Waits for a zygote's `+`; SandboxFailure with its words, or for silence or its end."""
    line.settimeout(START_SECONDS)
    try:
        answer = line.recv(1 if line.type == socket.SOCK_STREAM else 4096)
        if answer and answer != b"+" and line.type == socket.SOCK_STREAM:
            answer += line.recv(4096)
    except TimeoutError:
        raise SandboxFailure(f"the {whose} zygote said nothing in {START_SECONDS} s") from None
    except ConnectionError:
        answer = b""
    if answer != b"+":
        raise SandboxFailure(answer[1:].decode() or f"the {whose} zygote did not start")
    line.settimeout(None)


_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")  # a zygote with threads gets no namespace


def _environment(hash_seed: int) -> dict[str, str]:
    fixed = {"PYTHONHASHSEED": str(hash_seed), "HOME": "/tmp", "PATH": "/usr/bin:/bin", "TZ": "UTC"}
    fixed |= dict.fromkeys(_THREADS, "1")
    return fixed | {n: os.environ[n] for n in ("LD_LIBRARY_PATH",) if n in os.environ}


_TRIAL = {"cpu_seconds": 2.0, "wall_seconds": 6.0, "memory_mb": 512}


@cache
def probe() -> str:
    """The strongest isolation level this host allows: found by entering it once."""
    reasons_why = []
    for level in LEVELS:
        try:
            Lane(level, settings_for(_TRIAL, 0)).close()
            return level
        except SandboxFailure as error:
            reasons_why.append(f"{level}: {error}")
    raise RuntimeError("no sandbox can be started here: " + "; ".join(reasons_why))


def settings_for(
    limits: dict, hash_seed: int, programs: Sequence[str] = (), packages: Sequence[str] = ()
) -> dict:
    """What a zygote is told: limits of a program, the seed of hashing and `random`, what to import.

    Importing ahead what many `programs` import saves each of them the time; what few do would
    make every fork dearer. `packages` are imported in any case.
    """
    shown = view(tuple(packages)) if packages else {}
    return limits | {"seed": hash_seed, "preload": _imported_often(programs), "packages": shown}


_IMPORT = re.compile(r"^[ \t]*(?:from|import)[ \t]+(\w+)", re.MULTILINE)
_OFTEN = 0.05  # of the programs
_PRELOADABLE = (
    *("array", "bisect", "cmath", "collections", "copy", "datetime", "decimal", "fractions"),
    *("functools", "hashlib", "heapq", "itertools", "json", "math", "operator", "re"),
    *("statistics", "string", "typing"),
)


def _imported_often(programs: Sequence[str]) -> list[str]:
    counts = Counter(name for program in programs for name in set(_IMPORT.findall(program)))
    return [n for n in _PRELOADABLE if counts[n] > _OFTEN * len(programs)]


def choose_level(isolation: str, exactly: str | None) -> str:
    """The level to run at: the strongest here, or `exactly`; RuntimeError if below `isolation`."""
    for name in (isolation, exactly or isolation):
        if name not in LEVELS:
            raise ValueError(f"unknown isolation level {name!r}: one of {', '.join(LEVELS)}")
    best = probe()
    if LEVELS.index(best) > LEVELS.index(isolation):
        raise RuntimeError(
            f"this host allows isolation {best!r} at most, {isolation!r} was asked for: run on a "
            f"Linux host (or container) that permits it, or accept the risk: isolation={best!r}"
        )
    return exactly or best


class Standing:
    """Lanes of one kind: opened where none is free, and free again after a call of `run_jobs`.

    Any thread may take one. A lane that failed, or is given back amid a job, is closed.
    """

    def __init__(self, level: str, settings: dict):
        self.level, self.settings = level, settings
        self._free: deque[Lane] = deque()
        self._cpus = cycle(_cpus())

    def take(self) -> Lane:
        """RuntimeError where none can be started."""
        with suppress(IndexError):
            return self._free.pop()
        try:
            return Lane(self.level, self.settings, next(self._cpus))
        except SandboxFailure as error:
            where = f"at level {self.level!r}: {error}"
            raise RuntimeError(f"the sandbox cannot be started {where}") from error

    def give_back(self, lane: Lane) -> None:
        if lane.broken or lane.job:
            lane.close()
        else:
            self._free.append(lane)

    def close(self) -> None:
        """Ends the lanes that are free."""
        while self._free:
            self._free.pop().close()


def run_jobs(
    jobs: Sequence[Job],
    *,
    workers: int,
    standing: Standing,
    progress: Callable[[list[Run]], None],
) -> None:
    """Fills the rows of all tests; `progress` hears which programs are done.

    Small jobs that are data are put together, as long as there are enough for every worker. A
    program on which its judge dies twice, alone, gets no row. Where the tests cannot be run all
    rows say so. A sandbox that fails TRIES times on one job is a RuntimeError.
    """
    waiting = deque(jobs)
    with ExitStack() as stack, selectors.DefaultSelector() as selector:
        for _ in range(min(workers, len(jobs))):
            _open(stack, selector, standing)
        while waiting or any(key.data.job for key in selector.get_map().values()):
            lanes = [key.data for key in selector.get_map().values()]
            for lane in lanes:
                while waiting and lane.job is None and not lane.broken:
                    lane.job = _next_job(waiting, workers)
                    _guarded(lane, lane.start, waiting, progress)
            if not any(lane.job or lane.broken for lane in lanes):
                continue  # the last of the tests could not be run
            for key, _ in selector.select():
                _guarded(key.data, key.data.receive, waiting, progress)
            for lane in lanes:
                if lane.broken:
                    selector.unregister(lane.socket)
                    lane.close()
                    _open(stack, selector, standing)


def _next_job(waiting: deque, workers: int) -> Job:
    """The next job, with the next ones in it where these are data too."""
    most = min(PROGRAMS_PER_JOB, len(waiting) // (2 * workers))
    job = waiting.popleft()
    if len(job.runs) < most and job.joins():
        while len(job.runs) + len(waiting[0].runs) <= most and waiting[0].joins():
            job.runs = job.runs + waiting.popleft().runs
    return job


def _cpus() -> list[int | None]:
    """The CPUs this process may use, from one on that differs between processes."""
    if not hasattr(os, "sched_getaffinity"):
        return [None]
    cpus = sorted(os.sched_getaffinity(0))
    first = os.getpid() % len(cpus)
    return cpus[first:] + cpus[:first]


def _open(stack: ExitStack, selector: selectors.BaseSelector, standing: Standing) -> None:
    lane = standing.take()
    stack.callback(standing.give_back, lane)
    selector.register(lane.socket, selectors.EVENT_READ, lane)


def _guarded(lane: Lane, action: Callable, waiting: deque, progress: Callable) -> None:
    """One step of a lane; a failure of the sandbox puts its job back."""
    if lane.broken:
        return
    job = lane.job
    try:
        ended = action()
        _take_rows(lane, job, progress)
    except Unusable as error:
        lane.job = None
        _refuse(job, str(error), progress)
        return
    except SandboxFailure as error:
        lane.broken, lane.job = True, None
        if job is None:
            return
        job.runs = job.left
        if job.runs and job.tries >= TRIES:
            what = f"{job.runs[0][0].name}: the sandbox failed {TRIES} times"
            raise RuntimeError(f"{what}: {error} {lane.last_words()}") from error
        if job.runs:
            waiting.appendleft(job)
        return
    if ended is not None:
        lane.job = None
        _requeue_unfinished(job, ended, waiting, progress)


def _take_rows(lane: Lane, job: Job, progress: Callable) -> None:
    done = []
    try:
        for row in lane.rows():
            if row[0] == "SandboxError":
                raise SandboxFailure(row[1])
            if row[0] == "UnusableTests":
                _refuse(job, row[1], progress)
                continue
            tests, index = job.runs[row[0]]
            tests.rows[index] = row[1:]
            done.append((tests, index))
    finally:
        if done:
            progress(done)


def _refuse(job: Job, why: str, progress: Callable) -> None:
    """No program of a job can be judged: its tests cannot be run."""
    left = job.left
    for tests, index in left:
        tests.rows[index] = wire.unusable(why)
    progress(left)


def _requeue_unfinished(job: Job, ended: str, waiting: deque, progress: Callable) -> None:
    """A judge died or ran out of its limits: the rest is tried again, each program alone."""
    left, is_single = job.left, len(job.runs) == 1
    if not left:
        return
    if is_single and (ended == "limit" or job.tries > 1):
        ((tests, index),) = left
        n_asserts = tests.message().get("n_asserts")
        if ended == "killed" and n_asserts:
            tests.rows[index] = ("RUNTIME_ERROR", "judge_killed", 0, n_asserts)
        progress(left)
        return
    waiting.extend(Job([run], job.tries if is_single else 0, is_alone=True) for run in left)
