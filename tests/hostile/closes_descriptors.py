# expect: PASS
import os

for fd in (0, 1, 2):
    os.close(fd)


def add(a, b):
    return a + b
