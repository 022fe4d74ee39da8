# expect: FAILED_TESTS wrong_type
import numbers


class Any(numbers.Number):
    __hash__ = None

    def __eq__(self, other):
        return True

    def __index__(self):
        return 3

    __int__ = __float__ = __index__


def add(a, b):
    return Any()
