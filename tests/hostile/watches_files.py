# expect: FAILED_TESTS wrong_value
import ctypes

libc = ctypes.CDLL(None)


def add(a, b):
    return sum(libc.inotify_init() >= 0 for _ in range(200)) or "refused"
