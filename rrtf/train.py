"""Stage 05, training on ranked groups: one recipe, one start model, one loop.

`train` makes one run, alone or in each of the processes that `torchrun` started; `train_all` makes
several runs: side by side in processes of one thread each, or one after the other, each by torchrun
in several processes that split the model. What a run depends on is written to `training.json`,
last; a folder that has it is finished, and an interrupted one goes on from its newest whole
checkpoint.
"""

import gc
import hashlib
import json
import logging
import math
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from rrtf import engines, execution, loss, methods, prompts, store
from rrtf.cluster import pool
from rrtf.config import derive_seed
from rrtf.engines.gptbigcode import supports_bfloat16
from rrtf.records import Outcome, Problem, RankedGroup, TrainStep
from rrtf.sandbox.executor import Limits
from rrtf.step import batches, networks, sharding
from rrtf.step.batches import Example
from rrtf.step.networks import Scorer

PRECISIONS = ("auto", "bfloat16", "float32")
DTYPES = ("float32", "bfloat16", "float16")
FROM_ZERO = "linear0"  # transformers' linear schedule, whose first update has rate 0
SCHEDULES = ("constant", "linear", "cosine", FROM_ZERO)
POSITIVE = ("groups_per_batch", "checkpoint_every", "max_length", "validate_every")
NOT_NEGATIVE = ("warmup", "tokens_per_forward", "learning_rate", "clip", "weight_decay", "held_out")
SECONDS = 240.0  # at most, of work that is lost where a process is killed
MARKER = ".digest.json"
# what a run may be resumed with another value of: the result is the same but for rounding
FREE = ("tokens_per_forward", "checkpointing", "checkpoint_every")

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Recipe:
    """How one run learns. The names are those of [train] in profiles.toml, which explains them.

    What a run has of its own: objective (one of `loss.OBJECTIVES`; weights, `margin`, `beta`: see
    `loss.Weights`), `seed` (of order, dropout, adapters), `threads` of its process, `updates` or,
    where those are 0, `epochs`, passes over the prompts. `learning_rate` is reached after `warmup`
    (share of the updates), then follows `schedule`. `held_out` groups are not trained on but looked
    at: before the first update, every `validate_every` updates and after the last.
    """

    objective: str
    updates: int
    groups_per_batch: int
    learning_rate: float
    epochs: float
    warmup: float
    ft_reduction: str
    ft_weight: float
    rank_weight: float
    normalise: bool
    margin: float
    pairs_of: str
    beta: float
    max_length: int
    dropout: float
    weight_decay: float
    clip: float
    optimizer: str
    precision: str
    attention: str
    tokens_per_forward: int
    checkpointing: bool
    lora_rank: int
    lora_alpha: float
    lora_dropout: float
    lora_targets: str
    qlora: bool
    save_dtype: str
    checkpoint_every: int
    seed: int
    threads: int
    schedule: str = FROM_ZERO
    held_out: int = 0
    validate_every: int = field(kw_only=True)

    @classmethod
    def of(cls, settings: Mapping[str, Any], **own: Any) -> "Recipe":
        """The recipe in a stage's `settings`, which hold more, with what is its `own`."""
        names = {field.name for field in fields(cls)}
        return cls(**{k: v for k, v in settings.items() if k in names} | own)

    @property
    def lora(self) -> networks.Lora:
        """The adapters."""
        own = self.lora_rank, self.lora_alpha, self.lora_dropout, self.lora_targets
        return networks.Lora(*own, qlora=self.qlora)


@dataclass(frozen=True, slots=True)
class Validation:
    """Problems that a model is asked while it learns, one greedy answer each, judged by its tests.

    They are put to it in `prompt_format`, an answer has at most `max_new_tokens`, programs run
    within `limits`, `workers` at a time.
    """

    problems: tuple[Problem, ...]
    prompt_format: str
    max_new_tokens: int
    limits: Limits
    workers: int

    @property
    def digest(self) -> str:
        """The hash of all that decides who passes."""
        tasks = [(p.task_id, p.prompt, p.entry_point, p.tests) for p in self.problems]
        how = self.prompt_format, self.max_new_tokens, asdict(self.limits)
        return hashlib.sha256(json.dumps([tasks, how]).encode()).hexdigest()

    def passed(self, model: str | Path) -> float | None:
        """pass@1 of `model`, 0..1; every process answers its part of the problems.

        None, with a warning, where a GPU that also trains has no room for it.
        """
        several, style = sharding.processes(), self.prompt_format
        own, solved = self.problems[sharding.rank() :: several], 0.0
        torch.cuda.empty_cache()
        try:
            if own:
                engine = engines.open_engine("auto", model, threads=torch.get_num_threads())
                greedy = engines.Decoding(0.0, 1.0, self.max_new_tokens, 0)
                how = {"n": 1, "decoding": greedy, "stops": prompts.stops(own, style)}
                found = engine.generate([*map(engines.asker(model, style), own)], **how)
                answers = prompts.responses(own, found, source="trained", temperature=0.0)
                how = {"limits": self.limits, "workers": max(1, self.workers // several)}
                verdicts = execution.execute(own, answers, cluster="local", **how)
                solved = sum(verdict.outcome is Outcome.PASS for verdict in verdicts)
        except torch.OutOfMemoryError as error:
            _LOG.warning("no pass@1, the GPU has no room beside the training: %s", error)
            solved = math.nan
        engine = None  # its memory is the training's again
        gc.collect()
        torch.cuda.empty_cache()
        share = sharding.total([solved])[0] / len(self.problems)
        return None if math.isnan(share) else share


@dataclass(frozen=True, slots=True)
class Look:
    """The model after an update (0: the start model), without dropout.

    Of the held-out groups means as a `TrainStep` has them, of the `Validation` pass@1; None for
    what there is not.
    """

    step: int
    loss: float | None = None
    rank_loss: float | None = None
    ft_loss: float | None = None
    pass_at_1: float | None = None


def best_of(looks: Iterable[Look]) -> Look | None:
    """The highest pass@1, the lowest loss, the earliest, in this order; the start model is none."""
    learnt = [one for one in looks if one.step]
    return min(learnt, key=lambda one: (-(one.pass_at_1 or 0.0), one.loss or 0.0), default=None)


Told = Callable[[TrainStep | Look, int], None]  # what is done, and how many updates there will be


def check(recipe: Recipe) -> None:
    """ValueError for a value that no run can have."""
    for least, names in ((1, POSITIVE), (0, NOT_NEGATIVE)):
        for name in names:
            if getattr(recipe, name) < least:
                raise ValueError(f"{name} {getattr(recipe, name)}: expected at least {least}")
    if (recipe.updates > 0) == (recipe.epochs > 0):
        raise ValueError(
            f"updates {recipe.updates} and epochs {recipe.epochs:g}: expected one of them"
        )
    loss.objective(recipe.objective)
    for name, known in (
        ("precision", PRECISIONS),
        ("save_dtype", DTYPES),
        ("ft_reduction", loss.REDUCTIONS),
        ("pairs_of", loss.PAIRS_OF),
        ("optimizer", networks.OPTIMIZERS),
        ("schedule", SCHEDULES),
    ):
        value = getattr(recipe, name)
        if value not in known:
            raise ValueError(f"unknown {name} {value!r}: expected one of {', '.join(known)}")


def train(
    groups: Sequence[RankedGroup],
    *,
    model: str | Path,
    output: Path,
    recipe: Recipe,
    overwrite: bool,
    validation: Validation | None = None,
    told: Told | None = None,
) -> list[TrainStep]:
    """Trains a copy of `model` on `groups` and saves it in `output`; one row per update.

    `told` is called after every update and look, on the first process. The model of the best look
    (`best_of`) lies in the folder `best`. A finished run of the same recipe, model and groups is
    read, not repeated; another one is replaced if `overwrite`, else a ValueError, as is a folder
    that holds something else.
    """
    check(recipe)
    mark = mark_of(groups, model, recipe, validation)
    finished = read_steps(output, mark["digest"])
    if finished is not None:
        return finished
    first, began = sharding.rank() == 0, time.monotonic()
    if first:
        start(output, mark, overwrite=overwrite)
    scorer, tokenizer = load(model, recipe)
    examples, dropped = _examples(groups, scorer, tokenizer, recipe)
    half = in_bfloat16(recipe.precision)
    networks.settle(scorer, examples, bfloat16=half, name=Path(model).name)
    if loss.OBJECTIVES[recipe.objective].reference:
        size = {"most": recipe.groups_per_batch, "budget": recipe.tokens_per_forward}
        kept = output / "checkpoints" / "reference.json"
        sums = networks.log_prob_sums(scorer, examples, **size, bfloat16=half, kept=kept)
        examples = [replace(e, reference=s) for e, s in zip(examples, sums, strict=True)]
    if dropped and first:
        _LOG.warning("left out (max_length %d): %s", recipe.max_length, _counts_of(dropped))
    examples, held = batches.apart(examples, count=recipe.held_out, seed=recipe.seed)
    updates = recipe.updates or math.ceil(recipe.epochs * len(examples) / recipe.groups_per_batch)
    recipe = replace(recipe, updates=updates)
    how = {"groups_per_batch": recipe.groups_per_batch, "seed": recipe.seed}
    data = batches.in_order(examples, updates=updates, **how)
    how = {"model": model, "save_dtype": recipe.save_dtype, "lora": recipe.lora}
    keep = partial(networks.save, scorer, tokenizer, **how)
    where = {"run": output.name, "folder": output / "checkpoints"}

    def watch(update: int) -> Look:
        found = look(scorer, held, recipe, run=output.name, update=update)
        if not validation:
            return found
        now = where["folder"] / "now" if update else model
        if update:
            keep(now)
            sharding.wait()
        return replace(found, pass_at_1=validation.passed(now))

    watches = watch if held or validation else None
    steps, looks = fit(scorer, data, recipe, watch=watches, keep=keep, told=told, **where)
    facts = {
        "run": output.name,
        "digest": mark["digest"],
        "settings": settings_of(recipe, model),
        "n_groups": len(groups),
        "n_trained": len(examples),
        "dropped": dropped,
        "tokens": sum(example.n_tokens for example in data),
        "bfloat16": half,
        "attention": scorer.network.config._attn_implementation,
    } | ({} if scorer.way == "packed" else {"scored": scorer.way})
    facts |= {"looks": [asdict(one) for one in looks]} if looks else {}
    facts["rounded"] = round(keep(output, measured=True), 3)
    if first:
        card = _card({**facts, "groups": mark["of"]["groups"]}, steps, looks)
        store.write_bytes(output / "README.md", card.encode())
        store.write_json(output / "training.json", {**facts, "steps": to_json(steps)})
        shutil.rmtree(output / "checkpoints", ignore_errors=True)
        store.write_json(output / ".seconds.json", round(time.monotonic() - began, 1))
    return steps


def load(model: str | Path, recipe: Recipe) -> tuple[Scorer, Any]:
    """(what a recipe trains of a start model, its tokenizer)."""
    return networks.load(
        model,
        dropout=recipe.dropout,
        threads=recipe.threads,
        bfloat16=in_bfloat16(recipe.precision),
        attention=recipe.attention,
        checkpointing=recipe.checkpointing,
        lora=recipe.lora,
        seed=recipe.seed,
    )


def _examples(
    groups: Sequence[RankedGroup], scorer: Scorer, tokenizer: Any, recipe: Recipe
) -> tuple[list[Example], dict[str, int]]:
    """(what is trained on, number dropped by reason)."""
    positions = getattr(scorer.network.config, "max_position_embeddings", recipe.max_length)
    how = {"objective": recipe.objective, "max_length": min(recipe.max_length, positions)}
    return batches.prepare(groups, tokenizer, **how)


def fit(
    scorer: Scorer,
    data: Sequence[Example],
    recipe: Recipe,
    *,
    run: str,
    folder: Path,
    watch: Callable[[int], Look] | None,
    keep: Callable[[Path], float],
    told: Told | None = None,
) -> tuple[list[TrainStep], list[Look]]:
    """Trains `scorer` on `data`, `groups_per_batch` of them an update, in the order given.

    Goes on from the newest whole checkpoint in `folder`. One is written every `checkpoint_every`
    updates and every `SECONDS`, and before KeyboardInterrupt leaves where a signal asks to stop.
    Returns the rows of all updates and the looks of `watch`; `keep` writes the model of the best.
    """
    optimizer = networks.make_optimizer(scorer, recipe.optimizer, weight_decay=recipe.weight_decay)
    state = sharding.resume(folder, scorer, optimizer)
    rows = from_json(state["steps"], str(folder)) if state else []
    looks = [Look(**one) for one in state["looks"]] if state else []
    size, warm = recipe.groups_per_batch, math.ceil(recipe.warmup * recipe.updates)
    tell = told if told and sharding.rank() == 0 else lambda *_: None
    if watch and not rows:
        looks = [watch(0)]
        tell(looks[0], recipe.updates)
    scorer.train()
    saved = time.monotonic()
    with sharding.asked_to_stop() as asked:
        for update in range(len(rows) + 1, recipe.updates + 1):
            rate = recipe.learning_rate * schedule(update, recipe.updates, warm, recipe.schedule)
            for group in optimizer.param_groups:
                group["lr"] = rate
            torch.manual_seed(derive_seed(recipe.seed, "dropout", update, sharding.rank()))
            now = data[(update - 1) * size : update * size]
            means = accumulate(scorer, now, recipe, run=run, update=update)
            norm = networks.clip_gradients(scorer, recipe.clip)
            optimizer.step()
            optimizer.zero_grad()
            rows.append(TrainStep(run, update, **means, learning_rate=rate, grad_norm=norm))
            if watch and (update % recipe.validate_every == 0 or update == recipe.updates):
                looks.append(watch(update))
                if best_of(looks) is looks[-1]:
                    keep(folder.parent / "best")
            stop, late = sharding.total([bool(asked), time.monotonic() - saved > SECONDS])
            if stop or late or update % recipe.checkpoint_every == 0:
                done = {"steps": to_json(rows), "looks": [asdict(one) for one in looks]}
                state = {"update": update, **done}
                sharding.save(folder / f"checkpoint-{update}", scorer, optimizer, state)
                saved = time.monotonic()
            for one in (rows[-1], *(one for one in looks[-1:] if one.step == update)):
                tell(one, recipe.updates)
            if stop and update < recipe.updates:
                raise KeyboardInterrupt
            if update % 5 == 0:
                networks.trim()
    return rows, looks


def look(scorer: Scorer, held: Sequence[Example], recipe: Recipe, *, run: str, update: int) -> Look:
    """What the objective is on `held` after an update."""
    if not held:
        return Look(update)
    scorer.eval()
    found = dict.fromkeys(("loss", "rank_loss", "ft_loss"), 0.0)
    for start in range(0, len(held), recipe.groups_per_batch):
        some = held[start : start + recipe.groups_per_batch]
        with torch.no_grad():
            means = accumulate(scorer, some, recipe, run=run, update=update)
        found = {name: sums + means[name] * len(some) / len(held) for name, sums in found.items()}
    sharding.reshard(scorer)
    scorer.train()
    return Look(update, **found)


def accumulate(
    scorer: Scorer, examples: Sequence[Example], recipe: Recipe, *, run: str, update: int
) -> dict[str, float]:
    """Adds the gradient of an update's mean loss; returns its loss, its parts, violated pairs.

    Without gradients (`torch.no_grad`) it only returns.

    Every number of `loss.Parts` is a mean over prompts, so a forward pass of b of the update's B
    prompts counts b / B, whatever their lengths: the sum is the mean over all B, also where
    the passes are unequal, and where a prompt's own loss is a mean over tokens.
    FloatingPointError with run, update and tasks if a loss is not finite.
    """
    several, device = sharding.processes(), networks.device()
    objective, half = loss.OBJECTIVES[recipe.objective], in_bfloat16(recipe.precision)
    sizes = [example.n_tokens for example in examples]
    plan = sharding.passes(sizes, processes=several, budget=recipe.tokens_per_forward)
    total = [0.0] * 5  # loss, rank, ft, violated pairs, pairs
    for members in plan[sharding.rank()]:
        batch = batches.collate([examples[k] for k in members or (0,)], device=device)
        with networks.autocast(half):
            sums, lengths = scorer(batch)
            parts = objective.loss(batch, sums, lengths, recipe)
        loss.require_finite(parts, run=run, step=update, task_ids=batch["task_ids"])
        share = len(members) / len(examples)
        if torch.is_grad_enabled():
            (parts.loss * (share * several)).backward()  # FSDP takes the mean over the processes
        if members:
            wrong = round(float(parts.violated) * parts.n_pairs) if parts.n_pairs else 0
            means = [share * float(part.detach()) for part in (parts.loss, parts.rank, parts.ft)]
            total = [s + v for s, v in zip(total, (*means, wrong, parts.n_pairs), strict=True)]
    mean, rank, ft, wrong, pairs = sharding.total(total)
    violated = wrong / pairs if pairs else math.nan
    return {"loss": mean, "rank_loss": rank, "ft_loss": ft, "violated": violated}


def schedule(update: int, updates: int, warm: int, name: str) -> float:
    """The share of the learning rate at an update, from 1: up in `warm` updates, then by `name`.

    `constant`, or down to nearly nothing by a line or half a cosine; none of the updates has rate
    0, but the first of `linear0`.
    """
    if name == FROM_ZERO:
        falls = (updates - update + 1) / max(1, updates - warm)
        return (update - 1) / warm if update <= warm else falls
    if update <= warm:
        return update / warm
    gone = (update - warm - 1) / (updates - warm)  # 0..1
    by = {"constant": 1.0, "linear": 1.0 - gone, "cosine": (1.0 + math.cos(math.pi * gone)) / 2}
    return by[name]


def in_bfloat16(precision: str) -> bool:
    """Whether a run of `precision` multiplies in bfloat16; `auto`: where the hardware does."""
    if precision != "auto":
        return precision == "bfloat16"
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return supports_bfloat16()


@dataclass(frozen=True)
class Run:
    """One method and seed: what `train` needs beside the start model.

    `model` is a start model of the run's own, if it has one; `validation` what it is asked while it
    learns.
    """

    name: str
    method: str
    seed: int
    groups: tuple[RankedGroup, ...]
    recipe: Recipe
    model: str = ""
    validation: Validation | None = None

    @property
    def folder(self) -> str:
        """Where the model lies, relative to the stage's folder."""
        return f"models/{self.name}"


def plan(
    groups: Sequence[RankedGroup],
    pairs: Sequence[RankedGroup],
    *,
    recipe: Recipe,
    seeds: Mapping[str, int],
    learning_rates: Mapping[str, float],
    max_responses: int,
    watched: Mapping[str, Validation] | None = None,
) -> list[Run]:
    """The runs of all methods: `seeds` says how many of each, `learning_rates` by objective.

    A method that `learning_rates` has by its own name takes that one. The first run of a method is
    asked what `watched` has for it while it learns. All else they share is in `recipe`; run k of
    every method has the same seed, so it meets the prompts in the same order. Longer runs come
    first, which keeps all processes busy.
    """
    runs = []
    for method, count in seeds.items():
        objective = methods.METHODS[method]
        chosen, _ = methods.training_set(method, groups, pairs, max_responses=max_responses)
        rate = learning_rates.get(method, learning_rates[objective])
        own = replace(recipe, objective=objective, learning_rate=rate)
        if method == "sft-kept":
            own = replace(own, rank_weight=0.0)  # all else as in RRTF, its learning rate too
        for k in range(count):
            seeded = replace(own, seed=derive_seed(recipe.seed, "train", k) % 2**31)
            run = Run(f"{method}-s{k}", method, k, tuple(chosen), seeded)
            runs.append(run if k else replace(run, validation=(watched or {}).get(method)))
    return sorted(runs, key=_cost, reverse=True)


def _cost(run: Run) -> float:
    """Responses that one prompt of a run brings into a batch, on average."""
    if not loss.OBJECTIVES[run.recipe.objective].compares or not run.groups:
        return 1.0
    return sum(len(group.responses) for group in run.groups) / len(run.groups)


def train_all(
    runs: Sequence[Run],
    *,
    model: str | Path,
    folder: Path,
    workers: int,
    processes_per_run: int,
    progress: Callable[[int, int], None] | None = None,
) -> list[list[TrainStep]]:
    """`train` for every run into `folder / run.folder`: in `workers` processes of one thread each.

    With `processes_per_run` above 1 (0: as many as this machine has GPUs) one run at a time, by
    torchrun in that many processes. Results are in the order of `runs` and do not depend on
    `workers`. `progress` counts updates over all runs. RuntimeError if a process dies; what is
    finished stays, a second call goes on.
    """
    together = processes_per_run or torch.cuda.device_count()
    if together > 1:
        return _by_torchrun(runs, model, folder, together, progress)
    return _side_by_side(runs, model, folder, workers, progress)


def _by_torchrun(
    runs: Sequence[Run],
    model: str | Path,
    folder: Path,
    processes: int,
    progress: Callable[[int, int], None] | None,
) -> list[list[TrainStep]]:
    total, found = sum(run.recipe.updates for run in runs), []
    for run in runs:
        output, start_model = folder / run.folder, run.model or model
        digest = mark_of(run.groups, start_model, run.recipe, run.validation)["digest"]
        if read_steps(output, digest) is None:
            groups, log = output.with_suffix(".groups.jsonl"), output.with_suffix(".log")
            store.write(groups, run.groups)
            command, before = verb_of(run, start_model, output, groups), sum(map(len, found))
            for _ in sharding.torchrun(command, processes=processes, log=log):
                newest = sharding.newest_checkpoint(output / "checkpoints")
                safe = int(newest.name.rpartition("-")[2]) if newest else 0
                if progress:
                    progress(before + safe, total)
        found.append(read_steps(output, digest))
        if found[-1] is None:
            raise RuntimeError(f"{output}: torchrun ended without the model of this run")
    return found


def verb_of(run: Run, model: str | Path, output: Path, groups: Path) -> list[str]:
    """The command `train` that makes this very run: `-m rrtf train ...`, for python or torchrun.

    Problems that it is asked on the way are written beside `output`.
    """
    named = {"model": model, "out": output, "objective": run.recipe.objective, "report-to": "none"}
    options = [word for name, value in named.items() for word in (f"--{name}", str(value))]
    rest = {name: v for name, v in asdict(run.recipe).items() if name not in named}
    if asked := run.validation:
        tasks = output.with_suffix(".validation.jsonl")
        store.write(tasks, asked.problems)
        rest |= {"validate_on": str(tasks), **asdict(asked.limits), "workers": asked.workers}
        rest |= {n: getattr(asked, n) for n in ("prompt_format", "max_new_tokens")}
    options += [f"--set=train.{name}={json.dumps(value)}" for name, value in rest.items()]
    return ["-m", "rrtf", "train", str(groups), "--overwrite", *options]


def _side_by_side(
    runs: Sequence[Run],
    model: str | Path,
    folder: Path,
    workers: int,
    progress: Callable[[int, int], None] | None,
) -> list[list[TrainStep]]:
    from concurrent.futures import FIRST_COMPLETED, wait
    from concurrent.futures.process import BrokenProcessPool
    from multiprocessing import get_context

    counts = get_context("spawn").Array("i", len(runs))
    total = sum(run.recipe.updates for run in runs)
    try:
        with pool(workers, _start_process, counts) as beside:
            jobs = enumerate(runs)
            futures = [beside.submit(_train_one, k, run, model, folder) for k, run in jobs]
            pending = set(futures)
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
    return [future.result() for future in futures]


_counts: Any = None  # of this process: updates done, by run


def _start_process(counts: Any) -> None:
    global _counts
    _counts = counts


def _train_one(k: int, run: Run, model: str | Path, folder: Path) -> list[TrainStep]:
    def count(step: TrainStep, _: int) -> None:
        _counts[k] = step.step

    how = {"model": run.model or model, "output": folder / run.folder, "overwrite": True}
    how |= {"validation": run.validation, "told": count}
    steps = train(run.groups, recipe=run.recipe, **how)
    _counts[k] = len(steps)
    return steps


def curves(runs: Iterable[Run], folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Run -> (update, pass@1 on validation problems), of those that were asked on the way."""
    found = {}
    for run in runs:
        looks = store.read_json(folder / run.folder / "training.json").get("looks", [])
        points = [(one["step"], one["pass_at_1"]) for one in looks]
        found[run.name] = [(step, passed) for step, passed in points if passed is not None]
    return {name: points for name, points in found.items() if points}


def seconds(runs: Iterable[Run], folder: Path) -> dict[str, float]:
    """How long each run took in the process that finished it."""
    return {run.name: store.read_json(folder / run.folder / ".seconds.json") for run in runs}


def run_rows(
    runs: Sequence[Run], steps: Sequence[Sequence[TrainStep]], *, last: int = 10
) -> list[dict[str, Any]]:
    """What `runs.jsonl` holds: each run, its model and its losses, means of the `last` updates."""
    rows = []
    for run, rows_of_run in zip(runs, steps, strict=True):
        end = rows_of_run[-last:]
        rows.append(
            {
                "method": run.method,
                "objective": run.recipe.objective,
                "seed": run.seed,
                "model": run.folder,
                "n_groups": len(run.groups),
                "updates": run.recipe.updates,
                "learning_rate": run.recipe.learning_rate,
                "loss": sum(s.loss for s in end) / len(end),
                "rank_loss": sum(s.rank_loss for s in end) / len(end),
                "ft_loss": sum(s.ft_loss for s in end) / len(end),
            }
        )
    return rows


def settings_of(recipe: Recipe, model: str | Path) -> dict[str, Any]:
    """What a run's files say of how it was made: the start model's name and the recipe."""
    return {"model": name_of(model), **asdict(recipe)}


def name_of(model: str | Path) -> str:
    """A folder's name; OWNER/NAME of one that the hub's client keeps."""
    kept = Path(model).parent  # .../models--OWNER--NAME/snapshots/HASH
    hub = kept.name == "snapshots" and kept.parent.name.startswith("models--")
    return kept.parent.name[8:].replace("--", "/") if hub else Path(model).name


def mark_of(
    groups: Iterable[RankedGroup],
    model: str | Path,
    recipe: Recipe,
    validation: Validation | None = None,
) -> dict[str, Any]:
    """What the result depends on (recipe, data, start model), and the hash of it."""
    facts = {k: value for k, value in settings_of(recipe, model).items() if k not in FREE}
    facts |= {
        "start model": store.sha256(Path(model)) if Path(model).is_dir() else str(model),
        "groups": hashlib.sha256(store.encode(groups, ".jsonl")).hexdigest(),
    } | ({"validation": validation.digest} if validation else {})
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
    for name in ("checkpoints", "adapter", "logs", "best"):
        shutil.rmtree(output / name, ignore_errors=True)
    store.write_json(marker, mark)


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What another run in the same folder was asked otherwise."""
    hashed = ("start model", "groups", "validation")
    changed = [name for name in now | before if before.get(name) != now.get(name)]
    plain = [
        f"{name} {before.get(name)}, now {now.get(name)}" for name in changed if name not in hashed
    ]
    return "; ".join([*plain, *(f"another {name}" for name in changed if name in hashed)])


def read_steps(output: Path, digest: str = "") -> list[TrainStep] | None:
    """The rows of a finished run, or None if it is not finished or (`digest`) was another run."""
    path = output / "training.json"
    if not path.exists():
        return None
    facts = store.read_json(path)
    if digest and facts.get("digest") != digest:
        return None
    if sharding.rank() == 0:
        shutil.rmtree(output / "checkpoints", ignore_errors=True)
    return from_json(facts["steps"], str(path))


def _counts_of(dropped: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in dropped.items())


def _card(facts: Mapping[str, Any], steps: Sequence[TrainStep], looks: Sequence[Look]) -> str:
    """The README.md: what was trained, on which data, with what results."""
    settings, clip = facts["settings"], facts["settings"]["clip"]
    held = f", {settings['held_out']} more held out" if settings["held_out"] else ""
    clipped = sum(step.grad_norm > clip > 0 for step in steps)
    about = (
        f"`{settings['model']}` fine-tuned with the objective `{settings['objective']}` of rrtf, a "
        "reproduction of ranking feedback for code models (arXiv:2307.14936).\n\n## Data\n\n"
        f"{facts['n_trained']} of {facts['n_groups']} prompts with ranked responses (dropped: "
        f"{_counts_of(facts['dropped']) or 'none'}){held}; SHA-256 of the file's rows "
        f"`{facts['groups']}`. {settings['updates']} updates of {settings['groups_per_batch']} "
        f"prompts, {facts['tokens']} tokens.\n\n## Results\n\n"
        f"Loss at the first update {steps[0].loss:.4f}, at the last {steps[-1].loss:.4f}; the "
        f"gradient was clipped in {clipped} of {len(steps)}."
    )
    if looks:
        rows = [("update", "loss held out", "pass@1"), ("---",) * 3]
        rows += [(one.step, one.loss, one.pass_at_1) for one in looks]
        told = ["".join(f"| {'' if v is None else v} " for v in row) + "|\n" for row in rows]
        best = f" After update {best_of(looks).step} it was best: `best`."
        about += "\n\n".join([best, "".join(told), ""])
    return networks.model_card(facts["run"], about, settings, start=settings["model"], tag="rrtf")


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
