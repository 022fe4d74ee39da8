"""Which findings of the detector `execution` are coincidences: the rule, and why.

Passing the tests of a task is no proof of having seen it. Whoever adds two numbers passes "add two
numbers", whoever joins characters passes "join strings", and three assertions let a wrong program
through. What tells them apart from leaks is that nothing else about row and task agrees: the row
speaks of something else, and the program is short, or everybody writes it, or behaves otherwise
as soon as somebody looks further than the tests.
"""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence

from rrtf import similarity
from rrtf.audit.corpus import Corpus
from rrtf.audit.rows import Row
from rrtf.audit.verdict import GENERIC_NODES, Pair
from rrtf.records import Leak

RESEMBLES = 0.2  # share of a task's words, weighed by rarity, from which on a row speaks of it
COMMON = 5  # rows that pass a task: so many cannot all have been copied from it
RULE = (
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
