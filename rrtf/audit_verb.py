"""The verb `audit` as the command line sees it; `audit_command` does the work."""

from pathlib import Path
from typing import Annotated

import typer

from rrtf.exits import exit_codes, how_to_go_on
from rrtf.options import ALL_CORES, Data, Level, Out, Shards, Workers

Html = Annotated[
    Path | None,
    typer.Option(metavar="FILE.html", help="tables and the worst pairs side by side, in one file"),
]
Rows = Annotated[
    str,
    typer.Argument(
        metavar="ROWS",
        help="a .jsonl, .json, .parquet (.gz), -, or a data set: a folder or its hub name",
    ),
]
Benchmarks = Annotated[
    str, typer.Option(metavar="NAME,NAME", help="benchmarks by name, or all that are at hand")
]
TextFields = Annotated[
    str | None,
    typer.Option(
        metavar="A,B", help="the fields that hold text", show_default="guessed by names, and said"
    ),
]
Clean = Annotated[str | None, typer.Option(metavar="FILE", help="the rows that stay, as they were")]
Certificate = Annotated[
    Path | None,
    typer.Option(metavar="FILE.json", help="what was checked, how, and what cannot be seen"),
]
Embedding = Annotated[
    str | None,
    typer.Option(
        metavar="MODEL",
        help="a sentence model (hub or folder) for the neighbours",
        show_default="TF-IDF and LSA of the tasks",
    ),
]
Execute = Annotated[
    bool, typer.Option("--execute", help="run the rows' functions on the tasks' tests, fenced in")
]


def audit(
    rows: Rows,
    benchmarks: Benchmarks = "all",
    fields: TextFields = None,
    out: Out = None,
    report: Html = None,
    clean: Clean = None,
    certificate: Certificate = None,
    embedding: Embedding = None,
    data: Data = None,
    execute: Execute = False,
    level: Level = "landlock+seccomp",
    workers: Workers = ALL_CORES,
    shards: Shards = None,
) -> None:
    """Find benchmark tasks in training rows: by text, n-grams, near duplicates, code, execution.

    With --out one line per finding: task_id (of the row), benchmark, benchmark_task_id, detector,
    score, evidence, chance. Without --execute nothing of a row is run.
    """
    from rrtf import audit_command

    saved = how_to_go_on(shards) if execute else "interrupted; nothing was written"
    with exit_codes(interrupted=saved):
        audit_command.audit_rows(
            rows,
            benchmarks=benchmarks,
            fields=fields,
            out=out,
            report=report,
            clean=clean,
            certificate=certificate,
            embedding=embedding,
            data=data,
            execute=execute,
            level=level,
            workers=workers,
            shards=shards,
        )
