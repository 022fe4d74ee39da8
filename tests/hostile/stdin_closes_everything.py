# entry: sys.stdin
# expect: RUNTIME_ERROR protocol_violation
import os
import time

a, b = map(int, input().split())
print(a + b, flush=True)
os.closerange(0, 64)
time.sleep(1000)
