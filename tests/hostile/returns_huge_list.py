# expect: FAILED_TESTS wrong_type
huge = [1] * 10**7


def add(a, b):
    return huge
