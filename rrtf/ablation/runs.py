"""The registered runs: what each trains with, and one line for each that is finished.

The ledger (`data/ablation.jsonl`) grows wave by wave; a run whose line is there is not made again.
A line holds which problems were solved, so that every paired test can be repeated from it.
"""

import hashlib
import json
import math
import re
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rrtf import config, sample, store, train
from rrtf.ablation import grpo
from rrtf.ablation.registration import Arm, Registration
from rrtf.ablation.sets import Answers, Material, training_set
from rrtf.engines import Decoding
from rrtf.evaluate import exam
from rrtf.nano import grammar
from rrtf.records import Execution, Problem, RankedGroup, Response, TaskScore
from rrtf.sandbox.executor import Limits
from rrtf.step import batches

VALIDATION, HELD_OUT = "validation", "held-out"
WAVE = 8  # runs between two writings of the ledger
LONGEST, DRAWN = 140, 8  # tokens of an answer and answers to a prompt, of online learning

# the options of a training that decide what comes out of it
DECISIVE = (
    "objective", "updates", "groups_per_batch", "learning_rate", "seed", "warmup", "ft_reduction",
    "ft_weight", "rank_weight", "normalise", "margin", "beta", "pairs_of", "max_length", "dropout",
    "weight_decay", "clip", "precision",
)  # fmt: skip

Groups = Mapping[str, Sequence[RankedGroup]]  # by arm


@dataclass(frozen=True)
class Line:
    """One finished run.

    `tokens` went through the network in one update, on average; bit i of `solved` (hexadecimal,
    the first problem is the highest bit) says whether problem i of the split was solved greedily;
    `key` is the hash of all that decided it. Online RL takes only its prompts from the training set
    that `responses` and `tokens` describe.
    """

    arm: str
    split: str
    seed: int
    learning_rate: float
    updates: int
    prompts: int
    responses: int
    tokens: float
    n_tasks: int
    passed: int
    solved: str
    key: str


@dataclass(frozen=True)
class Trial:
    """A run that is to be made, and the split whose problems its model is asked."""

    arm: Arm
    split: str
    run: train.Run
    tokens: float


def grid(
    plan: Registration,
    groups: Groups,
    sizes: Mapping[str, float],
    *,
    tiers: Sequence[str],
) -> list[Trial]:
    """The runs on validation from which the learning rates of these tiers' arms are chosen."""
    used = {arm.family for arm in plan.arms.values() if arm.tier in tiers}
    return [
        _trial(plan, plan.arms[name], groups, sizes, split=VALIDATION, rate=rate, seed=seed)
        for family in plan.families.values()
        if family.name in used
        for name in family.by
        for rate in family.rates
        for seed in range(plan.grid_seeds)
    ]


def chosen_rates(plan: Registration, lines: Iterable[Line]) -> dict[str, float]:
    """Family -> its learning rate, by the rule of the registration.

    A family of whose grid a run is missing is left out.
    """
    passed: dict[tuple[str, float], list[float]] = {}
    for line in lines:
        if line.split == VALIDATION:
            share = line.passed / line.n_tasks
            passed.setdefault((line.arm, line.learning_rate), []).append(share)
    found = {}
    for family in plan.families.values():
        tried = {
            rate: [share for name in family.by for share in passed.get((name, rate), [])]
            for rate in family.rates
        }
        if all(len(shares) == len(family.by) * plan.grid_seeds for shares in tried.values()):
            means = {rate: sum(shares) / len(shares) for rate, shares in tried.items()}
            found[family.name] = max(sorted(means), key=means.__getitem__)
    return found


def finals(
    plan: Registration,
    rates: Mapping[str, float],
    groups: Groups,
    sizes: Mapping[str, float],
    *,
    tiers: Sequence[str],
) -> list[Trial]:
    """The runs of these tiers on the held-out problems, all seeds of an arm one after the other.

    Arms whose learning rate is not chosen yet are left out.
    """
    return [
        _trial(plan, arm, groups, sizes, split=HELD_OUT, rate=rates[arm.family], seed=seed)
        for arm in plan.arms.values()
        if arm.tier in tiers and arm.family in rates
        for seed in range(plan.seeds[arm.tier])
    ]


def _trial(
    plan: Registration,
    arm: Arm,
    groups: Groups,
    sizes: Mapping[str, float],
    *,
    split: str,
    rate: float,
    seed: int,
) -> Trial:
    prompts = len(groups[arm.name])
    own = recipe(plan, arm, n_groups=prompts, sizes=sizes, rate=rate, seed=train_seed(seed))
    name = re.sub(r"[^a-z0-9.]+", "-", arm.name.lower())
    run = train.Run(
        f"{split}-{name}-lr{rate:.0e}-s{seed}", arm.name, seed, tuple(groups[arm.name]), own
    )
    return Trial(arm, split, run, sizes[arm.name] * own.groups_per_batch)


def train_seed(seed: int) -> int:
    """The seed of training number `seed`: it draws the order of the prompts, for all arms alike."""
    return config.derive_seed(0, "ablation", seed) % 2**31


def recipe(
    plan: Registration,
    arm: Arm,
    *,
    n_groups: int,
    sizes: Mapping[str, float],
    rate: float,
    seed: int,
) -> train.Recipe:
    """How `arm` is trained; `sizes`: tokens through the network per prompt, by arm."""
    planned = {"updates": plan.updates, "groups_per_batch": plan.groups_per_batch}
    found = train.Recipe.of(
        config.resolve(plan.profile, "train"),
        objective=arm.objective,
        learning_rate=rate,
        epochs=0.0,
        seed=seed,
        threads=1,
        **planned | arm.options,
    )
    updates = found.updates
    if arm.epochs:
        updates = math.ceil(arm.epochs * n_groups / plan.groups_per_batch)
    if arm.equal_compute_with:
        ratio = sizes[arm.equal_compute_with] / sizes[arm.name]
        updates = round(plan.updates * ratio)
    return replace(found, updates=updates)


def tokens_per_prompt(plan: Registration, groups: Groups, *, model: Path) -> dict[str, float]:
    """Arm -> tokens through the network per prompt, the prompt itself counted once."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    found = {}
    for name, some in groups.items():
        encoded = [batches.encode(g, tokenizer, plan.arms[name].objective) for g in some]
        found[name] = sum(example.n_tokens for example in encoded) / len(encoded)
    return found


def carry_out(
    trials: Sequence[Trial],
    *,
    exams: Mapping[str, exam.Exam],
    make: Callable[[Sequence[Trial]], None],
    model: Path,
    folder: Path,
    sit: Callable[..., exam.Sat],
    run_missing: bool,
    ledger: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Line]:
    """The lines of these trials, in order; those that the ledger lacks are run, `WAVE` at a time.

    With `run_missing` off they are left out. The trials of one call belong to one split. `make`
    trains from `model` into `folder`, where models lie until their lines are written; `sit` is
    `exam.sit` with sampler, judge and draws bound. An interrupted call goes on: with the
    ledger, then with the runs of the unfinished wave.
    """
    ledger = ledger or place()
    done = {line.key: line for line in read(ledger)}
    base = store.sha256(model)
    keys = [key_of(trial, base, exams[trial.split].problems) for trial in trials]
    waiting = [(key, t) for key, t in zip(keys, trials, strict=True) if key not in done]
    for at in range(0, len(waiting) if run_missing else 0, WAVE):
        some = waiting[at : at + WAVE]
        make([trial for _, trial in some])
        done |= {line.key: line for line in _examined(some, exams, folder, sit)}
        store.write(ledger, sorted(done.values(), key=_order))
        shutil.rmtree(folder / "models", ignore_errors=True)
        if progress:
            progress(sum(key in done for key in keys), len(keys))
    return [done[key] for key in keys if key in done]


def place() -> Path:
    """The ledger: `data/ablation.jsonl` of the checkout, or below `$RRTF_HOME` where that is set.

    One that is not there yet begins as a copy of the checkout's.
    """
    path, shipped = (
        where / "data" / "ablation.jsonl" for where in (config.output_home(), config.home())
    )
    if not path.exists() and shipped.exists():
        store.write_bytes(path, shipped.read_bytes())
    return path


def exams(
    validation: Sequence[Problem], held_out: Sequence[Problem], limits: Limits
) -> dict[str, exam.Exam]:
    """Split -> what is asked there; problems of one composition count as one family."""
    asked = {VALIDATION: validation, HELD_OUT: held_out}
    return {
        name: exam.Exam(name, tuple(found), limits, grammar.family) for name, found in asked.items()
    }


def _examined(
    some: Sequence[tuple[str, Trial]],
    exams: Mapping[str, exam.Exam],
    folder: Path,
    sit: Callable[..., exam.Sat],
) -> list[Line]:
    """The lines of a few trials whose models are there."""
    runs = [trial.run for _, trial in some]
    entries = [exam.Contender(run.name, run.seed, str(folder / run.folder)) for run in runs]
    scores = sit(exams[some[0][1].split], entries).scores
    return [line(trial, key, scores) for key, trial in some]


def line(trial: Trial, key: str, scores: Iterable[TaskScore]) -> Line:
    """The ledger's line of a trial from the scores of its model, named after its run."""
    solved = [row.c for row in scores if row.model == trial.run.name]
    return Line(
        arm=trial.arm.name,
        split=trial.split,
        seed=trial.run.seed,
        learning_rate=trial.run.recipe.learning_rate,
        updates=trial.run.recipe.updates,
        prompts=len(trial.run.groups),
        responses=sum(len(group.responses) for group in trial.run.groups),
        tokens=round(trial.tokens, 1),
        n_tasks=len(solved),
        passed=sum(solved),
        solved=packed(solved),
        key=key,
    )


def packed(solved: Sequence[int]) -> str:
    """Zeros and ones as hexadecimal digits, padded to whole ones on the right."""
    padded = [*solved, *[0] * (-len(solved) % 4)]
    return "".join(
        f"{int(''.join(map(str, padded[at : at + 4])), 2):x}" for at in range(0, len(padded), 4)
    )


def unpacked(digits: str, count: int) -> list[int]:
    """The inverse of `packed` for `count` problems; ValueError if the digits are too few."""
    bits = [int(bit) for digit in digits for bit in f"{int(digit, 16):04b}"]
    if not count <= len(bits) < count + 4:
        raise ValueError(f"{len(digits)} digits for {count} problems")
    return bits[:count]


def key_of(trial: Trial, base: str, problems: Sequence[Problem]) -> str:
    """The hash of what decides a line: start model, training set, options, problems asked."""
    parts = [
        base,
        hashlib.sha256(store.encode(trial.run.groups, ".jsonl")).hexdigest(),
        {name: getattr(trial.run.recipe, name) for name in DECISIVE},
        [trial.arm.method, trial.arm.rounds, trial.split],
        hashlib.sha256("\n".join(p.task_id for p in problems).encode()).hexdigest(),
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def read(ledger: Path) -> list[Line]:
    """The lines of the ledger; none where there is no file yet."""
    return store.read(ledger, Line) if ledger.exists() else []


def _order(line: Line) -> tuple:
    return line.split, line.arm, line.learning_rate, line.seed


def answers(
    problems: Sequence[Problem],
    *,
    model: str | Path,
    number: int,
    author: Callable[[str, str], sample.Author],
    decodings: Sequence[Decoding],
    n_samples: int,
    sampler: Callable[..., list[Response]],
    judge: Callable[..., list[Execution]],
) -> tuple[list[Response], list[Execution]]:
    """What `model` answers in round `number` of training, and the verdicts, in the same order.

    The first round, before training, has number 1, so this is called with 2 or more (else a
    ValueError): the number decides, with the seeds of `decodings`, what is drawn. `author` is a
    `sample.Author` but for model and source; `sampler` is `sample.sample` and `judge`
    `execution.execute`, each with where it works and its shards bound: all rounds may share them,
    and an interrupted round goes on where it was.
    """
    if number < 2:
        raise ValueError(
            f"round {number}: expected 2 or more; the first is sampled before training"
        )
    own = [replace(d, seed=config.derive_seed(d.seed, "round", number)) for d in decodings]
    asked = author(str(model), f"round-{number}")
    found = sampler(problems, asked, decodings=own, n_samples=n_samples)
    return found, judge(problems, found)


def make(
    trials: Sequence[Trial],
    *,
    model: Path,
    folder: Path,
    material: Material,
    ask: Callable[..., tuple[list[Response], list[Execution]]],
    limits: Limits,
    seed: int,
    workers: int,
) -> None:
    """Trains every trial from `model` into `folder / run.folder`, each kind in its own way.

    `ask` is `answers` with all but model and number bound; `limits` are for online learning.
    """
    where = {"model": model, "folder": folder, "workers": workers}
    plain = [t.run for t in trials if t.arm.method == "train" and t.arm.rounds == 1]
    if plain:
        train.train_all(plain, processes_per_run=1, **where)
    several = [t for t in trials if t.arm.rounds > 1]
    if several:
        in_rounds(several, material=material, ask=ask, seed=seed, **where)
    for trial in trials:
        if trial.arm.method == "grpo":
            online(trial, problems=material.problems, limits=limits, **where)


def in_rounds(
    trials: Sequence[Trial],
    *,
    model: Path,
    folder: Path,
    material: Material,
    ask: Callable[..., tuple[list[Response], list[Execution]]],
    seed: int,
    workers: int,
) -> None:
    """Round after round from the model before, the student's answers drawn anew from it.

    Every round takes the recipe of the trial, its number of updates too; the last round's model
    lies where a plain run's would. `ask` is `answers` with all but model and number bound.
    """
    start = {trial.run.name: model for trial in trials}
    groups = {trial.run.name: trial.run.groups for trial in trials}
    for number in range(1, max(trial.arm.rounds for trial in trials) + 1):
        there = [trial for trial in trials if trial.arm.rounds >= number]
        runs = [_round(t, number, start[t.run.name], groups[t.run.name]) for t in there]
        where = {"folder": folder, "workers": workers, "processes_per_run": 1}
        train.train_all(runs, model=model, **where)
        for trial, run in zip(there, runs, strict=True):
            name = trial.run.name
            start[name] = folder / run.folder
            if number < trial.arm.rounds:
                fresh = Answers(*ask(model=start[name], number=number + 1))
                now = replace(material, student=fresh)
                groups[name] = tuple(training_set(trial.arm, now, seed=seed + number)[0])


def _round(trial: Trial, number: int, start: Path, groups: Sequence) -> train.Run:
    last = number == trial.arm.rounds
    name = trial.run.name if last else f"{trial.run.name}-round-{number}"
    seed = config.derive_seed(trial.run.recipe.seed, "round", number) % 2**31
    own = replace(trial.run.recipe, seed=seed)
    return replace(trial.run, name=name, groups=tuple(groups), model=str(start), recipe=own)


def online(
    trial: Trial,
    *,
    model: Path,
    folder: Path,
    problems: Sequence[Problem],
    limits: Limits,
    workers: int,
) -> None:
    """TRL's GRPO on the prompts of the trial's training set, at TRL's divergence: none."""
    asked = {group.task_id for group in trial.run.groups}
    recipe = replace(trial.run.recipe, beta=0.0)
    grpo.train(
        [problem for problem in problems if problem.task_id in asked],
        model=model,
        output=folder / trial.run.folder,
        recipe=recipe,
        decoding=Decoding(1.0, 1.0, LONGEST, recipe.seed),
        n_samples=DRAWN,
        limits=limits,
        workers=workers,
    )
