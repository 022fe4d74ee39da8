# expect: RUNTIME_ERROR refused
import subprocess


def add(a, b):
    return int(subprocess.run(["/bin/echo", "3"], capture_output=True).stdout)
