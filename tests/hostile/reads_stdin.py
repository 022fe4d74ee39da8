# expect: RUNTIME_ERROR EOFError
def add(a, b):
    while True:
        input()
