"""Our intervals and paired tests beside those of Inspect, lm-eval and bayes_evals: one table.

    python -m venv PEERS && PEERS/bin/pip install inspect_ai matplotlib pandas sacrebleu scipy
    PEERS/bin/pip install --no-deps lm_eval
    git clone https://github.com/sambowyer/bayes_evals   # not on the registry
    PYTHONPATH=.:bayes_evals/src/bayes_evals PEERS/bin/python tests/benchmarks/bench_statistics.py

Settings and simulated answers are those of `bench_coverage.py`, the same for every method. Called
is the peers' own code:

- Inspect: `stderr` +- 1.96, `ci` (Student's t) and `ci_wilson`, all with `cluster` where tasks come
  in families;
- lm-eval: `mean_stderr` +- 1.96, which is what it prints behind an accuracy (its bootstrap is for
  other metrics); it knows no families;
- bayes_evals: `independent_intervals`, `paired_comparisons`; yes and no only, no families.

Two tests are no functions there and are restated: for Inspect the paired z test of Miller 2024
(arXiv:2411.00640, section 4), its `stderr` of the differences; for lm-eval the z test of its
`scripts/model_comparator.py`, which takes the two standard errors as if the tasks were different.
`rrtf` takes the interval and the test that a board takes. Coverage and level in percent; LOW is
coverage below 93, WIDE above 97, OUT a level above 5, each by more than two standard errors of the
simulation.
"""

import argparse
import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from importlib import metadata

import bayes_evals
import numpy as np
import pandas as pd
from bench_coverage import MIDDLE, NEAR_0, NEAR_1, Design, answers, eases, groups_of
from inspect_ai.scorer import SampleScore, Score, ci, ci_wilson, stderr
from lm_eval.api.metrics import mean_stderr

from rrtf import stats

Z = 1.959964
Bounds = tuple[float, float]
Interval = Callable[[Sequence[float], Sequence[int] | None], Bounds]
SETTINGS = (
    Design(30),
    Design(164),
    Design(600),
    Design(164, families=True),
    Design(164, 10),
    Design(30, 10, 10),
    Design(164, 10, families=True),
)


def scored(values: Sequence[float], families: Sequence[int] | None) -> tuple[list, dict]:
    """(Inspect's scores, the keyword that names the families)."""
    return _scored(tuple(values), families and tuple(families))


@lru_cache(maxsize=1)  # several of its functions are asked in turn
def _scored(values: tuple[float, ...], families: tuple[int, ...] | None) -> tuple[list, dict]:
    groups = families if families is not None else range(len(values))
    rows = [
        SampleScore(score=Score(value=float(value)), sample_metadata={"family": int(group)})
        for value, group in zip(values, groups, strict=True)
    ]
    return rows, {} if families is None else {"cluster": "family"}


def _rrtf(values: Sequence[float], families: Sequence[int] | None) -> Bounds:
    found = stats.rate(values, families)[0]
    return found.low, found.high


def _inspect(values: Sequence[float], families: Sequence[int] | None) -> Bounds:
    rows, how = scored(values, families)
    mean, error = float(np.mean(values)), float(stderr(**how)(rows))
    return mean - Z * error, mean + Z * error


def _bounds_of(metric: Callable) -> Interval:
    def interval(values: Sequence[float], families: Sequence[int] | None) -> Bounds:
        rows, how = scored(values, families)
        found = metric(**how)(rows)
        return found["lower"], found["upper"]

    return interval


def _lm_eval(values: Sequence[float], _: Sequence[int] | None) -> Bounds:
    mean, error = float(np.mean(values)), mean_stderr(list(values))
    return mean - Z * error, mean + Z * error


def _bayes(values: Sequence[float], _: Sequence[int] | None) -> Bounds:
    if not set(values) <= {0.0, 1.0}:
        return math.nan, math.nan
    low, high = bayes_evals.independent_intervals(pd.DataFrame({"m": values}))["m"]
    return low, high


INTERVALS: dict[str, Interval] = {
    "rrtf": _rrtf,
    "Inspect stderr": _inspect,
    "Inspect ci": _bounds_of(ci),
    "Inspect ci_wilson": _bounds_of(ci_wilson),
    "lm-eval stderr": _lm_eval,
    "bayes_evals": _bayes,
}


def _normal(z: float) -> float:
    return math.erfc(abs(z) / math.sqrt(2)) if not math.isnan(z) else 1.0


def _ours(a: np.ndarray, b: np.ndarray, families: Sequence[int] | None) -> float:
    if families is None and set(a) | set(b) <= {0.0, 1.0}:
        return stats.mcnemar(int((a > b).sum()), int((a < b).sum()))
    return stats.permutation(a - b, families, seed=0, n_resamples=999)


def _miller(a: np.ndarray, b: np.ndarray, families: Sequence[int] | None) -> float:
    rows, how = scored(a - b, families)
    error = float(stderr(**how)(rows))
    return _normal(float((a - b).mean()) / error) if error else 1.0


def _comparator(a: np.ndarray, b: np.ndarray, _: Sequence[int] | None) -> float:
    error = math.hypot(mean_stderr(list(a)), mean_stderr(list(b)))
    return _normal(float(a.mean() - b.mean()) / error) if error else 1.0


def _posterior(a: np.ndarray, b: np.ndarray, _: Sequence[int] | None) -> float:
    if not set(a) | set(b) <= {0.0, 1.0}:
        return math.nan
    found = bayes_evals.paired_comparisons(pd.DataFrame({"a": a, "b": b}))
    share = found.loc["a", "b"]
    return 2 * min(share, 1 - share)


TESTS = {
    "rrtf": _ours,
    "Inspect, paired z": _miller,
    "lm-eval, z of two": _comparator,
    "bayes_evals, paired": _posterior,
}
PAIRED = (
    (Design(30), 0.6, 0.3),
    (Design(164), 0.6, 0.15),
    (Design(164), 0.97, 0.025),
    (Design(600), 0.03, 0.03),
    (Design(164, families=True), 0.6, 0.15),
    (Design(164, 10), 0.6, 0.1),
    (Design(30, 10, families=True), 0.6, 0.2),
)


def named(design: Design) -> str:
    families = " in families" if design.families else ""
    return f"{design.tasks} tasks{families}, n={design.n}, pass@{design.k}"


def families_of(design: Design) -> list[int] | None:
    return groups_of(design).tolist() if design.families else None


def coverage(repetitions: int) -> None:
    print(f"{'coverage, % (width, points)':52}" + "".join(f"{name:>21}" for name in INTERVALS))
    out: dict[str, list[str]] = {name: [] for name in INTERVALS}
    for design in SETTINGS:
        families = families_of(design)
        for rates in (NEAR_0, MIDDLE, NEAR_1):
            found: dict[str, list[tuple[bool, float]]] = {name: [] for name in INTERVALS}
            for rate in rates:
                random = np.random.default_rng([int(1000 * rate), design.tasks, design.n])
                rows = answers(rate, eases(design, repetitions, random), design, random)[:, 0]
                for name, interval in INTERVALS.items():
                    for row in rows:
                        low, high = interval(row.tolist(), families)
                        width = min(high, 1.0) - max(low, 0.0)
                        found[name].append((low - 1e-12 <= rate <= high + 1e-12, width))
            cells = []
            for name, hits in found.items():
                held, width = (float(np.mean(side)) for side in zip(*hits, strict=True))
                if math.isnan(width):
                    cells.append(f"{'-':>21}")
                    continue
                slack = 2 * math.sqrt(0.05 * 0.95 / len(hits))
                mark = "LOW" if held < 0.93 - slack else "WIDE" if held > 0.97 + slack else ""
                out[name].append(mark)
                cells.append(f"{100 * held:9.1f} ({100 * width:4.1f}) {mark:4}")
            where = f"{named(design)}, {rates[0]:g} to {rates[-1]:g}"
            print(f"{where:52}" + "".join(f"{cell:>21}" for cell in cells), flush=True)
    for mark, title in (("LOW", "covered too rarely"), ("WIDE", "too wide")):
        told = (f"{marks.count(mark)} of {len(marks)}" for marks in out.values())
        print(f"{'settings ' + title:52}" + "".join(f"{text:>21}" for text in told))


def level(repetitions: int) -> None:
    print(f"\n{'level, % (power, %)':64}" + "".join(f"{name:>21}" for name in TESTS))
    for design, rate, gap in PAIRED:
        families, shares = families_of(design), {}
        for high in (rate, min(rate + gap, 0.995)):
            random = np.random.default_rng([int(1000 * high), design.tasks, 5])
            ease = eases(design, repetitions, random)
            sides = [answers(r, ease, design, random)[:, 0] for r in (high, rate)]
            for name, test in TESTS.items():
                found = [test(a, b, families) for a, b in zip(*sides, strict=True)]
                share = math.nan if math.isnan(found[0]) else np.mean(np.array(found) <= 0.05)
                shares.setdefault(name, []).append(100 * share)
        most = 100 * (0.05 + 2 * math.sqrt(0.05 * 0.95 / repetitions))
        cells = [
            f"{'-':>21}" if math.isnan(size) else
            f"{f'{size:.1f} ({power:.0f}) ' + ('OUT' if size > most else '   '):>21}"
            for size, power in shares.values()
        ]  # fmt: skip
        where = f"{named(design)}, {rate:g} and {100 * gap:g} points more"
        print(f"{where:64}" + "".join(cells), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repetitions", type=int, default=400, help="per setting and rate")
    options = parser.parse_args()
    np.random.seed(0)  # bayes_evals draws from numpy's own
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("inspect_ai", "lm_eval"))
    print(
        f"{options.repetitions} repetitions per setting and rate; {versions}, bayes_evals b971184\n"
    )
    coverage(options.repetitions)
    level(options.repetitions)


if __name__ == "__main__":
    main()
