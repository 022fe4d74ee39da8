# expect: FAILED_TESTS wrong_type
def add(a, b):
    return "3" * (50 << 20)
