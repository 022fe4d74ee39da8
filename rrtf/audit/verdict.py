"""From findings to a verdict: what is chance, what is a leak, which rows go, and the proof.

The rule and the removal policy are explicit, and nothing is dropped without its reason.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from rrtf import probes, similarity
from rrtf.audit import detectors
from rrtf.audit.detectors import EQUALITIES, Behaviour, Row
from rrtf.probes import Kinds, Outputs
from rrtf.records import Leak

RULE = (
    "A resemblance (n-gram, MinHash) counts as chance when both programs were run on probes and "
    "returned different things or take different types; equal behaviour on the fixed probes counts "
    "as chance when random probes tell the programs apart. Everything else counts as a leak."
)

OPTIONS = (  # the settings of a run that `audit` takes, by their names
    "remove_on",
    "ngram_sizes",
    "ngram_share",
    "minhash_threshold",
    "minhash_permutations",
    "shingle",
    "seed",
)
Pair = tuple[str, str, str]  # row, benchmark, benchmark task


@dataclass(frozen=True, slots=True)
class Neighbour:
    """The benchmark task whose program acts most like a row's: `agreement` on all probes and
    `resemblance` (Jaccard) of the words, both in [0, 1]."""

    task_id: str
    benchmark_task_id: str
    agreement: float
    resemblance: float


@dataclass(frozen=True, slots=True)
class Audit:
    """The verdict on `n_rows` rows.

    `leaks` resemble a benchmark task and no evidence speaks against it; `collisions` resemble one
    by chance (RULE). `dropped` gives, for each row to be removed, the first
    detector of `remove_on` that found it a leak. `too_short` lists tasks that n-grams cannot see,
    `unseen` rows and tasks that the behaviour detector cannot judge, `duplicates` groups of rows
    that compute one function.
    """

    n_rows: int
    detectors: tuple[str, ...]
    remove_on: tuple[str, ...]
    leaks: tuple[Leak, ...]
    collisions: tuple[Leak, ...]
    dropped: Mapping[str, str]
    too_short: Mapping[int, tuple[str, ...]]
    unseen: Mapping[str, tuple[str, ...]]
    duplicates: tuple[tuple[str, ...], ...]


def is_chance(leak: Leak, ours: Behaviour, theirs: Behaviour, *, trust_code: bool = True) -> bool:
    """The rule that tells chance from leak (RULE), for one finding.

    It takes the programs for right. With `trust_code=False`, for solutions that nobody checked,
    a different behaviour excuses no resemblance.
    """
    if leak.detector == "behaviour":
        return leak.score < 1.0
    if leak.detector in EQUALITIES or not (ours and theirs and trust_code):
        return False
    return all(ours[kinds] != theirs[kinds] for kinds in ours.keys() & theirs.keys())


def audit(
    rows: Sequence[Row],
    benchmarks: Mapping[str, Sequence[Row]],
    *,
    behaviour: Mapping[Row, Behaviour],
    remove_on: Sequence[str] = EQUALITIES,
    ngram_sizes: Sequence[int] = (5, 8, 13),
    ngram_share: float = 0.7,
    minhash_threshold: float = 0.7,
    minhash_permutations: int = 128,
    shingle: int = 3,
    trust_code: bool = True,
    seed: int = 1,
) -> Audit:
    """Every detector on `rows` against every benchmark, chance set apart, rows to drop named.

    `behaviour` is what `observe` saw of rows and tasks together; without it ({}) the execution
    detector finds nothing, and `remove_on` may not ask for it.
    """
    names = detectors.detector_names(ngram_sizes)
    _check(rows, benchmarks, remove_on, names, bool(behaviour))
    near = dict(
        threshold=minhash_threshold, permutations=minhash_permutations, shingle=shingle, seed=seed
    )
    found: list[Leak] = []
    for benchmark, tasks in benchmarks.items():
        found += detectors.exact_text(rows, benchmark, tasks)
        found += detectors.normalised_text(rows, benchmark, tasks)
        found += detectors.same_code(rows, benchmark, tasks)
        found += detectors.same_behaviour(rows, benchmark, tasks, behaviour)
        for n in ngram_sizes:
            found += detectors.ngram_overlap(rows, benchmark, tasks, n=n, share=ngram_share)
        found += detectors.near_text(rows, benchmark, tasks, **near)
        found += detectors.near_code(rows, benchmark, tasks, **near)
    leaks, collisions = _split(found, rows, benchmarks, behaviour, trust_code)
    tasks = [task for each in benchmarks.values() for task in each]
    sets = {"rows": rows, **benchmarks}
    return Audit(
        n_rows=len(rows),
        detectors=names,
        remove_on=tuple(remove_on),
        leaks=leaks,
        collisions=collisions,
        dropped=_dropped(rows, leaks, remove_on),
        too_short={n: detectors.too_short(tasks, n) for n in ngram_sizes},
        unseen={name: unseen(members, behaviour) for name, members in sets.items()},
        duplicates=duplicates(rows, behaviour),
    )


def _check(
    rows: Sequence[Row],
    benchmarks: Mapping[str, Sequence[Row]],
    remove_on: Sequence[str],
    names: Sequence[str],
    observed: bool,
) -> None:
    for where, members in {"the rows": rows, **benchmarks}.items():
        twice = [task_id for task_id, n in Counter(r.task_id for r in members).items() if n > 1]
        if twice:
            raise ValueError(f"{twice[0]}: occurs more than once in {where}")
    for name in remove_on:
        if name not in names:
            raise ValueError(f"remove_on: unknown detector {name!r}, expected {', '.join(names)}")
    if "behaviour" in remove_on and rows and not observed:
        raise ValueError("remove_on asks for behaviour, but no program was observed")


def _split(
    found: Sequence[Leak],
    rows: Sequence[Row],
    benchmarks: Mapping[str, Sequence[Row]],
    behaviour: Mapping[Row, Behaviour],
    trust_code: bool,
) -> tuple[tuple[Leak, ...], tuple[Leak, ...]]:
    """(leaks, chance collisions) of the findings, both in their order."""
    ours = {row.task_id: behaviour.get(row, {}) for row in rows}
    theirs = {
        (name, task.task_id): behaviour.get(task, {})
        for name, tasks in benchmarks.items()
        for task in tasks
    }
    sides: tuple[list[Leak], list[Leak]] = ([], [])
    for leak in found:
        pair = ours[leak.task_id], theirs[leak.benchmark, leak.benchmark_task_id]
        sides[is_chance(leak, *pair, trust_code=trust_code)].append(leak)
    return tuple(sides[0]), tuple(sides[1])


def _dropped(
    rows: Sequence[Row], leaks: Sequence[Leak], remove_on: Sequence[str]
) -> dict[str, str]:
    by_row: defaultdict[str, set[str]] = defaultdict(set)
    for leak in leaks:
        by_row[leak.task_id].add(leak.detector)
    reasons = {r.task_id: [d for d in remove_on if d in by_row[r.task_id]] for r in rows}
    return {task_id: found[0] for task_id, found in reasons.items() if found}


def unseen(rows: Sequence[Row], behaviour: Mapping[Row, Behaviour]) -> tuple[str, ...]:
    """The rows that the behaviour detector cannot judge.

    They have no program, or arguments of types without probes, or outputs that tell nothing
    (all errors, a failed sandbox among them, or one constant).
    """
    return tuple(
        row.task_id
        for row in rows
        if not any(map(probes.is_telling, behaviour.get(row, {}).values()))
    )


def out_of_sight(result: Audit) -> list[dict[str, Any]]:
    """Table rows: what no n-gram, or no probe, could see, and how often rows repeat each other."""
    short = [
        {"what": f"tasks of fewer than {n} words, which no {n}-gram finds", "count": len(ids)}
        for n, ids in result.too_short.items()
    ]
    silent = [
        {"what": f"{name} whose program says nothing on the probes", "count": len(ids)}
        for name, ids in result.unseen.items()
    ]
    repeats = sum(len(group) - 1 for group in result.duplicates)
    return [*short, *silent, {"what": "rows that repeat another's function", "count": repeats}]


def duplicates(
    rows: Sequence[Row], behaviour: Mapping[Row, Behaviour]
) -> tuple[tuple[str, ...], ...]:
    """Groups of two or more rows that return the same on every probe."""
    groups: defaultdict[tuple[Kinds, Outputs], list[str]] = defaultdict(list)
    for row in rows:
        for kinds, outputs in behaviour.get(row, {}).items():
            if probes.is_telling(outputs):
                groups[kinds, outputs].append(row.task_id)
    return tuple(tuple(group) for group in groups.values() if len(group) > 1)


def pairs(leaks: Sequence[Leak], detector: str = "") -> set[Pair]:
    """The distinct (row, benchmark, task) that `detector` (default: any) found."""
    return {pair_of(leak) for leak in leaks if detector in ("", leak.detector)}


def detector_rows(result: Audit) -> list[dict[str, Any]]:
    """One table row per detector: what it found, how much of that is chance, what it misses.

    `found of same function` is the share of the pairs of equal behaviour that the detector also
    reports: its recall where behaviour is taken for the truth (None if there is no such pair).
    """
    same = pairs(result.leaks, "behaviour")
    table = []
    for name in result.detectors:
        leaks, chance = pairs(result.leaks, name), pairs(result.collisions, name)
        table.append(
            {
                "detector": name,
                "pairs": len(leaks) + len(chance),
                "leaks": len(leaks),
                "chance": len(chance),
                "rows leaking": len({pair[0] for pair in leaks}),
                "tasks leaked": len({pair[1:] for pair in leaks}),
                "found of same function": len(leaks & same) / len(same) if same else None,
                "removes": name in result.remove_on,
            }
        )
    return table


def agreement_matrix(result: Audit) -> list[list[int]]:
    """Counts (D, D): pairs that both detectors found, leaks and chance together."""
    found = {name: pairs([*result.leaks, *result.collisions], name) for name in result.detectors}
    size = len(result.detectors)
    counts = [len(found[a] & found[b]) for a, b in product(result.detectors, repeat=2)]
    return [counts[at : at + size] for at in range(0, size * size, size)]


def pair_of(leak: Leak) -> Pair:
    """The row and the benchmark task that a finding is about."""
    return leak.task_id, leak.benchmark, leak.benchmark_task_id


def worst_pairs(result: Audit, count: int) -> list[list[Leak]]:
    """The `count` leaking pairs that most detectors found, worst first, each with its findings.

    Ties are ordered by the sum of the scores, then by task ids.
    """
    by_pair: defaultdict[Pair, list[Leak]] = defaultdict(list)
    for leak in result.leaks:
        by_pair[pair_of(leak)].append(leak)
    found = by_pair.values()
    return sorted(
        found, key=lambda leaks: (-len(leaks), -sum(k.score for k in leaks), pair_of(leaks[0]))
    )[:count]


def only_by(result: Audit, detector: str) -> list[list[Leak]]:
    """The pairs that `detector` alone calls a leak, each with its one finding."""
    others = {pair_of(leak) for leak in result.leaks if leak.detector != detector}
    own = [leak for leak in result.leaks if leak.detector == detector]
    return [[leak] for leak in own if pair_of(leak) not in others]


def compare(
    found: Sequence[Sequence[Leak]], rows: Sequence[Row], benchmarks: Mapping[str, Sequence[Row]]
) -> list[tuple[str, str, str]]:
    """(who found it, the row, the benchmark task) as text for each pair of `found`."""
    ours = {row.task_id: row for row in rows}
    theirs = {(name, task.task_id): task for name, tasks in benchmarks.items() for task in tasks}
    shown = []
    for leaks in found:
        row = ours[leaks[0].task_id]
        task = theirs[leaks[0].benchmark, leaks[0].benchmark_task_id]
        names = ", ".join(f"{leak.detector} ({leak.score:.2f})" for leak in leaks)
        title = f"{row.task_id} and {task.task_id}: {names}"
        shown.append((title, row.code or row.text, task.code or task.text))
    return shown


def answers(
    rows: Mapping[str, Row], behaviour: Mapping[Row, Behaviour], *, n_random: int, seed: int
) -> list[dict[str, str]]:
    """What several programs returned on each probe: one table row a probe, one column a name.

    The programs must have been observed with the same argument types.
    """
    kinds = next(iter(behaviour[next(iter(rows.values()))]))
    inputs = probes.probe_inputs(kinds, n_random=n_random, seed=seed)
    outputs = {name: behaviour[row][kinds] for name, row in rows.items()}
    return [
        {"arguments": ", ".join(map(repr, args))} | {name: o[at] for name, o in outputs.items()}
        for at, args in enumerate(inputs)
    ]


def nearest(
    rows: Sequence[Row], tasks: Sequence[Row], behaviour: Mapping[Row, Behaviour]
) -> list[Neighbour]:
    """For each row with a telling behaviour, the task of the same types that acts most like it.

    Of several the first is taken. Shows whether words tell anything about behaviour.
    """
    by_kinds: defaultdict[Kinds, list[tuple[Row, Outputs]]] = defaultdict(list)
    for task in tasks:
        for kinds, outputs in behaviour.get(task, {}).items():
            by_kinds[kinds].append((task, outputs))
    found = []
    for row in rows:
        for kinds, outputs in behaviour.get(row, {}).items():
            if by_kinds[kinds] and probes.is_telling(outputs):
                same = [probes.agreement(outputs, theirs) for _, theirs in by_kinds[kinds]]
                task = by_kinds[kinds][same.index(max(same))][0]
                words = [similarity.words(side.text) for side in (row, task)]
                resemblance = similarity.jaccard(*words)
                found.append(Neighbour(row.task_id, task.task_id, max(same), resemblance))
    return found


def certificate(
    result: Audit, benchmarks: Mapping[str, Sequence[Row]], settings: Mapping[str, Any]
) -> dict[str, Any]:
    """What was checked, how, and what came out: everything needed to check the claim again.

    ValueError if rows in differ from rows kept + rows dropped by reason.
    """
    reasons = Counter(result.dropped.values())
    kept = result.n_rows - len(result.dropped)
    if kept + sum(reasons.values()) != result.n_rows:
        raise ValueError(f"{result.n_rows} rows in, {kept} kept, dropped {dict(reasons)}")
    return {
        "rows": {"in": result.n_rows, "kept": kept, "dropped": dict(reasons)},
        "benchmarks": {name: len(tasks) for name, tasks in benchmarks.items()},
        "rule": RULE,
        "settings": dict(settings),
        "detectors": detector_rows(result),
        "too_short": {str(n): list(ids) for n, ids in result.too_short.items()},
        "unseen": {name: list(ids) for name, ids in result.unseen.items()},
        "duplicates": [list(group) for group in result.duplicates],
    }
