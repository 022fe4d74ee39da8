"""PROBLEMS and SAMPLES of a command: read, checked against each other, and what they leave out."""

import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rrtf import forms, prompts, samples, store, terminal
from rrtf.evaluate import grade
from rrtf.records import Problem

SHOWN = 5  # task ids in a message


def load_problems(
    name: str, *, data: Path | None = None, since: str | None = None, **accepted
) -> list[Problem]:
    """`grade.load_problems`; what the benchmark leaves out is said on standard error."""
    tasks = grade.load_problems(name, data=data, since=since, **accepted)
    for note in grade.refusals(name, data=data, **accepted):
        tell(f"note: {note}")
    return tasks


def load(
    problems: str, lines: str, *, chosen: Mapping[str, Any] | None = None, **options
) -> tuple[list[Problem], list[samples.Sample], dict[str, int]]:
    """(problems, samples, lines left out) of one file of samples.

    `chosen` are options of `load_problems`, `options` those of `load_samples`.
    """
    if problems == "-" and lines == "-":
        raise ValueError("only one of the two can be standard input (-)")
    tasks = load_problems(problems, **chosen or {})
    return tasks, *load_samples(lines, tasks, **options)


def load_samples(
    lines: str,
    tasks: Sequence[Problem],
    *,
    extract: str = "auto",
    renamed: Sequence[str] | None = None,
    beside: str | None = None,
    **options,
) -> tuple[list[samples.Sample], dict[str, int]]:
    """(samples, lines left out by unknown task) of a file or folder, or of standard input (`-`).

    `renamed` holds texts THEIRS=OURS, `beside` names a file of their verdicts; `options` and
    errors as `samples.parse`, besides ValueError for what is asked for in another form.
    """
    check_extraction(extract)
    names = renames(renamed or ())
    rows = forms.rows(lines, tasks)
    if beside:
        said = store.read_rows(Path(beside))
        rows = iter(samples.with_verdicts(rows, said, file=lines, verdict_file=beside))
    return samples.parse(rows, tasks, file=lines, extract=extract, renamed=names, **options)


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
    file: str, found: Sequence[samples.Sample], tasks: Sequence[Problem], *, allow_missing: bool
) -> dict[str, list[str]]:
    """The tasks without a sample, by source; ValueError that names them unless they may lack."""
    absent = samples.missing(found, tasks)
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


def left_out(unknown: Mapping[str, int]) -> str:
    """What `--allow-unknown` cost, as a line."""
    lines, names = sum(unknown.values()), some(list(unknown))
    return f"left out: {lines} lines of {len(unknown)} tasks that are no problems here ({names})"


def some(names: Sequence[str]) -> str:
    """The first few names."""
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")


def tell(text: str) -> None:
    """A line on standard error."""
    print(terminal.plain(text), file=sys.stderr, flush=True)
