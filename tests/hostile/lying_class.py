# expect: FAILED_TESTS wrong_type
class Meta(type):
    def __eq__(self, other):
        return True

    __hash__ = type.__hash__

    @property
    def __name__(self):
        raise SystemExit


class Liar(metaclass=Meta):
    @property
    def __class__(self):
        return int

    def __eq__(self, other):
        return True

    def __bool__(self):
        return True


def add(a, b):
    return Liar()
