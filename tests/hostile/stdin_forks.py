# entry: sys.stdin
# expect: RUNTIME_ERROR exit_1 refused
import os

a, b = map(int, input().split())
if not os.fork():
    print(a + b)
