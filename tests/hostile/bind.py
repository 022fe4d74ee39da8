# expect: RUNTIME_ERROR refused
import socket


def add(a, b):
    socket.socket().bind(("127.0.0.1", 0))
    return a + b
