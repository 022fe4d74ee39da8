# expect: PASS
class add(int):
    def __new__(cls, a, b):
        return super().__new__(cls, a + b)
