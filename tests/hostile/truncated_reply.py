# expect: RUNTIME_ERROR early_exit
import os
import struct
import sys


def add(a, b):
    frame = sys._getframe()
    while "link" not in frame.f_locals:
        frame = frame.f_back
    link = frame.f_locals["link"]
    os.write(link.fd, struct.pack("<I8sI", 10, link.nonce, link.number) + b"Vq\3")
    os._exit(0)
