"""The verb `audit`: anybody's rows against benchmarks by name; tables, a page, a certificate."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from html import escape
from itertools import islice
from pathlib import Path
from typing import Any

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
from rrtf.cli.options import Given
from rrtf.figures import tables as figures_tables
from rrtf.records import Leak, Problem
from rrtf.sandbox import executor

N_GUESS, N_PAIRS, N_LISTED = 1000, 20, 500
SHOWN = 4000  # characters of one side of a pair
BARE = "tasks without a reference, seen by text only"
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


@dataclass(frozen=True, slots=True)
class Material:
    """Rows as they were read and as the audit sees them, parallel; the benchmarks' tasks."""

    raw: tuple[Mapping[str, Any], ...]
    rows: tuple[Row, ...]
    fields: Fields
    tasks: Mapping[str, Sequence[Row]]


def audit(given: Given) -> None:
    """Find benchmark tasks in training rows: by text, n-grams, near duplicates, code, execution.

    With --out one line per finding: task_id (of the row), benchmark, benchmark_task_id, detector,
    score, evidence, chance. Without --execute nothing of a row is run.
    """
    _check_outputs(given)
    problems = load_problems(given.benchmarks, data=screen.folder(given.data))
    tasks = {name: from_problems(members) for name, members in problems.items()}
    material = read(given.rows, given.fields, tasks)
    screen.tell(f"fields: {material.fields.told()}")
    if given.execute:
        given.remove_on = [*given.remove_on, detectors.EXECUTION]
    settings = detectors.Settings.of(vars(given))
    embed = _embedder(given.embedding) if given.embedding else None
    executed = run_tests(given, material.rows, problems) if given.execute else None
    with screen.progress("auditing") as tick:
        result = verdict.audit(
            material.rows,
            tasks,
            settings,
            behaviour={},
            embed=embed,
            executed=executed,
            generic_nodes=verdict.GENERIC_NODES,
            progress=tick,
        )
    paper = certify(result, material, settings, name=given.rows, embedding=given.embedding)
    console = Console(stderr="-" in (given.out, given.clean), highlight=False)
    _print(console, result, paper)
    if given.out:
        screen.write(given.out, finding_rows(result))
    if given.clean:
        pairs = zip(material.raw, material.rows, strict=True)
        screen.write(given.clean, [raw for raw, row in pairs if row.task_id not in result.dropped])
    if given.certificate:
        store.write_json(Path(given.certificate), paper)
    if given.report:
        store.write_bytes(Path(given.report), page(result, material, paper).encode())


def saved(given: Given) -> str:
    """What an interrupted call says."""
    return screen.goes_on_from(given.shards) if given.execute else "nothing was written"


def _check_outputs(given: Given) -> None:
    """ValueError for one that cannot be written."""
    screen.check_out(given.out, given.rows)
    screen.check_out(given.clean, given.rows, option="--clean")
    for option, text in (("--report", given.report), ("--certificate", given.certificate)):
        place = Path(text)
        if text:
            screen.check_folder(str(place.absolute().parent), option=option)
        if text and place.exists() and Path(given.rows).exists() and place.samefile(given.rows):
            raise ValueError(f"{option} {place}: is the input")


def load_problems(wanted: Sequence[str], *, data: Path | None) -> dict[str, list[Problem]]:
    """The tasks of the benchmarks named; `all`: of those at hand.

    ValueError for an unknown name, FileNotFoundError for a named one that is not at hand; of
    `all` what is not at hand is said.
    """
    if not wanted:
        raise ValueError("--benchmarks ',': expected names, as in humaneval,mbpp")
    every = list(wanted) == ["all"]
    found = {}
    for name in catalogue.names() if every else [catalogue.entry(n).name for n in wanted]:
        try:
            found[name] = benchmarks.load(name, data=data)
        except FileNotFoundError:
            if not every:
                raise
            screen.tell(f"note: {name} is not at hand and is not checked")
        except RuntimeError as error:  # no sandbox to make a benchmark's expected values with
            raise OSError(str(error)) from error
    return found


def run_tests(
    given: Given, rows: Sequence[Row], problems: Mapping[str, Sequence[Problem]]
) -> list[Leak]:
    """The findings of the detector `execution`."""
    shards = screen.folder(given.shards)
    how = {"limits": inputs.limits(given), "workers": given.workers}
    call = partial(executor.call, **how)
    judge = partial(execution.execute, cluster="local", shards=shards, **how)
    executed = []
    for name, members in problems.items():
        with screen.progress(f"running on {name}") as tick:
            executed += running.passes_tests(
                rows, name, members, call=call, judge=judge, shards=shards, progress=tick
            )
    return executed


def read(name: str, fields: Sequence[str], tasks: Mapping[str, Sequence[Row]]) -> Material:
    """The rows of a file or data set, with ids `NAME:line` that stay as long as the file does.

    `fields` are guessed where there are none. ValueError names the file and line of a row that is
    no object, or holds no text in a field; a field that no row has; no rows at all.
    """
    raw = list(store.rows(name))
    for where, row in raw:
        if not isinstance(row, Mapping):
            raise ValueError(f"{where}: expected a JSON object, found {type(row).__name__}")
    if not raw:
        raise ValueError(f"{name}: no rows in it")
    if fields:
        chosen = named_fields(fields)
        known = {field for _, row in raw for field in row}
        for field in (*chosen.question, *chosen.answer):
            if field not in known:
                has = ", ".join(sorted(known))
                raise ValueError(f"{name}: no row has a field {field!r}; they have {has}")
    else:
        chosen = guess_fields((row for _, row in islice(raw, N_GUESS)), where=name)
    stem = "stdin" if name == "-" else Path(name).name.partition(".")[0]
    rows = tuple(
        from_fields(row, task_id=stem + where[len(name) :], fields=chosen, where=where)
        for where, row in raw
    )
    return Material(tuple(row for _, row in raw), rows, chosen, tasks)


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
    settings: detectors.Settings,
    *,
    name: str,
    embedding: str,
) -> dict[str, Any]:
    """What was checked against what, by hashes; detectors, thresholds, rule; what was not seen.

    The hash of rows or tasks is that of what was compared: id, text, code, answer of each.
    """
    path, tasks, rows = Path(name), material.tasks, material.rows
    told = {"embedding": embedding or "TF-IDF and LSA", **asdict(settings)}
    last = {key: told.pop(key) for key in ("remove_on", "seed")}
    told |= {"generic_nodes": verdict.GENERIC_NODES, **last}
    n = settings.substring_words
    return views.certificate(result, tasks, told) | {
        "what": name,
        "fields": material.fields.told(),
        "sha256": {
            **({"file": store.sha256(path)} if path.exists() else {}),
            "rows": _digest(rows),
            **{benchmark: _digest(members) for benchmark, members in tasks.items()},
        },
        "rrtf": config.version(),
        "not seen": {
            "rows without a Python function, seen by text only": sum(
                not row.entry_point for row in rows
            ),
            "rows without any text": sum(not row.whole.strip() for row in rows),
            BARE: {b: sum(not t.code for t in members) for b, members in tasks.items()},
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
        removing = [leak for leak in leaks if leak.detector in result.remove_on]
        leaked = {leak.benchmark_task_id for leak in removing}
        table.append(
            {
                "benchmark": name,
                "tasks": size,
                "leaked": len(leaked),
                "only resembled": len(found - leaked),
                "only by chance": len({leak.benchmark_task_id for leak in chance} - found),
                "rows leaking": len({leak.task_id for leak in removing}),
            }
        )
    return table


def page(result: verdict.Audit, material: Material, paper: Mapping[str, Any]) -> str:
    """The whole audit as one HTML page that needs nothing else: tables, then the worst pairs."""
    matrix = [
        {"": name, **dict(zip(result.detectors, counts, strict=True))}
        for name, counts in zip(result.detectors, views.agreement_matrix(result), strict=True)
    ]
    tables = {
        "By detector": views.detector_rows(result),
        "By benchmark": benchmark_rows(result, paper["benchmarks"]),
        "Pairs that two detectors agree on": matrix,
        "Tasks that leak": views.task_rows(result),
        "Rows that leak": views.row_rows(result),
    }
    found = views.worst_pairs(result, N_PAIRS)
    worst = views.compare(found, material.rows, material.tasks, longest=SHOWN)
    title = escape(f"Leak audit of {paper['what']}")
    told = (
        f"{result.n_rows} rows ({paper['fields']}) against {', '.join(material.tasks)}: "
        f"{len(result.dropped)} rows go, removed on {', '.join(result.remove_on)}."
    )
    parts = [f"<h1>{title}</h1><p>{escape(told)}</p><p>{escape(result.rule)}</p>"]
    for what, rows in tables.items():
        shown = rows[:N_LISTED]
        table = figures_tables.table(shown, digits=2, height=30).data if rows else "<p>None.</p>"
        parts.append(f"<h2>{what}{f': {len(rows)}' * (len(rows) > N_LISTED)}</h2>{table}")
    parts.append(
        f"<h2>The worst pairs</h2><p>Training row on the left, benchmark task on the right; runs "
        f"of four equal words are marked.</p>{figures_tables.side_by_side(worst).data}"
    )
    unseen = {what: n for what, n in paper["not seen"].items() if isinstance(n, int)}
    unseen |= {BARE: sum(paper["not seen"][BARE].values())}
    unseen |= dict.fromkeys(paper["not seen"]["kinds"])
    rows = [{"what": what, "count": count} for what, count in unseen.items()]
    rows = [*views.out_of_sight(result), *rows]
    parts.append(f"<h2>Not seen</h2>{figures_tables.table(rows).data}")
    return _PAGE.format(title=title, body="\n".join(parts))
