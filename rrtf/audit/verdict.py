"""From findings to a verdict: what is chance, what is a leak, which rows go.

The rule and the removal policy are explicit, and nothing is dropped without its reason.
"""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from rrtf import probes, similarity
from rrtf.audit import detectors
from rrtf.audit.detectors import EQUALITIES, SUBSTRINGS, Behaviour
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
OF_CODE = ("code", "minhash code", "execution")

OPTIONS = (  # the settings of a run that `audit` takes, by their names
    "remove_on",
    "substring_words",
    "ngram_sizes",
    "ngram_share",
    "minhash_threshold",
    "minhash_permutations",
    "shingle",
    "embedding_threshold",
    "seed",
)
Pair = tuple[str, str, str]  # row, benchmark, benchmark task
Detector = Callable[[Corpus, Corpus], list[Leak]]


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
    executed: Sequence[Leak] | None = None,
    coincidences: Collection[Pair] | None = None,
    execution_rule: str = "",
    remove_on: Sequence[str] = EQUALITIES,
    substring_words: int = 10,
    ngram_sizes: Sequence[int] = (5, 8, 13),
    ngram_share: float = 0.7,
    minhash_threshold: float = 0.7,
    minhash_permutations: int = 128,
    shingle: int = 3,
    embedding_threshold: float = 0.8,
    embed: Callable[[Sequence[str]], Any] | None = None,
    generic_nodes: int = 0,
    trust_code: bool = True,
    seed: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Audit:
    """Every detector on `rows` against every benchmark, chance set apart, rows to drop named.

    `behaviour` is what `observe` saw of rows and tasks together; without it ({}) that detector is
    left out, and `remove_on` may not ask for it. `executed` are the findings of a detector
    "execution" that ran elsewhere; of these `coincidences`, where given, are the pairs that
    `execution_rule` takes for chance, instead of GENERIC. With `generic_nodes` GENERIC takes the
    place of RULE (`GENERIC_NODES` for real rows). The options of the detectors are theirs.
    """
    observed, ran = bool(behaviour), executed is not None
    names = detectors.detector_names(ngram_sizes, observed=observed or not rows, executed=ran)
    _check(rows, benchmarks, remove_on, names, observed)
    near = {"threshold": minhash_threshold, "permutations": minhash_permutations}
    work = _work(
        near | {"shingle": shingle, "seed": seed},
        {n: ngram_share for n in ngram_sizes},
        substring_words,
        {"threshold": embedding_threshold, "embed": embed},
        behaviour,
    )
    sides = Corpus(rows), Corpus.of_benchmarks(benchmarks)
    found = [*_found(work, sides, progress), *(executed or ())]
    if generic_nodes:
        leaks, collisions = _split_generic(found, sides[1], generic_nodes, coincidences)
    else:
        leaks, collisions = _split(found, rows, benchmarks, behaviour, trust_code)
    sets = {"rows": rows, **benchmarks} if observed else {}
    return Audit(
        n_rows=len(rows),
        detectors=names,
        remove_on=tuple(remove_on),
        leaks=leaks,
        collisions=collisions,
        dropped=_dropped(rows, leaks, remove_on),
        too_short={n: detectors.too_short(sides[1], n) for n in ngram_sizes},
        unseen={name: unseen(members, behaviour) for name, members in sets.items()},
        duplicates=duplicates(rows, behaviour),
        rule=_rule(generic_nodes, execution_rule),
    )


def _rule(generic_nodes: int, execution_rule: str) -> str:
    """What tells chance from leak, in words."""
    passing = "" if execution_rule else ", passing the tests"
    rule = GENERIC.format(nodes=generic_nodes, passing=passing) if generic_nodes else RULE
    return f"{rule} {execution_rule}".strip()


def audit_stages(
    stages: Mapping[str, Sequence[Row]], benchmarks: Mapping[str, Sequence[Row]], **options: Any
) -> dict[str, Audit]:
    """`audit` (its options) of sets that follow each other: seeds, each round, responses, the end.

    `views.stage_rows` shows at which of them a task leaks. `executed` findings are of one set and
    cannot be given here.
    """
    return {name: audit(rows, benchmarks, **options) for name, rows in stages.items()}


def audit_answers(
    sets: Mapping[str, Sequence[Response]],
    problems: Sequence[Problem],
    benchmarks: Mapping[str, Sequence[Problem]],
    *,
    call: Callable[..., list],
    seed: int,
    n_random: int = 20,
    **options: Any,
) -> dict[str, Audit]:
    """`audit_stages` of named sets of answers to `problems`, with what each program does.

    A wrong answer to one problem may be a right one to a held-out problem. `call`, `n_random` and
    `seed` as in `observe`.
    """
    stages = {name: from_responses(problems, answers) for name, answers in sets.items()}
    tasks = {name: from_problems(members) for name, members in benchmarks.items()}
    every = [row for rows in (*stages.values(), *tasks.values()) for row in rows]
    seen = detectors.observe(every, call, n_random=n_random, seed=seed)
    return audit_stages(stages, tasks, behaviour=seen, seed=seed, **options)


def _work(
    near: Mapping[str, Any],
    grams: Mapping[int, float],
    substring_words: int,
    neighbours: Mapping[str, Any],
    behaviour: Mapping[Row, Behaviour],
) -> list[Detector]:
    """The detectors with their options, in the order of tables."""
    return [
        detectors.exact_text,
        detectors.normalised_text,
        detectors.same_code,
        partial(detectors.same_behaviour, behaviour=behaviour),
        partial(detectors.substrings, n=substring_words),
        *(partial(detectors.ngram_overlap, n=n, share=share) for n, share in grams.items()),
        partial(detectors.near_text, **near),
        partial(detectors.near_code, **near),
        partial(detectors.neighbours, **neighbours),
    ]


def _found(
    work: Sequence[Detector],
    sides: tuple[Corpus, Corpus],
    progress: Callable[[int, int], None] | None,
) -> Iterator[Leak]:
    for done, detect in enumerate(work, start=1):
        yield from detect(*sides)
        if progress:
            progress(done, len(work))


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
    if "behaviour" in remove_on and rows and not observed:
        raise ValueError("remove_on asks for behaviour, but no program was observed")
    for name in remove_on:
        if name not in names:
            raise ValueError(f"remove_on: unknown detector {name!r}, expected {', '.join(names)}")


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


def _split_generic(
    found: Sequence[Leak], tasks: Corpus, nodes: int, coincidences: Collection[Pair] | None
) -> tuple[tuple[Leak, ...], tuple[Leak, ...]]:
    """(leaks, chance collisions) by the rule GENERIC, both in their order.

    Where the `coincidences` of the execution are known, these are what is chance of it.
    """
    places = ((name, row.task_id) for name, row in zip(tasks.names, tasks.rows, strict=True))
    small = {place for place, size in zip(places, tasks.sizes, strict=True) if 0 < size < nodes}
    told = {pair_of(leak) for leak in found if not _of_code(leak)}
    sides: tuple[list[Leak], list[Leak]] = ([], [])
    for leak in found:
        pair = pair_of(leak)
        chance = _of_code(leak) and pair[1:] in small and pair not in told
        if leak.detector == "execution" and coincidences is not None:
            chance = pair in coincidences
        sides[chance].append(leak)
    return tuple(sides[0]), tuple(sides[1])


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


def coincidences(
    executed: Sequence[Leak], rows: Sequence[Row], benchmarks: Mapping[str, Sequence[Row]]
) -> set[Pair]:
    """The pairs of `executed` that RULE takes for chance; `rows` are all that were audited."""
    ours = {row.task_id: row for row in rows}
    theirs = {(name, task.task_id): task for name, tasks in benchmarks.items() for task in tasks}
    rarity = _rarity([*rows, *theirs.values()])
    sizes = dict(zip(theirs, Corpus.of_benchmarks(benchmarks).sizes, strict=True))
    passing: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    for leak in executed:
        passing[leak.benchmark, leak.benchmark_task_id].add(leak.task_id)
    found = set()
    for leak in executed:
        place = leak.benchmark, leak.benchmark_task_id
        name = leak.evidence.partition(" passes ")[0]
        share = resemblance(_words(ours[leak.task_id], name), _words(theirs[place]), rarity)
        generic = sizes[place] < GENERIC_NODES or len(passing[place]) >= COMMON or leak.score < 1.0
        if share < RESEMBLES and generic:
            found.add((leak.task_id, *place))
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
