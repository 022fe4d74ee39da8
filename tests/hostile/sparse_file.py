# expect: RUNTIME_ERROR output_limit refused
def add(a, b):
    with open("sparse", "wb") as file:
        file.truncate(1 << 40)
    return a + b
