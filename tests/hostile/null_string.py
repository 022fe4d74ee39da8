# expect: RUNTIME_ERROR signal_11
import ctypes


def add(a, b):
    return ctypes.string_at(0)
