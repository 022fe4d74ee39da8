"""The options of the verb `sample`: types, ranges, help, and what is not given."""

from typing import Annotated

import typer

from rrtf import config

STAGE = config.resolve("nano", "evaluate")  # what is not given is what `evaluate` gives
_WHERE = "Where it is sampled"

Model = Annotated[
    str,
    typer.Option(metavar="M", help="a folder, a hub name, or what a server calls its model"),
]
Number = Annotated[
    int, typer.Option("--n", metavar="N", min=1, help="answers a task, at every temperature")
]
Temperatures = Annotated[
    list[float] | None,
    typer.Option("--temperature", metavar="T", help="once or more", show_default="0, greedy"),
]
TopP = Annotated[float, typer.Option(metavar="P", help="nucleus")]
Engine = Annotated[
    str,
    typer.Option(
        metavar="NAME[@WHERE]",
        help="auto, transformers, ctranslate2, gptbigcode, vllm, openai@URL, ...",
        rich_help_panel=_WHERE,
    ),
]
Workers = Annotated[
    int,
    typer.Option(
        metavar="N", min=1, help="processes; on a GPU there is one", rich_help_panel=_WHERE
    ),
]
Cluster = Annotated[
    str,
    typer.Option(
        metavar="local|ray",
        help="ray: every GPU, else every CPU, of the cluster that $RAY_ADDRESS names, or that "
        "this machine is part of",
        rich_help_panel=_WHERE,
    ),
]
Out = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="lines for grade, rank and evaluate: a .jsonl or .parquet (.gz), or -; what is "
        "finished is kept in FILE.shards",
    ),
]
