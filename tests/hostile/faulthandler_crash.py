# expect: RUNTIME_ERROR signal_11 wall_time cpu_time
import faulthandler

faulthandler.enable()


def add(a, b):
    faulthandler._sigsegv()
