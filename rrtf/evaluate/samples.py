"""Lines of samples as people hand them in, checked against their problems.

A line names its `task_id` and holds exactly one of `completion` (continues the prompt), `solution`
(a program as it is) or the project's own `text` and `program`; a list of texts is as many samples.
Lines of other programs (`_OF_OTHERS`) hold completions.
Every mistake is found before anything runs and named by file and line; no line is left out.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

from rrtf import prompts, store
from rrtf.records import Execution, Outcome, Problem, Response

TOLD = 20  # mistakes named at once
SHOWN = 5  # task ids in a message
KNOWN = "a list of objects, a list of lists of programs, or EvalPlus's results ({'eval': ...})"


def folder_rows(name: str, problems: Sequence[Problem]) -> Iterator[tuple[int, Any]]:
    """(number, row) of a file or folder of samples, `-` for lines of standard input.

    Numbers are lines of a file, or count the samples of another form. ValueError names a file
    in none of these forms, or a list whose length is not that of `problems`.
    """
    path = Path(name)
    if path.is_dir():
        return _of_folder(path, problems)
    if path.name.removesuffix(".gz").endswith(".json") and path.exists():
        return _of_json(name, _value(path), problems)
    return store.read_rows(path)


def _value(path: Path) -> Any:
    try:
        return store.read_json(path)
    except (ValueError, EOFError, OSError, RecursionError) as error:
        if isinstance(error, FileNotFoundError | PermissionError):
            raise
        raise ValueError(f"{path}: not JSON, or damaged ({error})") from error


def _of_json(name: str, value: Any, problems: Sequence[Problem]) -> Iterator[tuple[int, Any]]:
    match value:
        case {"eval": Mapping() as of_task}:
            found = _of_results(name, of_task)
        case [list(), *_]:
            found = _of_lists(name, value, problems)
        case list():
            found = value
        case _:
            raise ValueError(f"{name}: expected {KNOWN}")
    return enumerate(found, start=1)


def _of_results(name: str, of_task: Mapping[str, Any]) -> list[dict[str, Any]]:
    """EvalPlus's results: a list of samples per task, each with its verdicts and `solution`."""
    found = []
    for task_id, runs in of_task.items():
        if not (isinstance(runs, list) and all(isinstance(run, Mapping) for run in runs)):
            raise ValueError(f"{name}: eval of {task_id}: expected a list of objects")
        found += [{"task_id": task_id, "solution": run.get("solution")} for run in runs]
    return found


def _of_lists(name: str, lists: Sequence[Any], problems: Sequence[Problem]) -> list[dict[str, Any]]:
    if len(lists) != len(problems):
        raise ValueError(
            f"{name}: lists for {len(lists)} tasks, which cannot be told which they are: the "
            f"problems are {len(problems)}"
        )
    found = []
    for place, (texts, problem) in enumerate(zip(lists, problems, strict=True), start=1):
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise ValueError(f"{name}: item {place}: expected a list of programs")
        found += [{"task_id": problem.task_id, "solution": text} for text in texts]
    return found


def _of_folder(folder: Path, problems: Sequence[Problem]) -> Iterator[tuple[int, Any]]:
    """Task ids as their folders spell them: with `_` for `/`."""
    known = {problem.task_id.replace("/", "_"): problem.task_id for problem in problems}
    files = [path for path in folder.glob("*/*.py") if path.stem.isdecimal()]
    if not files:
        raise ValueError(f"{folder}: a folder; expected TASK/0.py, TASK/1.py, ... in it")
    order = sorted(files, key=lambda path: (path.parent.name, int(path.stem)))
    found = [
        {"task_id": known.get(path.parent.name, path.parent.name), "solution": _file_text(path)}
        for path in order
    ]
    return enumerate(found, start=1)


def _file_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 text ({error})") from error


KINDS = ("completion", "solution", "text")
VERDICT = ("outcome", "reason", "n_passed", "n_tests", "isolation")

# Where the lines of other programs have their task and their texts: keys, `*` for each of a list.
_OF_OTHERS = (
    ("question_id", "code_list"),  # LiveCodeBench
    ("custom_id", "response.body.choices.*.message.content"),  # a batch of OpenAI's API, or vLLM's
    ("custom_id", "response.body.choices.*.text"),
    ("doc.task_id", "resps.*.*"),  # lm-eval --log_samples
    ("task_id", "completions"),
)
_NO_INDEX = -1  # until the samples of a task are counted


@dataclass(frozen=True, slots=True)
class Sample:
    """One line: where it stands, its fields, what it means, and the verdict it carries, if any.

    `kind` is the field its text came from, one of `KINDS`; `reading` how `prompts.read` found the
    program in it, `as it is` where it came as one.
    """

    where: str
    row: Mapping
    kind: str
    response: Response
    reading: str
    execution: Execution | None = None


def parse(
    rows: Iterable[tuple[int, Mapping]],
    problems: Sequence[Problem],
    *,
    file: str,
    extract: str = "auto",
    renamed: Mapping[str, str] | None = None,
    verdicts: bool = False,
    allow_unknown: bool = False,
) -> tuple[list[Sample], dict[str, int]]:
    """(the sample of every (line number, row) in their order, lines left out by unknown task).

    `extract` as in `prompts.extract`; a `solution` stays as it is, and so does a recorded
    `program` under `auto`. `renamed` maps a file's field names to those known here. With
    `verdicts` a line may carry the fields of a verdict. Samples without an `index` are counted
    per task and source.

    ValueError names, by `file` and line, up to `TOLD` mistakes: rows that are no objects, fields
    that are missing, of a wrong type or contradict each other, tasks that `problems` lack (unless
    `allow_unknown`), a sample that comes twice; or a file without samples.
    """
    by_id = {problem.task_id: problem for problem in problems}
    found: list[Sample] = []
    mistakes: list[tuple[str, str]] = []
    unknown: Counter[str] = Counter()
    for number, row in rows:
        where = f"{file}:{number}"
        try:
            named = _with_names(row, renamed or {})
            task_id = _text(named, "task_id")
            if allow_unknown and task_id and task_id not in by_id:
                unknown[task_id] += 1
                continue
            for one in _unfolded(named):
                sample = _sample(one, where, by_id, extract)
                found.append(_with_verdict(sample, row) if verdicts else sample)
        except ValueError as error:
            mistakes.append((where, str(error)))
    refuse(mistakes + _index_mistakes(found))
    if not found:
        rest = f": {unknown.total()} lines, all of unknown tasks" if unknown else ""
        raise ValueError(f"{file}: no samples in it{rest}")
    return _numbered(found), dict(unknown)


def refuse(mistakes: Sequence[tuple[str, str]]) -> None:
    """ValueError for (`file:line`, what is wrong) pairs, equal ones together; none is no error.

    It names the first `TOLD` kinds of mistakes, each with its first `TOLD` lines.
    """
    if not mistakes:
        return
    kinds: dict[str, list[str]] = defaultdict(list)
    for where, text in mistakes:
        kinds[text].append(where)
    told = [f"{_lines(wheres)}: {text}" for text, wheres in list(kinds.items())[:TOLD]]
    more = len(kinds) - TOLD
    raise ValueError("\n".join([*told, *([f"and {more} more such mistakes"] if more > 0 else [])]))


def _lines(wheres: Sequence[str]) -> str:
    """`file:1`, `file:1,2,5` or, where they are many, `file:1,2,5 and 37 more lines`."""
    numbers = [where.rpartition(":")[2] for where in wheres[1:TOLD]]
    more = len(wheres) - TOLD
    return ",".join([wheres[0], *numbers]) + (f" and {more} more lines" if more > 0 else "")


def _with_names(row: Mapping, renamed: Mapping[str, str]) -> Mapping:
    if not isinstance(row, Mapping):
        raise ValueError(f"expected a JSON object, found {type(row).__name__}")
    for theirs, ours in renamed.items():
        if theirs not in row:
            raise ValueError(f"no field {theirs!r} to read as {ours!r} ({_fields(row)})")
        if row.get(ours) is not None:
            raise ValueError(f"field {theirs!r} cannot be read as {ours!r}, which it also has")
    named = {renamed.get(name, name): value for name, value in row.items()}
    if not any(named.get(kind) is not None for kind in KINDS):
        given = {name: value for name, value in named.items() if value is not None}
        named = max((_found(named, *places) for places in _OF_OTHERS), key=len) | given
    if type(task_id := named.get("task_id")) is int:  # as APPS and others number their tasks
        named["task_id"] = str(task_id)
    return named


def _found(row: Mapping, task: str, texts: str) -> dict[str, Any]:
    """`task_id` of a line that has one at this place, and `completion`, if it has texts.

    And how each ended, where that stands beside it.
    """
    (task_id, *_), found = _at(row, task.split(".")) or [None], _at(row, texts.split("."))
    named = {"task_id": task_id} if task_id is not None else {}
    if named and found:
        ends = _at(row, [*texts.partition(".*.")[0].split("."), "*", "finish_reason"])
        named |= {"completion": found}
        named |= {"finish_reason": ends} if len(ends) == len(found) else {}
    return named


def _at(value: Any, keys: Sequence[str]) -> list[Any]:
    """What stands there: one thing, of a list each, nothing where the way ends before."""
    match value, keys:
        case _, []:
            return value if isinstance(value, list) else [value]
        case list(), ["*", *rest]:
            return [found for one in value for found in _at(one, rest)]
        case Mapping(), [key, *rest] if key in value:
            return _at(value[key], rest)
    return []


def _unfolded(row: Mapping) -> list[Mapping]:
    """One row per text where the row holds a list of them."""
    lists = {kind: row[kind] for kind in KINDS if isinstance(row.get(kind), list)}
    if not lists:
        return [row]
    if len(lists) > 1 or row.get("index") is not None:
        raise ValueError(f"{' and '.join(lists)}: a list of samples goes with no index, no other")
    ((kind, texts),) = lists.items()
    if not texts:
        raise ValueError(f"{kind}: an empty list")
    ends = row.get("finish_reason")
    each = isinstance(ends, list) and len(ends) == len(texts)
    told = [{"finish_reason": end} for end in ends] if each else [{}] * len(texts)
    return [{**row, kind: text, **end} for text, end in zip(texts, told, strict=True)]


def _sample(row: Mapping, where: str, by_id: Mapping[str, Problem], extract: str) -> Sample:
    problem = _problem(row, by_id)
    kinds = [kind for kind in KINDS if row.get(kind) is not None]
    if len(kinds) > 1:
        raise ValueError(f"both {' and '.join(kinds)}: expected exactly one of them")
    if not kinds:
        raise ValueError(
            f"neither completion nor solution ({_fields(row)}; "
            "--rename THEIRS=OURS reads a field under another name)"
        )
    text = _text(row, kinds[0])
    program, reading = _program(row, problem, text, extract)
    response = Response(
        task_id=problem.task_id,
        source=_text(row, "source"),
        index=_whole(row, "index", _NO_INDEX),
        text=text,
        program=program,
        finish_reason=_text(row, "finish_reason") or "stop",
    )
    return Sample(where, row, kinds[0], response, reading)


def _problem(row: Mapping, by_id: Mapping[str, Problem]) -> Problem:
    task_id = _text(row, "task_id")
    if not task_id:
        raise ValueError(f"no task_id ({_fields(row)})")
    if task_id not in by_id:
        ids = list(by_id)
        raise ValueError(
            f"unknown task_id {task_id!r}: the {len(ids)} problems are {ids[0]!r} to {ids[-1]!r} "
            "(do the samples answer another benchmark? --allow-unknown leaves such lines out)"
        )
    return by_id[task_id]


def _program(row: Mapping, problem: Problem, text: str, extract: str) -> tuple[str, str]:
    """(program, reading) of a line; Python itself reads over a byte-order mark."""
    if row.get("solution") is not None:
        if extract != "auto":
            raise ValueError(f"a solution is taken as it is: --extract {extract} does not apply")
        return text.removeprefix(prompts.BOM), "as it is"
    recorded = _text(row, "program")
    if recorded and row.get("completion") is not None:
        raise ValueError("both completion and program: expected exactly one of them")
    if recorded and extract == "auto":
        return recorded, "as it is"
    answer = prompts.read(problem, text, extract)
    return answer.program, answer.reading


def _text(row: Mapping, name: str) -> str:
    value = row.get(name)
    if value is not None and not isinstance(value, str):
        raise ValueError(f"{name}: expected text, found {type(value).__name__}")
    return value or ""


def _whole(row: Mapping, name: str, default: int) -> int:
    value = row.get(name)
    if value is None:
        return default
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{name}: expected a whole number from 0 on, found {value!r}")
    return value


def _fields(row: Mapping) -> str:
    return f"it has {', '.join(map(str, row)) or 'no fields'}"


def _with_verdict(sample: Sample, row: Mapping) -> Sample:
    """The sample with the verdict of its row: all fields of `VERDICT`, or none."""
    missing = [name for name in VERDICT if row.get(name) is None]
    if len(missing) == len(VERDICT):
        return sample
    if missing:
        raise ValueError(f"a verdict without {', '.join(missing)}")
    name = _text(row, "outcome")
    if name not in Outcome.__members__:
        raise ValueError(f"outcome {name!r}: expected {', '.join(Outcome.__members__)}")
    outcome, r = Outcome[name], sample.response
    n_passed, n_tests = _whole(row, "n_passed", 0), _whole(row, "n_tests", 0)
    if n_passed > n_tests or (outcome == Outcome.PASS and n_passed < n_tests):
        raise ValueError(f"{name} with {n_passed} of {n_tests} tests")
    if row.get("passed") is not None and row["passed"] is not (outcome == Outcome.PASS):
        raise ValueError(f"passed is {row['passed']!r} but the outcome {name}")
    reason, isolation = _text(row, "reason"), _text(row, "isolation")
    run = Execution(
        r.task_id, r.source, r.index, outcome, reason, n_passed, n_tests, isolation
    )  # fmt: skip
    return replace(sample, execution=run)


def _index_mistakes(found: Sequence[Sample]) -> list[tuple[str, str]]:
    """Samples that stand twice under one index, or lack one where others have it."""
    mistakes = []
    first: dict[tuple[str, str, int], str] = {}
    indexed = next((s for s in found if s.response.index != _NO_INDEX), None)
    for sample in found if indexed else ():
        r = sample.response
        if r.index == _NO_INDEX:
            mistakes.append((sample.where, f"no index, but {indexed.where} has one"))
            continue
        key = (r.task_id, r.source, r.index)
        if key in first:
            who = f" of {r.source}" if r.source else ""
            text = f"sample {r.index}{who} of {r.task_id} stands in {first[key]} too"
            mistakes.append((sample.where, text))
        first.setdefault(key, sample.where)
    return mistakes


def _numbered(found: Sequence[Sample]) -> list[Sample]:
    """Samples that came without an index counted from 0, per task and source."""
    seen: Counter[tuple[str, str]] = Counter()
    numbered = []
    for sample in found:
        r, run = sample.response, sample.execution
        if r.index == _NO_INDEX:
            r = replace(r, index=seen[r.task_id, r.source])
            seen[r.task_id, r.source] += 1
            run = replace(run, index=r.index) if run else None
            sample = replace(sample, response=r, execution=run)
        numbered.append(sample)
    return numbered


def with_verdicts(
    rows: Iterable[tuple[int, Mapping]],
    verdicts: Iterable[tuple[int, Mapping]],
    *,
    file: str,
    verdict_file: str,
) -> list[tuple[int, Mapping]]:
    """Rows with the verdicts that `grade` wrote for them, line by line.

    ValueError names the line where the two files go apart, or a row that has a verdict already.
    """
    joined = []
    for (number, row), (beside, verdict) in zip_longest(rows, verdicts, fillvalue=(None, None)):
        here, there = f"{file}:{number}", f"{verdict_file}:{beside}"
        if number is None or beside is None:
            longer, shorter = (there, file) if number is None else (here, verdict_file)
            raise ValueError(f"{longer}: {shorter} ends before this line")
        if not isinstance(row, Mapping) or not isinstance(verdict, Mapping):
            raise ValueError(f"{here}, {there}: expected two JSON objects")
        if row.get("task_id") != verdict.get("task_id"):
            raise ValueError(
                f"{there}: a verdict on {verdict.get('task_id')!r}, "
                f"but {here} answers {row.get('task_id')!r}"
            )
        if row.get("outcome") is not None:
            raise ValueError(f"{here}: has a verdict of its own beside {there}")
        taken = {name: verdict.get(name) for name in (*VERDICT, "passed")}
        if all(taken[name] is None for name in VERDICT):
            raise ValueError(f"{there}: no verdict ({_fields(verdict)})")
        joined.append((number, dict(row) | taken))
    return joined


Counts = Mapping[str, Mapping[str, int]]  # source -> task_id -> number of samples


def sizes(responses: Sequence[Response] | Sequence[Execution]) -> Counts:
    """How many samples every source has of every task."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for response in responses:
        counts[response.source][response.task_id] += 1
    return counts


def notes(samples: Sequence[Sample]) -> list[str]:
    """What a reader of the figures should know of these samples: unequal n, repeated lines."""
    lines = []
    for source, of_task in sizes([sample.response for sample in samples]).items():
        low, high = min(of_task, key=of_task.get), max(of_task, key=of_task.get)
        if of_task[low] != of_task[high]:
            lines.append(
                f"unequal n{f' of {source}' if source else ''}: {low} has {of_task[low]} samples, "
                f"{high} has {of_task[high]}; pass@k is estimated task by task, for k up to "
                f"{of_task[low]}"
            )
    repeats = _repeats(samples)
    if repeats:
        shown = ", ".join(f"{here} = {there}" for here, there in repeats[:3])
        lines.append(
            f"{len(repeats)} of {len(samples)} lines repeat the text of another and count as "
            f"samples of their own: {shown}{', ...' if len(repeats) > 3 else ''}"
        )
    return lines


def _repeats(samples: Sequence[Sample]) -> list[tuple[str, str]]:
    """(line, earlier line) of one source with equal texts for one task."""
    first: dict[tuple[str, str, str], str] = {}
    pairs = []
    for sample in samples:
        r = sample.response
        earlier = first.setdefault((r.task_id, r.source, r.text), sample.where)
        if earlier != sample.where:
            pairs.append((sample.where, earlier))
    return pairs


def read(
    lines: str,
    tasks: Sequence[Problem],
    *,
    extract: str = "auto",
    renamed: Sequence[str] = (),
    beside: str = "",
    source: str = "",
    others: Collection[str] = (),
    **options,
) -> tuple[list[Sample], dict[str, int]]:
    """(samples, lines left out by unknown task) of a file or folder, or of standard input (`-`).

    `renamed` holds texts THEIRS=OURS, `beside` names a file of their verdicts, `source` says
    whose they all are (`of_source`, with the names `others`); `options` and errors as `parse`,
    besides ValueError for what is asked for in another form.
    """
    check_extraction(extract)
    names = renames(renamed)
    rows = folder_rows(lines, tasks)
    if source:
        rows = iter(of_source(rows, source, others, lines))
    if beside:
        said = store.read_rows(Path(beside))
        rows = iter(with_verdicts(rows, said, file=lines, verdict_file=beside))
    return parse(rows, tasks, file=lines, extract=extract, renamed=names, **options)


def check_extraction(how: str) -> None:
    """ValueError for one that `prompts.extract` does not know."""
    if how not in prompts.EXTRACTIONS:
        known = ", ".join(prompts.EXTRACTIONS)
        raise ValueError(f"--extract {how!r}: expected {known}")


def name_of(problems: str) -> str:
    """What the problems are called: a benchmark's name, or that of a file."""
    return (
        "stdin"
        if problems == "-"
        else re.sub(r"(\.(jsonl?|parquet|gz))+$", "", Path(problems).name)
    )


def renames(texts: Sequence[str]) -> dict[str, str]:
    """`["code=solution"]` -> `{"code": "solution"}`; ValueError for another form."""
    found = {}
    for text in texts:
        theirs, sign, ours = text.partition("=")
        if not (theirs and sign and ours):
            raise ValueError(f"--rename {text!r}: expected THEIRS=OURS, as in code=solution")
        found[theirs] = ours
    return found


def check_present(
    file: str, found: Sequence[Sample], tasks: Sequence[Problem], *, allow_missing: bool
) -> dict[str, list[str]]:
    """The tasks without a sample, by source; ValueError that names them unless they may lack."""
    absent = {
        source: [task.task_id for task in tasks if task.task_id not in of_task]
        for source, of_task in sizes([sample.response for sample in found]).items()
        if len(of_task) < len(tasks)
    }
    if absent and not allow_missing:
        lines = [
            f"{file}: no sample{f' of {source}' if source else ''} for {len(names)} of "
            f"{len(tasks)} tasks: {some(names)}"
            for source, names in absent.items()
        ]
        raise ValueError(
            "\n".join([*lines, "--allow-missing grades the others and names their number"])
        )
    return absent


def of_source(
    rows: Iterable[tuple[int, Any]], source: str, others: Collection[str], file: str
) -> list[tuple[int, Any]]:
    """Rows that are all called `source` here; ValueError where they are of several, or of `others`.

    A model's own name in its file is no contradiction.
    """
    rows, first, others = list(rows), "", {*others} - {source}
    for number, row in rows:
        own = (row.get("source") or source) if isinstance(row, Mapping) else source
        first = first or own
        if own != first or own in others:
            raise ValueError(f"{file}:{number}: source {own!r} in a file given as {source}=")
    return [(n, {**r, "source": source} if isinstance(r, Mapping) else r) for n, r in rows]


def check_sources(found: Sequence[Sample], teacher: str, file: str) -> None:
    """ValueError for lines that cannot be ranked, and for a teacher (if any) that none is from."""
    mistakes = []
    for sample in found:
        if not sample.response.source:
            mistakes.append((sample.where, "no source: whose response is this?"))
        elif sample.kind == "solution":
            text = "a solution; ranking needs a completion, which is what is learned"
            mistakes.append((sample.where, text))
        elif any("\ud800" <= letter <= "\udfff" for letter in sample.response.text):
            mistakes.append((sample.where, f"{sample.kind}: half a surrogate pair, no Unicode"))
    refuse(mistakes)
    counts = Counter(sample.response.source for sample in found)
    if teacher and teacher not in counts:
        known = ", ".join(f"{name} ({n})" for name, n in counts.items())
        raise ValueError(f"{file}: no response of {teacher!r}: the sources are {known}")


def left_out(unknown: Mapping[str, int]) -> str:
    """What `--allow-unknown` cost, as a line."""
    lines, names = sum(unknown.values()), some(list(unknown))
    return f"left out: {lines} lines of {len(unknown)} tasks that are no problems here ({names})"


def some(names: Sequence[str]) -> str:
    """The first few names."""
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
