# expect: RUNTIME_ERROR signal_11 refused signal_7 signal_4
import ctypes

libc = ctypes.CDLL(None)


def add(a, b):
    page = id(add) & ~4095
    libc.mprotect(ctypes.c_void_p(page), 4096, 0)
    return a + b
