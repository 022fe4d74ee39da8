# expect: RUNTIME_ERROR protocol_violation early_exit
import os


def add(a, b):
    os.dup2(1, 3)
    return a + b
