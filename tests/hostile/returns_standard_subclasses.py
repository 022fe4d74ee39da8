# expect: PASS
class Whole(int):
    def __add__(self, other):
        raise ValueError


def add(a, b):
    return Whole(a + b)
