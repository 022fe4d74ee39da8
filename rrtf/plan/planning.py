"""A plan: everything that a profile takes on some devices, and every figure that it rests on."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from rrtf import config, store
from rrtf.plan import memory, models, work
from rrtf.plan.memory import Way
from rrtf.plan.models import Device, Fact, Shape, facts, measured_on_cpu
from rrtf.step import sharding

if TYPE_CHECKING:
    from transformers import PreTrainedModel


LORA_RANK = 16  # of the table where the profile trains all weights
SHARDS = (1, 2, 4, 8, 16, 32, 64)


@dataclass(frozen=True, slots=True)
class Need:
    """Memory of one way: `alone` on one device of any size, `sharded` on the `gpus` it takes.

    None: it fits on no number of them.
    """

    way: Way
    alone: memory.Parts
    gpus: int | None
    sharded: memory.Parts | None


@dataclass(frozen=True, slots=True)
class Share:
    """What the fullest of `shards` GPUs holds: parameters, and bytes of a step in all."""

    shards: int
    parameters: int
    total: float


@dataclass(frozen=True, slots=True)
class Units:
    """What `fully_shard` wraps: how many blocks of how many parameters, and what the root holds."""

    blocks: int
    largest_block: int
    root: int


def step_of(
    settings: work.Settings, size: work.Lengths, on: Device, *, groups: int | None = None
) -> memory.Step:
    """The largest step of any method, every answer as long as it may be.

    `groups` at a time; by default what `train.tokens_per_forward` has room for, and without it a
    whole batch on a CPU and one group on a GPU, gradients adding up.
    """
    own = settings["train"]
    group = max(
        (work.longest(method, settings, size) for method in own["trained"]),
        key=lambda row: row.packed,
    )
    rows = own["groups_per_batch"] if on.cpu else 1
    if room := own["tokens_per_forward"]:
        rows = max(1, int(room / group.packed))
    rows = min(groups or rows, own["groups_per_batch"])
    return memory.Step(
        rows=rows,
        prompt=round(group.prompt),
        response=round(group.response),
        responses=group.responses,
        bfloat16=own["precision"] != "float32",
        dropout=own["dropout"],
    )


def ways(settings: work.Settings) -> list[Way]:
    """All that are compared: every method without and with checkpointing."""
    rank = settings["train"]["lora_rank"] or LORA_RANK
    return [Way(method, again, rank) for method in memory.METHODS for again in (False, True)]


def need(model: "PreTrainedModel", one: memory.Step, way: Way, on: Device) -> Need:
    """What `way` needs on devices like `on`; QLoRA is not sharded, nor is anything on CPU cores."""
    at = partial(memory.parts, model, one, way)
    most = 1 if way.method == "qlora" or on.cpu else None
    found = memory.devices(at, room=on.memory * on.usable, most=most)
    return Need(way, at(1), *(found or (None, None)))


def choose(settings: work.Settings, needs: Sequence[Need]) -> Need:
    """How the profile trains, with checkpointing where it says so or where that saves GPUs."""
    own = settings["train"]
    method = "full" if own["optimizer"] == "adamw" else "adafactor"
    if own["lora_rank"]:
        method = "qlora" if own["qlora"] else "lora"
    without, again = (found for found in needs if found.way.method == method)
    saves = again.gpus is not None and (without.gpus is None or again.gpus < without.gpus)
    return again if own["checkpointing"] or saves else without


def units(model: "PreTrainedModel") -> Units:
    """The units of the sharding; ValueError unless they hold every parameter exactly once."""
    sizes = memory.unit_sizes(model)
    whole = sum(p.numel() for p in model.parameters())
    if sum(sizes.values()) != whole:
        raise ValueError(f"{type(model).__name__}: {sum(sizes.values())} of {whole} in the units")
    root = sizes.pop(sharding.ROOT)
    return Units(len(sizes), max(sizes.values()), root)


def shares(model: "PreTrainedModel", one: memory.Step, way: Way) -> Iterator[Share]:
    """How full the fullest GPU is, by their number."""
    held = sharding.members(model, sharding.units(model))
    for shards in SHARDS[: 1 if way.method == "qlora" else None]:
        own = sum(sharding.held_elements(unit, shards) for unit in held.values())
        yield Share(shards, own, memory.parts(model, one, way, shards).total)


def answers_at_a_time(shape: Shape, size: work.Lengths, on: Device) -> int:
    """Answers that one device generates at once: weights, keys and values in bfloat16.

    0: the weights alone do not fit, so an engine has to split the model.
    """
    each = 2 * shape.layers * shape.key_value * memory.HALF * (size.prompt + size.student)
    room = on.memory * on.usable - memory.HALF * shape.parameters
    return max(0, int(room / each))


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
    teachers: Sequence[models.Known]
    device: Device
    devices: int
    fits: bool
    step: memory.Step
    way: Way
    needs: Sequence[Need]
    units: Units
    shares: Sequence[Share]
    answers_at_a_time: int
    row: Mapping[str, float]
    lines: Sequence[work.Line]
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
    known = models.find(settings["train"]["student"])
    named = {one.source: one.model for one in work.local_teachers(settings["sample"])}
    teachers = {source: models.find(name) for source, name in named.items()}
    model = models.build(known.settings)
    shape = models.shape(model)
    experts = {who: models.shape(models.build(one.settings)) for who, one in teachers.items()}
    fixed = {"prompt": asked.prompt_tokens, "answer": asked.answer_tokens}
    world = work.world(settings["evolve"]["problems"])
    size, why = work.lengths(world, settings, **fixed)
    public, more = work.lengths("other", settings, **fixed)
    tasks = (work.n_tasks(name, settings)[1] for name in settings["evaluate"]["benchmarks"])
    why += [fact for fact in tasks if fact]
    why += [] if world == "other" or set(settings["evaluate"]["benchmarks"]) == {"test"} else more
    prompts, origin = work.n_prompts(settings, given=asked.prompts)
    step = step_of(settings, size, on, groups=asked.groups_at_a_time)
    if not memory.saved(model.config, step).counted:
        unit = "bytes of activations a token, layer and number of its width"
        reason = "a formula: this architecture has no pass over shapes alone"
        why.append(Fact("activations", memory.FORMULA, unit, False, reason))
    table = [need(model, step, way, on) for way in ways(settings)]
    chosen = choose(settings, table)
    devices = asked.gpus or (settings["train"]["processes"] if on.cpu else chosen.gpus or 1)
    shapes = {"student": shape, **experts}
    frozen = chosen.way.method in memory.ADAPTED
    how = {"checkpointing": chosen.way.checkpointing, "frozen": frozen}
    todo = list(work.works(settings, shapes, size, public, prompts, **how))
    return Plan(
        profile=profile,
        model=known,
        shape=shape,
        teachers=list(teachers.values()),
        device=on,
        devices=devices,
        fits=chosen.gpus is not None and (on.cpu or devices >= chosen.gpus),
        step=step,
        way=chosen.way,
        needs=table,
        units=units(model),
        shares=list(shares(model, step, chosen.way)),
        answers_at_a_time=answers_at_a_time(shape, size, on),
        row=_row(settings, size),
        lines=work.lines(todo, settings, on, devices=devices),
        facts=[origin, *why, *work.assumed_rates(on), facts()["pairs_per_prompt"]],
        measured=measured(profile, settings),
    )


WEIGHT_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "int8": 1, "int4": 0.5}


def disk(found: Plan, settings: work.Settings) -> float:
    """Bytes that a run writes: trained models, the checkpoints of those under way, variants.

    A checkpoint has a weight and AdamW's two moments in float32; of adapters they are few.
    """
    own, size = settings["train"], found.shape.parameters
    trained = work.n_students(settings) - 1
    kept = own["processes"] * (sharding.KEPT + 1) * 3 * memory.SINGLE
    kept *= found.way.method not in memory.ADAPTED
    variants = settings["quantize"]["variants"]
    made = sum(WEIGHT_BYTES.get(name.rpartition("-")[2], 0) for name in variants)
    return size * (trained * WEIGHT_BYTES[own["save_dtype"]] + kept + made)


def settings_of(profile: str, overrides: Mapping[str, config.Value]) -> work.Settings:
    """The parameters of every stage that is planned; ValueError as `config.resolve`."""
    config.check_overrides(overrides)
    names = ("evolve", *work.STAGES)
    return {name: config.resolve(profile, name, overrides) for name in names}


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
