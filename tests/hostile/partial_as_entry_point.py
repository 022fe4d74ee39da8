# expect: PASS
import functools
import operator

add = functools.partial(operator.add)
