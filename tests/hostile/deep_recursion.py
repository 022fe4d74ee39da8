# expect: RUNTIME_ERROR RecursionError
def add(a, b):
    return add(a, b)
