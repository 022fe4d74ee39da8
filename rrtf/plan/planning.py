"""A plan: everything that a profile takes on some devices, and every figure that it rests on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rrtf import config, store
from rrtf.plan import hours, memory, models, needs, work
from rrtf.plan.facts import Device, Fact, facts, measured_on_cpu


@dataclass(frozen=True, slots=True)
class Asked:
    """What a caller may fix of a plan; None leaves it to profile, device and facts."""

    gpus: int | None = None
    groups_at_a_time: int | None = None
    prompts: int | None = None
    prompt_tokens: float | None = None
    answer_tokens: float | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """What `plan` found out. `fits`: whether training fits on `devices` of them.

    `measured` are the seconds of a finished run of these settings, by stage.
    """

    profile: str
    model: models.Known
    shape: models.Shape
    teacher: models.Known | None
    device: Device
    devices: int
    fits: bool
    step: memory.Step
    way: needs.Way
    needs: Sequence[needs.Need]
    units: needs.Units
    shares: Sequence[needs.Share]
    answers_at_a_time: int
    row: Mapping[str, float]
    lines: Sequence[hours.Line]
    facts: Sequence[Fact]
    measured: Mapping[str, float]


def plan(
    profile: str,
    *,
    on: Device,
    overrides: Mapping[str, config.Value] | None = None,
    asked: Asked | None = None,
) -> Plan:
    """What a run of `profile` takes on devices like `on`; nothing is run or written.

    `overrides` as in `config.resolve`; `shared.student` names the model. ValueError and
    FileNotFoundError for what a caller can get wrong.
    """
    asked = asked or Asked()
    settings = settings_of(profile, overrides or {})
    on = measured_on_cpu(on) if on.cpu else on
    known, teacher = _models(settings)
    model = models.build(known.settings)
    shape = models.shape(model)
    expert = models.shape(models.build(teacher.settings)) if teacher else None
    fixed = {"prompt": asked.prompt_tokens, "answer": asked.answer_tokens}
    world = work.world(settings["evolve"]["problems"])
    size, why = work.lengths(world, settings, **fixed)
    public, more = work.lengths("other", settings, **fixed)
    tasks = (work.n_tasks(name, settings)[1] for name in settings["evaluate"]["benchmarks"])
    why += [fact for fact in tasks if fact]
    why += [] if world == "other" or set(settings["evaluate"]["benchmarks"]) == {"test"} else more
    prompts, origin = work.n_prompts(settings, given=asked.prompts)
    step = needs.step(settings, size, on, groups=asked.groups_at_a_time)
    if not needs.counted(model, step):
        unit = "bytes of activations a token, layer and number of its width"
        reason = "a formula: this architecture has no pass over shapes alone"
        why.append(Fact("activations", memory.FORMULA, unit, False, reason))
    table = [needs.need(model, step, way, on) for way in needs.ways(settings)]
    chosen = needs.choose(settings, table)
    devices = asked.gpus or (settings["train"]["processes"] if on.cpu else chosen.gpus or 1)
    shapes = {"student": shape, "teacher": expert}
    frozen = chosen.way.method in ("lora", "qlora")
    how = {"checkpointing": chosen.way.checkpointing, "frozen": frozen}
    todo = list(hours.works(settings, shapes, size, public, prompts, **how))
    return Plan(
        profile=profile,
        model=known,
        shape=shape,
        teacher=teacher,
        device=on,
        devices=devices,
        fits=chosen.gpus is not None and (on.cpu or devices >= chosen.gpus),
        step=step,
        way=chosen.way,
        needs=table,
        units=needs.units(model),
        shares=list(needs.shares(model, step, chosen.way)),
        answers_at_a_time=needs.answers_at_a_time(shape, size, on),
        row=_row(settings, size),
        lines=hours.lines(todo, settings, on, devices=devices),
        facts=[origin, *why, *hours.rates(on), facts()["pairs_per_prompt"]],
        measured=measured(profile, settings),
    )


def settings_of(profile: str, overrides: Mapping[str, config.Value]) -> work.Settings:
    """The parameters of every stage that is planned; ValueError as `config.resolve`."""
    config.check_overrides(overrides)
    names = ("evolve", *work.STAGES)
    return {name: config.resolve(profile, name, overrides) for name in names}


def _models(settings: work.Settings) -> tuple[models.Known, models.Known | None]:
    """Student and teacher; a profile may name no teacher, as the paper does not."""
    teacher = settings["sample"]["teacher"]
    student = models.find(settings["train"]["student"])
    return student, models.find(teacher) if teacher else None


def _row(settings: work.Settings, size: work.Lengths) -> dict[str, float]:
    """What sharing the prompt saves on the groups of RRTF."""
    pair = work.row("rrtf", settings, size)
    return {"packed": pair.packed, "apart": pair.apart, "responses": pair.responses}


def measured(profile: str, settings: work.Settings) -> dict[str, float]:
    """Stage -> seconds that a finished run took whose settings were no others than these."""
    found = {}
    for stage in work.STAGES:
        manifest = store.manifest(profile, config.stage_name(stage))
        if manifest and _agree(manifest["settings"], settings[stage]):
            found[stage] = manifest["seconds"]
    return found


def _agree(one: Mapping[str, object], other: Mapping[str, object]) -> bool:
    """Whether the settings that both know are equal; new ones do as was done without them."""
    return all(one[name] == other[name] for name in one.keys() & other.keys())


def model_override(model: str | None) -> dict[str, config.Value]:
    """`--model` as an override: a folder or file by its absolute path."""
    if model is None:
        return {}
    path = Path(model)
    return {"shared.student": str(path.resolve()) if path.exists() else model}
