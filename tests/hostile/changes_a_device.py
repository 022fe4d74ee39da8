# expect: RUNTIME_ERROR refused
import os


def add(a, b):
    os.chmod("/dev/null", os.stat("/dev/null").st_mode & 0o7777)
    return a + b
