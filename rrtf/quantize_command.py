"""What the verb `quantize` does and prints: a model in, its variants and Table 4 of them out."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

from rrtf import arguments, asking, config, engines, grade, quantize, store, terminal
from rrtf.quantize import Jobs, Measured, Sampled
from rrtf.records import Problem

STAGE = config.resolve("nano", "quantize")  # what is not given
BAD = ("ValueError", "FileNotFoundError", "UnsupportedModel")  # a variant that cannot be had


def quantize_model(
    model: str,
    variants: Sequence[str],
    *,
    problems: str | None = None,
    calibration: str | None = None,
    out: Path | None = None,
    data: Path | None = None,
    prompt_format: str,
    max_new_tokens: int | None,
    sampled: Sampled,
    timeout: float,
    seed: int,
    **options: Any,
) -> None:
    """The verb `quantize`: every variant as a folder in `out`, and a table of them.

    Without `problems` that is sizes and hashes; with them also likelihood, rates, tests against
    full precision, times and memory. `options` are those of `execution.execute`. ValueError and
    FileNotFoundError for what a caller can get wrong, before anything is made where that shows;
    OSError where a variant could not be made or measured for another reason.
    """
    quantize.check_variants(variants)
    terminal.check_folder(out)
    folder = engines.model_folder(model)
    tasks = arguments.load_problems(problems, data=data) if problems else []
    ask = {"model": folder, "prompt_format": prompt_format}
    texts = calibration_of(calibration, variants, tasks, **ask)
    console = Console(highlight=False)
    with _kept(out) as place:
        if tasks:
            if max_new_tokens is None:
                max_new_tokens = _longest(model)
            measured = _measured(
                tasks, variants, place, texts, sampled, timeout=timeout, seed=seed,
                max_new_tokens=max_new_tokens, workers=options["workers"], **ask,
            )  # fmt: skip
            _report(console, measured, tasks, arguments.name_of(model), sampled, seed, out, {
                **grade.limits(problems or "", options)
            })  # fmt: skip
        else:
            jobs = Jobs(folder, place, timeout=timeout)
            with terminal.progress("quantising") as tick:
                measured = jobs.side_by_side(
                    lambda variant: jobs.make(variant, texts), variants, 1, tick
                )
            console.print(terminal.rows_table(_sizes(measured)))
    if out:
        terminal.say(console, f"{sum(entry.ok for entry in measured)} variants in {out}")
    _check_all(measured)


def calibration_of(
    name: str | None,
    variants: Sequence[str],
    tasks: Sequence[Problem],
    *,
    model: Path,
    prompt_format: str,
) -> list[str]:
    """The texts GPTQ reads: of lines with a `text`, or of problems with their references.

    ValueError where a variant needs them and there are none, and for a line that is neither.
    """
    needed = [variant for variant in variants if "gptq" in variant]
    if name is None:
        if needed:
            raise ValueError(
                f"{needed[0]} needs --calibration FILE: lines with a text, or with prompt and "
                "canonical_solution, of problems that it will not be evaluated on; "
                "ctranslate2-int8 needs none"
            )
        return []
    ask = asking.asker(model, prompt_format)
    texts = [_text(row, f"{name}:{number}", ask) for number, row in store.read_rows(Path(name))]
    if not texts:
        raise ValueError(f"{name}: no lines to calibrate on")
    seen = sum(any(ask(task) in text for text in texts) for task in tasks)
    if seen:
        arguments.tell(f"note: {seen} of {len(tasks)} problems are in {name}, which GPTQ reads")
    return texts


def _text(row: Any, where: str, ask: asking.Asker) -> str:
    if isinstance(row, Mapping) and isinstance(row.get("text"), str) and row["text"].strip():
        return row["text"]
    try:
        problem = store.from_row({"task_id": "", "entry_point": "", "tests": "", **row}, Problem)
    except (TypeError, ValueError):
        problem = None
    if problem is None or not isinstance(problem.prompt, str) or not problem.prompt.strip():
        raise ValueError(f"{where}: expected a text, or prompt and canonical_solution")
    return quantize.with_reference(problem, ask)


def _longest(model: str) -> int:
    """Tokens of an answer where nobody says: what the nano profile gives the shipped models."""
    ships = model.startswith("nano-") and not Path(model).exists()
    return STAGE["max_new_tokens"] if ships else 512


@contextmanager
def _kept(out: Path | None) -> Iterator[Path]:
    if out:
        yield out
        return
    with tempfile.TemporaryDirectory(prefix="rrtf-") as scratch:
        yield Path(scratch)


def _measured(
    tasks: Sequence[Problem],
    variants: Sequence[str],
    place: Path,
    texts: Sequence[str],
    sampled: Sampled,
    **how: Any,
) -> list[Measured]:
    """All variants, full precision in front, which the others are compared with."""
    everything = ["full", *(variant for variant in variants if variant != "full")]
    stage = {name: STAGE[name] for name in ("batch_sizes", "repetitions", "nll_margin")}
    with terminal.progress("quantising") as tick:
        return quantize.measure(
            everything, tasks, calibration=texts, folder=place, sampled=sampled,
            progress=tick, **stage, **how,
        )  # fmt: skip


def _report(
    console: Console,
    measured: Sequence[Measured],
    tasks: Sequence[Problem],
    name: str,
    sampled: Sampled,
    seed: int,
    out: Path | None,
    options: Mapping[str, Any],
) -> None:
    """Grades the answers, prints the tables, and keeps the rows where there is an `out`."""
    answers = [answer for one in measured for answer in (*one.greedy, *one.sampled)]
    if not measured[0].ok:
        raise OSError(f"{measured[0].variant}: {measured[0].status}; nothing to compare with")
    if out:
        options = {**options, "shards": out / ".shards"}
    with terminal.progress("grading") as tick:
        executions = grade.execute(tasks, answers, progress=tick, **options)
    table = quantize.rows(measured, executions, tasks, model=name, sampled=sampled, seed=seed)
    times = quantize.timing(measured)
    terminal.say(console, f"{name}, {len(tasks)} tasks, {sampled.n} samples each\n")
    for rows in (quantize.shown(table), quantize.tested(table), quantize.time_lines(times)):
        if rows:
            console.print(terminal.rows_table(rows))
            console.print()
    terminal.explain(console, quantize.ran_on(times))
    if out:
        store.write_json(out / "quantization.json", quantize.records(table))
        store.write_json(out / "timing.json", times)


def _sizes(measured: Sequence[Measured]) -> list[dict[str, Any]]:
    return [
        {
            "variant": entry.variant,
            "MB": entry.weight_bytes / 1e6 if entry.ok else None,
            "weights sha256": entry.weights_sha256[:16] or None,
            "status": entry.status,
        }
        for entry in measured
    ]


def _check_all(measured: Sequence[Measured]) -> None:
    """Raises what the failed variants say, as bad input where it is one that cannot be had."""
    failed = [entry for entry in measured if not entry.ok]
    if not failed:
        return
    told = "\n".join(f"{entry.variant}: {entry.status}" for entry in failed)
    unavailable = all(entry.status.removeprefix("failed: ").startswith(BAD) for entry in failed)
    raise ValueError(told) if unavailable else OSError(told)
