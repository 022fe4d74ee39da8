"""The verb `train`: groups in, a model's folder and a table out."""

import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from rrtf import config, engines, store
from rrtf.cli import screen
from rrtf.cli.options import ALL_CORES, Given
from rrtf.records import RankedGroup, TrainStep

if TYPE_CHECKING:  # what trains loads torch
    from rrtf.train import Recipe

RATES = config.resolve("gpu80", "train")  # of models of any size, `lr_...`
WITH_ADAPTERS = 10.0  # times the learning rate: B of an adapter starts at zero
LOGGED = ("loss", "rank_loss", "ft_loss", "violated", "learning_rate", "grad_norm")


def train(given: Given) -> None:
    """Train a model on ranked groups: a folder that transformers and vLLM load.

    The same command goes on after an interruption. N processes of one machine, each
    with its GPU where there are any, split the model and every update among them:

    torchrun --nproc-per-node N -m rrtf train ...

    On M machines run on each of them, with --out on a file system that all see:

    torchrun --nnodes M --nproc-per-node N --rdzv-backend c10d
    --rdzv-endpoint HOST:29500 -m rrtf train ...
    """
    from rrtf import train as training
    from rrtf.step import sharding

    recipe, out = recipe_of(given), Path(given.out)
    training.check(recipe)
    found, single = load(given)
    folder = engines.model_folder(given.model)
    how = {"model": folder, "output": out, "recipe": recipe, "overwrite": given.overwrite}
    with sharding.joined(), _told(out, quiet=sharding.rank() > 0) as told:
        training.train(found, told=told, **how)
        first = sharding.rank() == 0
    if first:
        _closing(out, single)


def saved(given: Given) -> str:
    """What an interrupted call says."""
    return screen.goes_on_from(given.out)


def recipe_of(given: Given) -> "Recipe":
    """The options, with what 0 stands for: the rate of an objective, one epoch, all cores."""
    from rrtf import loss
    from rrtf.train import Recipe

    rate = RATES[f"lr_{loss.objective(given.objective).rate}"]
    rate *= WITH_ADAPTERS if given.lora_rank else 1.0
    cores = max(1, ALL_CORES // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    return Recipe.of(
        vars(given),
        learning_rate=given.learning_rate or rate,
        epochs=given.epochs or float(not given.updates),
        threads=given.threads or cores,
    )


def load(given: Given) -> tuple[list[RankedGroup], int]:
    """(the groups of a file, how many of one response were left out).

    ValueError that names file, line and task for a group that cannot be trained on.
    """
    from rrtf import loss

    compares, found, single = loss.objective(given.objective).compares, [], 0
    for number, row in store.read_rows(Path(given.groups)):
        where = f"{given.groups}:{number}"
        group = _group(row, where)
        if len(group.responses) > 1 or not compares:
            found.append(group)
        elif given.allow_single:
            single += 1
        else:
            raise ValueError(
                f"{where}: {group.task_id}: one response, and {given.objective} compares at least "
                "two; --allow-single leaves such groups out, --objective sft only imitates"
            )
    if not found:
        raise ValueError(f"{given.groups}: no groups to train on")
    return found, single


def _group(row: Any, where: str) -> RankedGroup:
    from rrtf.step import batches

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


@contextmanager
def _told(out: Path, *, quiet: bool) -> Iterator[Callable[[TrainStep, int], None] | None]:
    """While the block runs: a call per update that shows it and logs it for TensorBoard."""
    if quiet:
        yield None
        return
    from rrtf.train import open_logs

    logs: list[Any] = []  # opened at the first update: TensorBoard takes seconds to import
    with screen.progress("training") as tick:
        show = _liner()

        def told(step: TrainStep, updates: int) -> None:
            if tick:
                tick(step.step, updates, f"loss {step.loss:.4f}")
            else:
                show(step, updates)
            if not logs:
                logs.append(open_logs(out / "logs", step.step))
            for name in LOGGED:
                if not math.isnan(getattr(step, name)):
                    logs[0].add_scalar(name, getattr(step, name), step.step)

        try:
            yield told
        finally:
            for writer in logs:
                writer.close()


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
        screen.tell(f"update {step.step} of {updates}: loss {step.loss:.4f}{rest}")

    return show


def _closing(out: Path, single: int) -> None:
    """Prompts in and out, and what the run was."""
    facts, seconds = store.read_json(out / "training.json"), store.read_json(out / ".seconds.json")
    lost = {**facts["dropped"], "one_response": facts["dropped"].get("one_response", 0) + single}
    long = lost.pop("response_too_long", 0)  # of groups that are trained on
    console, total = Console(highlight=False), facts["n_groups"] + single
    console.print(screen.ledger("prompts", total, lost, "trained on", facts["n_trained"]), "")
    steps = facts["steps"]
    rows = [
        ("updates", f"{len(steps)} of {facts['settings']['groups_per_batch']} prompts"),
        ("tokens", f"{facts['tokens']}"),
        ("first loss", f"{steps[0]['loss']:.4f}"),
        ("last loss", f"{steps[-1]['loss']:.4f}"),
        ("seconds", f"{seconds}"),
    ]
    rows += [("responses too long", f"{long}")] if long else []
    console.print(screen.table(["", ""], rows, left=(0, 1)))
    screen.say(console, f"model: {out}")
    if (out / "adapter").is_dir():
        screen.say(console, f"adapters, not merged: {out / 'adapter'}")
