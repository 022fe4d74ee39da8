# expect: RUNTIME_ERROR quota refused
import os


def add(a, b):
    while True:
        os.mkdir("d", 0)
        os.chmod("d", 0o700)
        os.chdir("d")
