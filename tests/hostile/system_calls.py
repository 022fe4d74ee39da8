# expect: RUNTIME_ERROR refused
import ctypes
import platform

NUMBERS = {  # unshare, mount, keyctl, bpf, io_uring_setup, userfaultfd, process_vm_readv, setns
    "x86_64": (272, 165, 250, 321, 425, 323, 310, 308),
    "aarch64": (97, 40, 219, 280, 425, 282, 270, 268),
}


def add(a, b):
    libc = ctypes.CDLL(None, use_errno=True)
    for number in NUMBERS[platform.machine()]:
        if libc.syscall(number, 0, 0, 0, 0, 0) >= 0 or ctypes.get_errno() not in (1, 38):
            return f"{number} was allowed: {ctypes.get_errno()}"
    raise PermissionError(1, "all refused")
