# expect: RUNTIME_ERROR protocol_violation wall_time
import os


def add(a, b):
    return len(os.read(3, 1 << 16))  # the next request comes after this reply only
