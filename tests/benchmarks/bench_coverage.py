"""Do 95 % intervals cover 95 times in 100, and do the tests keep their level? Known truths say.

    python tests/benchmarks/bench_coverage.py [--repetitions 600] [--part rates,seeds,choice,tests]

Every simulated experiment draws its tasks from a population whose difficulty is normal on the
logit scale (`spread` is its standard deviation: 1.5 similar tasks, 4 mixed, 8 nearly all or
nothing), families of 2 to 5 tasks that share it where the row says so, a shift per training seed,
noise per seed and task, and the samples. The truth is the mean over that population, integrated
numerically. `coverage` is a mean over the rates of the column `rate` (single yes/no samples
make it oscillate from one rate to the next) and `worst` that of the worst of them; `width` is in
percentage points. coverage.txt beside this file has the output of a run, about three minutes of
one core. `ok` says that the coverage lies within 93 to 97, or the level at most 5, give
or take two standard errors of the simulation.
"""

import argparse
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from rrtf import stats

NEAR_0, MIDDLE, NEAR_1 = (0.01, 0.02, 0.03), (0.58, 0.6, 0.62), (0.97, 0.98, 0.99)


@dataclass(frozen=True)
class Design:
    """One kind of experiment; `seed_sd` and `cell_sd` on the logit scale."""

    tasks: int = 164
    n: int = 1
    k: int = 1
    spread: float = 4.0
    families: bool = False
    seeds: int = 1
    seed_sd: float = 0.0
    cell_sd: float = 0.0


def groups_of(design: Design) -> np.ndarray:
    """The family of every task, (T,): sizes 2 to 5 in turn, or every task alone."""
    if not design.families:
        return np.arange(design.tasks)
    return np.repeat(np.arange(design.tasks), np.resize([2, 5, 3, 4], design.tasks))[: design.tasks]


@lru_cache(maxsize=4096)
def centre(rate: float, k: int, sd: float) -> float:
    """The mean logit of a population with this mean pass@k."""
    from scipy.optimize import brentq

    x = np.linspace(-8, 8, 4001)
    weights = np.exp(-x * x / 2) / np.exp(-x * x / 2).sum()
    return brentq(lambda m: weights @ -np.expm1(-k * softplus(m + sd * x)) - rate, -80, 80)


def softplus(logit: np.ndarray) -> np.ndarray:
    """-log(1 - p)."""
    return np.logaddexp(0, logit)


def answers(
    rate: float, ease: np.ndarray, design: Design, random: np.random.Generator, shift=None
) -> np.ndarray:
    """pass@k of every seed and task, (R, S, T); `ease` (R, T) is what tasks are to any model."""
    from scipy.special import expit

    repetitions, tasks = ease.shape
    if shift is None:
        shift = random.normal(0, design.seed_sd, (repetitions, design.seeds, 1))
    noise = random.normal(0, design.cell_sd, (repetitions, design.seeds, tasks))
    sd = math.hypot(design.spread, design.seed_sd, design.cell_sd)
    chance = expit(centre(rate, design.k, sd) + ease[:, None] + shift + noise)
    table = np.array([stats.pass_at_k(design.n, c, design.k) for c in range(design.n + 1)])
    return table[random.binomial(design.n, chance)]


def eases(design: Design, repetitions: int, random: np.random.Generator) -> np.ndarray:
    groups = groups_of(design)
    return random.normal(0, design.spread, (repetitions, groups.max() + 1))[:, groups]


def others(values: np.ndarray, groups: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """(low, high) of the rivals for (R, T) values: textbook intervals of a mean over clusters."""
    from scipy.stats import norm, t
    from statsmodels.stats.proportion import proportion_confint

    total, count = len(groups), groups.max() + 1
    member = np.eye(count)[groups]
    sums, sizes = values @ member, member.sum(axis=0)
    mean = values.mean(axis=1)
    error = np.sqrt(((sums - mean[:, None] * sizes) ** 2).sum(axis=1) * count / (count - 1)) / total
    nothing = error < 1e-9
    n = np.where(nothing, count, mean * (1 - mean) / np.where(nothing, 1, error) ** 2)
    z, wide = norm.isf(0.025), t.isf(0.025, count - 1)
    effective = n * (z / wide) ** 2  # Korn and Graubard 1998
    found = {
        "t": (mean - wide * error, mean + wide * error),
        "Wilson, plain n": proportion_confint(mean * effective, effective, method="wilson"),
        "Korn-Graubard": proportion_confint(mean * effective, effective, method="beta"),
    }
    draws = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), 1000)
    means = np.sort(sums @ draws.T / (draws @ sizes), axis=1)  # (R, 1000)
    left = (total * mean[:, None] - sums) / (total - sizes)  # jackknife
    bend = left.mean(axis=1, keepdims=True) - left
    bend = (bend**3).sum(axis=1) / np.maximum(6 * (bend**2).sum(axis=1) ** 1.5, 1e-30)
    below = (means < mean[:, None]).mean(axis=1) + (means <= mean[:, None]).mean(axis=1)
    bias = norm.ppf(np.clip(below / 2, 0.001, 0.999))
    for name, b, a in (("percentile", 0 * bias, 0 * bend), ("BCa", bias, bend)):
        at = [norm.cdf(b + (b + side) / (1 - a * (b + side))) for side in (-z, z)]
        low, high = (means[np.arange(len(mean)), (999 * share).astype(int)] for share in at)
        plain = found["Wilson, plain n"]  # where there is nothing to resample
        found[name] = np.where(nothing, plain[0], low), np.where(nothing, plain[1], high)
    return found


def ours(values: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`stats.rate` of every row."""
    families = groups.tolist() if len(set(groups.tolist())) < len(groups) else None
    found = [stats.rate(row, families)[0] for row in values]
    return np.array([e.low for e in found]), np.array([e.high for e in found])


def hits(bounds: tuple[np.ndarray, np.ndarray], truth: float) -> tuple[float, float]:
    """(share that holds the truth, mean width inside [-1, 1])."""
    low, high = bounds
    width = np.minimum(high, 1) - np.maximum(low, -1)
    slack = 1e-12
    return float(np.mean((low <= truth + slack) & (truth <= high + slack))), float(width.mean())


def judged(coverage: float, trials: int) -> str:
    error = 2 * math.sqrt(0.05 * 0.95 / trials)
    return "ok" if 0.93 - error <= coverage <= 0.97 + error else "OUT"


def one_rate(
    design: Design, rates: Sequence[float], repetitions: int, *, rivals: bool = True
) -> dict[str, list[tuple[float, float]]]:
    """Method -> (coverage, width) at each of `rates`."""
    rows: dict[str, list[tuple[float, float]]] = {}
    for rate in rates:
        random = np.random.default_rng([int(1000 * rate), design.tasks, design.n, design.k])
        groups = groups_of(design)
        values = answers(rate, eases(design, repetitions, random), design, random)[:, 0]
        methods = {"stats.rate": ours(values, groups)} | (others(values, groups) if rivals else {})
        for name, bounds in methods.items():
            low, high = bounds
            kept = np.maximum(low, 0), np.minimum(high, 1)
            rows.setdefault(name, []).append(hits(kept, rate))
    return rows


def rates_part(repetitions: int) -> None:
    protocols = ((1, 1), (10, 1), (10, 10), (200, 1), (200, 10))
    within: dict[str, list[bool]] = {}
    print(f"{'one model':52}{'rate':>12}  {'coverage':>8}{'worst':>7}{'width':>7}")
    for tasks in (164, 30, 600):
        for families in (False, True):
            for n, k in protocols:
                for spread in (1.5, 4.0, 8.0) if tasks == 164 and n > 1 else (4.0,):
                    design = Design(tasks, n, k, spread, families)
                    title = f"{tasks} tasks{', families' if families else ''}, n={n}, pass@{k}"
                    for rates in (NEAR_0, MIDDLE, NEAR_1):
                        rows = one_rate(design, rates, repetitions)
                        show(f"{title}, spread {spread:g}", rates, rows, repetitions)
                        for name, found in rows.items():
                            mean = np.mean([c for c, _ in found])
                            good = judged(mean, repetitions * len(rates)) == "ok"
                            within.setdefault(name, []).append(good)
    print("\nrows within 93 to 97, by method")
    for name, good in within.items():
        print(f"  {name:20}{sum(good):4} of {len(good)}")


def show(
    title: str,
    rates: Sequence[float],
    rows: dict[str, list[tuple[float, float]]],
    repetitions: int,
) -> None:
    """The line of `stats.rate` in full, the rivals' coverage and width behind it."""
    for name, found in rows.items():
        mean, worst = np.mean([c for c, _ in found]), min(c for c, _ in found)
        width = 100 * np.mean([w for _, w in found])
        if name == "stats.rate":
            shown = f"{rates[0]:g} to {rates[-1]:g}"
            said = judged(mean, repetitions * len(rates))
            print(f"{title:52}{shown:>12}  {100 * mean:8.1f}{100 * worst:7.1f}{width:7.1f}  {said}")
            print(" " * 10, end="")
        else:
            print(f"  {name} {100 * mean:.1f} ({width:.1f})", end="")
    print()


def pairs(
    design: Design, rates: tuple[float, float], repetitions: int, *, kind: str, seed: int = 0
) -> tuple[list[stats.Estimate], np.ndarray, np.ndarray]:
    """`stats.crossed` of two models on the same tasks, and both their values (R, S, T).

    `kind`: "paired" (a seed does half of its work to both sides), "unpaired", or "one" (b has a
    single training, without a shift of its own: the interval speaks of that model).
    """
    random = np.random.default_rng([seed, design.tasks, design.seeds, int(1000 * rates[0])])
    groups = groups_of(design).tolist() if design.families else None
    ease = eases(design, repetitions, random)
    shifts: list[np.ndarray | None] = [None, None]
    if kind == "paired":
        shared, *own = (
            random.normal(0, design.seed_sd * math.sqrt(0.5), (repetitions, design.seeds, 1))
            for _ in range(3)
        )
        shifts = [shared + part for part in own]
    alone = Design(**{**vars(design), "seeds": 1, "seed_sd": 0.0})
    a = answers(rates[0], ease, design, random, shifts[0])
    b = answers(rates[1], ease, alone if kind == "one" else design, random, shifts[1])
    found = [
        stats.crossed(x, y, groups, paired=kind == "paired") for x, y in zip(a, b, strict=True)
    ]
    return found, a, b


def bounds(found: Sequence[stats.Estimate]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([e.low for e in found]), np.array([e.high for e in found])


def seeds_part(repetitions: int) -> None:
    print(f"{'training seeds x tasks':64}{'rate':>8}  {'coverage':>8}{'width':>7}")
    for seeds in (5, 3):
        for tasks, families, n in (
            (164, False, 1),
            (164, True, 10),
            (600, True, 10),
            (30, False, 1),
        ):
            for seed_sd in (0.0, 0.2, 0.5):
                design = Design(tasks, n, 1, 2.0, families, seeds, seed_sd, 0.7)
                where = f"{seeds} x {tasks}{' in families' if families else ''}, n={n}, "
                where += f"seed sd {seed_sd:g}"
                for rate in (0.02, 0.6, 0.98):
                    random = np.random.default_rng([seeds, tasks, int(100 * rate)])
                    sides = answers(rate, eases(design, repetitions, random), design, random)
                    groups = groups_of(design).tolist() if families else None
                    found = [stats.mean_rate(side, groups) for side in sides]
                    told(f"{where}: mean rate", rate, hits(bounds(found), rate), repetitions)
                for kind in ("unpaired", "paired", "one"):
                    for a, b in ((0.6, 0.5), (0.06, 0.03)):
                        found, _, _ = pairs(design, (a, b), repetitions, kind=kind)
                        told(f"{where}: a - b, {kind}", a, hits(bounds(found), a - b), repetitions)
    print("\none training each: a - b on the same tasks")
    for tasks, families, n in ((164, False, 1), (164, True, 1), (164, True, 10), (600, True, 10)):
        design = Design(tasks, n, 1, 4.0, families)
        for a, b in ((0.6, 0.6), (0.6, 0.5), (0.03, 0.02), (0.98, 0.97)):
            found, _, _ = pairs(design, (a, b), repetitions, kind="unpaired")
            where = f"{tasks} tasks{' in families' if families else ''}, n={n}: {a:g} - {b:g}"
            told(where, a, hits(bounds(found), a - b), repetitions)


def told(title: str, rate: float, found: tuple[float, float], repetitions: int) -> None:
    coverage, width = found
    said = judged(coverage, repetitions)
    print(f"{title:64}{rate:8g}  {100 * coverage:8.1f}{100 * width:7.1f}  {said}")


VALIDATION = 600  # problems on which a seed chooses its rate


def chosen(
    rates: Sequence[float], design: Design, ease: np.ndarray, own: np.ndarray, seed: int
) -> np.ndarray:
    """Answers (R, S, T) of trainings of which each seed kept the best at its own problems.

    `rates` are the true means at each learning rate of the grid; `own` (R, S, V) is what the
    validation problems of a seed are to any model. A model's shift is the same on both.
    """
    from scipy.special import expit

    random = np.random.default_rng(seed)
    sd = math.hypot(design.spread, design.seed_sd, design.cell_sd)
    tested, validated = [], []
    for rate in rates:
        shift = random.normal(0, design.seed_sd, (*own.shape[:2], 1))
        tested.append(answers(rate, ease, design, random, shift))
        noise = random.normal(0, design.cell_sd, own.shape)
        chance = expit(centre(rate, 1, sd) + own + shift + noise)
        validated.append(random.binomial(1, chance).sum(axis=2))
    best = np.stack(validated).argmax(axis=0)[None, :, :, None]  # (1, R, S, 1)
    return np.take_along_axis(np.stack(tested), best, axis=0)[0]


def choice_part(repetitions: int) -> None:
    """Two arms whose rate every seed chooses anew; the truth is the mean of that procedure."""
    print(f"\n{'learning rate chosen on ' + str(VALIDATION) + ' problems by every seed':64}")
    grids = {
        "one rate is best": ((0.30, 0.36, 0.28), (0.27, 0.29, 0.33)),
        "two are alike": ((0.30, 0.34, 0.34), (0.31, 0.32, 0.32)),
        "all are alike": ((0.30, 0.30, 0.30), (0.30, 0.30, 0.30)),
        "an edge falls off": ((0.30, 0.33, 0.12), (0.30, 0.29, 0.10)),
    }
    for seeds in (5, 3):
        for name, (a, b) in grids.items():
            design = Design(1500, 1, 1, 2.0, True, seeds, 0.1, 0.7)
            random = np.random.default_rng([seeds, *map(ord, name)])
            ease = eases(design, repetitions, random)
            own = random.normal(0, design.spread, (repetitions, seeds, VALIDATION))
            left, right = (chosen(r, design, ease, own, at) for at, r in enumerate((a, b)))
            groups = groups_of(design).tolist()
            found = [
                stats.crossed(x, y, groups, paired=True) for x, y in zip(left, right, strict=True)
            ]
            truth = round(float((left - right).mean()), 4)
            told(f"{seeds} x 1500: a - b, {name}", truth, hits(bounds(found), truth), repetitions)


def rejections(found: Sequence[float]) -> float:
    return float(np.mean(np.asarray(found) <= 0.05))


def p_values(kind: str, design: Design, rates: tuple[float, float], repetitions: int):
    """p of every simulated experiment by the test that `kind` names."""
    groups = groups_of(design).tolist() if design.families else None
    pairing = "paired" if kind == "t, paired seeds x tasks" else "unpaired"
    found, a, b = pairs(design, rates, repetitions, kind=pairing, seed=7)
    if kind == "exact McNemar":
        won = (a > b).sum(axis=(1, 2)), (a < b).sum(axis=(1, 2))
        return [stats.mcnemar(x, y) for x, y in zip(*won, strict=True)]
    if kind == "permutation":
        return [
            stats.permutation(x, groups, seed=at, n_resamples=999)
            for at, x in enumerate((a - b)[:, 0])
        ]
    return [stats.t_test(estimate) for estimate in found]


def tests_part(repetitions: int) -> None:
    print(f"{'test':66}{'level':>7}    power at the difference of")
    crossed = {"spread": 2.0, "cell_sd": 0.7}
    for kind, design, rate, gap in (
        ("exact McNemar", Design(164), 0.6, 0.15),
        ("exact McNemar", Design(600), 0.03, 0.03),
        ("permutation", Design(164, 10, families=True), 0.6, 0.1),
        ("permutation", Design(600, 10, families=True), 0.03, 0.03),
        ("permutation", Design(30, 10), 0.6, 0.15),
        ("t, seeds x tasks", Design(164, seeds=5, seed_sd=0.2, **crossed), 0.6, 0.1),
        ("t, seeds x tasks", Design(164, seeds=5, **crossed), 0.6, 0.1),
        ("t, seeds x tasks", Design(164, seeds=3, seed_sd=0.2, **crossed), 0.6, 0.1),
        ("t, seeds x tasks", Design(164, 10, 1, 2.0, True, 5, 0.2, 0.7), 0.6, 0.1),
        ("t, paired seeds x tasks", Design(164, seeds=5, seed_sd=0.3, **crossed), 0.6, 0.1),
        ("t, paired seeds x tasks", Design(600, 10, 1, 2.0, True, 3, 0.3, 0.7), 0.03, 0.02),
    ):
        level = rejections(p_values(kind, design, (rate, rate), repetitions))
        high = rate + gap
        power = rejections(p_values(kind, design, (high, rate), repetitions))
        where = f"{kind}, {design.seeds} x {design.tasks}"
        where += f"{' in families' if design.families else ''}, n={design.n}, seed sd "
        where += f"{design.seed_sd:g}, rate {rate:g}"
        leveled(where, level, repetitions, f"{100 * gap:.0f} points: {100 * power:.0f} %")
    design = Design(600, seeds=5, **crossed)
    margin = 0.05
    edge, _, _ = pairs(design, (0.6, 0.6 - margin), repetitions, kind="unpaired")
    equal, _, _ = pairs(design, (0.6, 0.6), repetitions, kind="unpaired")
    level, power = (
        rejections([stats.equivalence(e, margin=margin) for e in found]) for found in (edge, equal)
    )
    title = "equivalence within 5 points, 5 x 600, true difference 5 points"
    leveled(title, level, repetitions, f"0 points: {100 * power:.0f} %")
    several(repetitions)
    detectable(repetitions)


def several(repetitions: int) -> None:
    """Holm: a family of six McNemar tests on one benchmark, all nulls true or three of them."""
    design, random = Design(164), np.random.default_rng(5)
    for gap in (0.0, 0.2):
        ease = eases(design, repetitions, random)
        base = answers(0.6, ease, design, random)[:, 0]
        wrong, right = [], []
        p: list[list[float]] = []
        for at in range(6):
            rival = answers(0.6 + (gap if at >= 3 else 0), ease, design, random)[:, 0]
            won = (rival > base).sum(axis=1), (rival < base).sum(axis=1)
            p.append([stats.mcnemar(x, y) for x, y in zip(*won, strict=True)])
        for row in np.transpose(p):
            adjusted = stats.holm(row)
            wrong.append(min(adjusted[:3] if gap else adjusted) <= 0.05)
            right.append(np.mean(np.array(adjusted[3:]) <= 0.05))
        title = f"Holm over six McNemar tests, {'three nulls true' if gap else 'all nulls true'}"
        said = f"{100 * gap:.0f} points: {100 * np.mean(right):.0f} %" if gap else ""
        leveled(title, float(np.mean(wrong)), repetitions, said)


def detectable(repetitions: int) -> None:
    print(f"\n{'smallest detectable difference':66}{'points':>7}   found (stated: 80 %)")
    for seeds in (5, 3):
        design = Design(164, 1, 1, 2.0, False, seeds, 0.2, 0.7)
        pilot, _, _ = pairs(design, (0.6, 0.6), repetitions, kind="unpaired", seed=1)
        error = math.sqrt(np.mean([e.standard_error**2 for e in pilot]))
        df = float(np.median([e.df for e in pilot]))
        gap = stats.smallest_detectable(error, df)
        found, _, _ = pairs(design, (0.6 + gap, 0.6), repetitions, kind="unpaired", seed=2)
        power = rejections([stats.t_test(e) for e in found])
        print(f"{seeds} seeds x 164 tasks, t test{'':40}{100 * gap:7.1f}   {100 * power:.0f} %")


def leveled(title: str, level: float, repetitions: int, power: str) -> None:
    error = 2 * math.sqrt(0.05 * 0.95 / repetitions)
    said = "ok " if level <= 0.05 + error else "OUT"
    print(f"{title:66}{100 * level:7.1f} {said} {power}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repetitions", type=int, default=600, help="per row and rate")
    parser.add_argument("--part", default="rates,seeds,choice,tests")
    options = parser.parse_args()
    parts: dict[str, Callable[[int], None]] = {
        "rates": rates_part, "seeds": seeds_part, "choice": choice_part, "tests": tests_part,
    }  # fmt: skip
    print(f"{options.repetitions} repetitions per row and rate\n")
    for name in options.part.split(","):
        parts[name](options.repetitions)
        print()


if __name__ == "__main__":
    main()
