# expect: RUNTIME_ERROR cpu_time
class Wordy(Exception):
    def __str__(self):
        while True:
            pass


def add(a, b):
    raise Wordy
