"""The workers' zygote: forks one process per candidate, watches its time, clears up after it."""

import _signal as signal
import _socket
import contextlib
import os
import struct
import sys
import time

from rrtf.sandbox import kernel, wire, worker
from rrtf.sandbox.kernel import ROUNDS, SAMPLE, freeze


class _Worker:
    """A running candidate as its zygote sees it."""

    def __init__(self, pid: int, nonce: bytes):
        self.pid, self.nonce = pid, nonce
        self.out_of_time = False

    def cpu(self) -> float:
        """CPU seconds so far; a process's clock is named by its number (clock_getcpuclockid)."""
        return time.clock_gettime((~self.pid << 3) | 2)


def breed(requests: _socket.socket, settings: dict) -> None:
    """Forks a worker for every SPAWN and says at END how it ended."""
    current: _Worker | None = None
    _warm_worker()
    _look_up_after(requests, settings["cpu_seconds"])
    freeze()
    while True:
        try:
            message = requests.recv(64)
        except BlockingIOError:
            _watch(current, requests, settings)
            continue
        if not message:
            _end(current, settings)
            if settings["level"] in ("process", "none"):
                with contextlib.suppress(OSError):
                    os.rmdir(settings["scratch"])  # a caller that was killed cannot
            return
        kind, nonce = message[:1], message[1:9]
        if kind == wire.SPAWN:
            _end(current, settings)
            current = _spawn(requests, nonce, settings, has_input=bool(message[9:]))
        elif kind == wire.FORGET:
            _end(current, settings)
            current = None
        elif current is None or nonce != current.nonce:
            requests.send(wire.FAILED + nonce)
        elif kind == wire.CPU:
            _watch(current, requests, settings)
            requests.send(wire.CPU + nonce + struct.pack("<d", current.cpu()))
        elif kind == wire.END:
            status = _end(current, settings, patient=message[9:] == b"\1")
            current = None
            requests.send(wire.END + nonce + status)


def _watch(current: _Worker | None, requests: _socket.socket, settings: dict) -> None:
    """Kills a worker whose CPU time is over; else looks up again when it may be."""
    if current and not current.out_of_time:
        left = settings["cpu_seconds"] - current.cpu()
        current.out_of_time = left <= 0
        if current.out_of_time:
            os.kill(current.pid, signal.SIGKILL)
        else:
            _look_up_after(requests, left)


def _look_up_after(requests: _socket.socket, seconds: float) -> None:
    milliseconds = int(1000 * seconds) + 1
    tick = struct.pack("ll", milliseconds // 1000, milliseconds % 1000 * 1000)
    requests.setsockopt(_socket.SOL_SOCKET, _socket.SO_RCVTIMEO, tick)


def _warm_worker() -> None:
    """Serves a sample in this process: what the interpreter prepares once is prepared here."""
    for number in range(ROUNDS):
        ours, theirs = _socket.socketpair()
        requests = [(SAMPLE, "add"), *[("call", "add", ([3, number, 1], 2), {})] * 3]
        for at, request in enumerate(requests):
            data = wire.plain(request)
            ours.sendall(wire.HEADER.pack(len(data), b"warm-up!", at) + data)
        ours.shutdown(_socket.SHUT_WR)
        with contextlib.suppress(EOFError):
            worker.serve(theirs.fileno(), b"warm-up!")
        ours.close()
        theirs.close()
    for name in [n for n in sys.modules if n.startswith("rrtf") or n == "candidate"]:
        del sys.modules[name]


def _spawn(
    requests: _socket.socket, nonce: bytes, settings: dict, *, has_input: bool
) -> _Worker | None:
    ours, theirs = _socket.socketpair()
    try:
        pid = os.fork() if settings["packages"] else kernel.bare_fork()
    except OSError:
        requests.send(wire.FAILED + nonce)
        return None
    if pid == 0:
        _be_worker(theirs, nonce, settings, has_input)
    theirs.close()
    current = _Worker(pid, nonce)
    rights = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, struct.pack("i", ours.fileno()))]
    requests.sendmsg([wire.SPAWN + nonce], rights)
    ours.close()
    return current


def _be_worker(channel: _socket.socket, nonce: bytes, settings: dict, has_input: bool) -> None:
    try:
        if settings["level"] in ("process", "none"):  # elsewhere it has no children to end with it
            os.setsid()
        os.dup2(channel.detach(), 3)
        os.closerange(4, 64)
        _open_own_files(has_input)
        if settings["level"] != "none":
            kernel.limit_cpu(int(settings["cpu_seconds"]) + 2)
        settings["confine"]()
    except BaseException:
        os._exit(wire.NOT_SET_UP)
    try:
        with contextlib.suppress(EOFError):
            worker.serve(3, nonce)
        os._exit(0)
    except BaseException:
        os._exit(wire.CHANNEL_LOST)


def _open_own_files(has_input: bool) -> None:
    """Input and output that no other process has open: locks, flags and blocks end with it."""
    output = os.memfd_create("output", 0)
    given = os.memfd_create("input", 0) if has_input else os.open("/dev/null", os.O_RDWR)
    for fd, source in ((0, given), (1, output), (2, output)):
        os.dup2(source, fd)
    os.closerange(min(output, given), max(output, given) + 1)


def _end(current: _Worker | None, settings: dict, *, patient: bool = False) -> bytes:
    """Kills the worker and what it left, cleans its scratch folder; its STATUS.

    `patient`: its channel is closed already, so give it the moment to finish dying.
    """
    if current is None:
        return b""
    alive = not (patient and kernel.has_ended(current.pid, 1000))
    # In a namespace -1 is everything in it but its first process, this one.
    os.kill(-1 if settings["level"] == "namespaces" else current.pid, signal.SIGKILL)
    _, status = os.waitpid(current.pid, 0)
    if settings["level"] == "namespaces":
        kernel.reap()
    elif settings["level"] != "landlock+seccomp":  # where forking was refused
        _kill_leftovers(current.pid)
    _clean(settings)
    return wire.STATUS.pack(status, current.out_of_time, alive)


def _kill_leftovers(group: int) -> None:
    targets = [-group, *_children()]
    while targets:
        for target in targets:
            with contextlib.suppress(ProcessLookupError):
                os.kill(target, signal.SIGKILL)
        kernel.reap()
        targets = _children()


def _children() -> list[int]:
    """Living children of this process, orphans that it adopted among them."""
    try:
        with open(f"/proc/self/task/{os.getpid()}/children") as file:
            return [int(pid) for pid in file.read().split()]
    except OSError:
        return []


def _clean(settings: dict) -> None:
    if settings["level"] == "landlock+seccomp":
        return  # nothing was writable
    folder = settings["scratch"]
    os.chmod(folder, 0o1777 if settings["level"] == "namespaces" else 0o700)
    while names := set(os.listdir(folder)) - settings["spared"]:
        for name in names:
            _remove(folder, name)
    os.utime(folder, (0, 0))


def _remove(folder: str, name: str) -> None:
    """Removes a file; of a folder, moves what it holds up to `folder`: no depth is too deep."""
    path = os.path.join(folder, name)
    if os.path.islink(path) or not os.path.isdir(path):
        os.unlink(path)
        return
    os.chmod(path, 0o700)
    for inner in os.listdir(path):
        source = os.path.join(path, inner)
        if os.path.isdir(source) and not os.path.islink(source):
            os.chmod(source, 0o700)  # a folder that may not be written to cannot be moved
        os.rename(source, os.path.join(folder, os.urandom(8).hex()))
    os.rmdir(path)
