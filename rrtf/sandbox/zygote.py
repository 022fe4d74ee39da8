"""Warm, small interpreters inside the fences, which fork one process per program or problem.

A lane is two of them: the nursery forks workers (one candidate each) for the judge that asks;
the court forks judges (one problem each) for the caller. They share no namespace. Each ends when
the socket above it closes, and everything it started ends with it.
"""

import _signal as signal
import _socket
import contextlib
import os
import sys
from collections.abc import Callable

from rrtf.sandbox import kernel, seccomp, wire

SCRATCH_MB, SCRATCH_FILES, FILE_MB, TASKS = 32, 2048, 4, 128
JUDGE_MB = 2048


def main() -> None:
    """Entry point of the interpreters that `lanes` starts; argv holds the settings."""
    settings = wire.decode(bytes.fromhex(sys.argv[2]), None)
    if settings["cpu"] is not None:
        os.sched_setaffinity(0, {settings["cpu"]})
    role = _role(settings)  # before what may import `random`
    for name in settings["preload"]:
        __import__(name)
    _import_packages(settings["packages"])
    if settings["role"] == "judge" and os.sched_getscheduler(0) == os.SCHED_OTHER:
        with contextlib.suppress(OSError):  # on their one CPU a reply does not stop the worker then
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    settings["confine"] = _confinement(settings)
    sockets = _adopt_sockets([settings[n] for n in ("control", "nursery") if n in settings])
    control = sockets[0]
    log = os.dup(2)
    try:
        _fence(settings)
    except OSError as error:
        control.send(wire.FAILED + str(error).encode())
        return
    control.send(b"+")
    try:
        role(*sockets, settings)
    except Exception as error:
        import traceback

        os.write(log, "".join(traceback.format_exception(error)).encode())
        os._exit(1)


def _import_packages(packages: dict) -> None:
    """Imports what candidates may import beside Python itself (`packages.view`), and shows it.

    A fork has it at once, and what was not imported here is out of its reach.
    """
    if not packages:
        return
    path, sys.path = sys.path, [*sys.path, *packages["site"]]
    for name in packages["named"]:
        __import__(name)
    for name in packages["needed"]:
        with contextlib.suppress(ImportError):  # an optional part, or a folder of data
            __import__(name)
    sys.path = path
    kernel.shown += packages["shown"]


def _role(settings: dict) -> Callable:
    """What this zygote does, without what only the other role needs."""
    if settings["role"] == "worker":
        _import_random(settings["seed"])
        from rrtf.sandbox.nursery import breed

        return breed
    from rrtf.sandbox.court import convene

    return convene


def _confinement(settings: dict) -> Callable[[], None]:
    """What every forked process does first of all. (A namespace ends with its first process.)"""
    if settings["level"] == "namespaces":
        return seccomp.confinement(receives=settings["role"] == "judge")
    if settings["level"] != "landlock+seccomp":
        return kernel.die_with_parent
    confine = seccomp.confinement(receives=settings["role"] == "judge")

    def confine_and_follow() -> None:
        kernel.die_with_parent()
        confine()

    return confine_and_follow


def _adopt_sockets(fds: list[int]) -> list[_socket.socket]:
    """Moves them to numbers from 40 on, clear of those that children use, and closes the rest."""
    free = (number for number in range(40, 64) if number not in fds)
    high = [os.dup2(fd, next(free), inheritable=False) for fd in fds]
    os.closerange(3, high[0])
    if len(high) > 1:
        os.closerange(high[0] + 1, high[1])
    os.closerange(high[-1] + 1, os.sysconf("SC_OPEN_MAX"))
    return [_socket.socket(fileno=fd) for fd in high]


def _fence(settings: dict) -> None:
    """Enters the level asked for, for good; OSError where the host does not allow it."""
    level, is_worker = settings["level"], settings["role"] == "worker"
    output = os.memfd_create("output", 0)
    null = os.open("/dev/null", os.O_RDWR)
    tasks, settings["spared"] = TASKS, set()
    if level == "namespaces":
        settings["spared"] = kernel.enter_namespaces(SCRATCH_MB, SCRATCH_FILES)
        settings["scratch"] = "/tmp"
    else:
        unprivileged = kernel.become_nobody(settings["scratch"])
        if level == "process" and not unprivileged:
            raise PermissionError("as root, and nobody cannot read this interpreter's files")
        tasks += kernel.user_tasks() if unprivileged else 0
    os.chdir(settings["scratch"] or "/" if is_worker else "/")
    if level in ("namespaces", "landlock+seccomp"):
        writable = settings["scratch"] if level == "namespaces" and is_worker else None
        kernel.give_up_privileges()
        kernel.restrict_files(writable)
        seccomp.deny_system_calls(has_scratch=bool(writable))
    else:
        kernel.adopt_orphans()
    for fd, source in ((0, null), (1, output), (2, output)):
        os.dup2(source, fd)
    os.close(null)
    os.close(output)
    sys.argv = [""]
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    if level != "none":
        memory_mb = settings["memory_mb"] if is_worker else JUDGE_MB
        kernel.limit_resources(memory_mb=memory_mb, file_mb=FILE_MB, processes=tasks)


def _import_random(seed: int) -> None:
    """Without the reseeding after each fork, which costs as much as the fork."""
    register, os.register_at_fork = os.register_at_fork, lambda **_: None
    import random

    os.register_at_fork = register
    random.seed(seed)
