# expect: RUNTIME_ERROR refused
import socket


def add(a, b):
    socket.socket(socket.AF_UNIX).connect("/run/docker.sock")
    return a + b
