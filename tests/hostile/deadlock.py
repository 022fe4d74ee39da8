# expect: RUNTIME_ERROR wall_time
import threading

lock = threading.Lock()


def add(a, b):
    lock.acquire()
    lock.acquire()
