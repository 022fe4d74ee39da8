"""Starts a server and sees that it ends: `python keeper.py COMMAND ...`, run by `vllm_engine`.

The server and its workers are a group of their own, which is ended (SIGTERM, then SIGKILL) when
standard input ends, and that it does however the process behind it ended, `kill -9` too. Linux's
PR_SET_PDEATHSIG does not do for that process: it fires when the *thread* that started the child
ends, and the workers of a server that it kills stay. It does for this one, which has one thread.
"""

import ctypes
import os
import select
import signal
import subprocess
import sys
from contextlib import suppress

GRACE = 10.0  # seconds between SIGTERM and SIGKILL
LOOK = 0.2  # seconds between two looks at the server


def _end_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def keep(command: list[str]) -> int:
    """Runs `command` until it ends or standard input does; its exit code."""
    server = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=_end_with_parent
    )
    try:
        while server.poll() is None:
            if select.select([0], [], [], LOOK)[0] and not os.read(0, 1):
                break
    finally:
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            server.wait(GRACE)
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
    return server.wait()


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    sys.exit(keep(sys.argv[1:]))
