# expect: RUNTIME_ERROR refused
import socket


def add(a, b):
    socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
    return a + b
