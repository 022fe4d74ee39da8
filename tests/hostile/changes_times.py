# expect: RUNTIME_ERROR refused
import os


def add(a, b):
    now = os.stat(os.__file__)
    os.utime(os.__file__, ns=(now.st_atime_ns, now.st_mtime_ns))
    return a + b
