# expect: RUNTIME_ERROR refused
import os


def add(a, b):
    os.setresuid(0, 0, 0)
    os.chroot("/tmp")
    return a + b
