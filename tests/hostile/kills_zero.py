# expect: RUNTIME_ERROR refused
import os


def add(a, b):
    os.kill(0, 9)
    os.kill(-1, 9)
    return a + b
