# expect: RUNTIME_ERROR protocol_violation
import os
import time


def add(a, b):
    os.close(3)
    time.sleep(60)
