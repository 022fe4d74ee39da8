"""The detectors: pure functions from rows and benchmark tasks to `Leak` records with evidence.

Each reports every (row, task) pair it finds suspicious and judges nothing: what is chance, and
what is removed, is decided in `rrtf.audit.verdict`.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rrtf import probes, prompts, similarity
from rrtf.probes import Kinds, Outputs
from rrtf.records import Leak, Problem

Behaviour = Mapping[Kinds, Outputs]  # what one program returned, by the types of its arguments
EQUALITIES = ("exact text", "normalised text", "code", "behaviour")


@dataclass(frozen=True, slots=True)
class Row:
    """What the audit sees of a training row or a benchmark task.

    `text` is the description in words, `code` a whole program that defines `entry_point`,
    `tests` any source that calls it (or `candidate`) with literal arguments.
    """

    task_id: str
    text: str
    code: str = ""
    entry_point: str = ""
    tests: str = ""


def from_problem(problem: Problem) -> Row:
    """The docstring as text, prompt and reference as program (none where there is no reference).

    A prompt without a function head, or with its description elsewhere, is all text.
    """
    try:
        text = prompts.split_prompt(problem)[2] or problem.prompt
    except ValueError:
        text = problem.prompt
    code = problem.prompt + problem.reference if problem.reference else ""
    return Row(problem.task_id, text, code, problem.entry_point, problem.tests)


def from_problems(problems: Sequence[Problem]) -> list[Row]:
    """`from_problem` for each."""
    return [from_problem(problem) for problem in problems]


def from_fields(row: Mapping[str, Any], *, task_id: str, text: Sequence[str], code: str) -> Row:
    """Any row: the fields named in `text` joined by line breaks, the field `code` as program.

    The entry point is the last function the program defines; ValueError for a missing field.
    """
    for name in (*text, code):
        if not isinstance(row.get(name), str):
            raise ValueError(f"{task_id}: no text in field {name!r}")
    functions = [*similarity.canonical_functions(row[code])]
    entry = functions[-1] if functions else ""
    return Row(task_id, "\n".join(row[name] for name in text), row[code], entry)


def exact_text(rows: Sequence[Row], benchmark: str, tasks: Sequence[Row]) -> list[Leak]:
    """The same description, character by character (outer white space aside)."""
    texts = [[[row.text.strip()] for row in side] for side in (rows, tasks)]
    return _equal(rows, benchmark, tasks, "exact text", *texts)


def normalised_text(rows: Sequence[Row], benchmark: str, tasks: Sequence[Row]) -> list[Leak]:
    """The same words, numbers and signs in the same order (see `similarity.words`)."""
    texts = [[[similarity.normalise(row.text)] for row in side] for side in (rows, tasks)]
    return _equal(rows, benchmark, tasks, "normalised text", *texts)


def same_code(rows: Sequence[Row], benchmark: str, tasks: Sequence[Row]) -> list[Leak]:
    """Some function of the row is the task's function but for names, docstring, annotations."""
    functions = [similarity.canonical_functions(row.code) for row in rows]
    wanted = [similarity.canonical_functions(task.code) for task in tasks]
    theirs = [[w.get(t.entry_point, "")] for w, t in zip(wanted, tasks, strict=True)]
    return _equal(rows, benchmark, tasks, "code", [list(f.values()) for f in functions], theirs)


def _equal(
    rows: Sequence[Row],
    benchmark: str,
    tasks: Sequence[Row],
    detector: str,
    row_keys: Sequence[Sequence[str]],
    task_keys: Sequence[Sequence[str]],
) -> list[Leak]:
    """Leaks where a key of a row is a key of a task; the empty key is equal to nothing."""
    index: defaultdict[str, list[str]] = defaultdict(list)
    for task, keys in zip(tasks, task_keys, strict=True):
        for key in filter(None, keys):
            index[key].append(task.task_id)
    leaks = []
    for row, keys in zip(rows, row_keys, strict=True):
        found = {task_id: key for key in keys for task_id in index.get(key, ())}
        leaks += [Leak(row.task_id, benchmark, t, detector, 1.0, k) for t, k in found.items()]
    return leaks


def ngram_overlap(
    rows: Sequence[Row], benchmark: str, tasks: Sequence[Row], *, n: int, share: float
) -> list[Leak]:
    """At least `share` of a task's word n-grams occur in the row (PaLM: 70 % of its 8-grams).

    The score is that share, the evidence the longest run of words in common. A task of fewer
    than `n` words cannot be found: `too_short` lists those.
    """
    task_words = [similarity.words(task.text) for task in tasks]
    sizes = [len(similarity.ngrams(words, n)) for words in task_words]
    index: defaultdict[tuple[str, ...], list[int]] = defaultdict(list)
    for at, words in enumerate(task_words):
        for gram in similarity.ngrams(words, n):
            index[gram].append(at)
    leaks = []
    for row in rows:
        words = similarity.words(row.text)
        shared = Counter(at for gram in similarity.ngrams(words, n) for at in index.get(gram, ()))
        for at, count in sorted(shared.items()):
            if count >= share * sizes[at]:
                start, _, length = similarity.shared_runs(words, task_words[at], n)[0]
                run = " ".join(words[start : start + length])
                score = count / sizes[at]
                leaks.append(
                    Leak(row.task_id, benchmark, tasks[at].task_id, f"{n}-gram", score, run)
                )
    return leaks


def too_short(tasks: Sequence[Row], n: int) -> tuple[str, ...]:
    """The tasks that `n`-grams cannot see, because they have fewer than `n` words."""
    return tuple(t.task_id for t in tasks if len(similarity.words(t.text)) < n)


def near_text(
    rows: Sequence[Row], benchmark: str, tasks: Sequence[Row], *, shingle: int, **options: Any
) -> list[Leak]:
    """Near duplicates of the description: Jaccard of its word shingles, found by MinHash."""
    sets = [[similarity.shingles(similarity.words(r.text), shingle) for r in s]
            for s in (rows, tasks)]  # fmt: skip
    return _near(rows, benchmark, tasks, "minhash text", *sets, **options)


def near_code(
    rows: Sequence[Row], benchmark: str, tasks: Sequence[Row], *, shingle: int, **options: Any
) -> list[Leak]:
    """Near duplicates of the program: Jaccard of shingles of its canonical tokens."""
    sets = [[similarity.shingles(similarity.code_tokens(r.code), shingle) for r in s]
            for s in (rows, tasks)]  # fmt: skip
    return _near(rows, benchmark, tasks, "minhash code", *sets, **options)


def _near(
    rows: Sequence[Row],
    benchmark: str,
    tasks: Sequence[Row],
    detector: str,
    left: Sequence[similarity.Shingles],
    right: Sequence[similarity.Shingles],
    **options: Any,
) -> list[Leak]:
    leaks = []
    for i, j, score in similarity.near_duplicates(left, right, **options):
        shared = len(left[i] & right[j])
        evidence = (
            f"{shared} shingles shared, {len(left[i])} in the row, {len(right[j])} in the task"
        )
        leak = Leak(rows[i].task_id, benchmark, tasks[j].task_id, detector, score, evidence)
        leaks.append(leak)
    return leaks


def observe(
    rows: Sequence[Row], call: Callable[..., list], *, n_random: int, seed: int
) -> dict[Row, Behaviour]:
    """What every program returns on the probes; `call` is `rrtf.sandbox.call` or its like.

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


def same_behaviour(
    rows: Sequence[Row],
    benchmark: str,
    tasks: Sequence[Row],
    behaviour: Mapping[Row, Behaviour],
) -> list[Leak]:
    """Equal outputs on the fixed probes, for arguments of the same types.

    The score is the share of all probes, random ones included, with equal outputs: 1 = the same
    function as far as anyone looked.
    """
    fixed = probes.N_FIXED
    index: defaultdict[tuple[Kinds, Outputs], list[tuple[str, Outputs]]] = defaultdict(list)
    for task in tasks:
        for kinds, outputs in behaviour.get(task, {}).items():
            index[kinds, outputs[:fixed]].append((task.task_id, outputs))
    leaks: dict[tuple[str, str], Leak] = {}
    for row in rows:
        for kinds, outputs in behaviour.get(row, {}).items():
            if not probes.is_telling(outputs[:fixed]):
                continue
            for task_id, theirs in index.get((kinds, outputs[:fixed]), ()):
                score = probes.agreement(outputs, theirs)
                text = f"{score:.0%} of {len(outputs)} probes, {len(set(outputs))} distinct outputs"
                leak = Leak(row.task_id, benchmark, task_id, "behaviour", score, text)
                leaks[row.task_id, task_id] = leak
    return list(leaks.values())


def detector_names(ngram_sizes: Sequence[int]) -> tuple[str, ...]:
    """The names of all detectors, in the order of tables."""
    return (*EQUALITIES, *(f"{n}-gram" for n in ngram_sizes), "minhash text", "minhash code")
