# expect: FAILED_TESTS wrong_value
class Text(str):
    def __eq__(self, other):
        return True

    __hash__ = str.__hash__


def add(a, b):
    return Text("anything")
