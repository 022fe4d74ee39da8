"""The verb `quantize`: a model in, its variants and Table 4 of them out."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rrtf import config, engines, store
from rrtf.cli import inputs, screen
from rrtf.cli.options import Given
from rrtf.evaluate import samples
from rrtf.quantize import table as quantize_table
from rrtf.quantize.jobs import Jobs, calibration, check_variants, measure
from rrtf.quantize.table import Measured
from rrtf.records import Problem

BAD = ("ValueError", "FileNotFoundError", "UnsupportedModel")  # a variant that cannot be had


def quantize(given: Given) -> None:
    """Make a model smaller and faster, and measure what that costs: Table 4, completed.

    Every variant is made in a process of its own, asked in another and timed in a third; a model
    whose answers are broken is not timed. What cannot be had is named with what can.
    """
    config.need("quantize", "torch", "transformers")
    check_variants(given.variants)
    screen.check_folder(given.out)
    screen.check_table(given)
    screen.check_there(given.calibration)
    folder = engines.model_folder(given.model)
    engines.check_weights(folder)
    data = screen.folder(given.data)
    tasks = inputs.load_problems(given.problems, data=data) if given.problems else []
    ask = engines.asker(folder, given.prompt_format)
    texts = calibration(given.calibration, given.variants, ask)
    if seen := sum(any(ask(task) in text for text in texts) for task in tasks):
        told = f"{seen} of {len(tasks)} problems are in {given.calibration}, which GPTQ reads"
        screen.tell(f"note: {told}")
    with screen.kept_in(given.out) as place:
        if tasks:
            measured = _measured(given, folder, tasks, place, texts)
        else:
            jobs = Jobs(folder, place, timeout=given.timeout)
            with screen.progress("quantising") as tick:
                make = partial(jobs.make, calibration=texts)
                measured = jobs.side_by_side(make, given.variants, 1, tick)
            screen.console().print(screen.rows_table(_sizes(measured)))
            screen.write_table(screen.console(), given, _sizes(measured))
    if given.out:
        print(f"{sum(entry.ok for entry in measured)} variants in {given.out}")
    _check_all(measured)


def saved(given: Given) -> str:
    """What an interrupted call says."""
    return screen.goes_on_from(given.out, "--out DIR")


def _measured(
    given: Given, folder: Path, tasks: Sequence[Problem], place: Path, texts: Sequence[str]
) -> list[Measured]:
    """All variants, behind full precision, which they are compared with; prints the tables."""
    longest = given.max_new_tokens or inputs.longest(given.model)
    settings = quantize_table.Settings.of(vars(given) | {"max_new_tokens": longest})
    every = ["full", *(variant for variant in given.variants if variant != "full")]
    how = {"model": folder, "calibration": texts, "folder": place}
    with screen.progress("quantising") as tick:
        found = measure(every, tasks, settings, progress=tick, **how)
    if not found[0].ok:
        raise OSError(f"full: {found[0].status}; there is nothing to compare with")
    answers = [answer for one in found for answer in (*one.greedy, *one.sampled)]
    judge = inputs.judge(given, given.problems)
    with screen.progress("grading") as tick:
        executions = judge(tasks, answers, shards=place / ".shards", progress=tick)
    name = samples.name_of(given.model)
    table = quantize_table.rows(found, executions, tasks, settings, model=name)
    console, times = screen.console(), quantize_table.timing(found)
    counts = f"{table[0].n_tasks} tasks, greedy and {table[0].n_samples} samples each"
    screen.say(console, f"{name}: {counts}")
    shown = (quantize_table.shown, table), (quantize_table.tested, table)
    for lines, of in (*shown, (quantize_table.time_lines, times)):
        if rows := lines(of):
            console.print()
            console.print(screen.rows_table(rows))
    screen.explain(console, f"\n{quantize_table.ran_on(times)}")
    screen.write_table(console, given, quantize_table.shown(table))
    if given.out:
        store.write_json(place / "quantization.json", quantize_table.records(table))
        store.write_json(place / "timing.json", times)
    return found


def _sizes(measured: Sequence[Measured]) -> list[dict[str, Any]]:
    return [
        {"variant": entry.variant, "MB": entry.weight_bytes / 1e6 if entry.ok else None,
         "weights sha256": entry.weights_sha256[:16] or None, "status": entry.status}
        for entry in measured
    ]  # fmt: skip


def _check_all(measured: Sequence[Measured]) -> None:
    """Raises what the failed variants say, as bad input where it is one that cannot be had."""
    failed = [entry for entry in measured if not entry.ok]
    if not failed:
        return
    told = "\n".join(f"{entry.variant}: {entry.status}" for entry in failed)
    unavailable = all(entry.status.removeprefix("failed: ").startswith(BAD) for entry in failed)
    raise ValueError(told) if unavailable else OSError(told)
