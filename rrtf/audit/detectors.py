"""The detectors: functions from rows and benchmark tasks to `Leak` records with evidence.

Each reports every (row, task) pair it finds suspicious and judges nothing: what is chance, and
what is removed, is decided in `rrtf.audit.verdict`. The tasks' side is indexed, so that the work
grows with the number of rows and not with that of pairs.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import TYPE_CHECKING, Any

from rrtf import probes, similarity
from rrtf.audit.rows import Corpus, Row
from rrtf.probes import Kinds, Outputs
from rrtf.records import Leak

if TYPE_CHECKING:
    import numpy as np

Behaviour = Mapping[Kinds, Outputs]  # what one program returned, by the types of its arguments
Embed = Callable[[Sequence[str]], Any]  # texts to vectors (N, D)
EQUALITIES = ("exact text", "normalised text", "code", "behaviour")
EXECUTION = "execution"  # whose findings come from elsewhere: `rrtf.audit.running`
SUBSTRINGS = ("exact substring", "normalised substring")
SOLUTION = "solution"  # what the evidence of a substring begins with, if it is no description
LONGEST_RUN = 2000  # words of a row that the longest run in common is looked for in


@dataclass(frozen=True, slots=True)
class Settings:
    """What an audit is told by `[audit]` of profiles.toml, which says what each means."""

    substring_words: int
    ngram_sizes: Sequence[int]
    ngram_share: float
    minhash_threshold: float
    minhash_permutations: int
    shingle: int
    embedding_threshold: float
    remove_on: Sequence[str]
    seed: int

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Settings:
        """Of a stage's settings those that are an audit's."""
        return cls(**{field.name: values[field.name] for field in fields(cls)})


@dataclass(frozen=True, slots=True)
class Detector:
    """`find` compares rows with tasks; `names` are those of its findings, in the order of tables.

    `n`: of an n-gram detector its size, which decides what it cannot see (`too_short`).
    """

    names: tuple[str, ...]
    find: Callable[[Corpus, Corpus], list[Leak]]
    n: int = 0


def chosen(
    settings: Settings, behaviour: Mapping[Row, Behaviour] | None, embed: Embed | None = None
) -> list[Detector]:
    """All detectors with their thresholds; that by behaviour where programs were observed.

    `behaviour` as from `observe`, `embed` as in `neighbours`.
    """
    grams = [(n, partial(ngram_overlap, n=n, share=settings.ngram_share))
             for n in settings.ngram_sizes]  # fmt: skip
    alike = partial(
        near,
        shingle=settings.shingle,
        threshold=settings.minhash_threshold,
        permutations=settings.minhash_permutations,
        seed=settings.seed,
    )
    close_by = partial(neighbours, threshold=settings.embedding_threshold, embed=embed)
    acting = Detector(("behaviour",), partial(same_behaviour, behaviour=behaviour))
    return [
        Detector(("exact text",), exact_text),
        Detector(("normalised text",), normalised_text),
        Detector(("code",), same_code),
        *([] if behaviour is None else [acting]),
        Detector(SUBSTRINGS, partial(substrings, n=settings.substring_words)),
        *(Detector((f"{n}-gram",), find, n) for n, find in grams),
        Detector(("minhash text",), partial(alike, of="text")),
        Detector(("minhash code",), partial(alike, of="code")),
        Detector(("embedding",), close_by),
    ]


def exact_text(rows: Corpus, tasks: Corpus) -> list[Leak]:
    """The same description, character by character (outer white space aside)."""
    return _equal(rows, tasks, "exact text", lambda side: [[r.text.strip()] for r in side.rows])


def normalised_text(rows: Corpus, tasks: Corpus) -> list[Leak]:
    """The same words, numbers and signs in the same order (see `similarity.words`)."""
    return _equal(rows, tasks, "normalised text", lambda side: [[" ".join(w)] for w in side.words])


def same_code(rows: Corpus, tasks: Corpus) -> list[Leak]:
    """Some function of the row is the task's function but for names, docstring, annotations."""
    keys = {
        rows: [list(of.values()) for of in rows.functions],
        tasks: [[c] for c in tasks.solutions],
    }
    return _equal(rows, tasks, "code", keys.__getitem__)


def _equal(
    rows: Corpus,
    tasks: Corpus,
    detector: str,
    keys_of: Callable[[Corpus], Sequence[Sequence[str]]],
) -> list[Leak]:
    """Leaks where a key of a row is a key of a task; the empty key is equal to nothing."""
    index: defaultdict[str, list[int]] = defaultdict(list)
    for at, keys in enumerate(keys_of(tasks)):
        for key in filter(None, keys):
            index[key].append(at)
    leaks = []
    for row, keys in zip(rows.rows, keys_of(rows), strict=True):
        found = {at: key for key in keys for at in index.get(key, ())}
        leaks += [_leak(row, tasks, at, detector, 1.0, key) for at, key in found.items()]
    return leaks


def _leak(row: Row, tasks: Corpus, at: int, detector: str, score: float, evidence: str) -> Leak:
    found = tasks.names[at], tasks.rows[at].task_id
    return Leak(row.task_id, *found, detector, score, evidence)


def substrings(rows: Corpus, tasks: Corpus, *, n: int) -> list[Leak]:
    """A task's description or solution stands whole inside a row, wherever in it.

    `normalised substring` compares descriptions by their words and solutions by their tokens
    without regard to case, `exact substring` asks for the very characters besides. Those of fewer
    than `n` words or tokens are in everybody's texts and are not looked for. Each is looked up by
    its rarest run of `n`. The evidence says which of the two it was, and how long.
    """
    found: dict[tuple[str, int, str], Leak] = {}  # the description's before the solution's
    sides = (
        ("description", tasks.words, rows.whole_words, [task.text for task in tasks.rows]),
        (SOLUTION, tasks.answer_tokens, rows.whole_tokens, [t.answer for t in tasks.rows]),
    )
    for what, needles, hays, raw in sides:
        index = _by_rarest(needles, n)
        for row, hay in zip(rows.rows, hays, strict=True):
            for at in sorted(_inside(hay, index, needles, n)):
                evidence = f"{what}, {len(needles[at])} words: {' '.join(needles[at])}"
                exact = raw[at].strip() in row.whole
                for name in SUBSTRINGS if exact else SUBSTRINGS[1:]:
                    leak = _leak(row, tasks, at, name, 1.0, evidence)
                    found.setdefault((row.task_id, at, name), leak)
    return list(found.values())


def _by_rarest(
    needles: Sequence[Sequence[str]], n: int
) -> dict[tuple[str, ...], list[tuple[int, int]]]:
    """The run of `n` that fewest needles have -> (needle, where in it)."""
    runs = [list(_runs(needle, n)) for needle in needles]
    counts = Counter(run for of_one in runs for run in set(of_one))
    index: defaultdict[tuple[str, ...], list[tuple[int, int]]] = defaultdict(list)
    for at, of_one in enumerate(runs):
        if of_one:
            rarest = min(range(len(of_one)), key=lambda place: counts[of_one[place]])
            index[of_one[rarest]].append((at, rarest))
    return index


def _runs(items: Sequence[str], n: int) -> Iterator[tuple[str, ...]]:
    return zip(*(items[start:] for start in range(n)), strict=False)


def _inside(
    hay: Sequence[str],
    index: Mapping[tuple[str, ...], Sequence[tuple[int, int]]],
    needles: Sequence[Sequence[str]],
    n: int,
) -> set[int]:
    """The needles that stand whole in `hay`."""
    found = set()
    for place, run in enumerate(_runs(hay, n)):
        for at, offset in index.get(run, ()):
            start = place - offset
            if start >= 0 and list(hay[start : start + len(needles[at])]) == list(needles[at]):
                found.add(at)
    return found


def ngram_overlap(rows: Corpus, tasks: Corpus, *, n: int, share: float) -> list[Leak]:
    """At least `share` of a task's word n-grams occur in the row, and of those it alone has.

    (PaLM asks for 70 % of its 8-grams.) An n-gram that tasks of different wording share ("write a
    function to find the") tells of none of them. The score is the smaller share, the evidence the
    longest run of words in common. A task without an n-gram of its own cannot be found:
    `too_short` lists those.
    """
    every = [similarity.ngrams(words, n) for words in tasks.words]
    own = own_ngrams(tasks, n)
    index: defaultdict[tuple[str, ...], list[int]] = defaultdict(list)
    for at, grams in enumerate(own):
        for gram in grams:
            index[gram].append(at)
    leaks = []
    for row, words in zip(rows.rows, rows.words, strict=True):
        grams = frozenset(_runs(words, n))
        for at in sorted({at for gram in grams for at in index.get(gram, ())}):
            score = min(len(of[at] & grams) / len(of[at]) for of in (every, own))
            if score >= share:
                (start, _, size), *_ = similarity.shared_runs(
                    words[:LONGEST_RUN], tasks.words[at], n
                )
                run = " ".join(words[start : start + size])
                leaks.append(_leak(row, tasks, at, f"{n}-gram", score, run))
    return leaks


def own_ngrams(tasks: Corpus, n: int) -> list[frozenset[tuple[str, ...]]]:
    """For each task the n-grams that only it has, or others with exactly the same words."""
    wordings = {tuple(words) for words in tasks.words}
    counts = Counter(gram for words in wordings for gram in similarity.ngrams(words, n))
    return [
        frozenset(gram for gram in similarity.ngrams(words, n) if counts[gram] == 1)
        for words in tasks.words
    ]


def too_short(tasks: Corpus, n: int) -> tuple[str, ...]:
    """The tasks that `n`-grams cannot see: of fewer than `n` words, or without an own n-gram."""
    own = own_ngrams(tasks, n)
    return tuple(row.task_id for row, grams in zip(tasks.rows, own, strict=True) if not grams)


def near(
    rows: Corpus,
    tasks: Corpus,
    *,
    of: str,
    shingle: int,
    threshold: float,
    permutations: int,
    seed: int,
) -> list[Leak]:
    """Near duplicates, found by MinHash: Jaccard of shingles.

    Of the words of descriptions (`of` is "text"), or of the canonical tokens of programs ("code").
    """
    left, right = (
        [similarity.shingles(items, shingle)
         for items in (side.words if of == "text" else side.code_tokens)]
        for side in (rows, tasks)
    )  # fmt: skip
    found = similarity.near_duplicates(
        left, right, threshold=threshold, permutations=permutations, seed=seed
    )
    leaks = []
    for i, j, score in found:
        sizes = f"{len(left[i])} in the row, {len(right[j])} in the task"
        told = f"{len(left[i] & right[j])} shingles shared, {sizes}"
        leaks.append(_leak(rows.rows[i], tasks, j, f"minhash {of}", score, told))
    return leaks


def neighbours(
    rows: Corpus, tasks: Corpus, *, threshold: float, embed: Embed | None = None
) -> list[Leak]:
    """Descriptions whose embeddings have a cosine of at least `threshold`.

    `embed` maps texts to vectors (N, D) of any length (`by_name`); without it they are made from
    the words of the tasks (`latent`). The evidence names what embedded them.
    """
    if embed is None:
        found = close(*latent(rows.words, tasks.words), threshold)
        told = "TF-IDF and LSA"
    else:
        texts = [[row.text for row in side.rows] for side in (rows, tasks)]
        found = close(*(unit(embed(side)) for side in texts), threshold)
        told = "sentence embeddings"
    return [_leak(rows.rows[i], tasks, j, "embedding", score, told) for i, j, score in found]


def observe(
    rows: Sequence[Row], call: Callable[..., list], *, n_random: int, seed: int
) -> dict[Row, Behaviour]:
    """What every program returns on the probes; `call` is `executor.call` or its like.

    Programs run only inside `call`. Rows without a program, or with arguments of types that no
    probe has, are absent.
    """
    by_kinds: defaultdict[Kinds, list[Row]] = defaultdict(list)
    for row in rows:
        for kinds in probes.argument_kinds(row.code, row.entry_point, row.tests):
            by_kinds[kinds].append(row)
    seen: defaultdict[Row, dict[Kinds, Outputs]] = defaultdict(dict)
    for kinds, members in by_kinds.items():
        programs = list(dict.fromkeys((row.code, row.entry_point) for row in members))
        results = call(programs, probes.probe_inputs(kinds, n_random=n_random, seed=seed))
        outputs = {
            program: tuple(
                probes.FAILED if r.error else probes.fingerprint(r.value) for r in answers
            )
            for program, answers in zip(programs, results, strict=True)
        }
        for row in members:
            seen[row][kinds] = outputs[row.code, row.entry_point]
    return dict(seen)


def same_behaviour(rows: Corpus, tasks: Corpus, behaviour: Mapping[Row, Behaviour]) -> list[Leak]:
    """Equal outputs on the fixed probes, for arguments of the same types.

    The score is the share of all probes, random ones included, with equal outputs: 1 = the same
    function as far as anyone looked.
    """
    fixed = probes.N_FIXED
    index: defaultdict[tuple[Kinds, Outputs], list[tuple[int, Outputs]]] = defaultdict(list)
    for at, task in enumerate(tasks.rows):
        for kinds, outputs in behaviour.get(task, {}).items():
            index[kinds, outputs[:fixed]].append((at, outputs))
    leaks: dict[tuple[str, int], Leak] = {}
    for row in rows.rows:
        for kinds, outputs in behaviour.get(row, {}).items():
            if not probes.is_telling(outputs[:fixed]):
                continue
            for at, theirs in index.get((kinds, outputs[:fixed]), ()):
                score = probes.agreement(outputs, theirs)
                text = f"{score:.0%} of {len(outputs)} probes, {len(set(outputs))} distinct outputs"
                leaks[row.task_id, at] = _leak(row, tasks, at, "behaviour", score, text)
    return list(leaks.values())


DIMENSIONS = 256  # of the latent space; about a tenth of the tasks of all benchmarks
BLOCK = 4096  # rows that are compared with all tasks at a time: 4096 x 3500 floats are 57 MB


def latent(
    rows: Sequence[Sequence[str]], tasks: Sequence[Sequence[str]]
) -> tuple[np.ndarray, np.ndarray]:
    """Vectors of rows (N, D) and tasks (M, D): TF-IDF, reduced by latent semantic analysis.

    Words, their weights and the latent directions are those of the tasks, so that a row's vector
    does not depend on the other rows. Tasks have length 1; a row is as long as the share of it
    that the tasks' words make up, because a row of words that no task has resembles none.
    """
    import numpy as np

    documents = Counter(word for words in tasks for word in set(words))
    place = {word: at for at, word in enumerate(sorted(documents))}
    rarity = {word: np.log((1 + len(tasks)) / (1 + n)) + 1 for word, n in documents.items()}
    weighted = partial(_weighted, place=place, rarity=rarity, unknown=np.log(1 + len(tasks)) + 1)
    theirs = list(map(weighted, tasks))
    overlap = np.zeros((len(tasks), len(tasks)))  # (M, M): of every two tasks the inner product
    having: dict[int, list[tuple[int, float]]] = defaultdict(list)
    for at, (columns, weights, _) in enumerate(theirs):
        for column, weight in zip(columns, weights, strict=True):
            having[column].append((at, weight))
    for members in having.values():
        which, weights = (np.array(part) for part in zip(*members, strict=True))
        overlap[np.ix_(which, which)] += np.outer(weights, weights)
    squares, mixes = np.linalg.eigh(overlap)  # of the singular values, the smallest first
    kept = [at for at in range(len(tasks))[-DIMENSIONS:] if squares[at] > 1e-10 * squares[-1]]
    directions = np.zeros((len(place), max(len(kept), 1)), np.float32)  # (V, D)
    for (columns, weights, _), mix in zip(theirs, mixes[:, kept], strict=True):
        directions[columns, : len(kept)] += np.outer(weights, mix / np.sqrt(squares[kept]))

    def reduced(sides: Iterable[tuple[list[int], np.ndarray, float]]) -> np.ndarray:
        found = [(weights @ directions[columns], known) for columns, weights, known in sides]
        vectors = unit(np.array([v for v, _ in found]).reshape(-1, directions.shape[1]))
        return vectors * np.array([known for _, known in found], np.float32)[:, None]

    return reduced(map(weighted, rows)), reduced(theirs)


def _weighted(
    words: Sequence[str], *, place: dict[str, int], rarity: dict[str, float], unknown: float
) -> tuple[list[int], np.ndarray, float]:
    """(columns, their weights 1 + log count times rarity, the share of length that is known)."""
    import numpy as np

    weights = {w: (1 + np.log(n)) * rarity.get(w, unknown) for w, n in Counter(words).items()}
    own = [word for word in weights if word in place]
    length = sum(v * v for v in weights.values())
    inside = sum(weights[word] ** 2 for word in own)
    found = np.array([weights[word] for word in own])
    return [place[word] for word in own], found, (inside / length) ** 0.5 if length else 0.0


def unit(vectors: Any) -> np.ndarray:
    """Rows of (N, D) scaled to length 1; zeros stay zeros."""
    import numpy as np

    vectors = np.asarray(vectors, np.float32)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(lengths > 0, lengths, 1)


def close(left: np.ndarray, right: np.ndarray, threshold: float) -> list[tuple[int, int, float]]:
    """Pairs (i, j, cosine in [0, 1]) of at least `threshold`, in order, block by block."""
    import numpy as np

    if not 0.0 < threshold <= 1.0:
        raise ValueError(f"the embedding threshold must lie in (0, 1], found {threshold}")
    pairs = []
    for start in range(0, len(left), BLOCK):
        cosines = left[start : start + BLOCK] @ right.T  # (B, M)
        for i, j in np.argwhere(cosines >= threshold - 1e-6):
            pairs.append((start + int(i), int(j), min(float(cosines[i, j]), 1.0)))
    return pairs


def by_name(model: str) -> Embed:
    """What embeds texts with a sentence model of the hub or a folder.

    ValueError says what to install where `sentence-transformers` is not there.
    """
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError:
        raise ValueError(
            f"--embedding {model}: needs the package sentence-transformers; "
            "pip install rrtf[embeddings]"
        ) from None
    encoder = SentenceTransformer(model)
    return lambda texts: encoder.encode(list(texts), show_progress_bar=False)
