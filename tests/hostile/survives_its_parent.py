# expect: FAILED_TESTS wrong_value
import ctypes

libc = ctypes.CDLL(None)


def add(a, b):
    return "alone" if libc.prctl(1, 0, 0, 0, 0) == 0 else "refused"
