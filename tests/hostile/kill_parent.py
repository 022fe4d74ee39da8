# expect: RUNTIME_ERROR refused
import os
import posix
import signal


def add(a, b):
    posix.kill(os.getppid(), signal.SIGKILL)
    return a + b
