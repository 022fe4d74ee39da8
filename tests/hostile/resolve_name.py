# expect: RUNTIME_ERROR gaierror refused
import socket


def add(a, b):
    socket.getaddrinfo("example.com", 80)
    return a + b
