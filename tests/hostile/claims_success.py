# expect: RUNTIME_ERROR protocol_violation
import contextlib
import os


def add(a, b):
    for fd in range(3, 64):
        with contextlib.suppress(OSError):
            os.write(fd, b"passed" * 10)
    return None
