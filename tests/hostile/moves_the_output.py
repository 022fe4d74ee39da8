# expect: PASS
import os

os.lseek(1, 1 << 40, os.SEEK_SET)


def add(a, b):
    return a + b
