# entry: sys.stdin
# expect: FAILED_TESTS wrong_value
import contextlib
import os
import struct

for fd in (1, 3):
    for kind in (b"V", b"R", b"C", b"X"):
        head = struct.pack("<I8sI", 2, b"\0" * 8, 1)
        with contextlib.suppress(OSError):
            os.write(fd, head + kind + b"T")
a, b = map(int, input().split())
print(a + b)
