# expect: RUNTIME_ERROR Exception
import sys


def add(a, b):
    frame = sys._getframe()
    while "link" not in frame.f_locals:
        frame = frame.f_back
    link = frame.f_locals["link"]
    link.send(b"E", ("signal_ \udc80\n" * 9, "SystemExit", "\udc80"))
    while True:
        link.receive()
        link.send(b"E", ("PASS\n", "object", ""))
