"""Training on ranked groups: one objective, one start model, a fixed number of updates.

`train` runs transformers' Trainer on one method and seed; `train_all` runs several of them in
processes of one thread each. What a run depends on is written to `training.json`, last; a folder
that has it is finished, and an interrupted one goes on from its newest whole checkpoint.
Not covered: several devices for one run, LoRA, gradient accumulation.
"""

import hashlib
import json
import math
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rrtf import attention, batches, config, store
from rrtf.batches import Example
from rrtf.methods import Run
from rrtf.records import RankedGroup, TrainStep

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from rrtf.loss import Parts

Progress = Callable[[int, int], None]

# the options of `train` that all runs of a stage share
OPTIONS = (
    "updates", "groups_per_batch", "warmup", "ft_reduction", "ft_weight", "rank_weight",
    "normalise", "margin", "pairs_of", "beta", "max_length", "dropout", "weight_decay", "clip",
    "precision", "save_dtype", "checkpoint_every",
)  # fmt: skip


# One run


def train(
    groups: Sequence[RankedGroup],
    *,
    model: str | Path,
    objective: str,
    output: Path,
    updates: int,
    groups_per_batch: int,
    learning_rate: float,
    warmup: float = 0.05,
    ft_reduction: str = "mean",
    ft_weight: float = 1.0,
    rank_weight: float = 1.0,
    normalise: bool = True,
    margin: float = 0.0,
    pairs_of: str = "teacher",
    beta: float = 0.1,
    max_length: int = 512,
    dropout: float = 0.0,
    weight_decay: float = 0.0,
    clip: float = 1.0,
    precision: str = "auto",
    save_dtype: str = "float32",
    checkpoint_every: int = 50,
    seed: int = 0,
    threads: int = 1,
    progress: Progress | None = None,
) -> list[TrainStep]:
    """Trains a copy of `model` on `groups` and saves it in `output`; one row per update.

    objective: one of `loss.OBJECTIVES` (see there for weights, `margin`, `beta`).
    AdamW with betas .9 and .95, `learning_rate` reached after `warmup` (share of the updates),
    then linear to zero; gradients clipped at norm `clip`. `precision`: `float32`, `bfloat16`
    (autocast, weights stay float32) or `auto` (bfloat16 where the processor multiplies it
    natively). A finished run with the same settings is read, not repeated.
    """
    settings = {k: v for k, v in locals().items() if k not in ("groups", "output", "progress")}
    settings["model"] = Path(model).name
    output = Path(output)
    digest = _digest(groups, model, settings)
    finished = read_steps(output, digest)
    if finished is not None:
        return finished
    _start_folder(output, digest)
    began = time.monotonic()
    steps = _learn(groups, model, settings, digest=digest, output=output, progress=progress)
    store.write_json(output / ".seconds.json", round(time.monotonic() - began, 1))
    return steps


def _learn(
    groups: Sequence[RankedGroup],
    model: str | Path,
    settings: Mapping[str, Any],
    *,
    digest: str,
    output: Path,
    progress: Progress | None,
) -> list[TrainStep]:
    """From the start model to a finished folder; `settings` are the arguments of `train`."""
    objective, per_batch = settings["objective"], settings["groups_per_batch"]
    network, tokenizer = attention.load(
        model, dropout=settings["dropout"], threads=settings["threads"]
    )
    positions = getattr(network.config, "max_position_embeddings", settings["max_length"])
    limit = min(settings["max_length"], positions)
    examples, dropped = batches.prepare(groups, tokenizer, objective=objective, max_length=limit)
    bfloat16 = _bfloat16(settings["precision"])
    if objective == "dpo":
        sums = log_prob_sums(network, examples, batch=per_batch, bfloat16=bfloat16)
        examples = [replace(e, reference=s) for e, s in zip(examples, sums, strict=True)]
    order = {"updates": settings["updates"], "seed": settings["seed"]}
    data = batches.in_order(examples, groups_per_batch=per_batch, **order)
    steps = _fit(network, data, settings, output=output, bfloat16=bfloat16, progress=progress)
    facts = {
        "run": output.name,
        "digest": digest,
        "settings": settings,
        "n_groups": len(groups),
        "n_trained": len(examples),
        "dropped": dropped,
        "tokens": sum(_n_tokens(example) for example in data),
        "bfloat16": bfloat16,
        "attention": network.config._attn_implementation,
    }
    _save(network, tokenizer, output, facts, steps)
    return steps


def _bfloat16(precision: str) -> bool:
    from rrtf.trainer import native_bfloat16

    if precision not in ("auto", "bfloat16", "float32"):
        raise ValueError(f"unknown precision {precision!r}: expected auto, bfloat16 or float32")
    return native_bfloat16() if precision == "auto" else precision == "bfloat16"


def _n_tokens(example: Example) -> int:
    return len(example.prompt) + sum(map(len, example.responses))


def _fit(
    network: "PreTrainedModel",
    data: list[Example],
    settings: Mapping[str, Any],
    *,
    output: Path,
    bfloat16: bool,
    progress: Progress | None,
) -> list[TrainStep]:
    from rrtf import trainer

    names = ("updates", "groups_per_batch", "learning_rate", "warmup", "weight_decay", "clip")
    folder = output / "checkpoints"
    run = trainer.GroupTrainer(
        model=network,
        args=trainer.arguments(
            folder,
            **{name: settings[name] for name in names},
            bfloat16=bfloat16,
            checkpoint_every=settings["checkpoint_every"],
            seed=settings["seed"],
        ),
        train_dataset=data,
        data_collator=batches.collate,
        parts_of=partial(parts_of, run=output.name, settings=settings),
        callbacks=[trainer.Trimmer(), *([trainer.Reporter(progress)] if progress else [])],
    )
    run.train(resume_from_checkpoint=trainer.newest_checkpoint(folder))
    return trainer.steps(output.name, run.state.log_history)


def parts_of(
    network: "PreTrainedModel",
    batch: Mapping[str, Any],
    update: int,
    *,
    run: str,
    settings: Mapping[str, Any],
) -> "Parts":
    """The loss of one collated batch; FloatingPointError with run, update and tasks if not finite.

    `settings` are those of `train`: objective, weights, reduction, margin, pairs_of, beta.
    """
    from rrtf import loss

    sums, lengths = loss.score(network, batch)
    parts = loss.objective(settings["objective"], sums, lengths, batch, settings)
    loss.require_finite(parts, run=run, step=update, task_ids=batch["task_ids"])
    return parts


def log_prob_sums(
    network: "PreTrainedModel", examples: Sequence[Example], *, batch: int, bfloat16: bool
) -> list[tuple[float, ...]]:
    """The log-probability sum of every response under `network`, without gradients."""
    import torch

    from rrtf import loss

    network.eval()
    device, found = network.device, []
    for start in range(0, len(examples), batch):
        some = examples[start : start + batch]
        tensors = batches.collate(some, device=device)
        with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
            flat = loss.score(network, tensors)[0].tolist()
        for example in some:
            found.append(tuple(flat[: len(example.responses)]))
            flat = flat[len(example.responses) :]
    return found


# What a run leaves behind


def _digest(groups: Iterable[RankedGroup], model: str | Path, settings: Mapping) -> str:
    """What the result depends on, hashed: settings, data, start model."""
    base = store.sha256(Path(model)) if Path(model).is_dir() else str(model)
    data = hashlib.sha256(store.encode(groups, ".jsonl")).hexdigest()
    text = json.dumps([base, data, dict(settings)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def read_steps(output: Path, digest: str = "") -> list[TrainStep] | None:
    """The rows of a finished run, or None if it is not finished or (`digest`) was another run."""
    path = output / "training.json"
    if not path.exists():
        return None
    facts = store.read_json(path)
    if digest and facts["digest"] != digest:
        return None
    shutil.rmtree(output / "checkpoints", ignore_errors=True)
    rows = [row | {"violated": _number(row["violated"])} for row in facts["steps"]]
    return [store.from_row(row, TrainStep, str(path)) for row in rows]


def _number(value: float | None) -> float:
    """JSON has no nan: the share of violated pairs of a run without pairs is stored as null."""
    return math.nan if value is None else value


def _start_folder(output: Path, digest: str) -> None:
    """Keeps the checkpoints of the same run only: a run with other settings starts afresh."""
    marker = output / ".digest.json"
    if not marker.exists() or store.read_json(marker) != digest:
        shutil.rmtree(output, ignore_errors=True)
        store.write_json(marker, digest)


def _save(
    network: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    output: Path,
    facts: Mapping[str, Any],
    steps: Sequence[TrainStep],
) -> None:
    """Weights, tokenizer, model card; then `training.json`, which says that all of it is there."""
    import torch

    from rrtf.trainer import model_card

    network.to(getattr(torch, facts["settings"]["save_dtype"]))
    network.config.use_cache = True  # the Trainer switches it off
    network.save_pretrained(output)
    tokenizer.save_pretrained(output)
    store.write_bytes(output / "README.md", model_card(facts, steps).encode())
    rows = [
        asdict(step) | {"violated": None if math.isnan(step.violated) else step.violated}
        for step in steps
    ]
    store.write_json(output / "training.json", {**facts, "steps": rows})
    shutil.rmtree(output / "checkpoints", ignore_errors=True)


# Several runs side by side


def train_all(
    runs: Sequence[Run],
    *,
    model: str | Path,
    folder: Path,
    workers: int = 2,
    progress: Progress | None = None,
) -> list[list[TrainStep]]:
    """`train` for every run into `folder / run.folder`, in `workers` processes of one thread.

    Results are in the order of `runs` and do not depend on `workers`. `progress` counts updates
    over all runs. RuntimeError if a process dies; what is finished stays, a second call goes on.
    """
    from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
    from concurrent.futures.process import BrokenProcessPool
    from multiprocessing import get_context

    spawn = get_context("spawn")
    counts = spawn.Array("i", len(runs))
    total = sum(run.options["updates"] for run in runs)
    with ProcessPoolExecutor(workers, spawn, _start_process, (counts,)) as pool:
        futures = [pool.submit(_train_one, k, run, model, folder) for k, run in enumerate(runs)]
        pending = set(futures)
        try:
            while pending:
                done, pending = wait(pending, timeout=1, return_when=FIRST_COMPLETED)
                for future in done:
                    future.result()
                if progress:
                    progress(sum(counts), total)
        except BrokenProcessPool:
            raise RuntimeError(
                f"a training process died; finished runs are kept in {folder}, run again to go on"
            ) from None
        finally:
            for future in pending:
                future.cancel()
    return [future.result() for future in futures]


_counts: Any = None  # of this process: updates done, by run


def _start_process(counts: Any) -> None:
    global _counts
    _counts = counts
    config.set_threads(1)


def _train_one(k: int, run: Run, model: str | Path, folder: Path) -> list[TrainStep]:
    def count(done: int, _: int) -> None:
        _counts[k] = done

    steps = train(
        run.groups,
        model=run.model or model,
        output=folder / run.folder,
        progress=count,
        **run.options,
    )
    count(len(steps), len(steps))
    return steps


def seconds(runs: Iterable[Run], folder: Path) -> dict[str, float]:
    """How long each run took in the process that finished it."""
    return {run.name: store.read_json(folder / run.folder / ".seconds.json") for run in runs}
