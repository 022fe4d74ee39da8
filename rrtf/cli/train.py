"""What the verb `train` does and prints: groups in, a model's folder and a table out."""

import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from rrtf import config, engines, loss, store, train
from rrtf.cli import inputs, options, screen
from rrtf.records import RankedGroup, TrainStep
from rrtf.step import batches

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


WITH_ADAPTERS = 10.0  # times the learning rate: B of an adapter starts at zero


def settings(
    texts: Sequence[str] | None, given: Mapping[str, config.Value | None]
) -> dict[str, config.Value]:
    """Fields of `train.Recipe`: the stage's, `train.KEY=VALUE` texts, then what is `given`."""
    overrides = dict(config.parse_override(text) for text in texts or ())
    for key in overrides:
        name = key.partition(".")[2]
        if not key.startswith("train.") or name not in _names() or name in given:
            raise ValueError(f"--set {key}: expected train.KEY with one of {_free(given)}")
    stage = config.resolve(STAGE, "train", overrides)
    chosen = {name: stage[name] for name in _names()}
    chosen |= {name: value for name, value in given.items() if value is not None}
    chosen["epochs"] = given["epochs"] or float(given["updates"] is None)
    if given["updates"] is None:
        chosen["updates"] = 0
    if given["threads"] is None:
        here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        chosen["threads"] = max(1, options.ALL_CORES // here)
    return chosen


def _free(given: Mapping[str, Any]) -> str:
    return ", ".join(name for name in _names() if name not in given)


def _names() -> list[str]:
    """The options of a run that are the stage's."""
    return [field.name for field in fields(train.Recipe) if field.name in DEFAULTS]


def train_groups(
    groups: str,
    *,
    model: str,
    objective: str,
    output: Path,
    learning_rate: float | None,
    allow_single: bool,
    overwrite: bool,
    settings: Mapping[str, Any],
) -> None:
    """The verb `train`; `settings` are the further fields of `train.Recipe`.

    ValueError and FileNotFoundError for what a caller can get wrong, before the model is loaded.
    """
    from rrtf.step import sharding

    found, single = load(groups, objective, allow_single=allow_single)
    folder = engines.model_folder(model)
    if learning_rate is None:
        learning_rate = DEFAULTS[f"lr_{loss.objective(objective).rate}"]
        learning_rate *= WITH_ADAPTERS if settings["lora_rank"] else 1.0
    recipe = train.Recipe(objective=objective, learning_rate=learning_rate, **settings)
    how = {"model": folder, "output": output, "recipe": recipe, "overwrite": overwrite}
    with sharding.joined(), told(output, quiet=sharding.rank() > 0) as tell:
        train.train(found, told=tell, **how)
        first = sharding.rank() == 0
    if first:
        _closing(output, single)


# Groups


def load(
    groups: str, objective: str, *, allow_single: bool = False
) -> tuple[list[RankedGroup], int]:
    """(the groups of a file, how many of one response were left out).

    ValueError that names file, line and task for a group that cannot be trained on.
    """
    compares, found, single = loss.objective(objective).compares, [], 0
    for number, row in store.read_rows(Path(groups)):
        where = f"{groups}:{number}"
        group = _group(row, where)
        if len(group.responses) > 1 or not compares:
            found.append(group)
        elif allow_single:
            single += 1
        else:
            raise ValueError(
                f"{where}: {group.task_id}: one response, and {objective} compares at least two; "
                "--allow-single leaves such groups out, --objective sft only imitates"
            )
    if not found:
        raise ValueError(f"{groups}: no groups to train on")
    return found, single


def _group(row: Any, where: str) -> RankedGroup:
    group = store.from_row(row, RankedGroup, where)
    kinds = {
        "responses": (tuple, str), "sources": (tuple, str), "outcomes": (tuple, int),
        "scores": (tuple, (int, float)),
    }  # fmt: skip
    for name, (whole, item) in kinds.items():
        value = getattr(group, name)
        if not isinstance(value, whole) or not all(isinstance(v, item) for v in value):
            raise ValueError(f"{where}: {group.task_id}: {name} is not the list that rank writes")
    if not isinstance(group.prompt, str) or not isinstance(group.sft_index, int):
        raise ValueError(f"{where}: {group.task_id}: expected a text prompt and a whole sft_index")
    try:
        batches.check(group)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    return group


# What is seen meanwhile


@contextmanager
def told(output: Path, *, quiet: bool) -> Iterator[Callable[[TrainStep, int], None] | None]:
    """While the block runs: a call per update that shows it and logs it for TensorBoard."""
    if quiet:
        yield None
        return

    logs: list[Any] = []  # opened at the first update: TensorBoard takes seconds to import
    with _shown() as show:

        def tell(step: TrainStep, updates: int) -> None:
            show(step, updates)
            if not logs:
                logs.append(train.open_logs(output / "logs", step.step))
            for name in ("loss", "rank_loss", "ft_loss", "violated", "learning_rate", "grad_norm"):
                if not math.isnan(getattr(step, name)):
                    logs[0].add_scalar(name, getattr(step, name), step.step)

        try:
            yield tell
        finally:
            for writer in logs:
                writer.close()


@contextmanager
def _shown() -> Iterator[Callable[[TrainStep, int], None]]:
    """A bar with the loss and the time left on a terminal, else a line now and then."""
    if not sys.stderr.isatty():
        yield _liner()
        return
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    text = TextColumn("{task.description}")
    columns = text, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("loading", total=None)

        def show(step: TrainStep, updates: int) -> None:
            about = f"training, loss {step.loss:.4f}"
            bar.update(task, description=about, completed=step.step, total=updates)

        yield show


def _liner() -> Callable[[TrainStep, int], None]:
    """Ten lines on standard error in all, for logs of jobs."""
    began: list[tuple[float, int]] = []

    def show(step: TrainStep, updates: int) -> None:
        if not began:
            began.append((time.monotonic(), step.step))
        if step.step % max(1, updates // 10) and step.step != updates:
            return
        done = step.step - began[0][1]
        left = (time.monotonic() - began[0][0]) / done * (updates - step.step) if done else math.nan
        rest = "" if math.isnan(left) else f", {timedelta(seconds=round(left))} left"
        inputs.tell(f"update {step.step} of {updates}: loss {step.loss:.4f}{rest}")

    return show


# What is said at the end


def _closing(output: Path, single: int) -> None:
    facts = store.read_json(output / "training.json")
    seconds = store.read_json(output / ".seconds.json")
    lost = {**facts["dropped"], "one_response": facts["dropped"].get("one_response", 0) + single}
    console = Console(highlight=False)
    total = facts["n_groups"] + single
    console.print(screen.ledger("prompts", total, lost, "trained on", facts["n_trained"]), "")
    table = Table(box=None, pad_edge=False, show_header=False)
    steps = facts["steps"]
    for name, value in (
        ("updates", f"{len(steps)} of {facts['settings']['groups_per_batch']} prompts"),
        ("tokens", f"{facts['tokens']}"),
        ("first loss", f"{steps[0]['loss']:.4f}"),
        ("last loss", f"{steps[-1]['loss']:.4f}"),
        ("seconds", f"{seconds}"),
    ):
        table.add_row(name, value)
    console.print(table)
    screen.say(console, f"model: {output}")
    if (output / "adapter").is_dir():
        screen.say(console, f"adapters, not merged: {output / 'adapter'}")
