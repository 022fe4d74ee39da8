# entry: sys.stdin
# expect: FAILED_TESTS wrong_value
import os

a, b = map(int, input().split())
print(a + b)
os._exit(0)  # what is printed was not written yet
