# expect: PASS
import functools


def loud(function):
    @functools.wraps(function)
    def inner(*args, **kwargs):
        print("called", args)
        return function(*args, **kwargs)

    return inner


@functools.cache
@loud
def add(a, b):
    return a + b
