"""Does a program get the same verdict again?"""

import time
from collections.abc import Callable, Sequence
from typing import Any

from rrtf.records import Execution, Outcome, Problem, Response
from rrtf.sandbox import executor

SEEDS = (0, 0, 1, 2, 3, 4)  # the second round repeats the first
APART = 0.5  # seconds between the starts of two rounds, at least
_FIXED = ("syntax", "null_bytes", "encoding", "source_too_long")  # said before anything runs


def unstable(
    problems: Sequence[Problem],
    responses: Sequence[Response],
    *,
    first: Sequence[Execution] = (),
    seeds: Sequence[int] = SEEDS,
    apart: float = APART,
    execute: Callable[..., list[Execution]] = executor.execute,
    progress: Callable[[int, int], None] | None = None,
    **options: Any,
) -> list[bool]:
    """Per response: did its verdict differ between rounds of `execute`, one for each seed?

    A seed fixes hash order and `random`, so two rounds of one seed show what hangs on other
    things: the clock, addresses in memory, the kernel's random numbers, a limit that is met only
    sometimes. `first` are the verdicts of the first seed, where they are known. What has been
    found out, and sources that do not compile, are not run again. `progress(done, total)` counts
    responses of all rounds; `options` (`workers`, `level`, limits) go to `execute`, which must
    not answer from what it saved before. ValueError for fewer than two seeds.

    What can be promised. A program that passes under a share p of all hash orders stays unseen
    with probability p**r + (1 - p)**r, r different seeds: 1 in 16 for p = 1/2 and the default
    five. The clock cannot be shifted without privileges, but rounds start at least `apart`
    seconds apart: an answer that changes within that time, or every second, is seen; one that
    changes by the hour or at midnight is not.
    """
    if len(seeds) < 2:
        raise ValueError(f"{len(seeds)} seeds: two rounds at least are needed to compare")
    _check_first(first, responses)
    known, differs = list(first), [False] * len(responses)
    asked, total = list(range(len(responses))), len(seeds) * len(responses)
    for number, seed in enumerate(seeds):
        if asked and (number or not first):
            again, began = [responses[i] for i in asked], time.monotonic()
            told = _counted(progress, number * len(responses), total)
            found = execute(problems, again, seed=seed, progress=told, **options)
            known = known or found
            for place, verdict in zip(asked, found, strict=True):
                differs[place] = verdict != known[place]
            asked = [i for i in asked if not differs[i] and _may_differ(known[i])]
            if asked and number + 1 < len(seeds):
                time.sleep(max(0.0, apart - (time.monotonic() - began)))
    if progress:
        progress(total, total)
    return differs


def _check_first(first: Sequence[Execution], responses: Sequence[Response]) -> None:
    """ValueError unless there is none or one for each response."""
    if first and len(first) != len(responses):
        raise ValueError(f"{len(first)} verdicts known of {len(responses)} responses")


def _may_differ(verdict: Execution) -> bool:
    return verdict.outcome != Outcome.COMPILE_ERROR or verdict.reason not in _FIXED


def _counted(progress: Callable | None, before: int, total: int) -> Callable | None:
    return progress and (lambda done, _: progress(before + done, total))
