# expect: PASS
import atexit
import os


class Last:
    def __del__(self):
        os._exit(1)


keep = Last()
atexit.register(os._exit, 1)


def add(a, b):
    return a + b
