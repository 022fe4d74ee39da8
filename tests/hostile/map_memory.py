# expect: RUNTIME_ERROR memory
import mmap


def add(a, b):
    mmap.mmap(-1, 6 << 30)
    return a + b
