# expect: RUNTIME_ERROR protocol_violation
import sys


def add(a, b):
    frame = sys._getframe()
    while frame:
        for value in list(frame.f_locals.values()):
            if isinstance(value, list):
                value.append("passed")
        frame = frame.f_back
    return None
