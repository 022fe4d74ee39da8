"""The verb `audit` as the command line sees it; `audit_command` does the work."""

from pathlib import Path
from typing import Annotated

import typer

from rrtf.exits import exit_codes
from rrtf.options import Data, Out

Html = Annotated[
    Path | None,
    typer.Option(metavar="FILE.html", help="tables and the worst pairs side by side, in one file"),
]


def audit(
    rows: Annotated[
        str,
        typer.Argument(
            metavar="ROWS",
            help="a file (.jsonl, .json, .parquet, .gz), -, or a data set: a folder or its hub name",
        ),
    ],
    benchmarks: Annotated[
        str,
        typer.Option(metavar="NAME,NAME", help="benchmarks by name, or all that are at hand"),
    ] = "all",
    fields: Annotated[
        str | None,
        typer.Option(
            metavar="A,B",
            help="the fields that hold text",
            show_default="guessed by their names, and said",
        ),
    ] = None,
    out: Out = None,
    report: Html = None,
    clean: Annotated[
        str | None, typer.Option(metavar="FILE", help="the rows that stay, as they were")
    ] = None,
    certificate: Annotated[
        Path | None,
        typer.Option(metavar="FILE.json", help="what was checked, how, and what cannot be seen"),
    ] = None,
    embedding: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="a sentence model (hub or folder) for the neighbours",
            show_default="TF-IDF and LSA of the tasks",
        ),
    ] = None,
    data: Data = None,
) -> None:
    """Find benchmark tasks in training rows: by text, n-grams, near duplicates, code, neighbours.

    With --out one line per finding: task_id (of the row), benchmark, benchmark_task_id, detector,
    score, evidence, chance. Nothing of a row is run.
    """
    from rrtf import audit_command

    with exit_codes():
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
        )
