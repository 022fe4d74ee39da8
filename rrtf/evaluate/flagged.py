"""Rates on the tasks that the training data leaks, and on the others.

A model that has seen a task answers it from memory. So the rate on the clean tasks is the one to
compare; the gap between both is no measure of the leak, because tasks that leak are easy ones.
"""

from collections.abc import Collection, Sequence

from rrtf.metrics import Result, rates
from rrtf.records import Leak, TaskScore

PARTS = ("all", "clean", "flagged")
CAUTION = (
    "flagged tasks are those that an audit found in the training rows; they are easier than the "
    "others on average, so the gap is not what the leak is worth: read the rate on the clean ones, "
    "and compare models that were trained on these rows with models that were not"
)


def flagged_tasks(leaks: Sequence[Leak], benchmark: str) -> set[str]:
    """The tasks of `benchmark` that some leak names.

    ValueError where all leaks are of other benchmarks: a wrong file, or a wrong name.
    """
    found = {leak.benchmark_task_id for leak in leaks if leak.benchmark == benchmark}
    if leaks and not found:
        others = ", ".join(sorted({leak.benchmark for leak in leaks}))
        raise ValueError(f"no leak of {benchmark}: these are of {others}")
    return found


def by_leak(
    scores: Sequence[TaskScore], flagged: Collection[str], *, ks: Sequence[int] = (1,)
) -> dict[str, list[Result]]:
    """Part (PARTS) -> pass@k of every model, seed and temperature on the tasks of that part.

    An empty part has no rows. `ks` as `metrics.rates`. ValueError for scores of several
    benchmarks, a flagged task without a score, or a task that one model answers twice.
    """
    names = {row.benchmark for row in scores}
    if len(names) != 1:
        raise ValueError(f"expected scores of one benchmark, found {sorted(names) or 'none'}")
    if strangers := sorted(set(flagged) - {row.task_id for row in scores}):
        raise ValueError(f"{strangers[0]}: flagged, but without a score in {names.pop()}")
    found: dict[str, list[Result]] = {part: [] for part in PARTS}
    for model, seed, warmth in dict.fromkeys((r.model, r.seed, r.temperature) for r in scores):
        own = [r for r in scores if (r.model, r.seed, r.temperature) == (model, seed, warmth)]
        if len({row.task_id for row in own}) < len(own):
            raise ValueError(f"{model}: two scores of one task")
        sides = {part: [r for r in own if _is_in(part, r.task_id in flagged)] for part in PARTS}
        for part, members in sides.items():
            found[part] += rates(model, members, ks) if members else []
    return found


def _is_in(part: str, is_flagged: bool) -> bool:
    return part == "all" or (part == "flagged") == is_flagged
