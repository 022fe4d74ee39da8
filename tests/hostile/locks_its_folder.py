# expect: PASS
import contextlib
import os

if os.getcwd() == "/tmp":
    with contextlib.suppress(OSError):
        os.chmod("/tmp", 0)


def add(a, b):
    return a + b
