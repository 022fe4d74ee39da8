# expect: RUNTIME_ERROR wall_time
import time


def add(a, b):
    time.sleep(3600)
