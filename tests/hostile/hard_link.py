# expect: RUNTIME_ERROR refused FileNotFoundError
import os


def add(a, b):
    os.link(os.__file__, "mine.py")
    with open("mine.py", "a") as file:
        file.write("# changed")
    return a + b
