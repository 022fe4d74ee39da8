# expect: FAILED_TESTS wrong_type
class Liar:
    @property
    def __class__(self):
        return int

    def __getattribute__(self, name):
        return lambda *_: True


def add(a, b):
    return Liar()
