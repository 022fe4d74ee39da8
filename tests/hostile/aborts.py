# expect: RUNTIME_ERROR signal_6
import os


def add(a, b):
    os.abort()
