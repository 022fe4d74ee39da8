# expect: FAILED_TESTS wrong_value
import builtins
import math
import operator

for name in ("abs", "all", "any", "isinstance", "len", "max", "min", "sorted", "sum", "bool"):
    setattr(builtins, name, lambda *args, **kwargs: True)
math.isclose = lambda *args, **kwargs: True
operator.eq = lambda a, b: True


def add(a, b):
    return 17
