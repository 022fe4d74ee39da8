# expect: RUNTIME_ERROR cpu_time
import contextlib
import signal

for number in range(1, 32):
    with contextlib.suppress(OSError, ValueError):
        signal.signal(number, signal.SIG_IGN)


def add(a, b):
    while True:
        pass
