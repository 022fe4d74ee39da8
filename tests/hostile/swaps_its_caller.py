# expect: FAILED_TESTS wrong_value
import gc
import types

for thing in gc.get_objects():
    if isinstance(thing, types.FunctionType) and thing.__name__ in ("_guarded", "holds", "check"):
        thing.__defaults__ = (lambda *_: True,)


def add(a, b):
    return 4
