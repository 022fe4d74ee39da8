"""The options and arguments of the verb `train`: types, ranges and help."""

from pathlib import Path
from typing import Annotated

import typer

from rrtf import config

STAGE = "gpu80"  # the profile whose [train] the verb begins with: any size, all weights
DEFAULTS = config.resolve(STAGE, "train")
_LORA, _SIZE = "Adapters", "Size"
Groups = Annotated[
    str,
    typer.Argument(
        metavar="GROUPS", help="ranked groups as rank writes them (.jsonl, .json, .parquet, .gz)"
    ),
]
Start = Annotated[str, typer.Option("--model", metavar="M", help="a folder or a hub name")]
Objective = Annotated[
    str,
    typer.Option(metavar="rrtf|sft|rrhf|dpo|...", help="what is minimised; see rrtf.loss"),
]
Output = Annotated[Path, typer.Option(metavar="DIR", help="where the model goes")]
Updates = Annotated[
    int | None, typer.Option(metavar="N", min=1, help="instead of --epochs", show_default=False)
]
Epochs = Annotated[
    float | None,
    typer.Option(metavar="X", min=0.001, help="passes over the groups", show_default="1"),
]
PerUpdate = Annotated[int, typer.Option("--groups-per-batch", metavar="N", min=1, help="an update")]
Rate = Annotated[
    float | None,
    typer.Option(
        "--learning-rate",
        metavar="X",
        min=0.0,
        help="its peak",
        show_default="2e-5; 1e-6 of dpo, dpo-sft, simpo; ten times that with --lora-rank",
    ),
]
Length = Annotated[
    int, typer.Option("--max-length", metavar="N", min=2, help="longer groups are left out")
]
Single = Annotated[
    bool, typer.Option("--allow-single", help="leave out groups of one response, and say so")
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="replace another training in --output")
]
TrainSeed = Annotated[int, typer.Option("--seed", metavar="N", help="order, dropout, adapters")]
SetTrain = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="train.KEY=VALUE",
        help="what has no option: ft_weight, rank_weight, ft_reduction, normalise, margin, "
        "pairs_of, beta, warmup, dropout, weight_decay, clip, attention",
    ),
]
Precision = Annotated[
    str, typer.Option(metavar="auto|bfloat16|float32", help="of products", rich_help_panel=_SIZE)
]
Optimizer = Annotated[
    str,
    typer.Option(metavar="adamw|adafactor", help="the second is smaller", rich_help_panel=_SIZE),
]
Tokens = Annotated[
    int,
    typer.Option(
        "--tokens-per-forward",
        metavar="N",
        min=0,
        help="through the model at once, 0 = a whole batch; the gradient is the same",
        rich_help_panel=_SIZE,
    ),
]
Checkpointing = Annotated[
    bool,
    typer.Option(
        "--checkpointing/--no-checkpointing",
        help="compute hidden states twice, to keep fewer of them",
        rich_help_panel=_SIZE,
    ),
]
Every = Annotated[
    int,
    typer.Option("--checkpoint-every", metavar="N", min=1, help="updates", rich_help_panel=_SIZE),
]
Saved = Annotated[
    str,
    typer.Option(
        "--save-dtype",
        metavar="bfloat16|float16|float32",
        help="of the written weights",
        rich_help_panel=_SIZE,
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=1,
        help="of each process",
        show_default="the cores, shared among the processes",
        rich_help_panel=_SIZE,
    ),
]
Rank = Annotated[
    int,
    typer.Option("--lora-rank", metavar="R", min=0, help="0 = all weights", rich_help_panel=_LORA),
]
Alpha = Annotated[
    float,
    typer.Option(
        "--lora-alpha", metavar="X", help="adapters count alpha / rank", rich_help_panel=_LORA
    ),
]
LoraDropout = Annotated[
    float,
    typer.Option("--lora-dropout", metavar="0..1", min=0.0, max=1.0, rich_help_panel=_LORA),
]
Targets = Annotated[
    str,
    typer.Option(
        "--lora-targets",
        metavar="all-linear|NAME,NAME",
        help="the modules that get adapters, as c_attn or q_proj,v_proj",
        rich_help_panel=_LORA,
    ),
]
QLora = Annotated[
    bool,
    typer.Option(
        "--qlora", help="the base in four bits (needs bitsandbytes)", rich_help_panel=_LORA
    ),
]
