"""What the commands write: tables on a terminal, a progress bar, lines in a file or on a pipe."""

import gzip
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rrtf import store
from rrtf.report import kernel


def plain(text: str) -> str:
    """`text` without what a terminal would obey: programs choose the names of their exceptions."""
    return "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text)


def say(console: Console, line: str) -> None:
    """Prints a line as it is: no markup, no colours, no line breaks put in."""
    console.print(Text(plain(line)), soft_wrap=True)


def explain(console: Console, line: str) -> None:
    """Prints a sentence as it is, broken between words where the terminal ends."""
    console.print(Text(plain(line)))


def _add(table: Table, cells: Sequence[str]) -> None:
    table.add_row(*(Text(plain(cell)) for cell in cells))


def rows_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Rows of the same columns: numbers to the right, floats with two decimals, None as a dash."""
    table = Table(box=None, pad_edge=False)
    for name, value in (rows[0] if rows else {}).items():
        right = isinstance(value, int | float) and not isinstance(value, bool)
        where = "right" if right else "left"
        table.add_column(Text(plain(name)), justify=where, no_wrap=isinstance(value, str))
    for row in rows:
        _add(table, [_cell(value) for value in row.values()])
    return table


def _cell(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return "-" if value is None else "yes" if value else ""
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def reason_table(rows: Sequence[Mapping[str, Any]], totals: Mapping[str, int]) -> Table:
    """Rows of outcome, reason and a count per source, the best outcome first, with percent.

    `totals` holds the number of samples of every source.
    """
    table = Table("outcome", "reason", box=None, pad_edge=False)
    for source in totals:
        table.add_column(Text(plain(source or "samples")), justify="right")
        table.add_column("%", justify="right")
    for row in reversed(rows):
        cells = [(row[s], row[s] / n) for s, n in totals.items()]
        _add(table, [row["outcome"], row["reason"], *_counted(cells)])
    _add(table, ["all", "", *_counted([(n, 1.0) for n in totals.values()])])
    return table


def _counted(cells: Sequence[tuple[int, float]]) -> list[str]:
    return [text for n, share in cells for text in (str(n), f"{100 * share:.1f}")]


def rate_table(rates: Sequence[Any], n_tasks: int) -> Table:
    """`grade.Rate`s in percent with their intervals, and how many of `n_tasks` they speak of."""
    named = any(rate.source for rate in rates)
    grouped = any(rate.group for rate in rates)
    table = Table(box=None, pad_edge=False)
    first = [name for name, shown in (("source", named), ("of", grouped)) if shown]
    for name in (*first, "", "%", "95 % interval", "tasks", "n", "by"):
        table.add_column(name, justify="right" if name in ("%", "tasks", "n") else "left")
    for rate in rates:
        percent, interval = _rate(rate.estimate)
        tasks = f"{n_tasks}" if rate.n_tasks == n_tasks else f"{rate.n_tasks} of {n_tasks}"
        n = _span(*rate.n_samples)
        cells = [f"pass@{rate.k}", percent, interval, tasks, n, rate.interval]
        whose = [*([rate.source] if named else []), *([rate.group or "all"] if grouped else [])]
        _add(table, [*whose, *cells])
    return table


def _rate(rate: Any) -> tuple[str, str]:
    """(value, interval) in percent of what has `value`, `low` and `high`."""
    interval = f"{100 * rate.low:.2f} to {100 * rate.high:.2f}" if rate.low == rate.low else "-"
    return f"{100 * rate.value:.2f}", interval


def _span(least: int, most: int) -> str:
    return f"{least}" if least == most else f"{least} to {most}"


def parts_table(parts: Mapping[str, Sequence[Any]]) -> Table:
    """Part -> `metrics.Result`s, in percent: an entry's parts stand under each other."""
    table = Table(box=None, pad_edge=False)
    for name in ("entry", "", "tasks", "%", "95 % interval", "n"):
        table.add_column(name, justify="right" if name in ("%", "tasks", "n") else "left")
    rows = [
        (rate.model, rate.metric, part, rate) for part, rates in parts.items() for rate in rates
    ]
    for model, metric in dict.fromkeys(row[:2] for row in rows):
        for _, _, part, rate in (row for row in rows if row[:2] == (model, metric)):
            cells = [f"{rate.n_tasks} {part}", *_rate(rate), f"{rate.n_samples}"]
            _add(table, [model, metric, *cells])
    return table


def board_table(entries: Sequence[Any]) -> Table:
    """`leaderboard.Entry`s in percent: rank and name once, then a line per k.

    `~` marks those that cannot be told apart from the first.
    """
    table = Table(box=None, pad_edge=False)
    table.add_column("#", justify="right")
    table.add_column("")
    table.add_column("entry", overflow="fold")
    for name in ("", "%", "95 % interval", "n"):
        side = "right" if name in ("%", "n") else "left"
        table.add_column(name, justify=side, no_wrap=True)
    for entry in entries:
        first = [str(entry.rank), "~" if entry.told_apart is False else "", entry.name]
        n = _span(*entry.n_samples)
        for rate in entry.rates:
            _add(table, [*first, rate.metric, *_rate(rate), n])
            first, n = ["", "", ""], ""
    return table


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
        table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
        table.add_column("", max_width=first, no_wrap=True, overflow="ellipsis")
        for number, _ in block:
            table.add_column(str(number), justify="right")
        for name in names[: names.index(block[-1][1])]:
            _add(table, [shown[name], *(cells.get((name, other), "") for _, other in block)])
        yield table


def situation_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Comparisons by the teacher's situation (rows) and the student's (columns), and those kept."""
    table = Table(box=None, pad_edge=False)
    for name in rows[0]:
        heading = name if name in ("teacher", "kept") else f"student {name}"
        table.add_column(heading, justify="left" if name == "teacher" else "right")
    for row in rows:
        _add(table, [str(value) for value in row.values()])
    return table


def ledger(what: str, total: int, lost: Mapping[str, int], kept_as: str, kept: int) -> Table:
    """in = kept + dropped by reason; ValueError if it does not add up."""
    if total != kept + sum(lost.values()):
        raise ValueError(f"{what}: {total} in, but {kept} kept and {dict(lost)} dropped")
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(justify="right")
    _add(table, [str(total), what])
    for reason, count in lost.items():
        if count:
            _add(table, [f"-{count}", reason])
    _add(table, [str(kept), kept_as])
    return table


def check_out(out: str | None, *inputs: str, option: str = "--out") -> None:
    """ValueError for an output that could not be written, before hours are spent on it."""
    if out is None or out == "-":
        return
    path = Path(out)
    if path.name.removesuffix(".gz").rpartition(".")[2] not in ("jsonl", "parquet"):
        raise ValueError(
            f"{option} {out}: expected a name that ends in .jsonl or .parquet (or .gz)"
        )
    if path.is_dir():
        raise ValueError(f"{option} {out}: is a folder")
    if any(Path(name).exists() and path.exists() and path.samefile(name) for name in inputs):
        raise ValueError(f"{option} {out}: is one of the inputs")
    _check_writable(path.absolute().parents, out, option)


def check_folder(out: Path | None, *, option: str = "--out") -> None:
    """ValueError for a folder that could not be written into, before hours are spent on it."""
    if out is None:
        return
    if out.exists() and not out.is_dir():
        raise ValueError(f"{option} {out}: is a file; expected a folder")
    _check_writable((out, *out.absolute().parents), out, option)


def _check_writable(places: Iterable[Path], out: str | Path, option: str) -> None:
    """ValueError unless the first of `places` that exists is a folder one may write into."""
    nearest = next(place for place in places if place.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        raise ValueError(f"{option} {out}: {nearest} cannot be written to")


def write(out: str, rows: Sequence[Any]) -> None:
    """Records or rows to a file, whole or not at all, or as lines to standard output (`-`)."""
    if out == "-":
        sys.stdout.write(store.encode(rows, ".jsonl").decode())
        return
    path = Path(out)
    if path.suffix == ".gz":
        data = store.encode(rows, Path(path.stem).suffix)
        store.write_bytes(path, gzip.compress(data, mtime=0))
    else:
        store.write(path, rows)


@contextmanager
def progress(what: str) -> Iterator[Callable[[int, int], None] | None]:
    """A bar on standard error while the block runs, where that is a terminal: its tick."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextmanager
def spending(what: str) -> Iterator[Callable[[int, int, int, int, float], None] | None]:
    """Like `progress`, for `endpoint.ask`: with the tokens and the time that went and will go."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    outlook = TextColumn("{task.fields[outlook]}")
    columns = TextColumn(what), BarColumn(), MofNCompleteColumn(), outlook
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None, outlook="")

        def tell(done: int, total: int, tokens: int, to_come: int, seconds: float) -> None:
            text = spent(tokens, to_come, seconds)
            bar.update(task, completed=done, total=total, outlook=text)

        yield tell


def spent(tokens: int, to_come: int, seconds: float) -> str:
    """`'12,300 tokens, about 95,000 and 0:07:30 to come'`; no outlook before there is one."""
    if not to_come and not seconds:
        return f"{tokens:,} tokens"
    return f"{tokens:,} tokens, about {to_come:,} and {timedelta(seconds=round(seconds))} to come"


@contextmanager
def exit_codes(*, interrupted: str = "interrupted; resume with the same command") -> Iterator[None]:
    """Turns what a verb raises into lines on stderr and the exit code that goes with them."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    for library in ("torchao", "torch.utils._pytree"):  # they speak of kernels nobody asked for
        logging.getLogger(library).setLevel(logging.ERROR)
    try:
        yield
    except KeyboardInterrupt:
        _leave(interrupted, 130)
    except (ValueError, FileNotFoundError) as error:
        _leave(f"error: {error}", 2)
    except kernel.StageError as error:
        _leave(f"failed: {error}\nWhat was finished is kept; the same command goes on.", 1)
    except (OSError, FloatingPointError) as error:
        _leave(f"failed: {error}", 1)


def how_to_go_on(folder: Path | None, option: str = "--shards") -> str:
    """What an interrupted verb says of what it saved in `folder`, the value of `option`."""
    if folder:
        return f"interrupted; the same command goes on from {folder}"
    return f"interrupted; nothing is kept (with {option} DIR the same command would go on)"


def _leave(text: str, code: int) -> NoReturn:

    print(f"\n{plain(text)}", file=sys.stderr, flush=True)
    raise typer.Exit(code)
