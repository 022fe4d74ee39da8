"""Warm, small interpreters inside the fences, which fork one process per program or problem.

A lane is two of them: `breed` forks workers (one candidate each) for the judge that asks;
`convene` forks judges (one problem each) for the caller. They share no namespace. Each ends when
the socket above it closes, and everything it started ends with it.
"""

import _socket
import contextlib
import fcntl
import gc
import json
import os
import select
import signal
import struct
import sys
import time
from collections.abc import Callable

from rrtf.sandbox import judge, kernel, wire, worker

# Imported before the fences close, so that candidates and tests find them warm.
PRELOADED = (
    *("array", "bisect", "cmath", "collections", "copy", "datetime", "decimal", "fractions"),
    *("functools", "heapq", "itertools", "math", "operator", "random", "re", "statistics"),
    *("string", "typing"),
)
WARM_ROUNDS = 12  # the interpreter specialises code that has run eight times

SPAWN, CPU, END, FORGET, FAILED = b"S", b"C", b"E", b"K", b"!"
STATUS = struct.Struct("<id??")  # wait status, CPU seconds, killed for CPU time, was alive
RESULT, DONE = b"R", b"D"

SCRATCH_MB, SCRATCH_FILES, FILE_MB, TASKS = 32, 2048, 4, 64
JUDGE_MB, JUDGE_CPU_SECONDS, JUDGE_WALL_SECONDS = 2048, 20.0, 60.0

_TICK = struct.pack("ll", 0, 250_000)  # how often a judge looks up from waiting


def main() -> None:
    settings = json.loads(sys.argv[2])
    settings["confine"] = _confinement(settings)
    sockets = _adopt_sockets([settings[n] for n in ("control", "nursery") if n in settings])
    control = sockets[0]
    log = os.dup(2)
    try:
        _fence(settings)
    except OSError as error:
        control.send(FAILED + str(error).encode())
        return
    control.send(b"+")
    try:
        if settings["role"] == "worker":
            breed(control, settings)
        else:
            convene(control, sockets[1], settings)
    except Exception as error:
        import traceback

        os.write(log, "".join(traceback.format_exception(error)).encode())
        os._exit(1)


def _confinement(settings: dict) -> Callable[[], None]:
    """What every forked process does first of all. (A namespace ends with its first process.)"""
    if settings["level"] == "namespaces":
        return kernel.confinement(receives=settings["role"] == "judge")
    if settings["level"] != "landlock+seccomp":
        return kernel.die_with_parent
    confine = kernel.confinement(receives=settings["role"] == "judge")

    def confine_and_follow() -> None:
        kernel.die_with_parent()
        confine()

    return confine_and_follow


def _adopt_sockets(fds: list[int]) -> list[_socket.socket]:
    """Moves them to numbers from 40 on, clear of those that children use, and closes the rest."""
    high = [fcntl.fcntl(fd, fcntl.F_DUPFD, 40) for fd in fds]
    os.closerange(3, high[0])
    if len(high) > 1:
        os.closerange(high[0] + 1, high[1])
    os.closerange(high[-1] + 1, os.sysconf("SC_OPEN_MAX"))
    return [_socket.socket(fileno=fd) for fd in high]


def _fence(settings: dict) -> None:
    """Enters the level asked for, for good; OSError where the host does not allow it."""
    _preload(settings["seed"])
    level, is_worker = settings["level"], settings["role"] == "worker"
    output = os.memfd_create("output", 0)
    if level == "namespaces":
        kernel.enter_namespaces(SCRATCH_MB, SCRATCH_FILES)
    folder = "/tmp" if level == "namespaces" else settings["scratch"]
    os.chdir(folder if is_worker else "/")
    if level in ("namespaces", "landlock+seccomp"):
        kernel.give_up_privileges()
        kernel.restrict_files("/tmp" if level == "namespaces" and is_worker else None)
        kernel.deny_system_calls()
    else:
        kernel.adopt_orphans()
    null = os.open("/dev/null", os.O_RDWR)
    for fd, source in ((0, null), (1, output), (2, output)):
        os.dup2(source, fd)
    os.close(null)
    os.close(output)
    sys.argv = [""]
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    if level != "none":
        kernel.limit_resources(
            memory_mb=settings["memory_mb"] if is_worker else JUDGE_MB,
            file_mb=FILE_MB,
            processes=TASKS if level == "namespaces" else 0,
        )


def _preload(seed: int) -> None:
    """Imports; `random` without the reseeding after each fork, which costs as much as the fork."""
    register, os.register_at_fork = os.register_at_fork, lambda **_: None
    for name in PRELOADED:
        __import__(name)
    os.register_at_fork = register
    sys.modules["random"].seed(seed)


def _freeze() -> None:
    """Keeps the collector, and so the writing of shared pages, away from what exists by now."""
    gc.collect()
    gc.disable()
    gc.freeze()


# --- workers -----------------------------------------------------------------------------------


class _Worker:
    """A running candidate as its zygote sees it."""

    def __init__(self, pid: int, nonce: bytes):
        self.pid, self.nonce = pid, nonce
        self.watch = os.pidfd_open(pid)
        self.out_of_time = False

    def cpu(self) -> float:
        """CPU seconds so far; a process's clock is named by its number (clock_getcpuclockid)."""
        return time.clock_gettime((~self.pid << 3) | 2)


def breed(requests: _socket.socket, settings: dict) -> None:
    """Forks a worker for every SPAWN and says at END how it ended."""
    current: _Worker | None = None
    _warm_worker()
    _freeze()
    poll = select.poll()
    poll.register(requests, select.POLLIN)
    while True:
        left = None
        if current and not current.out_of_time:
            left = settings["cpu_seconds"] - current.cpu()
            if left <= 0:
                current.out_of_time = True
                os.kill(current.pid, signal.SIGKILL)
                left = None
        if not poll.poll(None if left is None else 1000 * left + 1):
            continue
        message = requests.recv(64)
        if not message:
            _end(current, settings)
            return
        kind, nonce = message[:1], message[1:9]
        if kind == SPAWN:
            _end(current, settings)
            current = _spawn(requests, nonce, settings)
        elif kind == FORGET:
            _end(current, settings)
            current = None
        elif current is None or nonce != current.nonce:
            requests.send(FAILED + nonce)
        elif kind == CPU:
            requests.send(CPU + nonce + struct.pack("<d", current.cpu()))
        elif kind == END:
            status = _end(current, settings, patient=message[9:] == b"\1")
            current = None
            requests.send(END + nonce + status)


_SAMPLE = """
from typing import List, Optional
import math
def add(a: List[int], b: int = 0) -> List[int]:
    seen = {}
    for i, x in enumerate(sorted(a)):
        seen[x] = seen.get(x, 0) + len(str(i)) * 1.0
    return [x + b for x in a if x in seen and "%d" % x] or None
class Box:
    def __init__(self, value):
        self.value = value
"""
_SAMPLE_TESTS = """
def check(candidate):
    total = 0
    for b in range(2):
        assert candidate([3, 1], b) == [3 + b, 1 + b], "sum"
    assert abs(candidate([1])[0] - 1) < 1e-6
    candidate([2])
"""


def _warm_worker() -> None:
    """Serves a sample in this process: what the interpreter prepares once is prepared here."""
    for number in range(WARM_ROUNDS):
        ours, theirs = _socket.socketpair()
        requests = [(_SAMPLE, "add"), *[("call", "add", ([3, number, 1], 2), {})] * 3]
        for at, request in enumerate(requests):
            data = wire.encode(request)
            ours.sendall(wire.HEADER.pack(len(data), b"warm-up!", at) + data)
        ours.shutdown(_socket.SHUT_WR)
        with contextlib.suppress(EOFError):
            worker.serve(theirs.fileno(), b"warm-up!")
        ours.close()
        theirs.close()
    for name in [n for n in sys.modules if n.startswith("rrtf") or n == "candidate"]:
        del sys.modules[name]


def _spawn(requests: _socket.socket, nonce: bytes, settings: dict) -> _Worker | None:
    ours, theirs = _socket.socketpair()
    try:
        pid = os.fork()
    except OSError:
        requests.send(FAILED + nonce)
        return None
    if pid == 0:
        _be_worker(theirs, nonce, settings)
    theirs.close()
    current = _Worker(pid, nonce)
    for option in (_socket.SO_RCVTIMEO, _socket.SO_SNDTIMEO):
        ours.setsockopt(_socket.SOL_SOCKET, option, _TICK)
    rights = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, struct.pack("i", ours.fileno()))]
    requests.sendmsg([SPAWN + nonce], rights)
    ours.close()
    return current


def _be_worker(channel: _socket.socket, nonce: bytes, settings: dict) -> None:
    try:
        os.setsid()
        os.dup2(channel.detach(), 3)
        os.closerange(4, 64)
        if settings["level"] != "none":
            kernel.limit_cpu(int(settings["cpu_seconds"]) + 2)
        settings["confine"]()
        gc.enable()
        worker.serve(3, nonce)
    finally:
        os._exit(0)


def _end(current: _Worker | None, settings: dict, *, patient: bool = False) -> bytes:
    """Kills the worker and what it left, cleans its scratch folder; its STATUS.

    `patient`: its channel is closed already, so give it the moment to finish dying.
    """
    if current is None:
        return b""
    watch = select.poll()
    watch.register(current.watch, select.POLLIN)
    alive = not watch.poll(200 if patient else 0)
    if alive:
        os.kill(current.pid, signal.SIGKILL)
    _, status, usage = os.wait4(current.pid, 0)
    os.close(current.watch)
    _kill_leftovers(current.pid, settings["level"])
    _clean(settings)
    return STATUS.pack(status, usage.ru_utime + usage.ru_stime, current.out_of_time, alive)


def _kill_leftovers(pid: int, level: str) -> None:
    if level == "landlock+seccomp":
        return  # forking was refused
    if level == "namespaces":
        targets = [-1]  # everything in the namespace but its first process, this one
    else:
        targets = [-pid, *_children()]
    while targets:
        for target in targets:
            try:
                os.kill(target, signal.SIGKILL)
            except ProcessLookupError:
                pass
        try:
            while os.waitpid(-1, 0):
                pass
        except ChildProcessError:
            pass
        targets = [] if level == "namespaces" else _children()


def _children() -> list[int]:
    """Living children of this process, orphans that it adopted among them."""
    try:
        with open(f"/proc/self/task/{os.getpid()}/children") as file:
            return [int(pid) for pid in file.read().split()]
    except OSError:
        return []


def _clean(settings: dict) -> None:
    if os.lseek(1, 0, os.SEEK_END):
        os.ftruncate(1, 0)
        os.lseek(1, 0, os.SEEK_SET)
    if settings["level"] == "landlock+seccomp":
        return  # nothing was writable
    folder = "/tmp" if settings["level"] == "namespaces" else settings["scratch"]
    names = os.listdir(folder)
    if names:
        import shutil

        for name in names:
            path = os.path.join(folder, name)
            _remove(path, shutil.rmtree)


def _remove(path: str, remove_tree) -> None:
    if os.path.islink(path) or not os.path.isdir(path):
        os.unlink(path)
        return
    for folder, _, _ in os.walk(path):
        os.chmod(folder, 0o700)
    remove_tree(path)


# --- judges ------------------------------------------------------------------------------------


def convene(control: _socket.socket, nursery: _socket.socket, settings: dict) -> None:
    """For every job read from `control`: fork a judge, pass on what it says, say how it ended."""
    _warm_judge(nursery, settings)
    _freeze()
    while True:
        header = control.recv(4, _socket.MSG_WAITALL)
        if len(header) < 4:
            return
        size = int.from_bytes(header, "little")
        job = _receive(control, size)
        results, out = os.pipe()
        pid = os.fork()
        if pid == 0:
            _be_judge(control, nursery, out, job, settings)
        os.close(out)
        del job
        how = _attend(control, results, pid)
        os.close(results)
        _, status = os.waitpid(pid, 0)
        nursery.send(FORGET)
        if how is None:
            return
        if status and not how:
            how = b"died"
        control.sendall(DONE + len(how).to_bytes(4, "little") + how)


def _warm_judge(nursery: _socket.socket, settings: dict) -> None:
    """Judges a sample in this process, with real workers."""
    job = {"kind": "check", "prompt": "", "entry_point": "add", "tests": _SAMPLE_TESTS, "seed": 0}
    parts = [wire.encode(job), wire.encode(_SAMPLE)]
    sent = b"".join(len(part).to_bytes(4, "little") + part for part in parts)
    null = os.open("/dev/null", os.O_WRONLY)
    for _ in range(WARM_ROUNDS):
        judge.preside(sent, null, nursery, settings["wall_seconds"])
    os.close(null)


def _receive(control: _socket.socket, size: int) -> bytes:
    parts = []
    while size:
        part = control.recv(min(size, 1 << 20))
        if not part:
            os._exit(0)
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _be_judge(control, nursery, out: int, job: bytes, settings: dict) -> None:
    failed = 1
    try:
        control.close()
        nursery_fd = nursery.detach()
        os.dup2(out, 3)
        os.dup2(nursery_fd, 4)
        os.closerange(5, 64)
        settings["confine"]()
        gc.enable()
        judge.preside(job, 3, _socket.socket(fileno=4), settings["wall_seconds"])
        failed = 0
    finally:
        os._exit(failed)


def _attend(control: _socket.socket, results: int, pid: int) -> bytes | None:
    """Forwards a judge's results until it ends: b'' itself, b'limit' killed; None: caller gone.

    Its limits count from its last words, so they are limits per program.
    """
    poll = select.poll()
    poll.register(results, select.POLLIN)
    poll.register(control, select.POLLIN)
    clock = (~pid << 3) | 2
    cpu, since = 0.0, time.monotonic()
    while True:
        events = dict(poll.poll(1000))
        if control.fileno() in events:
            os.kill(pid, signal.SIGKILL)
            return None
        if results in events:
            data = os.read(results, 1 << 18)
            if not data:
                break
            control.sendall(RESULT + len(data).to_bytes(4, "little") + data)
            since = time.monotonic()
            cpu = time.clock_gettime(clock)
        elif not _within(clock, cpu, since):
            os.kill(pid, signal.SIGKILL)
            return b"limit"
    return b""


def _within(clock: int, cpu: float, since: float) -> bool:
    """Whether a judge has said nothing for less than its limits."""
    try:
        used = time.clock_gettime(clock) - cpu
    except OSError:
        return True  # it has just ended
    return used < JUDGE_CPU_SECONDS and time.monotonic() - since < JUDGE_WALL_SECONDS


if __name__ == "__main__":
    main()
