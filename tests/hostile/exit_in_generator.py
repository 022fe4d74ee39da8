# expect: RUNTIME_ERROR early_exit
import sys


def add(a, b):
    def steps():
        yield a
        sys.exit(0)

    return sum(steps()) + b
