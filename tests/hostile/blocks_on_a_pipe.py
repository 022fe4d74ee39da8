# expect: RUNTIME_ERROR wall_time
import os

reading, writing = os.pipe()


def add(a, b):
    return os.read(reading, 1)
