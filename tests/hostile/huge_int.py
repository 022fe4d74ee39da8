# expect: FAILED_TESTS wrong_type
def add(a, b):
    return 1 << (40 << 20)
