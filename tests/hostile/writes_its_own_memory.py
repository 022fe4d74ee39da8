# expect: RUNTIME_ERROR refused FileNotFoundError
def add(a, b):
    with open("/proc/self/mem", "r+b") as memory:
        memory.seek(id(a))
        memory.write(b"\0" * 32)
    return a + b
