# expect: RUNTIME_ERROR refused
import os


def add(a, b):
    os.nice(-20)
    return a + b
