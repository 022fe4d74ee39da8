"""The verb `evaluate`: files of samples and models on one board, read or sampled, judged, kept.

`NAME=FILE` and `NAME=MODEL` name an entry; an option can be meant for one of them: `NAME=raw`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from rrtf import cluster, config, engines, prompts, store
from rrtf.cli import inputs, screen
from rrtf.cli.options import Given
from rrtf.engines import Decoding
from rrtf.evaluate import entries, exam, grade, results, samples
from rrtf.records import Problem, Response
from rrtf.report.samples import Part, write_answers
from rrtf.sample import Author
from rrtf.stats import label

USUAL = {name: str(config.resolve("nano", "sample")[name]) for name in ("engine", "prompt_format")}


def evaluate(given: Given) -> None:
    """Put any number of sample files and models on one board: pass@k, intervals, paired tests.

    With --out DIR samples, verdicts, scores and board are kept, and the same command goes on.
    """
    if given.engine and given.engine[-1] in cluster.PLACES:
        given.cluster = given.engine.pop()
        screen.tell(f"note: --engine {given.cluster} is --cluster {given.cluster} now")
    named = {"extract": given.extract, "renamed": given.rename, "temperature": given.temperature}
    every = entries.entrants(given.entries, given.model, **named)
    asked = grade.parse_ks(given.k)
    judge = inputs.judge(given, given.tasks)
    screen.check_folder(given.out)
    screen.check_out(given.report, given.tasks, option="--report", ends=(".html",))
    screen.check_table(given, given.tasks)
    screen.check_there(*(one.place for one in every if not one.is_model))
    told = _told(given, every)
    models = [_asked(given, one, told) for one in every if one.is_model]
    name = samples.name_of(given.tasks)
    leaks = store.read_rows(Path(given.flagged)) if given.flagged else ()
    leaking = exam.flagged_tasks(exam.leaks_of(leaks, given.flagged), name)
    tasks = inputs.tasks_of(given)
    out = screen.folder(given.out)
    lacking = {"allow_missing": given.allow_missing, "allow_unknown": given.allow_unknown}
    responses, notes = entries.read(every, tasks, **lacking)
    for note in notes:
        screen.tell(note)
    for one, author, decoding in models:
        responses += _sampled(given, one, author, decoding, tasks)
    if given.k:
        grade.check_ks(responses, asked)
    tasks, responses, _ = inputs.sound(given, tasks, responses, judge)
    with screen.progress("grading") as tick:
        executions = judge(tasks, responses, shards=out and out / "shards", progress=tick)
    rows = entries.scores(tasks, executions, benchmark=name)
    board = results.board(rows, ks=asked, margin=given.margin, seed=0)
    console = screen.console()
    _print(console, board, len(tasks), given.margin)
    if given.flagged:
        console.print(_parts(exam.by_leak(rows, leaking, ks=asked)))
        screen.explain(console, exam.CAUTION)
    screen.say(console, f"isolation: {screen.levels(executions)}; {len(executions)} samples")
    if given.report:
        part = Part("given", responses, executions)
        write_answers(given.report, tasks, [part], title=f"Answers to {given.tasks}")
        screen.say_written(console, given.report, "every answer")
    screen.write_table(console, given, results.tables(board)["board"])
    if out:
        files = entries.files(board, tasks, responses, executions, rows)
        entries.save(out, board, files, _settings(given, every, told))
        screen.say(console, f"samples, verdicts, scores and board in {out}")


def saved(given: Given) -> str:
    """What an interrupted call says."""
    return screen.goes_on_from(given.out, "--out DIR")


Told = Mapping[str, Mapping[str, str]]  # `engine` and `prompt_format` -> entry -> what it is


def _told(given: Given, every: Sequence[entries.Entrant]) -> Told:
    """What was said by entry, for all under ""; ValueError for an unknown entry or format."""
    names = [one.name for one in every]
    told = {
        option: {"": usual}
        | entries.one_each(f"--{option.replace('_', '-')}", getattr(given, option), names)
        for option, usual in USUAL.items()
    }
    for style in told["prompt_format"].values():
        if style not in prompts.FORMATS:
            known = ", ".join(prompts.FORMATS)
            raise ValueError(f"--prompt-format {style!r}: expected one of {known}")
    return told


def _asked(
    given: Given, one: entries.Entrant, told: Told
) -> tuple[entries.Entrant, Author, Decoding]:
    """A model's entry, who answers for it, and how.

    ValueError or OSError where it cannot be asked, before hours are spent.
    """
    longest = given.max_new_tokens or inputs.longest(one.place)
    decoding = Decoding(one.temperature or 0.0, given.top_p, longest, given.seed)
    engines.check_sampling(decoding, given.n_samples)
    engine, style = (of.get(one.name, of[""]) for of in (told["engine"], told["prompt_format"]))
    inputs.need_engine("evaluate", engine)
    if not engines.remote(engine):
        engines.model_folder(one.place)
    source = label(one.name, 0, decoding.temperature)
    return one, Author(one.place, source, engine, style), decoding


def _sampled(
    given: Given,
    one: entries.Entrant,
    author: Author,
    decoding: Decoding,
    tasks: Sequence[Problem],
) -> list[Response]:
    """The answers of a model, kept in shards where there is an --out.

    OSError where the engine, or what it needs, is not to be had.
    """
    kept = given.out and f"{given.out}/shards"
    found = inputs.sampled(given, tasks, author, [decoding], kept=kept, cluster="local")
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


def _board(ranked: Sequence[results.Entry]) -> Table:
    """In percent: rank and name once, then a line per k; `~`: not told apart from the first."""
    rows = []
    for entry in ranked:
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


SAMPLING = ("n_samples", "top_p", "prompt_format", "seed", "max_new_tokens", "engine", "workers")


def _settings(given: Given, every: Sequence[entries.Entrant], told: Told) -> dict[str, Any]:
    """What decided the board, for its summary; an option that was said for all by its value."""
    own = {name: of if len(of) > 1 else of[""] for name, of in told.items()}
    return {
        "problems": given.tasks,
        "margin": given.margin,
        "sampling": {name: own.get(name, getattr(given, name)) for name in SAMPLING},
        "entries": [store.to_row(one) for one in every],
        "workers": given.workers,
        "cluster": given.cluster,
        **asdict(inputs.limits(given, given.tasks)),
    }
