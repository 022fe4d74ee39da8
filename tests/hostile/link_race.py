# expect: RUNTIME_ERROR refused FileNotFoundError
import os


def add(a, b):
    for _ in range(100):
        os.symlink("/etc/passwd", "link")
        with open("link") as file:
            file.read()
        os.unlink("link")
    return a + b
