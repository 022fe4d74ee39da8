# expect: RUNTIME_ERROR refused
import posix
import signal


def add(a, b):
    posix.kill(-1, signal.SIGKILL)
    return a + b
