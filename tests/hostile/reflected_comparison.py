# expect: FAILED_TESTS wrong_value wrong_type
class Number(int):
    def __eq__(self, other):
        return True

    def __ne__(self, other):
        return False

    def __sub__(self, other):
        return 0

    __rsub__ = __sub__
    __hash__ = int.__hash__


def add(a, b):
    return Number(99)
