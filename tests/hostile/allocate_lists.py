# expect: RUNTIME_ERROR memory
def add(a, b):
    kept = [[0] * 5000000]
    while True:  # doubling: the limit is met before touching pages has cost much time
        kept.append(kept[-1] * 2)
