"""How often is the audit right? 300 pairs of row and task, labelled twice by a written guide.

    python tests/benchmarks/bench_labels.py draw --data FOLDER --out FILE   # pairs with their texts
    python tests/benchmarks/bench_labels.py report --data FOLDER [--findings FILE]

The rule of the drawing. Rows are Code Alpaca's 20,022, tasks those of HumanEval and MBPP, the two
benchmarks of the audit of `audit.txt` that the rows can have been copied from. A pair is in the
pool if any detector finds it at the loose thresholds of LOOSE, far below those that the verb
removes at, or if a function of the row passes the task's tests. Every pair of the pool belongs to
the first stratum of STRATA that it fits; from each stratum so many are drawn, with a seed, and all
where there are no more. The strata of execution are drawn from EXECUTED rows with a function, taken
at random, because running every row takes minutes; the others from all rows. The 300 are shuffled
and shown without detector, score or stratum.

What the figures speak for. A pair stands for N/n pairs, N being how many of its stratum there are
in the pool of all rows and n how many of them were drawn, so a share of weights estimates the share
in the whole pool, whatever was drawn too often on purpose. Precision of a detector: of the weight
of what it reports as a leak, the part that is labelled one. Recall: of the weight of all labelled
leaks, the part that it reports; leaks that nothing in the pool finds are not in it, so this recall
is an upper bound. Pairs of one row resemble each other, so intervals take rows for clusters
(`weighted`). Where the two readers differ, a pair counts as half a leak, so every figure is the
mean of those that either labelling alone would give.
"""

import argparse
import hashlib
import json
import math
import os
import random
import sys
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import NormalDist

from rrtf import execution, stats, store
from rrtf.audit import detectors, running, verdict, views
from rrtf.audit.rows import Corpus, Row, from_problems, read
from rrtf.cli import audit, options
from rrtf.records import Leak
from rrtf.sandbox import executor

SEEDS = "code_alpaca/code_alpaca_20k.json.gz"
BENCHMARKS = ("humaneval", "mbpp")
LABELS = Path(__file__).resolve().parents[2] / "data" / "labels"
SETTINGS = detectors.Settings.of({o.name: o.value for o in options.options_of("audit")})
LOOSE = replace(
    SETTINGS,
    substring_words=5,
    ngram_share=0.3,
    minhash_threshold=0.4,
    embedding_threshold=0.6,
)
EXECUTED = 100  # rows with a function whose functions are run, for the two strata of execution
TEXT = ("exact text", "normalised text", *detectors.SUBSTRINGS, "5-gram", "8-gram", "13-gram",
        "minhash text")  # fmt: skip
STRATA = {  # how many pairs are drawn of each; a pair belongs to the first that it fits
    "text": 15,
    "equal code, large": 12,
    "equal code, generic": 20,
    "near code, large": 25,
    "near code, generic": 20,
    "embedding": 40,
    "text below the threshold": 24,
    "embedding, 0.7 to 0.85": 28,
    "code below the threshold": 16,
    "embedding, 0.6 to 0.7": 20,
    "execution, in the task's words": 40,
    "execution, in other words": 40,
}

Pair = verdict.Pair
Z = NormalDist().inv_cdf(1 - stats.TAIL)


def strata(found: Sequence[Leak], sides: tuple[Corpus, Corpus]) -> dict[Pair, str]:
    """The stratum of every pair that was found."""
    sizes = dict(zip(sides[1].placed, sides[1].sizes, strict=True))
    by_pair: defaultdict[Pair, list[Leak]] = defaultdict(list)
    for leak in found:
        by_pair[verdict.pair_of(leak)].append(leak)
    passed = [replace(leak, score=0.0) for leak in found if leak.detector == detectors.EXECUTION]
    other_words = verdict.coincidences(passed, *sides)  # at a score of 0 only the words decide
    told = {}
    for pair, leaks in by_pair.items():
        best = {leak.detector: leak.score for leak in leaks if over(leak)}
        large = ", large" if sizes[pair[1:]] >= verdict.GENERIC_NODES else ", generic"
        score = max((k.score for k in leaks if k.detector == "embedding"), default=0.0)
        below = {leak.detector for leak in leaks} - best.keys()
        if best.keys() & {*TEXT}:
            told[pair] = "text"
        elif "code" in best:
            told[pair] = f"equal code{large}"
        elif "minhash code" in best:
            told[pair] = f"near code{large}"
        elif "embedding" in best:
            told[pair] = "embedding"
        elif below & {*TEXT}:
            told[pair] = "text below the threshold"
        elif score >= 0.7:
            told[pair] = "embedding, 0.7 to 0.85"
        elif "minhash code" in below:
            told[pair] = "code below the threshold"
        elif score:
            told[pair] = "embedding, 0.6 to 0.7"
        else:
            words = "other" if pair in other_words else "the task's"
            told[pair] = f"execution, in {words} words"
    return told


def over(leak: Leak) -> bool:
    """Whether a finding at loose thresholds is one at those of the verb."""
    if leak.detector in detectors.SUBSTRINGS:
        size = leak.evidence.partition(", ")[2].partition(" ")[0]
        return int(size) >= SETTINGS.substring_words
    lowest = {
        "minhash text": SETTINGS.minhash_threshold,
        "minhash code": SETTINGS.minhash_threshold,
        "embedding": SETTINGS.embedding_threshold,
    }
    share = SETTINGS.ngram_share if leak.detector.endswith("-gram") else 0.0
    return leak.score >= lowest.get(leak.detector, share)


def near_and_far(sides: tuple[Corpus, Corpus]) -> list[Leak]:
    """What the detectors of words and code find at loose thresholds."""
    return [leak for one in detectors.chosen(LOOSE, {}) for leak in one.find(*sides)]


def by_tests(some: Sequence[Row], data: Path) -> list[Leak]:
    """What these rows find by passing tests, in the sandbox."""
    limits = executor.Limits(2.0, 6.0, 512, "landlock+seccomp")
    how = {
        "call": partial(executor.call, limits=limits, workers=2),
        "judge": partial(execution.execute, limits=limits, workers=2, cluster="local"),
    }
    problems = audit.load_problems(BENCHMARKS, data=data)
    return [
        leak
        for name, members in problems.items()
        for leak in running.passes_tests(some, name, members, **how)
    ]


def sample(rows: Sequence[Row], *, seed: int) -> list[Row]:
    """EXECUTED of the rows that have a function."""
    return random.Random(seed).sample(able(rows), EXECUTED)


def able(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if running.functions_in(row.code)]


def drawn(told: Mapping[Pair, str], *, seed: int) -> list[tuple[Pair, str]]:
    """As many pairs of each stratum as STRATA says, or as there are, shuffled."""
    draw, chosen = random.Random(seed), []
    for stratum, count in STRATA.items():
        members = sorted(pair for pair, of in told.items() if of == stratum)
        chosen += [(p, stratum) for p in draw.sample(members, min(count, len(members)))]
    draw.shuffle(chosen)
    return chosen


def texts(pairs: Sequence[tuple[Pair, str]], rows: Sequence[Row], data: Path) -> list[dict]:
    """What a reader is shown of each pair: what the row asks and answers, and the whole task."""
    problems = audit.load_problems(BENCHMARKS, data=data)
    tasks = {(name, task.task_id): task for name, of in problems.items() for task in of}
    raw = dict(zip((row.task_id for row in rows), store.read_rows(data / SEEDS), strict=True))
    shown = []
    for number, ((row_id, *place), _) in enumerate(pairs, start=1):
        task, row = tasks[tuple(place)], raw[row_id][1]
        asked = "\n".join(filter(None, (row["instruction"], row["input"])))
        told = {"prompt": task.prompt, "solution": task.reference, "tests": task.tests[:600]}
        shown.append(
            {"pair": number, "row": {"asks": asked, "answers": row["output"]}, "task": told}
        )
    return shown


def draw(data: Path, out: Path, *, seed: int) -> None:
    """Draws the pairs, writes their ids to `pairs.jsonl` and their texts, without ids, to `out`."""
    rows, tasks = material(data)
    sides = Corpus(rows), Corpus.of_benchmarks(tasks)
    executed = by_tests(sample(rows, seed=seed), data)
    told = strata([*near_and_far(sides), *executed], sides)
    write(drawn(told, seed=seed), rows, data, out)


def write(pairs: Sequence[tuple[Pair, str]], rows: Sequence[Row], data: Path, out: Path) -> None:
    """The ids go where the labels lie, the texts to `out`: their licence keeps them out of git."""
    shown = texts(pairs, rows, data)
    ids = [
        {
            "pair": one["pair"],
            "row": row_id,
            "sha256": hashlib.sha256(json.dumps(one["row"]).encode()).hexdigest()[:16],
            "benchmark": benchmark,
            "task_id": task_id,
            "stratum": stratum,
        }
        for one, ((row_id, benchmark, task_id), stratum) in zip(shown, pairs, strict=True)
    ]
    for path, lines in ((LABELS / "pairs.jsonl", ids), (out, shown)):
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    print(f"{len(ids)} pairs; {out} holds their texts")


def material(data: Path) -> tuple[Sequence[Row], dict[str, list[Row]]]:
    """The rows and the tasks, as the audit sees them."""
    problems = audit.load_problems(BENCHMARKS, data=data)
    tasks = {name: from_problems(members) for name, members in problems.items()}
    return read(str(data / SEEDS), ()).rows, tasks


LEAKS = ("same", "function", "common", "part")  # labels, as `guide.md` says
STRICT = LEAKS[:2]
NO_LEAKS = ("topic", "other", "unclear")


@dataclass(frozen=True, slots=True)
class Labelled:
    """A drawn pair: `weight` pairs of the pool stand behind it, `truth` is the share of the readers
    who call it a leak (0, 0.5 or 1); `found` tells each detector that reports it whether the rule
    takes that for a leak."""

    pair: Pair
    stratum: str
    weight: float
    truth: float
    found: Mapping[str, bool]


def kappa(one: Sequence[str], other: Sequence[str]) -> stats.Estimate:
    """Cohen's kappa of two labellings with its large-sample interval (Cohen 1960)."""
    n = len(one)
    same = sum(a == b for a, b in zip(one, other, strict=True)) / n
    chance = sum(one.count(k) * other.count(k) for k in {*one}) / n**2
    value = (same - chance) / (1 - chance)
    reach = Z * math.sqrt(same * (1 - same) / n) / (1 - chance)
    return stats.Estimate(value, value - reach, min(1.0, value + reach))


def weighted(drawn: Sequence[tuple[Pair, float, float]]) -> stats.Estimate:
    """A share of weights, sum w y / sum w, of (pair, w >= 0, y in [0, 1]), with its interval.

    Wilson's at the effective number of pairs, p (1 - p) / variance, the variance of the ratio by
    linearisation with the rows as clusters; (sum w)^2 / sum w^2 where all y are equal. nan of
    nothing.
    """
    total = sum(w for _, w, _ in drawn)
    if not total:
        return stats.Estimate(math.nan, math.nan, math.nan)
    p = sum(w * y for _, w, y in drawn) / total
    by_row: defaultdict[str, float] = defaultdict(float)
    for pair, w, y in drawn:
        by_row[pair[0]] += w * (y - p)
    variance = sum(part**2 for part in by_row.values()) / total**2
    n = p * (1 - p) / variance if variance else total**2 / sum(w * w for _, w, _ in drawn)
    middle, reach = p + Z**2 / (2 * n), Z * math.sqrt(p * (1 - p) / n + (Z / (2 * n)) ** 2)
    low, high = ((middle + sign * reach) / (1 + Z**2 / n) for sign in (-1, 1))
    return stats.Estimate(p, max(0.0, min(p, low)), min(1.0, max(p, high)))


@dataclass(frozen=True, slots=True)
class Found:
    """What the audit says: `said` as the verb's --out has it; `pool`, pairs behind each stratum."""

    said: Sequence[Mapping]
    pool: Mapping[str, float]


def found(data: Path, findings: Path | None, *, seed: int) -> Found:
    """Of all rows from the verb's file, or without one from the rows that the draw ran.

    Then the labelled rows are run too, and of the sample's pairs each stands for as many as there
    are rows with a function to one of the sample. That a task is passed by many rows is then known
    of fewer.
    """
    rows, tasks = material(data)
    sides = Corpus(rows), Corpus.of_benchmarks(tasks)
    near = near_and_far(sides)
    if findings:
        said = [row for _, row in store.read_rows(findings)]
        passed = [_leak(row) for row in said if row["detector"] == detectors.EXECUTION]
        passed = [leak for leak in passed if leak.benchmark in BENCHMARKS]
        return Found(said, Counter(strata([*near, *passed], sides).values()))
    some = sample(rows, seed=seed)
    ids = {pair["row"] for pair in drawn_pairs()}
    passed = by_tests(some, data)
    more = by_tests([row for row in able(rows) if row.task_id in ids - {r.task_id for r in some}],
                    data)  # fmt: skip
    result = verdict.audit(rows, tasks, SETTINGS, behaviour=None, executed=[*passed, *more],
                           generic_nodes=verdict.GENERIC_NODES)  # fmt: skip
    pool = Counter(strata([*near, *passed], sides).values())
    times = len(able(rows)) / EXECUTED
    pool = {name: n * (times if name.startswith("execution") else 1) for name, n in pool.items()}
    return Found(views.finding_rows(result), pool)


def _leak(row: Mapping) -> Leak:
    return Leak(**{key: value for key, value in row.items() if key != "chance"})


def drawn_pairs() -> list[dict]:
    return [json.loads(line) for line in (LABELS / "pairs.jsonl").read_text().splitlines()]


def labelled(says: Found, *, strict: bool) -> list[Labelled]:
    """The drawn pairs with the labels of both readers and all that the audit says of them."""
    yes = STRICT if strict else LEAKS
    sides = [labels(LABELS / f"labels_{reader}.jsonl") for reader in "ab"]
    said: defaultdict[Pair, dict[str, bool]] = defaultdict(dict)
    for row in says.said:
        said[verdict.pair_of(_leak(row))][row["detector"]] = not row["chance"]
    pairs, of = [], Counter(one["stratum"] for one in drawn_pairs())
    for one in drawn_pairs():
        pair, stratum = (one["row"], one["benchmark"], one["task_id"]), one["stratum"]
        truth = sum(side[one["pair"]] in yes for side in sides) / len(sides)
        weight = says.pool[stratum] / of[stratum]
        pairs.append(Labelled(pair, stratum, weight, truth, said.get(pair, {})))
    return pairs


def labels(path: Path) -> dict[int, str]:
    """Pair -> label; ValueError names a line with another label than the guide has."""
    found = {}
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        row = json.loads(line)
        if row["label"] not in (*LEAKS, *NO_LEAKS):
            raise ValueError(f"{path}:{number}: no label {row['label']!r} in the guide")
        found[row["pair"]] = row["label"]
    return found


def report(data: Path, findings: Path | None, *, seed: int) -> None:
    """Prints kappa, then precision and recall of every detector and of the rule."""
    one, other = ([*labels(LABELS / f"labels_{r}.jsonl").values()] for r in "ab")
    print(f"{len(one)} pairs, two readers; {told(kappa(one, other))} kappa of the labels")
    for name, yes in (("leak", LEAKS), ("leak, strict", STRICT)):
        sides = [[str(label in yes) for label in side] for side in (one, other)]
        print(f"{'':25}{told(kappa(*sides))} kappa of {name}")
    says = found(data, findings, seed=seed)
    pairs = labelled(says, strict=False)
    print(f"\n{'stratum':32}{'pairs':>7}{'drawn':>6}  labelled leaks")
    for name in STRATA:
        of = [pair for pair in pairs if pair.stratum == name]
        leaks = weighted([(p.pair, 1.0, p.truth) for p in of])
        print(f"{name:32}{says.pool[name]:>7.0f}{len(of):>6}  {told(leaks)}")
    for strict in (False, True):
        print(f"\n{'same and function alone are leaks' if strict else 'all four labels are leaks'}")
        table(labelled(says, strict=strict))


def table(pairs: Sequence[Labelled]) -> None:
    """Prints a line per detector, of what the rule lets stand, then the rule itself."""
    names = [name for d in detectors.chosen(SETTINGS, {}) for name in d.names]
    sets = {name: {name} for name in [*names, detectors.EXECUTION]}
    sets["all that remove"] = {*SETTINGS.remove_on, detectors.EXECUTION}
    sets["all"] = {*sets}
    print(f"{'detector':24}{'pairs':>6}{'precision':>24}{'recall':>24}")
    for name, members in sets.items():
        said = [any(p.found.get(m, False) for m in members) for p in pairs]
        print(f"{name:24}{sum(said):>6}{told(precision(pairs, said)):>24}"
              f"{told(recall(pairs, said)):>24}")  # fmt: skip
    print("\nthe rule, on what it judges (equal and near code, solutions inside, execution)")
    for name in ("code", "minhash code", detectors.EXECUTION):
        of = [p for p in pairs if name in p.found]
        kept, gone = ([p.found[name] is side for p in of] for side in (True, False))
        wrong = weighted([(p.pair, p.weight, 1 - p.truth) for p, is_gone in
                          zip(of, gone, strict=True) if is_gone])  # fmt: skip
        print(f"{name:24}{sum(kept):>6} kept, of these leaks {told(precision(of, kept))}; "
              f"{sum(gone)} by chance, of these none {told(wrong)}; "
              f"of its leaks it keeps {told(recall(of, kept))}")  # fmt: skip


def precision(pairs: Sequence[Labelled], said: Sequence[bool]) -> stats.Estimate:
    return weighted([(p.pair, p.weight, p.truth) for p, is_said in zip(pairs, said, strict=True)
                     if is_said])  # fmt: skip


def recall(pairs: Sequence[Labelled], said: Sequence[bool]) -> stats.Estimate:
    return weighted([(p.pair, p.weight * p.truth, float(is_said)) for p, is_said in
                     zip(pairs, said, strict=True)])  # fmt: skip


def told(estimate: stats.Estimate) -> str:
    if math.isnan(estimate.value):
        return "-"
    return f"{estimate.value:.1%} ({estimate.low:.0%} to {estimate.high:.0%})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("draw", "report"))
    parser.add_argument("--data", type=Path, default=os.environ.get("RRTF_DATA"))
    parser.add_argument("--out", type=Path, help="draw: where the texts of the pairs go")
    parser.add_argument("--findings", type=Path, help="report: what `audit --execute --out` wrote")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    if not given.data or not (Path(given.data) / SEEDS).exists():
        sys.exit(f"--data or $RRTF_DATA must name a folder with {SEEDS}")
    if given.what == "report":
        report(Path(given.data), given.findings, seed=given.seed)
    elif given.out:
        draw(Path(given.data), given.out, seed=given.seed)
    else:
        sys.exit("draw needs --out")


if __name__ == "__main__":
    main()
