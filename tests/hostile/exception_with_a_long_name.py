# expect: RUNTIME_ERROR
Long = type("E" * 1_000_000, (Exception,), {})


def add(a, b):
    raise Long
