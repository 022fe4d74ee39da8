# expect: RUNTIME_ERROR refused FileNotFoundError
import os


def add(a, b):
    return open(f"/proc/{os.getppid()}/mem", "rb").read(1)
