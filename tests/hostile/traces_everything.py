# expect: FAILED_TESTS wrong_value
import sys


def tracer(frame, event, value):
    for name in frame.f_locals:
        if name in ("expected", "passed", "outcome", "tests"):
            frame.f_locals[name] = 3
    return tracer


sys.settrace(tracer)
sys.setprofile(tracer)


def add(a, b):
    return 4
