# entry: sys.stdin
# expect: RUNTIME_ERROR wall_time
import time

a, b = map(int, input().split())
print(a + b, flush=True)
time.sleep(1000)
