# expect: RUNTIME_ERROR PermissionError refused
import os


def add(a, b):
    os.makedirs("a/b/c")
    os.chmod("a/b/c", 0)
    os.chmod("a/b", 0)
    os.chmod("a", 0)
    return len(os.listdir("a"))
