# entry: head
# expect: FAILED_TESTS IndexError
def head(xs):
    first = xs[0]
    xs.clear()
    return first
