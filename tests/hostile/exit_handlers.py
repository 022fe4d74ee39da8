# expect: PASS
import atexit
import time

atexit.register(time.sleep, 60)


class Late:
    def __del__(self):
        time.sleep(60)


late = Late()


def add(a, b):
    return a + b
