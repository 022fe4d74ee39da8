# expect: FAILED_TESTS wrong_value
import ctypes

libc = ctypes.CDLL(None)


def add(a, b):
    ring = libc.syscall(425, 8, ctypes.create_string_buffer(120))
    return "ring" if ring >= 0 else "refused"
