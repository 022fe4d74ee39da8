# expect: FAILED_TESTS wrong_value
import unittest

for name in dir(unittest.TestCase):
    if name.startswith("assert"):
        setattr(unittest.TestCase, name, lambda *_, **__: None)


def add(a, b):
    return 17
