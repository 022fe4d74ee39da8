# expect: FAILED_TESTS wrong_value
def add(a, b):
    return [float("nan")] * 3
