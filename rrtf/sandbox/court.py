"""The judges' zygote: forks one process per problem and passes its results on."""

import _signal as signal
import _socket
import os
import select
import time

from rrtf.sandbox import judge, wire
from rrtf.sandbox.channel import PATIENCE
from rrtf.sandbox.warmth import ROUNDS, freeze

RESULT, DONE = b"R", b"D"
JUDGE_CPU_SECONDS, JUDGE_WALL_SECONDS = 20.0, 60.0  # between two results


def convene(control: _socket.socket, nursery: _socket.socket, settings: dict) -> None:
    """For every job read from `control`: fork a judge, pass on what it says, say how it ended."""
    _warm_judge(nursery, settings)
    freeze()
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
        how = _attend(control, results, pid, settings["wall_seconds"])
        os.close(results)
        _, status = os.waitpid(pid, 0)
        if status or how:  # else the judge has dismissed its last worker itself
            nursery.send(wire.FORGET)
        if how is None:
            return
        if status and not how:
            how = b"died"
        control.sendall(DONE + len(how).to_bytes(4, "little") + how)


def _warm_judge(nursery: _socket.socket, settings: dict) -> None:
    """Judges a sample in this process, with real workers."""
    sent = bytes.fromhex(settings["sample"])
    null = os.open("/dev/null", os.O_WRONLY)
    for _ in range(ROUNDS):
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
        judge.preside(job, 3, _socket.socket(fileno=4), settings["wall_seconds"])
        failed = 0
    finally:
        os._exit(failed)


def _attend(control: _socket.socket, results: int, pid: int, wall: float) -> bytes | None:
    """Forwards a judge's results until it ends: b'' itself, b'limit' killed; None: caller gone.

    Its limits count from its last words, so they are limits per program, and leave a program the
    time that it may take by its own wall limit.
    """
    patience = max(JUDGE_WALL_SECONDS, PATIENCE * wall + JUDGE_CPU_SECONDS)
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
        elif not _within(clock, cpu, since, patience):
            os.kill(pid, signal.SIGKILL)
            return b"limit"
    return b""


def _within(clock: int, cpu: float, since: float, patience: float) -> bool:
    """Whether a judge has said nothing for less than its limits."""
    try:
        used = time.clock_gettime(clock) - cpu
    except OSError:
        return True  # it has just ended
    return used < JUDGE_CPU_SECONDS and time.monotonic() - since < patience
