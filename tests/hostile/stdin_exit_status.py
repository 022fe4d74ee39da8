# entry: sys.stdin
# expect: RUNTIME_ERROR exit_3
import sys

a, b = map(int, input().split())
print(a + b)
sys.exit(3)
