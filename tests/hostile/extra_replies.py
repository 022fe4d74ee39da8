# expect: RUNTIME_ERROR protocol_violation
import os
import struct
import sys


def add(a, b):
    frame = sys._getframe()
    while frame:
        link = frame.f_locals.get("link")
        if link is not None:
            payload = b"Vq" + struct.pack("<q", a + b)
            head = struct.pack("<I8sI", len(payload), link.nonce, link.number)
            os.write(link.fd, (head + payload) * 2)
        frame = frame.f_back
    return a + b
