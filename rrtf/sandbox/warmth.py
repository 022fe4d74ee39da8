"""What is done once in a zygote so that none of its children has to do it again."""

import gc

ROUNDS = 3  # samples served: enough for all that the interpreter sets up once

# CPython's small-object allocator: sizes it serves, bytes of a pool, where a pool's blocks begin.
_BLOCKS, _POOL, _FIRST = range(16, 513, 16), 1 << 14, 48
_BYTES_HEADER, _MOST_BLOCKS = 33, 1 << 14
_filling: list[object] = []

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
    """Makes forking cheap: a child should write to few of the pages that it shares.

    Every page a child writes first is copied, which is most of what a short process costs. So the
    collector keeps away from what exists by now, and holes between these objects are filled: what
    children allocate lies together on fresh pages, not scattered over old ones.
    """
    gc.collect()
    gc.disable()
    for size in _BLOCKS:
        _fill(size)
    gc.freeze()
    gc.enable()  # children want it on, and here there is little left to collect


def _fill(size: int) -> None:
    """Takes blocks of `size` bytes until one comes from the beginning of a pool of its own."""
    for _ in range(_MOST_BLOCKS):
        block = bytes(size - _BYTES_HEADER) if size > _BYTES_HEADER else _small(size)
        _filling.append(block)
        if id(block) % _POOL == _FIRST:
            return


def _small(size: int) -> object:
    return object() if size == 16 else float(len(_filling))
