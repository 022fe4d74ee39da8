"""Training on ranked groups: one objective, one start model, a fixed number of updates.

`train` makes one run, alone or in each of the processes that `torchrun` started; `train_all` makes
several runs side by side in processes of one thread each. What a run depends on is written to
`training.json`, last; a folder that has it is finished, and an interrupted one goes on from its
newest whole checkpoint.
"""

import ctypes
import hashlib
import json
import math
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from rrtf import config, loss, store
from rrtf.config import derive_seed
from rrtf.methods import Run
from rrtf.records import RankedGroup, TrainStep
from rrtf.step import batches, sharding
from rrtf.step.batches import Example

if TYPE_CHECKING:
    from rrtf.loss import Parts
    from rrtf.step.networks import Scorer


Progress = Callable[[int, int], None]

# the options of `train` that all runs of a stage share
OPTIONS = (
    "updates", "groups_per_batch", "warmup", "ft_reduction", "ft_weight", "rank_weight",
    "normalise", "margin", "pairs_of", "beta", "max_length", "dropout", "weight_decay", "clip",
    "optimizer", "precision", "attention", "tokens_per_forward", "checkpointing", "lora_rank",
    "lora_alpha", "lora_dropout", "lora_targets", "qlora", "save_dtype", "checkpoint_every",
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
    epochs: float = 0.0,
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
    optimizer: str = "adamw",
    precision: str = "auto",
    attention: str = "auto",
    tokens_per_forward: int = 0,
    checkpointing: bool = False,
    lora_rank: int = 0,
    lora_alpha: float = 16.0,
    lora_dropout: float = 0.0,
    lora_targets: str = "all-linear",
    qlora: bool = False,
    save_dtype: str = "float32",
    checkpoint_every: int = 50,
    seed: int = 0,
    threads: int = 1,
    progress: Progress | None = None,
    told: Callable[[TrainStep, int], None] | None = None,
    overwrite: bool = True,
) -> list[TrainStep]:
    """Trains a copy of `model` on `groups` and saves it in `output`; one row per update.

    objective: one of `loss.OBJECTIVES` (see there for weights, `margin`, `beta`); updates: 0 where
    `epochs`, passes over the prompts, say how many. `learning_rate` is reached after `warmup`
    (share of the updates), then falls linearly to zero; gradients are clipped at norm `clip` (0 =
    never). precision: `float32`, `bfloat16` (autocast) or `auto` (bfloat16 where the processor
    multiplies it natively). optimizer, tokens_per_forward: see `trainer`; LoRA, checkpointing: see
    `networks`. A finished run with the same settings is read, not repeated; one with others is
    replaced if `overwrite`, else a ValueError, as is a folder that holds something else.
    """

    given = ("groups", "output", "progress", "told", "overwrite")
    settings = {k: v for k, v in locals().items() if k not in (*given, "given", "trainer")}
    settings["model"] = Path(model).name
    check(settings)
    told = partial(_tell, progress=progress, told=told)
    return _one_run(groups, model, settings, output=Path(output), overwrite=overwrite, told=told)


def _one_run(
    groups: Sequence[RankedGroup],
    model: str | Path,
    settings: Mapping[str, Any],
    *,
    output: Path,
    overwrite: bool,
    told: Callable[[TrainStep, int], None],
) -> list[TrainStep]:
    """Reads a finished run, else makes it."""
    mark = mark_of(groups, model, settings)
    finished = read_steps(output, mark["digest"])
    if finished is not None:
        return finished
    if _is_first():
        start(output, mark, overwrite=overwrite)
    began = time.monotonic()
    steps = _learn(groups, model, settings, digest=mark["digest"], output=output, told=told)
    if _is_first():
        store.write_json(output / ".seconds.json", round(time.monotonic() - began, 1))
    return steps


def _tell(
    step: TrainStep,
    updates: int,
    *,
    progress: Progress | None,
    told: Callable[[TrainStep, int], None] | None,
) -> None:
    if told:
        told(step, updates)
    if progress:
        progress(step.step, updates)


def _is_first() -> bool:
    from rrtf.step import sharding

    return sharding.rank() == 0


def _learn(
    groups: Sequence[RankedGroup],
    model: str | Path,
    settings: Mapping[str, Any],
    *,
    digest: str,
    output: Path,
    told: Callable[[TrainStep, int], None],
) -> list[TrainStep]:
    """From the start model to a finished folder; `settings` are the arguments of `train`."""
    from rrtf import loss
    from rrtf.step import networks

    objective, per_batch = settings["objective"], settings["groups_per_batch"]
    bfloat16 = in_bfloat16(settings["precision"])
    lora = {name: settings[name] for name in OPTIONS if name.startswith("lora_")}
    how = {name: settings[name] for name in ("dropout", "threads", "checkpointing", "qlora")}
    how["wanted"] = settings["attention"]
    scorer, tokenizer = networks.load(
        model, bfloat16=bfloat16, seed=settings["seed"], **how, **lora
    )
    network = scorer.network
    positions = getattr(network.config, "max_position_embeddings", settings["max_length"])
    limit = min(settings["max_length"], positions)
    examples, dropped = batches.prepare(groups, tokenizer, objective=objective, max_length=limit)
    if objective in loss.REFERENCED:
        sums = log_prob_sums(scorer, examples, batch=per_batch, bfloat16=bfloat16)
        examples = [replace(e, reference=s) for e, s in zip(examples, sums, strict=True)]
    updates = settings["updates"] or math.ceil(settings["epochs"] * len(examples) / per_batch)
    settings = {**settings, "updates": updates}
    order = {"updates": updates, "seed": settings["seed"]}
    data = batches.in_order(examples, groups_per_batch=per_batch, **order)
    steps = _fit(scorer, data, settings, output=output, bfloat16=bfloat16, told=told)
    facts = {
        "run": output.name,
        "digest": digest,
        "settings": settings,
        "n_groups": len(groups),
        "n_trained": len(examples),
        "dropped": dropped,
        "tokens": sum(map(_n_tokens, data)),
        "bfloat16": bfloat16,
        "attention": network.config._attn_implementation,
    }
    _save(scorer, tokenizer, output, facts, steps, model=model)
    return steps


def _n_tokens(example: Example) -> int:
    return len(example.prompt) + sum(map(len, example.responses))


def _fit(
    scorer: "Scorer",
    data: list[Example],
    settings: Mapping[str, Any],
    *,
    output: Path,
    bfloat16: bool,
    told: Callable[[TrainStep, int], None],
) -> list[TrainStep]:
    names = (
        "updates", "groups_per_batch", "tokens_per_forward", "learning_rate", "warmup",
        "optimizer", "weight_decay", "clip", "checkpoint_every", "seed",
    )  # fmt: skip
    own = {"run": output.name, "settings": settings, "bfloat16": bfloat16}
    return fit(
        scorer,
        data,
        [_n_tokens(example) for example in data],
        parts_of=partial(parts_of, scorer, **own),
        run=output.name,
        folder=output / "checkpoints",
        each=partial(told, updates=settings["updates"]),
        **{name: settings[name] for name in names},
    )


def parts_of(
    scorer: "Scorer",
    examples: Sequence[Example],
    update: int,
    *,
    run: str,
    settings: Mapping[str, Any],
    bfloat16: bool = False,
) -> "Parts":
    """The loss of some examples; FloatingPointError with run, update and tasks if not finite.

    `settings` are those of `train`: objective, weights, reduction, margin, pairs_of, beta.
    """
    from rrtf import loss
    from rrtf.step import networks

    device = networks.device()
    batch = batches.collate(examples, device=device)
    with autocast(bfloat16, device):
        sums, lengths = scorer(batch)
        parts = loss.objective(settings["objective"], sums, lengths, batch, settings)
    loss.require_finite(parts, run=run, step=update, task_ids=batch["task_ids"])
    return parts


def log_prob_sums(
    scorer: "Scorer", examples: Sequence[Example], *, batch: int, bfloat16: bool
) -> list[tuple[float, ...]]:
    """The log-probability sum of every response as the model is now, without gradients.

    Several processes take turns at the batches and tell each other what they found.
    """
    import torch

    from rrtf.step import networks, sharding

    scorer.eval()
    device, several, rank = networks.device(), sharding.processes(), sharding.rank()
    found = [[0.0] * len(example.responses) for example in examples]
    starts = list(range(0, len(examples), batch))
    starts += starts[:1] * (-len(starts) % several)  # all take part in every forward pass
    for turn, start in list(enumerate(starts))[rank::several]:
        some = examples[start : start + batch]
        with torch.no_grad(), autocast(bfloat16, device):
            flat = iter(scorer(batches.collate(some, device=device))[0].tolist())
        if turn * batch == start:
            found[start : start + batch] = [[next(flat) for _ in e.responses] for e in some]
    sharding.reshard(scorer)
    flat = iter(sharding.total([value for values in found for value in values]))
    return [tuple(next(flat) for _ in values) for values in found]


# What a run leaves behind


def read_steps(output: Path, digest: str = "") -> list[TrainStep] | None:
    """The rows of a finished run, or None if it is not finished or (`digest`) was another run."""

    path = output / "training.json"
    if not path.exists():
        return None
    facts = store.read_json(path)
    if digest and facts.get("digest") != digest:
        return None
    if _is_first():
        shutil.rmtree(output / "checkpoints", ignore_errors=True)
    return from_json(facts["steps"], str(path))


def _save(
    scorer: "Scorer",
    tokenizer: Any,
    output: Path,
    facts: Mapping[str, Any],
    steps: Sequence[TrainStep],
    *,
    model: str | Path,
) -> None:
    """Weights, tokenizer, model card; then `training.json`, which says that all of it is there."""
    from rrtf.step import networks

    settings = facts["settings"]
    lora = None
    if settings["lora_rank"]:
        names = ("lora_rank", "lora_alpha", "lora_dropout", "lora_targets")
        lora = networks.adapters(*(settings[name] for name in names))
    networks.save(
        scorer, tokenizer, output, model=model, save_dtype=settings["save_dtype"], lora=lora
    )
    if _is_first():
        store.write_bytes(output / "README.md", model_card(facts, steps).encode())
        store.write_json(output / "training.json", {**facts, "steps": to_json(steps)})
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


MARKER = ".digest.json"
# what a run may be resumed with another value of: the result is the same but for rounding
FREE = ("tokens_per_forward", "checkpointing", "checkpoint_every")


def mark_of(groups: Iterable[RankedGroup], model: str | Path, settings: Mapping) -> dict[str, Any]:
    """What the result depends on (settings, data, start model), and the hash of it."""
    facts = {name: value for name, value in settings.items() if name not in FREE}
    facts |= {
        "start model": store.sha256(Path(model)) if Path(model).is_dir() else str(model),
        "groups": hashlib.sha256(store.encode(groups, ".jsonl")).hexdigest(),
    }
    text = json.dumps(facts, sort_keys=True)
    return {"digest": hashlib.sha256(text.encode()).hexdigest(), "of": facts}


def start(output: Path, mark: Mapping[str, Any], *, overwrite: bool) -> None:
    """Makes `output` ready for the run of `mark`: new, or with this run's checkpoints.

    Of another run only what a run makes is removed, and only if `overwrite`; a folder that no run
    made is never touched. ValueError where that leaves no place.
    """
    marker = output / MARKER
    if not marker.exists():
        if output.exists() and (not output.is_dir() or any(output.iterdir())):
            raise ValueError(f"{output}: exists and no training made it; name another folder")
        store.write_json(marker, mark)
        return
    before = store.read_json(marker)
    facts = before["of"] if isinstance(before, dict) else {}
    if facts == mark["of"]:
        return
    started = (output / "training.json").exists() or (output / "checkpoints").exists()
    if started and not overwrite:
        told = _differences(facts, mark["of"])
        raise ValueError(f"{output}: holds another run: {told}; --overwrite replaces it")
    (output / "training.json").unlink(missing_ok=True)
    for name in ("checkpoints", "adapter", "logs"):
        shutil.rmtree(output / name, ignore_errors=True)
    store.write_json(marker, mark)


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What another run in the same folder was asked otherwise."""
    hashed = ("start model", "groups")
    changed = [name for name in now if before.get(name) != now[name]]
    plain = [
        f"{name} {before.get(name)}, now {now[name]}" for name in changed if name not in hashed
    ]
    return "; ".join([*plain, *(f"another {name}" for name in changed if name in hashed)])


def model_card(facts: Mapping[str, Any], steps: Sequence[TrainStep]) -> str:
    """The README.md of a trained model: what it is, from what, how, how far."""
    settings = facts["settings"]
    dropped = ", ".join(f"{n} {reason}" for reason, n in facts["dropped"].items()) or "none"
    rows = "\n".join(f"| {name} | {value} |" for name, value in sorted(settings.items()))
    return (
        "---\nlibrary_name: transformers\npipeline_tag: text-generation\n"
        f"base_model: {settings['model']}\ntags: [code, rrtf]\n---\n\n# {facts['run']}\n\n"
        f"`{settings['model']}` fine-tuned with the objective `{settings['objective']}` of rrtf, a "
        "reproduction of ranking feedback for code models (arXiv:2307.14936).\n\n"
        f"{facts['n_trained']} prompts with ranked responses (dropped: {dropped}), "
        f"{settings['updates']} updates of {settings['groups_per_batch']} prompts. Loss at the "
        f"first update {steps[0].loss:.4f}, at the last {steps[-1].loss:.4f}. `training.json` has "
        "every update.\n\nThe model writes short Python functions; execute what it writes only "
        f"in isolation.\n\n| setting | value |\n| --- | --- |\n{rows}\n"
    )
