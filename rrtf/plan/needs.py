"""How a profile's model can be trained: memory by method, how many GPUs, how they share it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from rrtf import blocks
from rrtf.plan import memory, work
from rrtf.plan.facts import Device
from rrtf.plan.models import Shape

if TYPE_CHECKING:
    from transformers import PreTrainedModel

LORA_RANK = 16  # of the table where the profile trains all weights
SHARDS = (1, 2, 4, 8, 16, 32, 64)


@dataclass(frozen=True, slots=True)
class Way:
    """How a model is trained: method, activation checkpointing, rank of the adapters."""

    method: str
    checkpointing: bool
    rank: int = LORA_RANK


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


def step(
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


def counted(model: "PreTrainedModel", one: memory.Step) -> bool:
    """Whether activations were counted by a pass, not by a formula."""
    return memory.saved(model.config, one).counted


def ways(settings: work.Settings) -> list[Way]:
    """All that are compared: every method without and with checkpointing."""
    rank = settings["train"]["lora_rank"] or LORA_RANK
    return [Way(method, again, rank) for method in memory.METHODS for again in (False, True)]


def parts(model: "PreTrainedModel", one: memory.Step, way: Way, shards: int) -> memory.Parts:
    """`memory.parts` of one way."""
    how: Mapping[str, Any] = {name: getattr(way, name) for name in way.__slots__}
    return memory.parts(model, one, shards=shards, **how)


def need(model: "PreTrainedModel", one: memory.Step, way: Way, on: Device) -> Need:
    """What `way` needs on devices like `on`; QLoRA is not sharded, nor is anything on CPU cores."""
    at = partial(parts, model, one, way)
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
    names = blocks.units(model)
    held = blocks.members(model, names)
    sizes = {name: sum(p.numel() for _, p in unit) for name, unit in held.items()}
    whole = sum(p.numel() for p in model.parameters())
    if sum(sizes.values()) != whole:
        raise ValueError(f"{type(model).__name__}: {sum(sizes.values())} of {whole} in the units")
    root = sizes.pop(blocks.ROOT)
    return Units(len(sizes), max(sizes.values()), root)


def shares(model: "PreTrainedModel", one: memory.Step, way: Way) -> Iterator[Share]:
    """How full the fullest GPU is, by their number."""
    held = blocks.members(model, blocks.units(model))
    for shards in SHARDS[: 1 if way.method == "qlora" else None]:
        own = sum(blocks.held_elements(unit, shards) for unit in held.values())
        yield Share(shards, own, parts(model, one, way, shards).total)


def answers_at_a_time(shape: Shape, size: work.Lengths, on: Device) -> int:
    """Answers that one device generates at once: weights, keys and values in bfloat16.

    0: the weights alone do not fit, so an engine has to split the model.
    """
    each = 2 * shape.layers * shape.key_value * memory.HALF * (size.prompt + size.student)
    room = on.memory * on.usable - memory.HALF * shape.parameters
    return max(0, int(room / each))
