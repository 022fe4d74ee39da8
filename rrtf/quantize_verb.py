"""The verb `quantize` as the command line sees it; `quantize_command` does the work."""

from pathlib import Path
from typing import Annotated

import typer

from rrtf import config
from rrtf.exits import exit_codes, how_to_go_on
from rrtf.options import ALL_CORES, Asked, Cpu, Data, Draw, Level, Longest, Memory, Workers

STAGE = config.resolve("nano", "quantize")  # what is not given
_MEASURING = "Measuring on --problems"


def quantize(
    model: Annotated[str, typer.Option(metavar="M", help="a folder or a hub name")],
    variant: Annotated[
        list[str],
        typer.Option(
            metavar="V",
            help="ctranslate2-int8, gptq-int8, gptq-int4, auto-gptq-int4, ...; may be repeated",
        ),
    ],
    problems: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|NAME",
            help="a benchmark's name or a file in HumanEval form: also rates, tests, times",
        ),
    ] = None,
    calibration: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="what GPTQ reads: lines with a text, or with prompt and canonical_solution",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="a folder per variant, and go on there")
    ] = None,
    data: Data = None,
    n: Annotated[
        int,
        typer.Option(
            "--n", metavar="N", min=1, help="sampled answers a task", rich_help_panel=_MEASURING
        ),
    ] = STAGE["n_samples"],
    temperature: Annotated[
        float, typer.Option(metavar="T", min=0.01, help="of these", rich_help_panel=_MEASURING)
    ] = STAGE["temperature"],
    top_p: Annotated[
        float,
        typer.Option(metavar="P", min=0.01, max=1.0, help="nucleus", rich_help_panel=_MEASURING),
    ] = STAGE["top_p"],
    prompt_format: Asked = "starcoder",
    max_new_tokens: Longest = None,
    timeout: Annotated[
        float, typer.Option(metavar="S", min=1, help="of one process of a variant")
    ] = 3600.0,
    seed: Draw = STAGE["seed"],
    level: Level = "landlock+seccomp",
    workers: Workers = ALL_CORES,
    cpu_seconds: Cpu = None,
    memory_mb: Memory = 512,
) -> None:
    """Make a model smaller and faster, and measure what that costs: Table 4, completed.

    Every variant is made in a process of its own, asked in another and timed in a third; a model
    whose answers are broken is not timed. A variant that cannot be had is named with those that
    can.
    """
    from rrtf import quantize_command

    with exit_codes(interrupted=how_to_go_on(out, "--out")):
        quantize_command.quantize_model(
            model,
            variant,
            problems=problems,
            calibration=calibration,
            out=out,
            data=data,
            prompt_format=prompt_format,
            max_new_tokens=max_new_tokens,
            sampled=quantize_command.Sampled(n, temperature, top_p),
            timeout=timeout,
            seed=seed,
            level=level,
            workers=workers,
            cpu_seconds=cpu_seconds,
            memory_mb=memory_mb,
        )
