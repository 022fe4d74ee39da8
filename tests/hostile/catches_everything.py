# expect: RUNTIME_ERROR cpu_time
def add(a, b):
    while True:
        try:
            while True:
                pass
        except BaseException:
            continue
