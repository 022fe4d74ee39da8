# expect: RUNTIME_ERROR output_limit memory
import os


def add(a, b):
    block = bytes(300 << 20)
    while True:
        os.write(1, block)
