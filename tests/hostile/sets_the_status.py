# expect: FAILED_TESTS wrong_value
# The status that its grader shares between processes says success, and nothing writes it again.
import os
import sys


def add(a, b):
    frame = sys._getframe(1)
    while frame:
        known = frame.f_locals
        if "stat" in known and "details" in known:
            if "progress" in known:
                known["details"][:] = [True] * len(known["details"])
                known["progress"].value = len(known["details"])
            known["stat"].value = 0
            os._exit(0)
        frame = frame.f_back
    return 17
