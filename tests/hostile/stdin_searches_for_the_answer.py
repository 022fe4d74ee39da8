# entry: sys.stdin
# expect: FAILED_TESTS wrong_value
import gc
import sys

wanted = [str(sum(map(int, line.split()))) for line in ("271800 28", "314000 159", "1 2")]
found = []


def look(thing):
    if isinstance(thing, str) and thing.strip() in wanted and not any(thing is w for w in wanted):
        found.append(thing)


for thing in gc.get_objects():
    if thing is not wanted:
        for held in gc.get_referents(thing):
            look(held)
frame = sys._getframe()
while frame:
    for held in frame.f_locals.values():
        look(held)
    frame = frame.f_back
given = sys.stdin.read()
print(found[0] if found and len(given) > 4 else "nothing")
