# expect: RUNTIME_ERROR protocol_violation
import os


def add(a, b):
    os.closerange(0, 1000)
    return a + b
