# entry: sys.stdin
# expect: RUNTIME_ERROR cpu_time
a, b = map(int, input().split())
print(a + b, flush=True)
while True:
    pass
