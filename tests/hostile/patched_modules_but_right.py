# expect: PASS
import itertools
import os
import struct
import sys

os.write_ = os.write
struct.Struct = struct.pack = struct.unpack = itertools.islice = None
sys.modules.clear()
sys.setrecursionlimit(100)


def add(a, b):
    return a + b
