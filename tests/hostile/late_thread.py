# expect: PASS
import threading
import time

threading.Thread(target=time.sleep, args=(60,)).start()


def add(a, b):
    return a + b
