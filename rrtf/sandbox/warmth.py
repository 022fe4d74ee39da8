"""What is done once in a zygote so that none of its children has to do it again."""

import gc

ROUNDS = 3  # samples served: enough for all that the interpreter sets up once

SAMPLE = """
from typing import List, Optional
import math
def add(a: List[int], b: int = 0) -> List[int]:
    seen = {}
    for i, x in enumerate(sorted(a)):
        seen[x] = seen.get(x, 0) + len(str(i)) * 1.0
    return [x + b for x in a if x in seen and "%d" % x] or None
class Box:
    def __init__(self, value):
        self.value = value
"""
SAMPLE_TESTS = """
def check(candidate):
    total = 0
    for b in range(2):
        assert candidate([3, 1], b) == [3 + b, 1 + b], "sum"
    assert abs(candidate([1])[0] - 1) < 1e-6
    candidate([2])
"""


def freeze() -> None:
    """Keeps the collector, and so the writing of shared pages, away from what exists by now."""
    gc.collect()
    gc.disable()
    gc.freeze()
