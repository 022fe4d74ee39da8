# expect: RUNTIME_ERROR early_exit
def add(a, b):
    raise SystemExit(0)
