# expect: RUNTIME_ERROR protocol_violation
import os
import threading
import time


def later():
    while True:
        os.write(3, b"forged")


def add(a, b):
    threading.Thread(target=later, daemon=True).start()
    time.sleep(0.05)
    return a + b
