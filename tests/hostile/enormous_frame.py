# expect: RUNTIME_ERROR protocol_violation
import os


def add(a, b):
    os.write(3, b"\xff" * 64)
    return a + b
