"""The options of the verb `quantize`: types, ranges, help, and what is not given."""

from pathlib import Path
from typing import Annotated

import typer

from rrtf import config

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
Measured = Annotated[
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
