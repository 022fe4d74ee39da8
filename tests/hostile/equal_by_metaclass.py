# expect: FAILED_TESTS wrong_type
class Meta(type):
    def __eq__(cls, other):
        return True

    def __instancecheck__(cls, other):
        return True

    __hash__ = None


class Agreeable(metaclass=Meta):
    pass


def add(a, b):
    return Agreeable
