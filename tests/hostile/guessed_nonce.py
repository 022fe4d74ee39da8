# expect: RUNTIME_ERROR protocol_violation
import os
import struct


def add(a, b):
    payload = b"Vq" + struct.pack("<q", a + b)
    os.write(3, struct.pack("<I8sI", len(payload), b"\0" * 8, 2) + payload)
    return a + b
