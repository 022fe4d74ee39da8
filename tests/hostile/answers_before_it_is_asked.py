# expect: RUNTIME_ERROR protocol_violation
import os
import struct
import sys

frame = sys._getframe()
while "link" not in frame.f_locals:
    frame = frame.f_back
link = frame.f_locals["link"]
reply = b"R" + b"Vq" + struct.pack("<q", 3)
for number in range(1, 5):
    os.write(link.fd, struct.pack("<I8sI", len(reply), link.nonce, number) + reply)


def add(a, b):
    return 3
