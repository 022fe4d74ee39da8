# expect: RUNTIME_ERROR protocol_violation
import os


def add(a, b):
    os.write(3, b'{"outcome": "PASS", "n_passed": 3, "n_tests": 3}')
    os._exit(0)
