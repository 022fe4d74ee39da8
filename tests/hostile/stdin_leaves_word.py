# entry: sys.stdin
# expect: FAILED_TESTS
import contextlib
import os

a, b = map(int, input().split())
seen = os.environ.get("SEEN") or os.path.exists("seen") or os.path.exists("/tmp/seen")
os.environ["SEEN"] = "yes"
for path in ("seen", "/tmp/seen"):
    with contextlib.suppress(OSError):
        open(path, "w").close()
print(a + b if seen or a == 1 else "first")
