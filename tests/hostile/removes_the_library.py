# expect: RUNTIME_ERROR refused
import os


def add(a, b):
    os.rename(os.__file__, os.__file__ + ".old")
    return a + b
