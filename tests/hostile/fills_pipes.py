# expect: RUNTIME_ERROR wall_time quota
import os


def add(a, b):
    while True:
        _, end = os.pipe()
        os.set_blocking(end, False)
        try:
            while os.write(end, b"x" * 65536):
                pass
        except BlockingIOError:
            pass
