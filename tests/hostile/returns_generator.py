# expect: FAILED_TESTS wrong_type
def add(a, b):
    yield a + b
