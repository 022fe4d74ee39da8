# expect: PASS
def add(a, b):
    print("the output of the program before was moved far away")
    return a + b
