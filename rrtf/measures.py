"""x"""

import re
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Metric:
    """pass@k from the samples drawn at `temperature` (0 = greedy)."""

    k: int
    temperature: float

    @property
    def name(self) -> str:
        return f"pass@{self.k} " + (f"T={self.temperature:g}" if self.temperature else "greedy")


def parse_metric(text: str) -> Metric:
    """The inverse of `Metric.name`: `"pass@10 T=1.2"`, `"pass@1 greedy"`; ValueError otherwise."""
    found = re.fullmatch(r"pass@([1-9]\d*) (?:greedy|T=(\d+(?:\.\d+)?))", text)
    metric = Metric(int(found[1]), float(found[2] or 0)) if found else None
    if metric is None or (metric.temperature == 0 and metric.k > 1):
        raise ValueError(f"measure {text!r}: expected 'pass@1 greedy' or, say, 'pass@10 T=1.2'")
    return metric


def draws(measures: Sequence[Metric], n_samples: int) -> list[tuple[int, float]]:
    """(answers per task, temperature) for each temperature of `measures`: one if it is greedy.

    ValueError for a pass@k that needs more than `n_samples` answers.
    """
    for metric in measures:
        if metric.k > n_samples:
            raise ValueError(f"{metric.name} needs {metric.k} answers per task, not {n_samples}")
    warmths = dict.fromkeys(metric.temperature for metric in measures)
    return [(n_samples if warmth else 1, warmth) for warmth in warmths]


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
