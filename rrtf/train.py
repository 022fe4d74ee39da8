"""Training on ranked groups: one objective, one start model, a fixed number of updates.

`train` makes one run, alone or in each of the processes that `torchrun` started; `train_all` makes
several runs side by side in processes of one thread each. What a run depends on is written to
`training.json`, last; a folder that has it is finished, and an interrupted one goes on from its
newest whole checkpoint.
"""

import math
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rrtf import batches, config, outputs, store
from rrtf.batches import Example
from rrtf.methods import Run
from rrtf.records import RankedGroup, TrainStep

if TYPE_CHECKING:
    from rrtf.loss import Parts
    from rrtf.networks import Scorer

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
    from rrtf import trainer

    given = ("groups", "output", "progress", "told", "overwrite")
    settings = {k: v for k, v in locals().items() if k not in (*given, "given", "trainer")}
    settings["model"] = Path(model).name
    trainer.check(settings)
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
    mark = outputs.mark(groups, model, settings)
    finished = read_steps(output, mark["digest"])
    if finished is not None:
        return finished
    if _is_first():
        outputs.start(output, mark, overwrite=overwrite)
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
    from rrtf import sharding

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
    from rrtf import loss, networks, trainer

    objective, per_batch = settings["objective"], settings["groups_per_batch"]
    bfloat16 = trainer.in_bfloat16(settings["precision"])
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
    from rrtf import trainer

    names = (
        "updates", "groups_per_batch", "tokens_per_forward", "learning_rate", "warmup",
        "optimizer", "weight_decay", "clip", "checkpoint_every", "seed",
    )  # fmt: skip
    own = {"run": output.name, "settings": settings, "bfloat16": bfloat16}
    return trainer.fit(
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
    from rrtf import loss, networks, trainer

    device = networks.device()
    batch = batches.collate(examples, device=device)
    with trainer.autocast(bfloat16, device):
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

    from rrtf import networks, sharding, trainer

    scorer.eval()
    device, several, rank = networks.device(), sharding.processes(), sharding.rank()
    found = [[0.0] * len(example.responses) for example in examples]
    starts = list(range(0, len(examples), batch))
    starts += starts[:1] * (-len(starts) % several)  # all take part in every forward pass
    for turn, start in list(enumerate(starts))[rank::several]:
        some = examples[start : start + batch]
        with torch.no_grad(), trainer.autocast(bfloat16, device):
            flat = iter(scorer(batches.collate(some, device=device))[0].tolist())
        if turn * batch == start:
            found[start : start + batch] = [[next(flat) for _ in e.responses] for e in some]
    sharding.reshard(scorer)
    flat = iter(sharding.total([value for values in found for value in values]))
    return [tuple(next(flat) for _ in values) for values in found]


# What a run leaves behind


def read_steps(output: Path, digest: str = "") -> list[TrainStep] | None:
    """The rows of a finished run, or None if it is not finished or (`digest`) was another run."""
    from rrtf import trainer

    path = output / "training.json"
    if not path.exists():
        return None
    facts = store.read_json(path)
    if digest and facts.get("digest") != digest:
        return None
    if _is_first():
        shutil.rmtree(output / "checkpoints", ignore_errors=True)
    return trainer.from_json(facts["steps"], str(path))


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
    from rrtf import networks, trainer

    settings = facts["settings"]
    lora = None
    if settings["lora_rank"]:
        names = ("lora_rank", "lora_alpha", "lora_dropout", "lora_targets")
        lora = networks.adapters(*(settings[name] for name in names))
    networks.save(
        scorer, tokenizer, output, model=model, save_dtype=settings["save_dtype"], lora=lora
    )
    if _is_first():
        store.write_bytes(output / "README.md", outputs.model_card(facts, steps).encode())
        store.write_json(output / "training.json", {**facts, "steps": trainer.to_json(steps)})
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
