# expect: RUNTIME_ERROR memory
def add(a, b):
    return len(bytearray(1536 << 20))
