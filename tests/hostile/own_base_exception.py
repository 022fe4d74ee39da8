# expect: RUNTIME_ERROR Passed
class Passed(BaseException):
    def __str__(self):
        return "PASS"

    __reduce__ = None


def add(a, b):
    raise Passed
