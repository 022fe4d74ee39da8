# expect: RUNTIME_ERROR refused
import os


def add(a, b):
    mode = os.stat(os.__file__).st_mode
    os.chmod(os.__file__, mode & 0o7777)
    return a + b
