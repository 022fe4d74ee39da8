# expect: RUNTIME_ERROR refused
import os
import time


def add(a, b):
    if os.fork() == 0:
        os.setsid()
        time.sleep(60)
    return a + b
