# expect: FAILED_TESTS wrong_type
def add(a, b):
    while True:
        yield a + b
