# expect: RUNTIME_ERROR protocol_violation
import sys


def add(a, b):
    frame = sys._getframe()
    while "link" not in frame.f_locals:
        frame = frame.f_back
    link = frame.f_locals["link"]
    link.send(b"E", (object(), "ValueError", "a reason that is no text"))
    while True:  # what the judge asks of that object gets the answers that suit
        link.receive()
        link.send(b"V", lambda *_: True)
