# expect: PASS
class Adder:
    __slots__ = ()

    def __call__(self, a, b):
        return a + b


add = Adder()
