# entry: sys.stdin
# expect: RUNTIME_ERROR exit_1
a, b = map(int, input().split())
print(a + b, flush=True)
raise ValueError(a)
