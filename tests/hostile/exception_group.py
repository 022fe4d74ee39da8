# expect: RUNTIME_ERROR ExceptionGroup
def add(a, b):
    raise ExceptionGroup("many", [ValueError(1), OSError(2)])
