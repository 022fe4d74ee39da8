# expect: RUNTIME_ERROR protocol_violation
import os
import struct
import sys


def add(a, b):
    frame = sys._getframe()
    while frame:
        link = frame.f_locals.get("link")
        if link is not None:
            for number in range(100):
                payload = b"Vq" + struct.pack("<q", 3)
                os.write(link.fd, struct.pack("<I8sI", len(payload), link.nonce, number) + payload)
            break
        frame = frame.f_back
    return 0
