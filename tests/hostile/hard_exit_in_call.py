# expect: RUNTIME_ERROR early_exit
import os


def add(a, b):
    os._exit(0)
