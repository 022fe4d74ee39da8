# expect: RUNTIME_ERROR refused FileNotFoundError
def add(a, b):
    return open("/etc/passwd").read()
