# expect: RUNTIME_ERROR refused
import os


def add(a, b):
    while True:
        os.fork()
