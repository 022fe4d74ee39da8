"""What the verb `quantize` does and prints: a model in, its variants and Table 4 of them out."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from rrtf import config, engines, store
from rrtf.cli import inputs, screen
from rrtf.cli.options import ALL_CORES, Asked, Cpu, Data, Draw, Level, Longest, Memory, Workers
from rrtf.cli.screen import exit_codes, how_to_go_on
from rrtf.evaluate import grade
from rrtf.quantize import table as quantize_table
from rrtf.quantize.jobs import Jobs, check_variants, measure, with_reference
from rrtf.quantize.table import Measured, QuantRow, Sampled
from rrtf.records import Problem

STAGE = config.resolve("nano", "quantize")  # what is not given
_MEASURING = "Measuring on --problems"

Model = Annotated[str, typer.Option(metavar="M", help="a folder or a hub name")]
Variants = Annotated[
    list[str],
    typer.Option(
        metavar="V",
        help="ctranslate2-int8, gptq-int8, gptq-int4, auto-gptq-int4, ...; may be repeated",
    ),
]
MeasuredOption = Annotated[
    str | None,
    typer.Option(
        metavar="FILE|NAME",
        help="a benchmark's name or a file in HumanEval form: also rates, tests, times, memory",
    ),
]
Calibration = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="what GPTQ reads: lines with a text, or with prompt and canonical_solution",
    ),
]
Folder = Annotated[
    Path | None, typer.Option(metavar="DIR", help="a folder per variant, and go on there")
]
Timeout = Annotated[float, typer.Option(metavar="S", min=1, help="of one process of a variant")]
Number = Annotated[
    int,
    typer.Option("--n", metavar="N", min=1, help="sampled answers", rich_help_panel=_MEASURING),
]
Temperature = Annotated[
    float, typer.Option(metavar="T", min=0.01, help="of these", rich_help_panel=_MEASURING)
]
Nucleus = Annotated[
    float, typer.Option(metavar="P", min=0.01, max=1, help="nucleus", rich_help_panel=_MEASURING)
]


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
    check_variants(variants)
    screen.check_folder(out)
    folder = engines.model_folder(model)
    tasks = inputs.load_problems(problems, data=data) if problems else []
    ask = {"model": folder, "prompt_format": prompt_format}
    texts = calibration_of(calibration, variants, tasks, **ask)
    with _kept(out) as place:
        if tasks:
            ask |= {"max_new_tokens": max_new_tokens or _longest(model), "sampled": sampled}
            ask |= {"timeout": timeout, "seed": seed, "workers": options["workers"]}
            measured = _measured(tasks, variants, place, texts, **ask)
            use = {name: options[name] for name in ("cpu_seconds", "memory_mb")}
            use |= {"wall_seconds": None, "isolation": options["level"]}
            limits = {"limits": grade.limits(problems or "", **use)}
            limits |= {"workers": options["workers"], "cluster": "local"}
            table = _graded(measured, tasks, place, inputs.name_of(model), sampled, seed, limits)
            _show(table, measured, out)
        else:
            measured = _made(Jobs(folder, place, timeout=timeout), variants, texts)
    if out:
        print(f"{sum(entry.ok for entry in measured)} variants in {out}")
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
    ask = engines.asker(model, prompt_format)
    texts = [_text(row, f"{name}:{number}", ask) for number, row in store.read_rows(Path(name))]
    if not texts:
        raise ValueError(f"{name}: no lines to calibrate on")
    seen = sum(any(ask(task) in text for text in texts) for task in tasks)
    if seen:
        inputs.tell(f"note: {seen} of {len(tasks)} problems are in {name}, which GPTQ reads")
    return texts


def _text(row: Any, where: str, ask: engines.Asker) -> str:
    if isinstance(row, Mapping) and isinstance(row.get("text"), str) and row["text"].strip():
        return row["text"]
    try:
        problem = store.from_row({"task_id": "", "entry_point": "", "tests": "", **row}, Problem)
    except (TypeError, ValueError):
        problem = None
    if problem is None or not isinstance(problem.prompt, str) or not problem.prompt.strip():
        raise ValueError(f"{where}: expected a text, or prompt and canonical_solution")
    return with_reference(problem, ask)


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


def _made(jobs: Jobs, variants: Sequence[str], texts: Sequence[str]) -> list[Measured]:
    """All variants, made and not measured; prints what they weigh."""
    with screen.progress("quantising") as tick:
        found = jobs.side_by_side(lambda name: jobs.make(name, texts), variants, 1, tick)
    Console(highlight=False).print(screen.rows_table(_sizes(found)))
    return found


def _measured(
    tasks: Sequence[Problem],
    variants: Sequence[str],
    place: Path,
    texts: Sequence[str],
    **how: Any,
) -> list[Measured]:
    """All variants, behind full precision, which they are compared with."""
    everything = ["full", *(variant for variant in variants if variant != "full")]
    stage = {name: STAGE[name] for name in ("batch_sizes", "repetitions", "nll_margin")}
    with screen.progress("quantising") as tick:
        found = measure(
            everything, tasks, calibration=texts, folder=place, progress=tick, **stage, **how
        )
    if not found[0].ok:
        raise OSError(f"full: {found[0].status}; there is nothing to compare with")
    return found


def _graded(
    measured: Sequence[Measured],
    tasks: Sequence[Problem],
    place: Path,
    name: str,
    sampled: Sampled,
    seed: int,
    limits: Mapping[str, Any],
) -> list[QuantRow]:
    answers = [answer for one in measured for answer in (*one.greedy, *one.sampled)]
    with screen.progress("grading") as tick:
        shards = place / ".shards"
        executions = grade.execute(tasks, answers, shards=shards, progress=tick, **limits)
    return quantize_table.rows(measured, executions, tasks, model=name, sampled=sampled, seed=seed)


def _show(table: Sequence[QuantRow], measured: Sequence[Measured], out: Path | None) -> None:
    """Prints the tables, and keeps the rows where there is an `out`."""
    console, times = Console(highlight=False), quantize_table.timing(measured)
    name, tasks, n = table[0].model, table[0].n_tasks, table[0].n_samples
    screen.say(console, f"{name}: {tasks} tasks, greedy and {n} samples each")
    for rows in (
        quantize_table.shown(table),
        quantize_table.tested(table),
        quantize_table.time_lines(times),
    ):
        if rows:
            console.print()
            console.print(screen.rows_table(rows))
    screen.explain(console, f"\n{quantize_table.ran_on(times)}")
    if out:
        store.write_json(out / "quantization.json", quantize_table.records(table))
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


def quantize(
    model: Model,
    variant: Variants,
    problems: MeasuredOption = None,
    calibration: Calibration = None,
    out: Folder = None,
    data: Data = None,
    n: Number = STAGE["n_samples"],
    temperature: Temperature = STAGE["temperature"],
    top_p: Nucleus = STAGE["top_p"],
    prompt_format: Asked = "starcoder",
    max_new_tokens: Longest = None,
    timeout: Timeout = 3600.0,
    seed: Draw = STAGE["seed"],
    level: Level = "landlock+seccomp",
    workers: Workers = ALL_CORES,
    cpu_seconds: Cpu = None,
    memory_mb: Memory = 512,
) -> None:
    """Make a model smaller and faster, and measure what that costs: Table 4, completed.

    Every variant is made in a process of its own, asked in another and timed in a third; a model
    whose answers are broken is not timed. What cannot be had is named with what can.
    """
    from rrtf.quantize import table

    execution = {"level": level, "workers": workers, "cpu_seconds": cpu_seconds}
    with exit_codes(interrupted=how_to_go_on(out, "--out")):
        quantize_model(
            model,
            variant,
            problems=problems,
            calibration=calibration,
            out=out,
            data=data,
            prompt_format=prompt_format,
            max_new_tokens=max_new_tokens,
            sampled=table.Sampled(n, temperature, top_p),
            timeout=timeout,
            seed=seed,
            memory_mb=memory_mb,
            **execution,
        )
