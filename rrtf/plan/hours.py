"""How long the work of a profile takes on its devices, and the energy."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rrtf.plan import work
from rrtf.plan.facts import Device, Fact, device, facts
from rrtf.plan.models import Shape
from rrtf.plan.work import Work

JOULES_PER_KWH = 3.6e6


@dataclass(frozen=True, slots=True)
class Line:
    """A piece of work, the seconds that it takes on all devices together, and its energy."""

    work: Work
    seconds: float
    kwh: float


def works(
    settings: work.Settings,
    shapes: Mapping[str, Shape | None],
    size: work.Lengths,
    public: work.Lengths,
    prompts: int,
    **how: Any,
) -> Iterator[Work]:
    """The work of all stages, in their order; `how` are the options of `work.train`."""
    sampled = list(work.sample(settings, shapes, size, prompts))
    yield from sampled
    yield from work.rank(settings, sum(each.answers for each in sampled), prompts)
    shape = shapes["student"]
    yield from work.train(settings, shape, size, prompts, **how)
    yield from work.evaluate(settings, shapes, size, public)
    yield from work.quantize(settings, shape, size)


def lines(
    all_work: Sequence[Work], settings: work.Settings, on: Device, *, devices: int
) -> list[Line]:
    """Every piece of work with its time; on a CPU also what stages need besides, by stage."""
    found = [_line(each, settings, on, devices) for each in all_work]
    found += _starts(all_work, settings, on, devices) if on.cpu else []
    return sorted(found, key=lambda line: work.STAGES.index(line.work.stage))


def _line(each: Work, settings: work.Settings, on: Device, devices: int) -> Line:
    """Programs run on the profile's cores, everything else on all devices.

    Quantised variants are made one after the other, on a CPU by one thread.
    """
    if each.kind == "execute":
        cores = settings["rank"]["workers"]
        seconds = each.programs / (cores * facts()["programs_per_second_many"].value)
        return _costed(each, seconds, watts=device("cpu").watts * cores)
    used = 1 if on.cpu and each.stage == "quantize" else devices
    share = on.train if each.kind == "train" else on.generate
    return _costed(each, each.flops / (used * on.flops * share), watts=on.watts * used)


def _costed(each: Work, seconds: float, *, watts: float) -> Line:
    return Line(each, seconds, seconds * watts / JOULES_PER_KWH)


def _starts(
    all_work: Sequence[Work], settings: work.Settings, on: Device, devices: int
) -> Iterator[Line]:
    runs = sum(each.runs for each in all_work if each.stage == "train")
    seconds = dict.fromkeys(work.STAGES, facts()["cpu_start_seconds"].value)
    seconds["train"] += runs * facts()["cpu_run_seconds"].value / devices
    variants = len(settings["quantize"]["variants"])
    seconds["quantize"] += variants * facts()["cpu_variant_seconds"].value
    for stage, count in seconds.items():
        yield _costed(Work(stage, "starting, loading", "start"), count, watts=on.watts)


def rates(on: Device) -> Iterator[Fact]:
    """The facts that times rest on."""
    names = ["programs_per_second_many"]
    names += [name for name in facts() if on.cpu and name.startswith("cpu_")]
    yield from (facts()[name] for name in names)
    for what in () if on.cpu else ("train", "generate"):
        unit = f"of {on.name}'s {on.flops / 1e12:g} TFLOP/s, to {what}"
        yield Fact("utilisation", getattr(on, what), unit, False, "--mfu, --mfu-generate change it")
