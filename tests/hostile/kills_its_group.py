# expect: RUNTIME_ERROR refused
import os
import signal


def add(a, b):
    os.killpg(os.getpgrp(), signal.SIGKILL)
    os.kill(0, signal.SIGKILL)
    return a + b
