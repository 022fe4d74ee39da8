# expect: RUNTIME_ERROR output_limit
import os


def add(a, b):
    while True:
        os.write(1, b"x" * 65536)
