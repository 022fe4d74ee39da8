"""The judges' zygote: sees to it that every job is judged, and by whom.

Tests that are code get a judge: a process forked for this one problem. Tests that are data
(`assertions`) are read out by the clerk, a process like a judge, fenced and limited like one, that
goes on to the next problem instead of ending: forking is most of what a judge costs. It is
replaced from time to time, when it has grown, and whenever anything went wrong in it.
"""

import _signal as signal
import _socket
import os
import resource
import select
import time

from rrtf.sandbox import judge, wire
from rrtf.sandbox.channel import PATIENCE
from rrtf.sandbox.kernel import ROUNDS, freeze, has_ended

RESULT, DONE = b"R", b"D"
JUDGE_CPU_SECONDS, JUDGE_WALL_SECONDS = 20.0, 60.0  # between two results
_KILLS = (signal.SIGKILL, signal.SIGTERM)
# After so many, counted job by job, or having grown so far, a clerk is replaced.
CLERK_PROBLEMS, CLERK_GROWTH_KB = 256, 8 << 10


def convene(control: _socket.socket, nursery: _socket.socket, settings: dict) -> None:
    """For every job read from `control`: have it judged, pass on what is said and how it ended."""
    court = _Court(control, nursery, settings)
    how: bytes | None = b""
    while how is not None:
        header = control.recv(wire.JOB.size, _socket.MSG_WAITALL)
        if len(header) < wire.JOB.size:
            break
        size, n_data, runs = wire.JOB.unpack(header)
        job = _receive(control, size)
        how = court.hear_data(job, n_data, runs) if n_data else court.hear_code(job)
        del job
        if how is not None:
            control.sendall(DONE + len(how).to_bytes(4, "little") + how)
    court.dismiss_clerk()


def _receive(control: _socket.socket, size: int) -> bytes:
    parts = []
    while size:
        part = control.recv(min(size, 1 << 20))
        if not part:
            os._exit(0)
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


class _Judge:
    """A forked process that judges, as the court sees it: `line` is a socket to it."""

    def __init__(self, pid: int, line: _socket.socket):
        self.pid, self.line = pid, line
        self.clock = (~pid << 3) | 2  # of its CPU time (clock_getcpuclockid)
        self.problems = 0
        self.buffer = b""

    def end(self, *, kill: bool) -> int:
        """Its wait status."""
        if kill:
            os.kill(self.pid, signal.SIGKILL)
        self.line.close()
        return os.waitpid(self.pid, 0)[1]

    def bury(self) -> bytes:
        """How it ended that has fallen silent: killed by somebody else, or died."""
        itself = has_ended(self.pid, 1000)
        status = self.end(kill=not itself)
        return (
            b"killed" if itself and os.WIFSIGNALED(status) and status & 127 in _KILLS else b"died"
        )


class _Court:
    """The zygote's own state: the clerk of the moment, and whether judges are prepared."""

    def __init__(self, control: _socket.socket, nursery: _socket.socket, settings: dict):
        self.control, self.nursery, self.settings = control, nursery, settings
        self.clerk: _Judge | None = None
        self.is_warm = False

    def hear_code(self, job: bytes) -> bytes | None:
        """Has a judge of its own run a job; how that ended, None: the caller is gone."""
        if not self.is_warm:
            self._warm_up()
        one = self._fork(lambda line: self._preside(line, job))
        how = self._attend(one)
        if how == b"died":
            how, status = one.bury(), 1
        else:
            status = one.end(kill=how not in (wire.STAYS, wire.LEAVES))
        if status or how != wire.LEAVES:  # else the judge has dismissed its last worker itself
            self.nursery.send(wire.FORGET)
        if how == wire.LEAVES:
            how = b"died" if status else b""
        return how

    def hear_data(self, job: bytes, n_data: int, runs: int) -> bytes | None:
        """Hands a job to the clerk; how that ended, None: the caller is gone."""
        if self.clerk and self.clerk.problems + n_data > CLERK_PROBLEMS:
            self.dismiss_clerk()
        clerk = self.clerk = self.clerk or self._fork(self._keep_clerk)
        clerk.problems += n_data
        try:
            wire.write_all(clerk.line.fileno(), len(job).to_bytes(4, "little") + job)
            how = self._attend(clerk, runs)
        except ConnectionError:
            how = b"died"
        if how == b"died":
            how, self.clerk = clerk.bury(), None
        if how != wire.STAYS:
            self.dismiss_clerk()
            self.nursery.send(wire.FORGET)
        return b"" if how in (wire.STAYS, wire.LEAVES) else how

    def dismiss_clerk(self) -> None:
        """Ends the clerk, if there is one; the next job of data gets another."""
        if self.clerk:
            self.clerk.end(kill=True)
            self.clerk = None

    def _warm_up(self) -> None:
        """Judges a sample in this process, with real workers."""
        sent = bytes.fromhex(self.settings["sample"])
        null = os.open("/dev/null", os.O_WRONLY)
        for _ in range(ROUNDS):
            judge.preside(sent, null, self.nursery, self.settings["wall_seconds"])
        os.close(null)
        freeze()
        self.is_warm = True

    def _fork(self, serve) -> _Judge:
        """A new process, fenced as judges are, that serves on its socket and ends."""
        ours, theirs = _socket.socketpair()
        pid = os.fork()
        if pid:
            theirs.close()
            return _Judge(pid, ours)
        failed = 1
        try:
            self.control.close()
            os.dup2(self.nursery.detach(), 20)
            os.dup2(theirs.detach(), 3)
            os.dup2(20, 4)
            os.closerange(5, 64)
            self.nursery = _socket.socket(fileno=4)
            self.settings["confine"]()
            serve(3)
            failed = 0
        finally:
            os._exit(failed)

    def _preside(self, line: int, job: bytes) -> None:
        judge.preside(job, line, self.nursery, self.settings["wall_seconds"])

    def _keep_clerk(self, line: int) -> None:
        """The clerk's life: one job after the other, until it has grown too large."""
        most = _peak_kb() + CLERK_GROWTH_KB
        stays = True
        while stays:
            size = int.from_bytes(_read(line, 4), "little")
            job = _read(line, size)
            wall = self.settings["wall_seconds"]
            stays = judge.preside(job, line, self.nursery, wall, lambda: _peak_kb() < most)

    def _attend(self, one: _Judge, runs: int = 1) -> bytes | None:
        """Forwards results until a job ends: its mark, b'died', b'limit'; None: caller gone.

        Limits count from the last words, so they are limits per program, and leave a program the
        time that each of its `runs` may take by its own wall limit.
        """
        wall = self.settings["wall_seconds"]
        patience = max(JUDGE_WALL_SECONDS, runs * PATIENCE * wall + JUDGE_CPU_SECONDS)
        poll = select.poll()
        poll.register(one.line, select.POLLIN)
        poll.register(self.control, select.POLLIN)
        cpu, since = _cpu(one.clock, 0.0), time.monotonic()
        while True:
            events = dict(poll.poll(1000))
            if self.control.fileno() in events:
                return None
            if one.line.fileno() in events:
                mark = self._forward(one)
                if mark:
                    return mark
                cpu, since = _cpu(one.clock, cpu), time.monotonic()
            elif not _within(one.clock, cpu, since, patience):
                return b"limit"

    def _forward(self, one: _Judge) -> bytes:
        """Passes on the rows that have arrived in full; what stands after them, if anything."""
        try:
            data = os.read(one.line.fileno(), 1 << 18)
        except ConnectionError:
            data = b""
        if not data:
            return b"died"
        data, at, mark = one.buffer + data, 0, b""
        while len(data) - at >= 4:
            head = data[at : at + 4]
            if head in (wire.STAYS, wire.LEAVES):
                mark = head
                break
            end = at + 4 + int.from_bytes(head, "little")
            if end > len(data):
                break
            at = end
        one.buffer = b"" if mark else data[at:]
        if at:
            self.control.sendall(RESULT + at.to_bytes(4, "little") + data[:at])
        return mark


def _read(fd: int, size: int) -> bytes:
    """Exactly so many bytes; EOFError before that."""
    parts = []
    while size:
        part = os.read(fd, min(size, 1 << 18))
        if not part:
            raise EOFError
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _peak_kb() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _cpu(clock: int, otherwise: float) -> float:
    try:
        return time.clock_gettime(clock)
    except OSError:
        return otherwise  # it has just ended


def _within(clock: int, cpu: float, since: float, patience: float) -> bool:
    """Whether a judge has said nothing for less than its limits."""
    used = _cpu(clock, cpu) - cpu
    return used < JUDGE_CPU_SECONDS and time.monotonic() - since < patience
