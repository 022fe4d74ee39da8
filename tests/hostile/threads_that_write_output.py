# expect: PASS
import threading


def add(a, b):
    threads = [threading.Thread(target=print, args=("x" * 1000,)) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return a + b
