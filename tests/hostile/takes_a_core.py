# expect: RUNTIME_ERROR refused
import os


def add(a, b):
    os.sched_setaffinity(0, {0})
    return a + b
