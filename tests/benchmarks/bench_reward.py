"""Requests of many callers while the processes that judge are killed at random.

    python tests/benchmarks/bench_reward.py --requests 20000

Prints how many requests were answered, lost, doubled, scored otherwise than without kills, and
masked; seconds and programs per second, which mean little beside the kills.
"""

import argparse
import contextlib
import os
import random
import signal
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from rrtf.reward import Rewards

TASKS = (
    {"prompt": "", "entry_point": "f", "test": "assert f(3) == 9\nassert f(4) == 16"},
    {"prompt": "", "entry_point": "f", "test": "for x in range(9):\n    assert f(x) == x * x"},
)
PROGRAMS = (
    ("def f(x): return x * x  # {}", 1.0),
    ("def f(x): return x + x  # {}", 0.0),
    ("import time\ndef f(x):\n    time.sleep(0.01)\n    return x ** 2  # {}", 1.0),
    ("def f(x) return {}", 0.0),
    ("def f(x): raise ValueError({})", 0.0),
)


def family() -> list[int]:
    """The processes that this one started, directly or not."""
    parents = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{name}/stat") as file:
            parents[int(name)] = int(file.read().rpartition(")")[2].split()[1])
    found = {os.getpid()}
    while more := {n for n, parent in parents.items() if parent in found} - found:
        found |= more
    return sorted(found - {os.getpid()})


def stress(*, requests: int, callers: int, workers: int, kill_every: int, seed: int) -> Counter:
    """What became of the requests, each a program that no other is.

    One of so many answers is followed by the death of a process, whichever it be.
    """
    draw, found = random.Random(seed), Counter()
    asked = [(draw.choice(TASKS), *draw.choice(PROGRAMS)) for _ in range(requests)]
    seen: Counter[str] = Counter()

    def kill() -> None:
        with contextlib.suppress(ProcessLookupError, IndexError):
            os.kill(draw.choice(family()), signal.SIGKILL)
            found["kills"] += 1

    def ask(number: int) -> tuple[str, float | None, float]:
        row, source, right = asked[number]
        program = source.format(number)
        (verdict,) = rewards([row], [f"```python\n{program}\n```"])
        if not draw.randrange(kill_every):
            kill()
        return verdict.program.strip(), verdict.score, right

    started = time.monotonic()
    with Rewards(workers=workers) as rewards, ThreadPoolExecutor(callers) as threads:
        rewards([TASKS[0]], ["def f(x): pass"])
        for program, score, right in threads.map(ask, range(requests)):
            seen[program] += 1
            found["answered"] += 1
            found["masked"] += score is None
            found["scored wrongly"] += score is not None and score != right
    found["lost"] = sum(seen[s.format(n).strip()] == 0 for n, (_, s, _) in enumerate(asked))
    found["doubled"] = sum(count > 1 for count in seen.values())
    found["seconds"] = round(time.monotonic() - started)
    return found


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--requests", type=int, default=1000)
    options.add_argument("--callers", type=int, default=64)
    options.add_argument("--workers", type=int, default=2)
    options.add_argument("--kill-every", type=int, default=10)
    options.add_argument("--seed", type=int, default=1)
    for name, count in stress(**vars(options.parse_args())).items():
        print(f"{name}: {count}")
