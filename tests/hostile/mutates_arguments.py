# entry: head
# expect: PASS
def head(xs):
    first = xs[0]
    xs.clear()
    return first
