# expect: RUNTIME_ERROR cpu_time
import sys

sys.set_int_max_str_digits(0)


def add(a, b):
    return len(str(1 << (1 << 24)))
