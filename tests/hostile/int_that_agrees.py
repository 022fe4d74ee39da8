# expect: FAILED_TESTS wrong_value
class Agreeable(int):
    def __eq__(self, other):
        return True

    def __int__(self):
        raise SystemExit

    __index__ = __hash__ = __int__


def add(a, b):
    return Agreeable(17)
