# expect: RUNTIME_ERROR protocol_violation
import contextlib
import os


def add(a, b):
    for fd in range(3, 64):
        with contextlib.suppress(OSError):
            os.write(fd, b"\0\0\0\0PASS" * 100)
    return a + b
