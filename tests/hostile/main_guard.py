# expect: PASS
import sys


def add(a, b):
    return a + b


if __name__ == "__main__":
    sys.exit(add(*map(int, sys.argv[1:3])))
