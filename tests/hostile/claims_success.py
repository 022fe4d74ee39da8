# expect: RUNTIME_ERROR protocol_violation
import os


def add(a, b):
    for fd in range(3, 64):
        try:
            os.write(fd, b"passed" * 10)
        except OSError:
            pass
    return None
