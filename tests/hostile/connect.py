# expect: RUNTIME_ERROR refused
import socket


def add(a, b):
    socket.create_connection(("127.0.0.1", 80))
    return a + b
