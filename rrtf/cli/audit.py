"""The verb `audit`: rows against benchmarks or tasks of a file; tables, a page, a certificate."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from rrtf import benchmarks, execution, store
from rrtf.audit import detectors, running, verdict, views
from rrtf.audit.rows import Row, from_problems, read
from rrtf.benchmarks import catalogue
from rrtf.cli import inputs, screen
from rrtf.cli.options import Given
from rrtf.evaluate import grade, samples
from rrtf.records import Leak, Problem
from rrtf.sandbox import executor


def audit(given: Given) -> None:
    """Find benchmark tasks in training rows: by text, n-grams, near duplicates, code, execution.

    With --out one line per finding: task_id (of the row), benchmark, benchmark_task_id, detector,
    score, evidence, chance. Without --execute nothing of a row is run.
    """
    for name in ("out", "clean", "report", "certificate"):
        ends = () if name in ("report", "certificate") else (".jsonl", ".parquet")
        screen.check_out(getattr(given, name), given.rows, option=f"--{name}", ends=ends)
    screen.check_table(given, given.rows)
    check_names(given.benchmarks)
    material = read(given.rows, given.fields)
    screen.tell(f"fields: {material.fields.told()}")
    problems = load_problems(given.benchmarks, data=screen.folder(given.data))
    tasks = {name: from_problems(members) for name, members in problems.items()}
    if given.execute:
        given.remove_on = [*given.remove_on, detectors.EXECUTION]
    settings = detectors.Settings.of(vars(given))
    embed = detectors.by_name(given.embedding) if given.embedding else None
    executed = run_tests(given, material.rows, problems) if given.execute else None
    with screen.progress("auditing") as tick:
        result = verdict.audit(
            material.rows,
            tasks,
            settings,
            behaviour=None,
            embed=embed,
            executed=executed,
            generic_nodes=verdict.GENERIC_NODES,
            progress=tick,
        )
    named = dict(name=given.rows, embedding=given.embedding)
    paper = views.certify(result, material, tasks, settings, **named)
    console = screen.console(given.out, given.clean)
    _print(console, result, paper)
    screen.write_table(console, given, views.detector_rows(result))
    if given.out:
        screen.write(given.out, views.finding_rows(result))
    if given.clean:
        pairs = zip(material.raw, material.rows, strict=True)
        screen.write(given.clean, [raw for raw, row in pairs if row.task_id not in result.dropped])
    if given.certificate:
        store.write_json(Path(given.certificate), paper)
    if given.report:
        store.write_bytes(Path(given.report), views.page(result, material, tasks, paper).encode())


def saved(given: Given) -> str:
    """What an interrupted call says."""
    return screen.goes_on_from(given.shards) if given.execute else "nothing was written"


def check_names(wanted: Sequence[str]) -> None:
    """ValueError for a benchmark that nobody knows, FileNotFoundError for a file that is not there,
    before rows are read and tasks are made."""
    if not wanted:
        raise ValueError("--benchmarks ',': expected names, as in humaneval,mbpp")
    for name in () if list(wanted) == ["all"] else wanted:
        if not Path(name).suffix:
            catalogue.entry(name)
        elif not grade.is_benchmark(name):
            screen.check_there(name)


def load_problems(wanted: Sequence[str], *, data: Path | None) -> dict[str, list[Problem]]:
    """The tasks of the benchmarks and files named; `all`: of the benchmarks at hand.

    FileNotFoundError for a named one that is not at hand; of `all` what is not at hand is said.
    """
    every = list(wanted) == ["all"]
    found = {}
    for name in catalogue.names() if every else wanted:
        try:
            if grade.is_benchmark(name) or not Path(name).suffix:
                found[name] = benchmarks.load(name, data=data)
            elif (called := samples.name_of(name)) not in found:  # as `evaluate --flagged` asks
                found[called] = inputs.load_problems(name)
            else:
                raise ValueError(f"--benchmarks: two are called {called}; rename a file")
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
    shards, executed = screen.folder(given.shards), []
    how = {"limits": inputs.limits(given), "workers": given.workers}
    judge = partial(execution.execute, cluster="local", shards=shards, **how)
    tried = {"call": partial(executor.call, **how), "judge": judge, "shards": shards}
    for name, members in problems.items():
        with screen.progress(f"running on {name}") as tick:
            executed += running.passes_tests(rows, name, members, progress=tick, **tried)
    return executed


def _print(console: Console, result: verdict.Audit, paper: Mapping[str, Any]) -> None:
    """The table per detector, what leaks of each benchmark, the rule, and what goes."""
    console.print(screen.rows_table(views.detector_rows(result)))
    console.print()
    console.print(screen.rows_table(views.benchmark_rows(result, paper["benchmarks"])))
    told = ", ".join(f"{n} by {name}" for name, n in paper["rows"]["dropped"].items())
    screen.explain(console, f"\n{result.rule}")
    n, dropped = result.n_rows, len(result.dropped)
    by = f" ({told})" * bool(told)
    on = f"removed on {', '.join(result.remove_on)}"
    screen.explain(console, f"{n} rows: {n - dropped} stay, {dropped} go{by}; {on}")
