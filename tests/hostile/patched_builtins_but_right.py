# expect: PASS
import builtins

for name in ("abs", "all", "any", "isinstance", "len", "type", "set", "map", "zip", "callable"):
    setattr(builtins, name, None)


def add(a, b):
    return a + b
