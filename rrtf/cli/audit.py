"""The verb `audit`: anybody's rows against benchmarks by name; tables, a page, a certificate."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from html import escape
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from rrtf import benchmarks, config, execution, store
from rrtf.audit import detectors, running, verdict, views
from rrtf.audit.rows import (
    Corpus,
    Fields,
    Row,
    from_fields,
    from_problems,
    guess_fields,
    named_fields,
)
from rrtf.benchmarks import catalogue
from rrtf.cli import inputs, screen
from rrtf.cli.options import ALL_CORES, Data, Level, Out, Shards, Workers
from rrtf.cli.screen import exit_codes, how_to_go_on
from rrtf.evaluate import grade
from rrtf.figures import tables as figures_tables
from rrtf.records import Leak, Problem
from rrtf.sandbox import executor

# These find nothing between benchmarks that different people wrote, but for generic code, at these
# thresholds (tests/benchmarks/audit.txt). Near code does, and neighbours almost: they are reported.
REMOVE = (
    "exact text", "normalised text", "code", "exact substring", "normalised substring",
    "5-gram", "8-gram", "13-gram", "minhash text",
)  # fmt: skip
DETECTORS = {
    "substring_words": 8,
    "ngram_sizes": (5, 8, 13),
    "ngram_share": 0.6,
    "minhash_threshold": 0.6,
    "minhash_permutations": 128,
    "shingle": 3,
    "embedding_threshold": 0.85,
    "generic_nodes": verdict.GENERIC_NODES,
    "remove_on": REMOVE,
    "seed": 1,
}
N_GUESS, N_PAIRS, N_LISTED = 1000, 20, 500
SHOWN = 4000  # characters of one side of a pair


@dataclass(frozen=True, slots=True)
class Material:
    """Rows as they were read and as the audit sees them; parallel."""

    raw: tuple[Mapping[str, Any], ...]
    rows: tuple[Row, ...]
    fields: Fields


def audit_rows(
    name: str,
    *,
    benchmarks: str,
    fields: str | None = None,
    out: str | None = None,
    report: Path | None = None,
    clean: str | None = None,
    certificate: Path | None = None,
    embedding: str | None = None,
    data: Path | None = None,
    execute: bool = False,
    **fences: Any,
) -> None:
    """The verb `audit`; with `execute` the rows' functions run within `fences` (see `run_tests`).

    ValueError and FileNotFoundError before anything is compared for what a caller can get wrong;
    files are written at the end, each whole or not at all.
    """
    screen.check_out(out, name)
    screen.check_out(clean, name, option="--clean")
    for option, place in (("--report", report), ("--certificate", certificate)):
        if place:
            screen.check_folder(place.absolute().parent, option=option)
        if place and place.exists() and Path(name).exists() and place.samefile(name):
            raise ValueError(f"{option} {place}: is the input")
    problems = load_problems(benchmarks, data=data)
    tasks = {benchmark: from_problems(members) for benchmark, members in problems.items()}
    material = read(name, fields)
    inputs.tell(f"fields: {material.fields.told()}")
    remove = (*REMOVE, detectors.EXECUTION) if execute else REMOVE
    settings = detectors.Settings.of(DETECTORS | {"remove_on": remove})
    embed = _embedder(embedding) if embedding else None
    executed = run_tests(material.rows, problems, **fences) if execute else None
    with screen.progress("auditing") as tick:
        result = verdict.audit(
            material.rows,
            tasks,
            settings,
            behaviour={},
            embed=embed,
            executed=executed,
            generic_nodes=DETECTORS["generic_nodes"],
            progress=tick,
        )
    paper = certify(result, material, tasks, name=name, embedding=embedding)
    _print(Console(stderr="-" in (out, clean), highlight=False), result, paper)
    if out:
        screen.write(out, finding_rows(result))
    if clean:
        pairs = zip(material.raw, material.rows, strict=True)
        screen.write(clean, [raw for raw, row in pairs if row.task_id not in result.dropped])
    if certificate:
        store.write_json(certificate, paper)
    if report:
        store.write_bytes(report, page(result, material, tasks, paper).encode())


def load_problems(names: str, *, data: Path | None) -> dict[str, list[Problem]]:
    """The tasks of the benchmarks named, separated by commas; `all`: of those at hand.

    ValueError for an unknown name, FileNotFoundError for a named one that is not at hand; of
    `all` what is not at hand is said.
    """
    wanted = [word.strip() for word in names.split(",") if word.strip()]
    if not wanted:
        raise ValueError(f"--benchmarks {names!r}: expected names, as in humaneval,mbpp")
    every = wanted == ["all"]
    found = {}
    for name in catalogue.names() if every else [catalogue.entry(n).name for n in wanted]:
        try:
            found[name] = benchmarks.load(name, data=data)
        except FileNotFoundError:
            if not every:
                raise
            inputs.tell(f"note: {name} is not at hand and is not checked")
        except RuntimeError as error:  # no sandbox to make a benchmark's expected values with
            raise OSError(str(error)) from error
    return found


def run_tests(
    rows: Sequence[Row],
    problems: Mapping[str, Sequence[Problem]],
    *,
    level: str,
    workers: int,
    shards: Path | None = None,
) -> list[Leak]:
    """The findings of the detector `execution`.

    `level` and `workers` as in `executor.call`; with `shards` an interrupted run goes on.
    """
    limits = grade.limits("", cpu_seconds=None, wall_seconds=None, memory_mb=512, isolation=level)
    call = partial(executor.call, limits=limits, workers=workers)
    judge = partial(
        execution.execute, limits=limits, workers=workers, cluster="local", shards=shards
    )
    executed = []
    for name, members in problems.items():
        with screen.progress(f"running on {name}") as tick:
            how = {"call": call, "judge": judge, "shards": shards, "progress": tick}
            executed += running.passes_tests(rows, name, members, **how)
    return executed


def read(name: str, fields: str | None = None) -> Material:
    """The rows of a file or data set, with ids `NAME:line` that stay as long as the file does.

    `fields` are names separated by commas, guessed otherwise. ValueError names the file and line of
    a row that is no object, or holds no text in a field; a field that no row has; no rows at all.
    """
    raw = list(store.rows(name))
    for where, row in raw:
        if not isinstance(row, Mapping):
            raise ValueError(f"{where}: expected a JSON object, found {type(row).__name__}")
    if not raw:
        raise ValueError(f"{name}: no rows in it")
    if fields:
        chosen = named_fields([word.strip() for word in fields.split(",") if word.strip()])
        known = {field for _, row in raw for field in row}
        for field in (*chosen.question, *chosen.answer):
            if field not in known:
                has = ", ".join(sorted(known))
                raise ValueError(f"{name}: no row has a field {field!r}; they have {has}")
    else:
        chosen = guess_fields((row for _, row in islice(raw, N_GUESS)), where=name)
    stem = "stdin" if name == "-" else Path(name).name.partition(".")[0]
    rows = [
        from_fields(row, task_id=stem + where[len(name) :], fields=chosen, where=where)
        for where, row in raw
    ]
    return Material(tuple(row for _, row in raw), tuple(rows), chosen)


def _embedder(model: str) -> Any:
    try:
        return detectors.by_name(model)
    except ImportError as error:
        raise ValueError(str(error)) from error


def finding_rows(result: verdict.Audit) -> list[dict[str, Any]]:
    """A line per finding: the leak, and whether the rule takes it for chance."""
    sides = ((result.leaks, False), (result.collisions, True))
    return [store.to_row(leak) | {"chance": chance} for leaks, chance in sides for leak in leaks]


def certify(
    result: verdict.Audit,
    material: Material,
    tasks: Mapping[str, Sequence[Row]],
    *,
    name: str,
    embedding: str | None = None,
) -> dict[str, Any]:
    """What was checked against what, by hashes; detectors, thresholds, rule; what was not seen.

    The hash of rows or tasks is that of what was compared: id, text, code, answer of each.
    """
    path = Path(name)
    settings = {"embedding": embedding or "TF-IDF and LSA", **DETECTORS, "remove_on": None}
    settings |= {"remove_on": list(result.remove_on)}
    no_code = [row.task_id for row in material.rows if not row.entry_point]
    empty = [row.task_id for row in material.rows if not row.whole.strip()]
    n = DETECTORS["substring_words"]
    bare = {b: [t.task_id for t in members if not t.code] for b, members in tasks.items()}
    return views.certificate(result, tasks, settings) | {
        "what": name,
        "fields": material.fields.told(),
        "sha256": {
            **({"file": store.sha256(path)} if path.exists() else {}),
            "rows": _digest(material.rows),
            **{benchmark: _digest(members) for benchmark, members in tasks.items()},
        },
        "rrtf": config.version(),
        "not seen": {
            "rows without a Python function, seen by text only": len(no_code),
            "rows without any text": len(empty),
            "tasks without a reference, seen by text only": {k: len(v) for k, v in bare.items()},
            f"descriptions of fewer than {n} words, which no substring finds": sum(
                len(Corpus([t]).words[0]) < n for members in tasks.values() for t in members
            ),
            "kinds": [
                "a task told in other words or another language and solved in another way"
                + ("" if "execution" in result.detectors else " (its tests were not run)"),
                "what the models saw in their own pre-training",
            ],
        },
    }


def _digest(rows: Sequence[Row]) -> str:
    return hashlib.sha256(store.encode(rows, ".jsonl")).hexdigest()


def _print(console: Console, result: verdict.Audit, paper: Mapping[str, Any]) -> None:
    """The table per detector, what leaks of each benchmark, the rule, and what goes."""
    console.print(screen.rows_table(views.detector_rows(result)))
    console.print()
    console.print(screen.rows_table(benchmark_rows(result, paper["benchmarks"])))
    told = ", ".join(f"{n} by {name}" for name, n in paper["rows"]["dropped"].items())
    screen.explain(console, f"\n{result.rule}")
    dropped = len(result.dropped)
    screen.explain(
        console,
        f"{result.n_rows} rows: {result.n_rows - dropped} stay, {dropped} go"
        f"{f' ({told})' * bool(told)}; removed on {', '.join(result.remove_on)}",
    )


def benchmark_rows(result: verdict.Audit, sizes: Mapping[str, int]) -> list[dict[str, Any]]:
    """A table row per benchmark: its tasks, and how many of them leak.

    `leaked` are those that a detector of `remove_on` found, `only resembled` those that others
    did; `only by chance` met none but collisions.
    """
    table = []
    for name, size in sizes.items():
        leaks, chance = (
            [leak for leak in side if leak.benchmark == name]
            for side in (result.leaks, result.collisions)
        )
        found = {leak.benchmark_task_id for leak in leaks}
        removing = {k.benchmark_task_id for k in leaks if k.detector in result.remove_on}
        table.append(
            {
                "benchmark": name,
                "tasks": size,
                "leaked": len(removing),
                "only resembled": len(found - removing),
                "only by chance": len({leak.benchmark_task_id for leak in chance} - found),
                "rows leaking": len({k.task_id for k in leaks if k.detector in result.remove_on}),
            }
        )
    return table


def page(
    result: verdict.Audit,
    material: Material,
    tasks: Mapping[str, Sequence[Row]],
    paper: Mapping[str, Any],
) -> str:
    """The whole audit as one HTML page that needs nothing else: tables, then the worst pairs."""
    sizes = {benchmark: len(members) for benchmark, members in tasks.items()}
    matrix = [
        {"": name, **dict(zip(result.detectors, counts, strict=True))}
        for name, counts in zip(result.detectors, views.agreement_matrix(result), strict=True)
    ]
    tables = [
        ("By detector", views.detector_rows(result)),
        ("By benchmark", benchmark_rows(result, sizes)),
        ("Pairs that two detectors agree on", matrix),
        ("Tasks that leak", views.task_rows(result)),
        ("Rows that leak", views.row_rows(result)),
    ]
    shown = [(f"{what}: {len(rows)}" if len(rows) > N_LISTED else what, rows[:N_LISTED])
             for what, rows in tables]  # fmt: skip
    worst = views.compare(views.worst_pairs(result, N_PAIRS), material.rows, tasks, longest=SHOWN)
    title = f"Leak audit of {paper['what']}"
    told = (
        f"{result.n_rows} rows ({paper['fields']}) against {', '.join(tasks)}: "
        f"{len(result.dropped)} rows go, removed on {', '.join(result.remove_on)}."
    )
    parts = [f"<h1>{escape(title)}</h1><p>{escape(told)}</p><p>{escape(result.rule)}</p>"]
    for what, rows in shown:
        table = figures_tables.table(rows, digits=2, height=30).data if rows else "<p>None.</p>"
        parts.append(f"<h2>{escape(what)}</h2>{table}")
    parts.append(
        f"<h2>The worst pairs</h2><p>Training row on the left, benchmark task on the right; runs "
        f"of four equal words are marked.</p>{figures_tables.side_by_side(worst).data}"
    )
    parts.append(f"<h2>Not seen</h2>{figures_tables.table(_not_seen(result, paper)).data}")
    return _PAGE.format(title=escape(title), body="\n".join(parts))


def _not_seen(result: verdict.Audit, paper: Mapping[str, Any]) -> list[dict[str, Any]]:
    counts = {k: v for k, v in paper["not seen"].items() if isinstance(v, int)}
    bare = paper["not seen"]["tasks without a reference, seen by text only"]
    counts["tasks without a reference, seen by text only"] = sum(bare.values())
    table = [{"what": what, "count": count} for what, count in counts.items()]
    kinds = [{"what": what, "count": None} for what in paper["not seen"]["kinds"]]
    return [*views.out_of_sight(result), *table, *kinds]


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width">
<style>body{{font:15px/1.5 system-ui,sans-serif;max-width:76em;margin:2em auto;padding:0 1em;
color:#222}}h1{{font-size:1.5em}}h2{{font-size:1.15em;margin-top:2em}}
.rrtf-table{{width:auto}}</style></head>
<body>
{body}
</body></html>
"""


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

    saved = how_to_go_on(shards) if execute else "interrupted; nothing was written"
    with exit_codes(interrupted=saved):
        audit_rows(
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
