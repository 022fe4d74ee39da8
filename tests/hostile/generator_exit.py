# expect: RUNTIME_ERROR GeneratorExit
def add(a, b):
    raise GeneratorExit("done")
