# expect: RUNTIME_ERROR KeyboardInterrupt
def add(a, b):
    raise KeyboardInterrupt
