# expect: RUNTIME_ERROR cpu_time
import re


def add(a, b):
    return re.match("(a+)+$", "a" * 60 + "b")
