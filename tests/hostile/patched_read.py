# expect: RUNTIME_ERROR early_exit TypeError
import os

os.read = lambda fd, size: b""


def add(a, b):
    return a + b
