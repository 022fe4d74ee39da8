# expect: RUNTIME_ERROR refused
import fcntl
import os
import signal


def add(a, b):
    fcntl.fcntl(3, fcntl.F_SETOWN, os.getppid())
    fcntl.fcntl(3, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(3, fcntl.F_SETFL, os.O_ASYNC)
    return a + b
