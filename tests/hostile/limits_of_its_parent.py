# expect: RUNTIME_ERROR refused
import os
import resource


def add(a, b):
    resource.prlimit(os.getppid(), resource.RLIMIT_CPU, (1, 1))
    return a + b
