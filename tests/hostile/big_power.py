# expect: RUNTIME_ERROR cpu_time memory
def add(a, b):
    return 10**10**8
