# expect: RUNTIME_ERROR quota refused
import os


def add(a, b):
    for number in range(10**5):
        os.close(os.open(f"file{number}", os.O_CREAT | os.O_WRONLY))
    return a + b
