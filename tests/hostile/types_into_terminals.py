# expect: RUNTIME_ERROR refused
import fcntl


def add(a, b):
    fcntl.ioctl(0, 0x5412, b"x")
    return a + b
