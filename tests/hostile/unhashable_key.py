# expect: RUNTIME_ERROR protocol_violation
class Key(list):
    def __hash__(self):
        return 3


def add(a, b):
    return {Key([1]): 3}
