# expect: RUNTIME_ERROR output_limit
def add(a, b):
    while True:
        print("x" * 10000)
