# expect: RUNTIME_ERROR quota output_limit refused
def add(a, b):
    for number in range(10**6):
        with open(f"file{number}", "wb") as file:
            file.write(bytes(1 << 20))
