"""From findings to a verdict: what is chance, what is a leak, which rows go.

The rule and the removal policy are explicit, and nothing is dropped without its reason.
"""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rrtf import probes, similarity
from rrtf.audit import detectors
from rrtf.audit.detectors import EQUALITIES, EXECUTION, SUBSTRINGS, Behaviour, Embed, Settings
from rrtf.audit.rows import Corpus, Row, from_problems, from_responses
from rrtf.probes import Kinds, Outputs
from rrtf.records import Leak, Problem, Response

RULE = (
    "A resemblance (substring, n-gram, MinHash, embedding) counts as chance when both programs "
    "were run on probes and returned different things or take different types; equal behaviour on "
    "the fixed probes counts as chance when random probes tell the programs apart. Everything else "
    "counts as a leak."
)
GENERIC = (
    "A task's function of fewer than {nodes} nodes of its syntax tree is generic: programmers who "
    "never saw each other's work write it the same. What resembles only such code (equal or near "
    "code, the solution inside the row{passing}) counts as chance, unless a detector of "
    "text finds the same pair. Everything else counts as a leak."
)
# The largest function that two of HumanEval, MBPP, LeetCode and CoderEval share, which different
# people wrote, has 39 nodes (HumanEval/55 and Mbpp/960, Fibonacci): tests/benchmarks/bench_audit.py
GENERIC_NODES = 40
OF_CODE = ("code", "minhash code", EXECUTION)

Pair = tuple[str, str, str]  # row, benchmark, benchmark task


@dataclass(frozen=True, slots=True)
class Audit:
    """The verdict on `n_rows` rows.

    `leaks` resemble a benchmark task and no evidence speaks against it; `collisions` resemble one
    by chance, by `rule`. `dropped` gives, for each row to be removed, the first
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
    rule: str


def audit(
    rows: Sequence[Row],
    benchmarks: Mapping[str, Sequence[Row]],
    settings: Settings,
    *,
    behaviour: Mapping[Row, Behaviour] | None,
    embed: Embed | None = None,
    executed: Sequence[Leak] | None = None,
    generic_nodes: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Audit:
    """Every detector on `rows` against every benchmark, chance set apart, rows to drop named.

    `behaviour` is what `observe` saw of rows and tasks together; without it (None) that detector is
    left out, and `settings.remove_on` may not ask for it. `executed` are the findings of the
    detector "execution" that ran elsewhere. With `generic_nodes` GENERIC, and CHANCE_RULE for the
    execution, takes the place of RULE (`GENERIC_NODES` for real rows). `embed` as in
    `detectors.neighbours`; `progress(done, total)` counts detectors.
    """
    work = detectors.chosen(settings, behaviour, embed)
    names = tuple(name for detector in work for name in detector.names)
    names += (EXECUTION,) * (executed is not None)
    _check(rows, benchmarks, settings.remove_on, names)
    sides, seen = (Corpus(rows), Corpus.of_benchmarks(benchmarks)), behaviour or {}
    found: list[Leak] = []
    for done, detector in enumerate(work, start=1):
        found += detector.find(*sides)
        if progress:
            progress(done, len(work))
    found += executed or ()
    if generic_nodes:
        is_chance = _by_size(found, *sides, generic_nodes)
    else:
        is_chance = _by_programs(*sides, seen)
    leaks = tuple(leak for leak in found if not is_chance(leak))
    sets = {} if behaviour is None else {"rows": rows, **benchmarks}
    return Audit(
        n_rows=len(rows),
        detectors=names,
        remove_on=tuple(settings.remove_on),
        leaks=leaks,
        collisions=tuple(filter(is_chance, found)),
        dropped=_dropped(rows, leaks, settings.remove_on),
        too_short={d.n: detectors.too_short(sides[1], d.n) for d in work if d.n},
        unseen={name: unseen(members, seen) for name, members in sets.items()},
        duplicates=duplicates(rows, seen),
        rule=_rule(generic_nodes, executed is not None),
    )


def _rule(generic_nodes: int, executed: bool) -> str:
    """What tells chance from leak, in words."""
    if not generic_nodes:
        return RULE
    passing = "" if executed else ", passing the tests"
    rule = GENERIC.format(nodes=generic_nodes, passing=passing)
    return f"{rule} {CHANCE_RULE}" if executed else rule


def audit_answers(
    sets: Mapping[str, Sequence[Response]],
    problems: Sequence[Problem],
    benchmarks: Mapping[str, Sequence[Problem]],
    told: Mapping[str, Any],
    *,
    call: Callable[..., list],
) -> dict[str, Audit]:
    """`audit` of named sets of answers to `problems`, with what each program does.

    A wrong answer to one problem may be a right one to a held-out problem. `told` are the settings
    that the problems were audited by, as their certificate has them; `call` as in `observe`.
    """
    settings = Settings.of(told)
    stages = {name: from_responses(problems, answers) for name, answers in sets.items()}
    tasks = {name: from_problems(members) for name, members in benchmarks.items()}
    every = [row for rows in (*stages.values(), *tasks.values()) for row in rows]
    how = {"n_random": told["random_probes"], "seed": settings.seed}
    seen = detectors.observe(every, call, **how)
    return {name: audit(rows, tasks, settings, behaviour=seen) for name, rows in stages.items()}


def _check(
    rows: Sequence[Row],
    benchmarks: Mapping[str, Sequence[Row]],
    remove_on: Sequence[str],
    names: Sequence[str],
) -> None:
    for where, members in {"the rows": rows, **benchmarks}.items():
        twice = [task_id for task_id, n in Counter(r.task_id for r in members).items() if n > 1]
        if twice:
            raise ValueError(f"{twice[0]}: occurs more than once in {where}")
    for name in remove_on:
        if name not in names:
            raise ValueError(f"remove_on: unknown detector {name!r}, expected {', '.join(names)}")


def _by_programs(
    rows: Corpus, tasks: Corpus, behaviour: Mapping[Row, Behaviour]
) -> Callable[[Leak], bool]:
    """RULE. It takes the programs for right."""
    ours = {row.task_id: behaviour.get(row, {}) for row in rows.rows}
    theirs = {place: behaviour.get(row, {}) for place, row in tasks.placed.items()}

    def is_chance(leak: Leak) -> bool:
        if leak.detector == "behaviour":
            return leak.score < 1.0
        one, other = ours[leak.task_id], theirs[pair_of(leak)[1:]]
        if leak.detector in EQUALITIES or not (one and other):
            return False
        return all(one[kinds] != other[kinds] for kinds in one.keys() & other.keys())

    return is_chance


def _by_size(
    found: Sequence[Leak], rows: Corpus, tasks: Corpus, nodes: int
) -> Callable[[Leak], bool]:
    """GENERIC, and CHANCE_RULE for what passed tests."""
    sizes = dict(zip(tasks.placed, tasks.sizes, strict=True))
    told = {pair_of(leak) for leak in found if not _of_code(leak)}
    passed = [leak for leak in found if leak.detector == EXECUTION]
    by_chance = coincidences(passed, rows, tasks)

    def is_chance(leak: Leak) -> bool:
        pair = pair_of(leak)
        if leak.detector == EXECUTION:
            return pair in by_chance
        return _of_code(leak) and 0 < sizes[pair[1:]] < nodes and pair not in told

    return is_chance


def _of_code(leak: Leak) -> bool:
    """Whether a finding rests on code alone."""
    inside = leak.detector in SUBSTRINGS and leak.evidence.startswith(detectors.SOLUTION)
    return inside or leak.detector in OF_CODE


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


def pair_of(leak: Leak) -> Pair:
    """The row and the benchmark task that a finding is about."""
    return leak.task_id, leak.benchmark, leak.benchmark_task_id


RESEMBLES = 0.2  # share of a task's words, weighed by rarity, from which on a row speaks of it
COMMON = 5  # rows that pass a task: so many cannot all have been copied from it
CHANCE_RULE = (
    "A function that passes a task's tests does so by chance where its row holds less than "
    f"{RESEMBLES:.0%} of the task's words (weighed by rarity) and one of these holds: the task's "
    f"function has fewer than {GENERIC_NODES} nodes; {COMMON} or more rows pass the task; function "
    "and reference return different things to calls that no test makes. Everything else counts "
    "as a leak."
)
_PART = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
_ENDINGS = ("ing", "ed", "es", "s")


def coincidences(executed: Sequence[Leak], rows: Corpus, tasks: Corpus) -> set[Pair]:
    """The pairs of `executed` that CHANCE_RULE takes for chance; `rows` are all audited ones."""
    ours = {row.task_id: row for row in rows.rows}
    rarity = _rarity([*rows.rows, *tasks.rows]) if executed else {}
    sizes = dict(zip(tasks.placed, tasks.sizes, strict=True)) if executed else {}
    passing = Counter(pair[1:] for pair in pairs(executed))
    found = set()
    for leak in executed:
        place = leak.benchmark, leak.benchmark_task_id
        name = leak.evidence.partition(" passes ")[0]
        words = _words(ours[leak.task_id], name), _words(tasks.placed[place])
        generic = sizes[place] < GENERIC_NODES or passing[place] >= COMMON or leak.score < 1.0
        if resemblance(*words, rarity) < RESEMBLES and generic:
            found.add(pair_of(leak))
    return found


def resemblance(row: Collection[str], task: Collection[str], rarity: Mapping[str, float]) -> float:
    """The share of the task's words that the row has too, each weighed, in [0, 1]."""
    total = sum(rarity[word] for word in task)
    return sum(rarity[word] for word in task if word in row) / total if total else 0.0


def _words(row: Row, name: str = "") -> frozenset[str]:
    """Stems of the words of a description and of a function's name."""
    parts = " ".join(_PART.findall((name or row.entry_point).rpartition(".")[2]))
    return frozenset(
        _stem(word)
        for word in similarity.words(f"{row.text}\n{parts}")
        if any(letter.isalpha() for letter in word)
    )


def _stem(word: str) -> str:
    for ending in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word.removesuffix(ending)
    return word


def _rarity(rows: Sequence[Row]) -> Mapping[str, float]:
    """Word -> log(texts / texts that have it), as in TF-IDF."""
    counts = Counter(word for row in rows for word in _words(row))
    return {word: math.log(1 + len(rows) / count) for word, count in counts.items()}
