"""The loop: forward passes, gradients, clipping, optimiser, schedule, checkpoints, rows.

It is our own rather than transformers' Trainer, for two reasons. On CPUs accelerate knows data
parallelism only, so what runs split on GPUs could not be tried here; with FSDP2 called directly,
one process and many take the same path. And the Trainer logs one number per update, cuts a batch
into equal counts of examples whatever their length, and pickles its checkpoints. Optimisers,
gradient clipping, FSDP2 and checkpoints are torch's and transformers'.
"""

import ctypes
import json
import math
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rrtf import loss, sharding, store
from rrtf.config import derive_seed
from rrtf.records import TrainStep

OPTIMIZERS = ("adamw", "adafactor")
PRECISIONS = ("auto", "bfloat16", "float32")
KEPT = 2  # checkpoints

# an update's examples and its number -> a tuple with the fields of `rrtf.loss.Parts`
PartsOf = Callable[[Sequence[Any], int], Any]


def check(settings: Mapping[str, Any]) -> None:
    """ValueError for a setting that no run can have."""
    for name in ("groups_per_batch", "checkpoint_every", "max_length"):
        if settings[name] < 1:
            raise ValueError(f"{name} {settings[name]}: expected at least 1")
    for name in ("warmup", "tokens_per_forward", "learning_rate", "clip", "weight_decay"):
        if settings[name] < 0:
            raise ValueError(f"{name} {settings[name]}: expected at least 0")
    if (settings["updates"] > 0) == (settings["epochs"] > 0):
        raise ValueError(
            f"updates {settings['updates']} and epochs {settings['epochs']:g}: expected one of them"
        )
    for name, known in (
        ("objective", loss.OBJECTIVES),
        ("precision", PRECISIONS),
        ("save_dtype", ("float32", "bfloat16", "float16")),
        ("ft_reduction", ("sum", "mean")),
        ("optimizer", OPTIMIZERS),
    ):
        if settings[name] not in known:
            expected = ", ".join(known)
            raise ValueError(f"unknown {name} {settings[name]!r}: expected one of {expected}")


def fit(
    root: nn.Module,
    data: Sequence[Any],
    sizes: Sequence[int],
    *,
    parts_of: PartsOf,
    run: str,
    folder: Path,
    updates: int,
    groups_per_batch: int,
    tokens_per_forward: int,
    learning_rate: float,
    warmup: float,
    optimizer: str,
    weight_decay: float,
    clip: float,
    checkpoint_every: int,
    seed: int,
    each: Callable[[TrainStep], None] | None = None,
) -> list[TrainStep]:
    """Trains `root` on `data`, `groups_per_batch` of them an update, in the order given.

    `sizes` are their tokens; more than `tokens_per_forward` (0 = no limit) are not put through
    the model at once. Goes on from the newest whole checkpoint in `folder`. `each` is called after
    every update, on the first process. Returns the rows of all updates.
    """
    if sharding.processes() > 1:
        sharding.require_sharded(root)
    chosen = make_optimizer(root, optimizer, weight_decay=weight_decay)
    rows = resume(folder, root, chosen)
    root.train()
    for update in range(len(rows) + 1, updates + 1):
        now = slice((update - 1) * groups_per_batch, update * groups_per_batch)
        rate = learning_rate * schedule(update, updates, math.ceil(warmup * updates))
        for group in chosen.param_groups:
            group["lr"] = rate
        torch.manual_seed(derive_seed(seed, "dropout", update, sharding.rank()))
        means = accumulate(data[now], sizes[now], parts_of, update, budget=tokens_per_forward)
        norm = clip_gradients(root, clip)
        chosen.step()
        chosen.zero_grad()
        rows.append(TrainStep(run, update, **means, learning_rate=rate, grad_norm=norm))
        if update % checkpoint_every == 0:
            save(folder / f"checkpoint-{update}", root, chosen, rows)
        if each and sharding.rank() == 0:
            each(rows[-1])
        if update % 5 == 0:
            trim()
    return rows


# One update


def accumulate(
    examples: Sequence[Any],
    sizes: Sequence[int],
    parts_of: PartsOf,
    update: int,
    *,
    budget: int,
) -> dict[str, float]:
    """Adds the gradient of an update's mean loss; returns its loss, its parts, violated pairs.

    Every number of `parts_of` is a mean over prompts, so a forward pass of b of the update's B
    prompts counts b / B, whatever their lengths: the sum is the mean over all B, also where
    the passes are unequal, and where a prompt's own loss is a mean over tokens.
    """
    several = sharding.processes()
    sums = [0.0] * 5  # loss, rank, ft, violated pairs, pairs
    for members in passes(sizes, processes=several, budget=budget)[sharding.rank()]:
        parts = parts_of([examples[k] for k in members or (0,)], update)
        share = len(members) / len(examples)
        (parts.loss * (share * several)).backward()  # FSDP takes the mean over the processes
        if members:
            wrong = round(float(parts.violated) * parts.n_pairs) if parts.n_pairs else 0
            means = [share * float(part.detach()) for part in (parts.loss, parts.rank, parts.ft)]
            sums = [s + v for s, v in zip(sums, (*means, wrong, parts.n_pairs), strict=True)]
    mean, rank, ft, wrong, pairs = sharding.total(sums)
    violated = wrong / pairs if pairs else math.nan
    return {"loss": mean, "rank_loss": rank, "ft_loss": ft, "violated": violated}


def passes(sizes: Sequence[int], *, processes: int, budget: int) -> list[list[list[int]]]:
    """For every process its forward passes in one update, each a list of places in the update.

    Together a pass holds at most `budget` tokens (0 = no limit), or one group that alone is
    larger. Every process has equally many, because they exchange weights in each: an empty list
    stands for a pass without weight.
    """
    own = [list(_filled(range(r, len(sizes), processes), sizes, budget)) for r in range(processes)]
    most = max(map(len, own))
    return [some + [[]] * (most - len(some)) for some in own]


def _filled(places: Sequence[int], sizes: Sequence[int], budget: int) -> Iterator[list[int]]:
    """`places` in order, cut where the next would exceed `budget`."""
    some: list[int] = []
    for place in places:
        if some and budget and sum(sizes[k] for k in some) + sizes[place] > budget:
            yield some
            some = []
        some.append(place)
    if some:
        yield some


def schedule(update: int, updates: int, warm: int) -> float:
    """The share of the learning rate at an update, from 1: up in `warm` updates, down to zero."""
    done = update - 1
    if done < warm:
        return done / warm
    return (updates - done) / max(1, updates - warm)


def make_optimizer(root: nn.Module, name: str, *, weight_decay: float) -> torch.optim.Optimizer:
    """AdamW with betas .9 and .95, or Adafactor (arXiv:1804.04235) with a given learning rate.

    Adafactor keeps a row and a column instead of AdamW's two matrices per weight. Vectors (biases,
    norms) do not decay. ValueError for another name.
    """
    learnt = [p for p in root.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in learnt if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in learnt if p.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if name == "adamw":
        return torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.95), eps=1e-8, fused=True)
    if name == "adafactor":
        from transformers import Adafactor

        chosen = Adafactor(groups, lr=0.0, scale_parameter=False, relative_step=False)
        if sharding.processes() > 1:
            sharding.split_factors(chosen)
        return chosen
    raise ValueError(f"unknown optimizer {name!r}: expected one of {', '.join(OPTIMIZERS)}")


def clip_gradients(root: nn.Module, clip: float) -> float:
    """Scales the gradients to norm `clip` (0 = never) where it is larger; returns what it was."""
    norm = nn.utils.clip_grad_norm_(root.parameters(), clip or math.inf)
    return float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm)


def autocast(bfloat16: bool, device: torch.device) -> Any:
    """Matrix products in bfloat16 while the block runs; weights and sums stay float32."""
    return torch.autocast(device.type, torch.bfloat16) if bfloat16 else nullcontext()


def in_bfloat16(precision: str) -> bool:
    """Whether a run of `precision` computes in bfloat16 here."""
    return native_bfloat16() if precision == "auto" else precision == "bfloat16"


def native_bfloat16() -> bool:
    """Whether this machine multiplies bfloat16 in hardware, where it is faster than float32."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, bool)() for name in names)


@cache
def _trimmer() -> Any:
    return getattr(ctypes.CDLL(None), "malloc_trim", None)


def trim() -> None:
    """Gives freed memory back to the system.

    Batches differ in size, so glibc's heap fragments: without this a run's resident memory
    doubles within thirty updates. Every five updates it costs under one percent of the time.
    """
    if _trimmer():
        _trimmer()(0)


# Checkpoints


def save(
    folder: Path, root: nn.Module, optimizer: torch.optim.Optimizer, rows: Sequence[TrainStep]
) -> None:
    """Writes a checkpoint, `state.json` last, and removes all but the newest `KEPT`."""
    first = sharding.rank() == 0
    if first:
        shutil.rmtree(folder, ignore_errors=True)  # of a crash: the parts of other processes
        folder.mkdir(parents=True)
    sharding.wait()
    numbers = sharding.save(folder, root, optimizer)
    sharding.wait()
    if first:
        state = {"update": len(rows), "numbers": numbers, "steps": to_json(rows)}
        store.write_json(folder / "state.json", state)
        for old in _checkpoints(folder.parent)[KEPT:]:
            shutil.rmtree(old, ignore_errors=True)


def resume(folder: Path, root: nn.Module, optimizer: torch.optim.Optimizer) -> list[TrainStep]:
    """The rows up to the newest whole checkpoint in `folder`, which is put into place; else []."""
    sharding.wait()
    newest = newest_checkpoint(folder)
    if newest is None:
        return []
    state = store.read_json(newest / "state.json")
    sharding.load(newest, root, optimizer, state["numbers"])
    return from_json(state["steps"], str(newest))


def newest_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint that was written whole: its `state.json` is there and is JSON."""
    for path in _checkpoints(folder):
        try:
            state = store.read_json(path / "state.json")
        except (FileNotFoundError, json.JSONDecodeError):
            continue
        if path.name == f"checkpoint-{state['update']}":
            return path
    return None


def _checkpoints(folder: Path) -> list[Path]:
    """The newest first."""
    found = folder.glob("checkpoint-*")
    return sorted(found, key=lambda path: int(path.name.rpartition("-")[2]), reverse=True)


def to_json(rows: Sequence[TrainStep]) -> list[dict[str, Any]]:
    """Rows for a JSON file, which has no nan: null for the violated pairs of a run without any."""
    return [
        asdict(row) | {"violated": None if math.isnan(row.violated) else row.violated}
        for row in rows
    ]


def from_json(rows: Sequence[Mapping[str, Any]], where: str) -> list[TrainStep]:
    """The inverse of `to_json`."""
    full = [r | {"violated": math.nan if r["violated"] is None else r["violated"]} for r in rows]
    return [store.from_row(row, TrainStep, where) for row in full]


def open_logs(folder: Path, step: int) -> Any:
    """TensorBoard's scalars in `folder`.

    Those of updates from `step` on, which an interrupted run may have left there, are hidden.
    """
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder), purge_step=step)
