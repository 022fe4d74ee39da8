# expect: RUNTIME_ERROR refused FileNotFoundError
import os


def add(a, b):
    for name in ("environ", "cmdline", "maps", "mem"):
        with open(f"/proc/{os.getppid()}/{name}", "rb") as file:
            file.read(1)
    return os.listdir(f"/proc/{os.getppid()}/fd")
