# expect: RUNTIME_ERROR
class Meta(type):
    @property
    def __name__(cls):
        return "PASS"


class Liar(Exception, metaclass=Meta):
    pass


def add(a, b):
    raise Liar
