# expect: RUNTIME_ERROR protocol_violation
import os

real = os.write
os.write = lambda fd, data: real(fd, bytes(data).replace(b"q\0", b"q\3"))


def add(a, b):
    return os.write(3, b"q\0")
