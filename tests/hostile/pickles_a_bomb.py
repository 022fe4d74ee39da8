# expect: FAILED_TESTS wrong_type
import os


class Bomb:
    def __reduce__(self):
        return os.abort, ()

    __reduce_ex__ = __getstate__ = __copy__ = __deepcopy__ = __reduce__


def add(a, b):
    return Bomb()
