"""The options of the verb `plan`: types, ranges and help."""

from typing import Annotated

import typer

_DEVICES = "Devices"  # panels of the help
_WORK = "Amount of work"

Out = Annotated[
    str | None, typer.Option(metavar="FILE", help="also write the plan as JSON: a .json file, or -")
]
Device = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="of data/devices.toml: cpu, rtx4090, a100, h100, h200",
        show_default="the profile's",
        rich_help_panel=_DEVICES,
    ),
]
GpuMemory = Annotated[
    float | None,
    typer.Option(
        metavar="GB",
        min=0.1,
        help="of one GPU",
        show_default="the device's",
        rich_help_panel=_DEVICES,
    ),
]
Gpus = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=1,
        help="how many there are",
        show_default="as few as training fits on",
        rich_help_panel=_DEVICES,
    ),
]
Flops = Annotated[
    float | None,
    typer.Option(
        "--tflops",
        metavar="N",
        min=0.001,
        help="of one GPU at its best",
        show_default="the device's",
        rich_help_panel=_DEVICES,
    ),
]
Watts = Annotated[
    float | None,
    typer.Option(
        metavar="W",
        min=0,
        help="of one GPU",
        show_default="the device's",
        rich_help_panel=_DEVICES,
    ),
]
Mfu = Annotated[
    float | None,
    typer.Option(
        metavar="0..1",
        min=0.001,
        max=1,
        help="share of the FLOPs that training reaches",
        show_default="the device's",
        rich_help_panel=_DEVICES,
    ),
]
MfuGenerate = Annotated[
    float | None,
    typer.Option(
        "--mfu-generate",
        metavar="0..1",
        min=0.001,
        max=1,
        help="share of the FLOPs that generation reaches",
        show_default="the device's",
        rich_help_panel=_DEVICES,
    ),
]
Groups = Annotated[
    int | None,
    typer.Option(
        "--groups-at-a-time",
        metavar="N",
        min=1,
        help="groups that one GPU computes together",
        show_default="the profile's",
        rich_help_panel=_DEVICES,
    ),
]
Prompts = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=1,
        help="training problems",
        show_default="the profile's",
        rich_help_panel=_WORK,
    ),
]
PromptTokens = Annotated[
    float | None,
    typer.Option(
        "--prompt-tokens",
        metavar="N",
        min=1,
        help="of a mean prompt",
        show_default="data/measured.toml",
        rich_help_panel=_WORK,
    ),
]
AnswerTokens = Annotated[
    float | None,
    typer.Option(
        "--answer-tokens",
        metavar="N",
        min=1,
        help="of a mean answer",
        show_default="data/measured.toml",
        rich_help_panel=_WORK,
    ),
]
