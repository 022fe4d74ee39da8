# expect: RUNTIME_ERROR refused
import os


def add(a, b):
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(50))
    return a + b
