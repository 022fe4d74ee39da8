"""Task scores as grids: pass@k by training seed and task, in one order for all methods.

A source of evaluated answers is labelled `method/seed@temperature`; `rrtf/2@0.8` is RRTF,
training seed 2, sampled at temperature 0.8, and `@0` is greedy.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from rrtf import stats
from rrtf.records import TaskScore


@dataclass(frozen=True, slots=True)
class Metric:
    """pass@k from the samples drawn at `temperature` (0 = greedy)."""

    k: int
    temperature: float

    @property
    def name(self) -> str:
        return f"pass@{self.k} " + (f"T={self.temperature:g}" if self.temperature else "greedy")


def label(method: str, seed: int, temperature: float) -> str:
    """The `source` of an answer: `rrtf/2@0.8` is RRTF, training seed 2, temperature 0.8."""
    return f"{method}/{seed}@{temperature:g}"


def parse_label(source: str) -> tuple[str, int, float]:
    """The inverse of `label`; ValueError for a source that has another form."""
    name, at, temperature = source.rpartition("@")
    method, slash, seed = name.rpartition("/")
    try:
        if not (method and slash and at):
            raise ValueError
        return method, int(seed), float(temperature)
    except ValueError:
        raise ValueError(f"source {source!r}: expected method/seed@temperature") from None


def methods(scores: Sequence[TaskScore]) -> list[str]:
    """The methods that were scored, in order of appearance."""
    return list(dict.fromkeys(row.model for row in scores))


def grid(scores: Sequence[TaskScore], method: str, metric: Metric) -> dict[int, list[float]]:
    """Training seed -> pass@k of every task, tasks in order of id. ValueError if there is none."""
    rows: dict[int, dict[str, float]] = defaultdict(dict)
    for row in scores:
        if row.model == method and row.temperature == metric.temperature:
            rows[row.seed][row.task_id] = stats.pass_at_k(row.n, row.c, metric.k)
    if not rows:
        raise ValueError(f"{method}: no scores for {metric.name}")
    return {seed: [tasks[name] for name in sorted(tasks)] for seed, tasks in sorted(rows.items())}


def families(scores: Sequence[TaskScore]) -> list[str]:
    """The family of every task, tasks in order of id."""
    return [group for _, group in sorted({row.task_id: row.family for row in scores}.items())]
