# expect: RUNTIME_ERROR
class Meta(type):
    def __getattribute__(cls, name):
        raise SystemExit


class Odd(Exception, metaclass=Meta):
    def __str__(self):
        raise SystemExit


def add(a, b):
    raise Odd
