"""What the commands write: tables on a terminal, a progress bar, lines in a file or on a pipe."""

import gzip
import io
import logging
import os
import signal
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rrtf import config, store
from rrtf.engines import Note
from rrtf.execution import reason_rows
from rrtf.records import Execution
from rrtf.report import kernel

SENTENCE = 30  # characters; what is longer in a column behind the first is no name


def plain(text: str) -> str:
    """`text` without what a terminal would obey: programs choose the names of their exceptions."""
    return "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text)


def console(*outs: str) -> Console:
    """Where tables go: to standard error if standard output takes rows (`-` among `outs`)."""
    return Console(stderr="-" in outs, highlight=False)


def say(console: Console, line: str) -> None:
    """Prints a line as it is: no markup, no colours, no line breaks put in."""
    console.print(Text(plain(line)), soft_wrap=True)


def say_written(console: Console, out: str, what: str) -> None:
    """Names the file that `what` went to, where it is one."""
    if out not in ("", "-"):
        say(console, f"{what} in {out}")


def explain(console: Console, line: str) -> None:
    """Prints a sentence as it is, broken between words where the terminal ends."""
    console.print(Text(plain(line)))


def table(
    heads: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    left: Collection[int] = (0,),
    gap: int = 2,
    whole: Collection[int] = (),
) -> Table:
    """Columns of texts, `gap` apart, those of numbers to the right.

    `left` are the places of the columns of words, `whole` of those that are not broken, unless they
    hold sentences.
    """
    made = Table(box=None, pad_edge=False, padding=(0, 1, 0, gap - 1), show_header=any(heads))
    rows = list(rows)
    long = [n for n in whole if n and any(len(row[n]) > SENTENCE for row in rows)]
    for number, head in enumerate(heads):
        how = {"no_wrap": number in whole, "overflow": "ellipsis" if whole else "fold"}
        if long:  # sentences alone give way, and are broken between words
            how = {"no_wrap": number not in long, "overflow": "fold"}
        made.add_column(Text(plain(head)), justify="left" if number in left else "right", **how)
    for row in rows:
        made.add_row(*(Text(plain(cell)) for cell in row))
    return made


def rows_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Rows of the same columns: numbers to the right, floats with two decimals, None as a dash."""
    first = rows[0] if rows else {}
    kinds = list(enumerate(map(type, first.values())))
    words = [number for number, kind in kinds if kind not in (int, float)]
    texts = [number for number, kind in kinds if kind is str]
    cells = ([_cell(value) for value in row.values()] for row in rows)
    return table(list(first), cells, left=words, whole=texts)


def _cell(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return "-" if value is None else "yes" if value else ""
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def reason_table(executions: Sequence[Execution]) -> Table:
    """Outcome, reason and a count with percent per source, the best outcome first."""
    totals = dict(sorted(Counter(run.source for run in executions).items()))
    heads = [head for source in totals for head in (source or "samples", "%")]

    def cells(counts: Iterable[int]) -> Iterator[str]:
        for count, total in zip(counts, totals.values(), strict=True):
            yield from (str(count), f"{100 * count / total:.1f}")

    rows = [
        [row["outcome"], row["reason"], *cells(row[source] for source in totals)]
        for row in reversed(reason_rows(executions))
    ]
    rows.append(["all", "", *cells(totals.values())])
    return table(["outcome", "reason", *heads], rows, left=(0, 1))


def percent(rate: Any) -> tuple[str, str]:
    """(value, interval) in percent of what has `value`, `low` and `high`."""
    interval = f"{100 * rate.low:.2f} to {100 * rate.high:.2f}" if rate.low == rate.low else "-"
    return f"{100 * rate.value:.2f}", interval


def span(least: int, most: int) -> str:
    """`'3'` or `'3 to 5'`."""
    return f"{least}" if least == most else f"{least} to {most}"


def levels(executions: Sequence[Execution]) -> str:
    """The isolation that programs ran in."""
    return " and ".join(sorted({run.isolation for run in executions}))


def ledger(what: str, total: int, lost: Mapping[str, int], kept_as: str, kept: int) -> Table:
    """in = kept + dropped by reason; ValueError if it does not add up."""
    if total != kept + sum(lost.values()):
        raise ValueError(f"{what}: {total} in, but {kept} kept and {dict(lost)} dropped")
    rows = [(f"-{count}", reason) for reason, count in lost.items() if count]
    return table(["", ""], [(str(total), what), *rows, (str(kept), kept_as)], left=(1,))


def check_out(
    out: str, *inputs: str, option: str = "--out", ends: Sequence[str] = (".jsonl", ".parquet")
) -> None:
    """ValueError for an output that could not be written, before hours are spent on it.

    OSError where a library for it is not installed.

    Its name ends in one of `ends`, or with .gz behind it; in anything where there are none.
    """
    if out in ("", "-"):
        return
    path = Path(out)
    if path.name.removesuffix(".gz").endswith(".parquet"):
        config.need(f"{option} {out}", "pyarrow")
    if ends and not path.name.removesuffix(".gz").endswith(tuple(ends)):
        raise ValueError(f"{option} {out}: expected a name that ends in {' or '.join(ends)}")
    if path.is_dir():
        raise ValueError(f"{option} {out}: is a folder")
    if any(Path(name).exists() and path.exists() and path.samefile(name) for name in inputs):
        raise ValueError(f"{option} {out}: is one of the inputs")
    _check_writable(path.absolute().parents, out, option)


def check_there(*names: str) -> None:
    """FileNotFoundError for a named file or folder that is not there, before tasks are made."""
    for name in names:
        if name not in ("", "-") and not Path(name).exists():
            raise FileNotFoundError(f"{name}: no such file")


def check_folder(out: str, *, option: str = "--out") -> None:
    """ValueError for a folder that could not be written into, before hours are spent on it."""
    if not out:
        return
    if Path(out).exists() and not Path(out).is_dir():
        raise ValueError(f"{option} {out}: is a file; expected a folder")
    _check_writable((Path(out), *Path(out).absolute().parents), out, option)


def _check_writable(places: Iterable[Path], out: str, option: str) -> None:
    """ValueError unless the first of `places` that exists is a folder one may write into."""
    nearest = next(place for place in places if place.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        raise ValueError(f"{option} {out}: {nearest} cannot be written to")


def folder(text: str) -> Path | None:
    """The folder of this name; None for ""."""
    return Path(text) if text else None


@contextmanager
def kept_in(text: str) -> Iterator[Path]:
    """The folder of this name; where there is none, one that goes with the block."""
    if text:
        yield Path(text)
        return
    with tempfile.TemporaryDirectory(prefix="rrtf-") as scratch:
        yield Path(scratch)


def write(out: str, rows: Sequence[Any]) -> None:
    """Records or rows to a file, whole or not at all, or as lines to standard output (`-`)."""
    if out == "-":
        sys.stdout.flush()
        sys.stdout.buffer.write(store.encode(rows, ".jsonl"))  # UTF-8, whatever a terminal takes
        sys.stdout.buffer.flush()
        return
    path = Path(out)
    if path.suffix == ".gz":
        data = store.encode(rows, Path(path.stem).suffix)
        store.write_bytes(path, gzip.compress(data, mtime=0))
    else:
        store.write(path, rows)


def check_table(given: Any, *inputs: str) -> None:
    """`check_out` of --table."""
    ends = (".jsonl", ".parquet", *store.TABLES)
    check_out(given.table, *inputs, option="--table", ends=ends)


def write_table(console: Console, given: Any, rows: Sequence[Any]) -> None:
    """The rows of the printed board into --table, where one is named."""
    if given.table:
        write(given.table, rows)
        say_written(console, given.table, "the table")


@contextmanager
def progress(what: str) -> Iterator[Callable[..., None] | None]:
    """A bar on standard error while the block runs, where that is a terminal: its tick.

    It takes what is done, of how much, and a note to be shown beside it.
    """
    if not sys.stderr.isatty():
        yield None
        return
    from rich import progress as bars

    columns = bars.BarColumn(), bars.MofNCompleteColumn(), bars.TimeRemainingColumn()
    note = bars.TextColumn("{task.fields[note]}")
    with bars.Progress(
        bars.TextColumn(what), *columns, note, console=Console(stderr=True), transient=True
    ) as bar:
        task = bar.add_task(what, total=None, note="")
        yield lambda done, total, note="": bar.update(task, completed=done, total=total, note=note)


@contextmanager
def spending(what: str) -> Iterator[Callable[[int, int, int, int, float], None] | None]:
    """Like `progress`, for `endpoint.ask`: with the tokens and the time that went and will go."""
    with progress(what) as tick:
        yield tick and (lambda done, total, *went: tick(done, total, spent(*went)))


def spent(tokens: int, to_come: int, seconds: float) -> str:
    """`'12,300 tokens, about 95,000 and 0:07:30 to come'`; no outlook before there is one."""
    if not to_come and not seconds:
        return f"{tokens:,} tokens"
    return f"{tokens:,} tokens, about {to_come:,} and {timedelta(seconds=round(seconds))} to come"


@contextmanager
def exit_codes(interrupted: str = "the same command goes on") -> Iterator[None]:
    """Turns what a verb raises into lines on stderr and the exit code that goes with them."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    for stream in (sys.stdout, sys.stderr):  # what cannot be shown is replaced, no work is lost
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    shows = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
        told = issubclass(category, Note)
        tell(f"note: {message}") if told else shows(message, category, *where, **more)

    warnings.showwarning = show
    for library in ("torchao", "torch.utils._pytree"):  # they speak of kernels nobody asked for
        logging.getLogger(library).setLevel(logging.ERROR)
    try:
        yield
    except KeyboardInterrupt:
        _leave(f"interrupted; {interrupted}", 130)
    except (ValueError, FileNotFoundError) as error:
        _leave(f"error: {error}", 2)
    except kernel.StageError as error:
        _leave(f"failed: {error}\nWhat was finished is kept; the same command goes on.", 1)
    except (OSError, FloatingPointError) as error:
        _leave(f"failed: {error}", 1)
    finally:
        warnings.showwarning = shows


def goes_on_from(folder: str, option: str = "--shards") -> str:
    """What an interrupted verb says of what it saved in `folder`, the value of `option`."""
    if folder:
        return f"the same command goes on from {folder}"
    return f"nothing is kept (with {option} the same command would go on)"


def _leave(text: str, code: int) -> NoReturn:
    tell(f"\n{text}")
    raise typer.Exit(code)


def tell(text: str) -> None:
    """A line on standard error."""
    print(plain(text), file=sys.stderr, flush=True)
