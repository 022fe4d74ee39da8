# expect: RUNTIME_ERROR wall_time
import time


class Sleepy:
    def __del__(self):
        time.sleep(60)


def add(a, b):
    Sleepy()
    return a + b
