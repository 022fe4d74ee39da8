"""The options and arguments that verbs of the command line share: types, ranges and help."""

import os
from pathlib import Path
from typing import Annotated

import typer

from rrtf import config

_RUNS = "Execution"  # a panel of the help
_RANK = config.resolve("nano", "rank")  # what is not given
ALL_CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()

Problems = Annotated[
    str,
    typer.Argument(
        metavar="PROBLEMS",
        help="a benchmark's name, a file in HumanEval form (.jsonl, .json, .parquet, .gz), or -",
    ),
]
Extract = Annotated[
    str,
    typer.Option(
        metavar="auto|raw|fenced|program",
        help="what of a completion is run: auto decides line by line, raw cuts at the stops, "
        "fenced takes the Markdown block, program everything",
    ),
]
Rename = Annotated[
    list[str] | None,
    typer.Option(metavar="THEIRS=OURS", help="read a field under our name, as code=solution"),
]
Ks = Annotated[
    str | None,
    typer.Option(
        metavar="K,K", help="the k of pass@k", show_default="those of 1,10,100 that n allows"
    ),
]
Missing = Annotated[
    bool, typer.Option("--allow-missing", help="grade a part of the tasks, and say so")
]
Unknown = Annotated[
    bool,
    typer.Option(
        "--allow-unknown", help="leave out lines of tasks that PROBLEMS lacks, and say so"
    ),
]
Out = Annotated[str | None, typer.Option(metavar="FILE", help="a .jsonl or .parquet (.gz), or -")]
Data = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR", help="the benchmarks' folder, looked into before $RRTF_DATA and the hub"
    ),
]
Level = Annotated[
    str,
    typer.Option(metavar="LEVEL", help="least isolation that is accepted", rich_help_panel=_RUNS),
]
Workers = Annotated[
    int, typer.Option(metavar="N", min=1, help="programs judged at a time", rich_help_panel=_RUNS)
]
Cpu = Annotated[
    float | None,
    typer.Option(
        metavar="S",
        min=0.01,
        max=86400,
        help="CPU time of one program",
        show_default="2, or what the benchmark asks for",
        rich_help_panel=_RUNS,
    ),
]
Wall = Annotated[
    float | None,
    typer.Option(
        metavar="S",
        min=0.01,
        max=86400,
        help="how long one may take",
        show_default="3 times its CPU time",
        rich_help_panel=_RUNS,
    ),
]
Memory = Annotated[
    int, typer.Option(metavar="N", min=32, help="MiB for one program", rich_help_panel=_RUNS)
]
Engine = Annotated[
    str, typer.Option(metavar="local|ray", help="where programs run", rich_help_panel=_RUNS)
]
Shards = Annotated[
    Path | None,
    typer.Option(
        help="save verdicts here as they come, and go on from them", rich_help_panel=_RUNS
    ),
]
Since = Annotated[
    str | None, typer.Option(metavar="DATE", help="only tasks created after it, as 2022-07-01")
]
By = Annotated[
    str | None, typer.Option(metavar="difficulty|level", help="also pass@k of each of these")
]
Joint = Annotated[
    bool,
    typer.Option(
        "--joint",
        help="also tasks whose tests must run in the candidate's process, which can forge them",
        rich_help_panel=_RUNS,
    ),
]
Packages = Annotated[
    str,
    typer.Option(
        metavar="NAME,NAME",
        help="packages of this environment that programs may import, as numpy,yaml",
        show_default="none",
        rich_help_panel=_RUNS,
    ),
]


Responses = Annotated[
    str,
    typer.Argument(
        metavar="RESPONSES", help="lines of task_id, source and completion (or text), or -"
    ),
]
Teacher = Annotated[
    str, typer.Option(metavar="NAME", help="the source that is preferred and imitated")
]
Seed = Annotated[
    int | None,
    typer.Option(
        metavar="N", help="draws the student of --pairing one", show_default=str(_RANK["seed"])
    ),
]
Pairing = Annotated[
    str | None,
    typer.Option(
        metavar="one|all", help="students compared per problem", show_default=str(_RANK["pairing"])
    ),
]
Filter = Annotated[
    str | None,
    typer.Option(
        "--filter",
        metavar="drop_below|must_pass|none",
        help="pairs dropped for what their teacher did",
        show_default=str(_RANK["teacher_filter"]),
    ),
]
Strength = Annotated[
    float | None,
    typer.Option(
        metavar="0..1",
        min=0,
        max=1,
        help="drop problems whose tests see a smaller share of wrong programs",
    ),
]
Verdicts = Annotated[
    str | None, typer.Option(metavar="FILE", help="what grade wrote for these lines")
]
Format = Annotated[
    str | None,
    typer.Option(
        metavar="starcoder|pangu|wizardcoder|chat",
        help="what was sampled from; chat with --set rank.student=MODEL",
        show_default="the prompt for completion, starcoder for text",
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="rank.KEY=VALUE", help="scores, as rank.tie_break=0.2"),
]


Entries = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="NAME=SAMPLES",
        help="files of samples as grade takes them, each an entry of the board",
        show_default=False,
    ),
]
Models = Annotated[
    list[str] | None,
    typer.Option("--model", metavar="[NAME=]M", help="sample this model first: a folder or a name"),
]
Folder = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="save samples, verdicts, scores and board, and go on there"),
]
Extracts = Annotated[
    list[str] | None,
    typer.Option(metavar="[NAME=]HOW", help="auto, raw, fenced or program, of all or of one entry"),
]
Renames = Annotated[
    list[str] | None,
    typer.Option(
        metavar="[NAME:]THEIRS=OURS", help="read a field under our name, as code=solution"
    ),
]
Margin = Annotated[
    float,
    typer.Option(metavar="0..1", min=0, max=1, help="a share of tasks that is no difference"),
]
Flagged = Annotated[
    Path | None,
    typer.Option(
        metavar="LEAKS",
        help="what audit wrote of the training rows: also pass@k of the tasks they leak, and not",
    ),
]
_SAMPLING = "Sampling of --model"
Number = Annotated[
    int, typer.Option("--n", metavar="N", min=1, help="answers a task", rich_help_panel=_SAMPLING)
]
Warmth = Annotated[
    list[str] | None,
    typer.Option(
        metavar="[NAME=]T",
        help="of the models, or that a file was sampled at",
        show_default="0, greedy; of a file with several samples a task 1",
        rich_help_panel=_SAMPLING,
    ),
]
TopP = Annotated[
    float,
    typer.Option(metavar="P", min=0.0, max=1.0, help="nucleus", rich_help_panel=_SAMPLING),
]
Asked = Annotated[
    str,
    typer.Option(
        metavar="starcoder|pangu|wizardcoder|chat",
        help="how a task is put to the models",
        rich_help_panel=_SAMPLING,
    ),
]
Longest = Annotated[
    int | None,
    typer.Option(
        "--max-new-tokens",
        metavar="N",
        min=1,
        help="where an answer is cut",
        show_default="512; 140 of a shipped model",
        rich_help_panel=_SAMPLING,
    ),
]
Generator = Annotated[
    str,
    typer.Option(metavar="auto|...", help="the engine that samples", rich_help_panel=_SAMPLING),
]
Draw = Annotated[int, typer.Option("--seed", metavar="N", rich_help_panel=_SAMPLING)]
