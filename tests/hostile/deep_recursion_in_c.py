# expect: RUNTIME_ERROR signal_11 RecursionError memory
import sys

sys.setrecursionlimit(10**9)


def add(a, b):
    nested = ()
    for _ in range(3 * 10**5):
        nested = (nested,)
    return hash(nested)
