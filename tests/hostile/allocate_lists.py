# expect: RUNTIME_ERROR memory
def add(a, b):
    kept = []
    while True:
        kept.append([0] * 1000000)
