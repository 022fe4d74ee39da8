# expect: RUNTIME_ERROR RecursionError
def add(a, b):
    value = []
    for _ in range(100_000):
        value = [value]
    return len(repr(value))
