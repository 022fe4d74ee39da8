# expect: FAILED_TESTS wrong_type
class Agreeable:
    def __eq__(self, other):
        return True

    def __ne__(self, other):
        return False


def add(a, b):
    return [Agreeable()]
