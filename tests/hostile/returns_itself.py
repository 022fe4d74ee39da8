# expect: FAILED_TESTS wrong_type
def add(a, b):
    result = []
    result.append(result)
    return result
