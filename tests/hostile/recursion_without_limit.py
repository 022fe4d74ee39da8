# expect: RUNTIME_ERROR signal_11 memory RecursionError
import sys

sys.setrecursionlimit(10**9)


class Deep:
    def __getattr__(self, name):
        return getattr(self, name + "x" if len(name) < 3 else name)


def add(a, b):
    return Deep().value
