# expect: FAILED_TESTS wrong_value
import ctypes
import os

libc = ctypes.CDLL(None)


def add(a, b):
    buffer = ctypes.create_string_buffer(64)
    local = (ctypes.c_void_p * 2)(ctypes.addressof(buffer), 64)
    remote = (ctypes.c_void_p * 2)(id(a), 64)
    got = libc.process_vm_readv(os.getppid(), local, 1, remote, 1, 0)
    return "read" if got > 0 else "refused"
