"""From trials to trained models: side by side, in rounds on fresh answers, or by online RL."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from rrtf import config, grpo, methods, rounds, train
from rrtf.ablation.runs import Trial
from rrtf.ablation.sets import Answers, Material, training_set
from rrtf.records import Execution, Response


def make(
    trials: Sequence[Trial],
    *,
    model: Path,
    folder: Path,
    material: Material,
    sampling: Mapping[str, Any],
    limits: Mapping[str, Any],
    shards: Path,
    seed: int,
    workers: int,
) -> None:
    """Trains every trial from `model` into `folder / run.folder`, each kind in its own way.

    `sampling` are the options of `sample.sample_temperatures` with which later rounds ask the
    student, those of the first; `limits` those of `execution.execute`.
    """
    plain = [t.run for t in trials if t.arm.method == "train" and t.arm.rounds == 1]
    if plain:
        train.train_all(plain, model=model, folder=folder, workers=workers)
    several = [t for t in trials if t.arm.rounds > 1]
    if several:
        how = {"sampling": sampling, "limits": limits, "shards": shards, "seed": seed}
        ask = partial(rounds.answers, material.problems, **how)
        where = {"model": model, "folder": folder, "workers": workers}
        in_rounds(several, material=material, ask=ask, seed=seed, **where)
    for trial in trials:
        if trial.arm.method == "grpo":
            online(trial, model=model, folder=folder, material=material, limits=limits)


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

    Every round takes the options of the trial, its number of updates too; the last round's model
    lies where a plain run's would. `ask` is `rounds.answers` with all but model and number bound.
    """
    start = {trial.run.name: model for trial in trials}
    groups = {trial.run.name: trial.run.groups for trial in trials}
    for number in range(1, max(trial.arm.rounds for trial in trials) + 1):
        there = [trial for trial in trials if trial.arm.rounds >= number]
        runs = [_round(t, number, start[t.run.name], groups[t.run.name]) for t in there]
        train.train_all(runs, model=model, folder=folder, workers=workers)
        for trial, run in zip(there, runs, strict=True):
            name = trial.run.name
            start[name] = folder / run.folder
            if number < trial.arm.rounds:
                fresh = Answers(*ask(model=start[name], number=number + 1))
                now = replace(material, student=fresh)
                groups[name] = tuple(training_set(trial.arm, now, seed=seed + number)[0])


def _round(trial: Trial, number: int, start: Path, groups: Sequence) -> methods.Run:
    last = number == trial.arm.rounds
    name = trial.run.name if last else f"{trial.run.name}-round-{number}"
    own = {"seed": config.derive_seed(trial.run.options["seed"], "round", number) % 2**31}
    options = {**trial.run.options, **own}
    return replace(trial.run, name=name, groups=tuple(groups), model=str(start), options=options)


def online(
    trial: Trial, *, model: Path, folder: Path, material: Material, limits: Mapping[str, Any]
) -> None:
    """TRL's GRPO on the prompts of the trial's training set."""
    asked = {group.task_id for group in trial.run.groups}
    options = trial.run.options
    grpo.train(
        [problem for problem in material.problems if problem.task_id in asked],
        model=model,
        output=folder / trial.run.folder,
        updates=options["updates"],
        learning_rate=options["learning_rate"],
        prompts_per_update=options["groups_per_batch"],
        seed=options["seed"],
        limits=limits,
    )
