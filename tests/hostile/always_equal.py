# expect: FAILED_TESTS wrong_type
class Agreeable:
    def __eq__(self, other):
        return True

    __hash__ = None


def add(a, b):
    return Agreeable()
