# expect: RUNTIME_ERROR signal_14
import signal
import time

signal.setitimer(signal.ITIMER_REAL, 0.05)


def add(a, b):
    time.sleep(60)
