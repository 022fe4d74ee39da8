# expect: RUNTIME_ERROR refused
import socket


def add(a, b):
    socket.socket(socket.AF_UNIX).bind("\0rrtf")
    return a + b
