# expect: RUNTIME_ERROR refused FileNotFoundError
import builtins
import posix

del builtins.open


def add(a, b):
    posix.open("/var/tmp/rrtf-hostile", posix.O_CREAT | posix.O_WRONLY)
    return a + b
