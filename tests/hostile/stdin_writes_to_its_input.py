# entry: sys.stdin
# expect: FAILED_TESTS wrong_value
import contextlib
import os

os.lseek(0, 0, 0)
with contextlib.suppress(OSError):
    os.write(0, b"9 9\n")
os.lseek(0, 0, 0)
a, b = map(int, input().split())
print(a + b)
