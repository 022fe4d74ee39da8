# expect: FAILED_TESTS wrong_type
def add(a, b):
    result = []
    for _ in range(100000):
        result = [result]
    return result
