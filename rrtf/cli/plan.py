"""The verb `plan`: a plan on a terminal, section by section, and as values for programs."""

import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from rrtf import config, store
from rrtf.cli import screen
from rrtf.cli.options import Given
from rrtf.report import pipeline

if TYPE_CHECKING:  # what plans loads torch
    from rrtf.plan.memory import Parts
    from rrtf.plan.models import Fact
    from rrtf.plan.planning import Plan
    from rrtf.plan.work import Line

HEADINGS = {
    "weights": "weights", "gradients": "grads", "optimizer": "optim.", "working": "working",
    "activations": "activ.", "logits": "logits",
}  # fmt: skip
UNITS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def plan(given: Given) -> None:
    """Say what a profile takes before it is run: memory, GPUs, tokens, FLOPs, hours, energy.

    Needs a model's configuration only, no weights; nothing is run.
    """
    config.need("plan", "torch", "transformers")
    import transformers

    from rrtf.plan import models, planning

    transformers.logging.set_verbosity_error()  # of configurations that are not meant to be run
    fakes = logging.getLogger("torch._subclasses.fake_tensor")
    fakes.setLevel(logging.CRITICAL)  # of ways that a mixture tries before it finds one
    out = given.out
    screen.check_out(out, ends=(".json",))
    overrides = pipeline.settings(given.set, None, given.model or None)
    profile = config.resolve(given.profile, "train", overrides)["profile"]
    figures = {"memory": given.gpu_memory, "flops": given.tflops, "watts": given.watts,
               "train": given.mfu, "generate": given.mfu_generate}  # fmt: skip
    changed = {name: value for name, value in figures.items() if value}
    place = models.device(given.device or models.device_of(str(profile)), **changed)
    asked = {one.name: getattr(given, one.name) or None for one in fields(planning.Asked)}
    found = planning.plan(
        given.profile, on=place, overrides=overrides, asked=planning.Asked(**asked)
    )
    if out == "-":
        print(json.dumps(values(found), indent=1))
        return
    show(found, screen.console())
    if out:
        store.write_json(Path(out), values(found))
        print(f"\nThe same for programs: {out}")


def saved(given: Given) -> str:
    """What an interrupted call says."""
    return "nothing was written"


def show(found: "Plan", console: Console) -> None:
    """Prints a plan: the model, memory, sharding, stages, what a run took, what it rests on."""
    for title, body in (
        ("", model_lines(found)),
        (memory_title(found), memory(found)),
        (f"GPUs that share the model, {_scale(found)[1]}", sharding(found)),
        (stages_title(found), stages(found)),
        ("Planned and measured", measured(found)),
        ("What this rests on (data/measured.toml)", [facts(found.facts)]),
    ):
        parts = list(body)
        if title and parts:
            screen.explain(console, f"\n{title}")
        for part in parts:
            screen.explain(console, part) if isinstance(part, str) else console.print(part)


def values(found: "Plan") -> dict[str, Any]:
    """A plan as JSON-ready values: bytes, seconds of all devices together, kWh, FLOPs."""
    keep = ("profile", "devices", "fits", "answers_at_a_time", "row", "measured")
    records = ("shape", "device", "step", "way", "units")
    named = {
        who: ones and {n: ", ".join(getattr(one, n) for one in ones) for n in ("name", "origin")}
        for who, ones in (("model", [found.model]), ("teacher", found.teachers or None))
    }
    return {
        **{name: getattr(found, name) for name in keep},
        **named,
        **{name: store.to_row(getattr(found, name)) for name in records},
        "memory": [
            {**store.to_row(need.way), "alone": _with_total(need.alone), "gpus": need.gpus,
             "sharded": _with_total(need.sharded)} for need in found.needs
        ],
        "sharding": [store.to_row(share) for share in found.shares],
        "stages": [
            {**store.to_row(line.work), "seconds": line.seconds, "kwh": line.kwh}
            for line in found.lines
        ],
        "facts": [store.to_row(fact) for fact in found.facts],
    }  # fmt: skip


def _with_total(parts: "Parts | None") -> dict[str, float] | None:
    return parts and {**store.to_row(parts), "total": parts.total}


def model_lines(found: "Plan") -> Iterator[str]:
    """Name, size and shape of the student, and who the teacher is."""
    shape = found.shape
    kind = found.model.settings.model_type
    yield f"{found.model.name} ({kind}, from {found.model.origin}), profile {found.profile}"
    yield (
        f"{shape.parameters:,} parameters: {shape.layers} layers of width {shape.hidden}, "
        f"attention {shape.attention} wide, keys and values {shape.key_value}, "
        f"vocabulary {shape.vocabulary:,}, {shape.positions:,} positions"
    )
    if shape.experts:
        at_work = shape.linear + shape.experts + shape.head
        yield f"a mixture of experts: a token is multiplied with {at_work:,} weights"
    teachers = ", ".join(one.name for one in found.teachers)
    yield f"teacher: {teachers or 'none named, its answers are left out'}"


def memory_title(found: "Plan") -> str:
    """What a device computes at a time."""
    step, precision = found.step, "bfloat16" if found.step.bfloat16 else "float32"
    groups = "one group" if step.rows == 1 else f"{step.rows} groups"
    scale, unit = _scale(found)
    return (
        f"Memory of a training step in {unit} (10^{9 if scale == 1e9 else 6} bytes), {precision}, "
        f"{groups} of up to {step.length:,} tokens at a time"
    )


def _scale(found: "Plan") -> tuple[float, str]:
    return (1e9, "GB") if max(n.alone.total for n in found.needs) >= 1e9 else (1e6, "MB")


def memory(found: "Plan") -> Iterator[Table | str]:
    """Parts by method and checkpointing on one device, and the GPUs that it takes."""
    scale, unit = _scale(found)
    rows = []
    for need in found.needs:
        names = [need.way.method + "*" * (need.way == found.way)]
        names.append("yes" if need.way.checkpointing else "no")
        parts = [getattr(need.alone, name) for name in HEADINGS] + [need.alone.total]
        each = _three(need.sharded.total / scale) if need.sharded else "-"
        gpus = [] if found.device.cpu else [str(need.gpus or "-"), each]
        rows.append([*names, *(_three(part / scale) for part in parts), *gpus])
    on_gpus = [] if found.device.cpu else ["GPUs", f"{unit} each"]
    heads = ["method", "ckpt", *HEADINGS.values(), "sum", *on_gpus]
    yield screen.table(heads, rows, left=(0, 1), gap=1)
    yield (
        "* as the profile trains. ckpt: activation checkpointing, layers are computed again in the "
        "backward pass. working: bfloat16 copies of the weights and gradients on their way, on "
        "several GPUs gathered layers."
    )


def sharding(found: "Plan") -> Iterator[str | Table]:
    """What each GPU holds by their number, and what `fully_shard` wraps; nothing for a CPU."""
    if found.device.cpu:
        return
    scale, _ = _scale(found)
    heads = ["GPUs", *(f"{share.shards}" for share in found.shares)]
    own = ["parameters each", *(_short(share.parameters) for share in found.shares)]
    yield screen.table(
        heads, [own, ["GB each", *(_three(share.total / scale) for share in found.shares)]]
    )
    units = found.units
    yield (
        f"fully_shard wraps {units.blocks} blocks of up to {units.largest_block:,} parameters, "
        f"then the root with {units.root:,}: every parameter once."
    )


def stages_title(found: "Plan") -> str:
    """On what the stages are planned to run."""
    what = "cores" if found.device.cpu else found.device.name
    short = "" if found.fits else ", on which training does NOT fit"
    return (
        f"Work and time on {found.devices} x {what} at {found.device.watts:g} W{short}; "
        "programs on the profile's workers"
    )


def stages(found: "Plan") -> Iterator[Table | str]:
    """The sum of every stage, under it every piece of its work; at the end the sum of all.

    `count` are answers generated or learnt from, or programs executed.
    """
    from rrtf.plan import work

    lines = found.lines
    scale, unit = (1, "kWh") if sum(line.kwh for line in lines) >= 1 else (1000, "Wh")
    rows = []
    for stage in work.STAGES:
        own = [line for line in lines if line.work.stage == stage]
        rows.append([stage, "", "", "", *_costs(own, scale)])
        for line in own:
            one = line.work
            counts = [one.programs or one.answers, one.tokens]
            shown = [_short(count) if count else "" for count in counts]
            runs = str(one.runs) if one.runs > 1 else ""
            rows.append([f"  {one.what}", runs, *shown, *_costs([line], scale)])
    rows.append(["all", "", "", "", *_costs(lines, scale)])
    heads = ["", "runs", "count", "tokens", "FLOPs", "time", unit]
    yield screen.table(heads, rows, gap=1)
    packed, apart = found.row["packed"], found.row["apart"]
    yield (
        f"A prompt is computed once for its responses: a pair costs {packed:,.0f} tokens instead "
        f"of {apart:,.0f}. count: answers, or programs that are executed."
    )
    if found.device.cpu:
        return
    if found.answers_at_a_time:
        yield f"One GPU holds {found.answers_at_a_time:,} answers at a time when it generates."
    else:
        yield "One GPU does not hold the weights to generate: an engine has to split the model."


def _costs(lines: "Sequence[Line]", scale: float) -> list[str]:
    flops = sum(line.work.flops for line in lines)
    energy = scale * sum(line.kwh for line in lines)
    seconds = sum(line.seconds for line in lines)
    shown = f"{flops:.1e}".replace("e+", "e") if flops else ""
    return [shown, _time(seconds), _three(energy)]


def measured(found: "Plan") -> Iterator[Table | str]:
    """Planned seconds beside those of a finished run with these settings; nothing without one."""
    if not found.measured:
        return
    rows = []
    for stage, seconds in found.measured.items():
        planned = sum(line.seconds for line in found.lines if line.work.stage == stage)
        rows.append([stage, f"{planned:.0f}", f"{seconds:.0f}", f"{planned / seconds:.2f}"])
    yield screen.table(["stage", "planned s", "measured s", "planned / measured"], rows)
    yield (
        "The rates were measured apart from that run; what a stage needs to start, and a quantised "
        "variant to be made, was measured on such a run."
    )


def facts(found: "Sequence[Fact]") -> Table:
    """Every figure, measured or assumed, and where it is from; commands by the script's name."""
    rows = []
    for fact in found:
        scripts = [part for part in fact.source.split() if part.endswith(".py")]
        source = scripts[0].rpartition("/")[2] if scripts else fact.source
        kind = "measured" if fact.measured else "assumed"
        named = f"{fact.name.replace('_', ' ')}, {fact.unit}"
        rows.append([_short(fact.value), named, f"{kind}: {source}"])
    return screen.table(["", "", ""], rows, left=(1, 2))


def _short(value: float) -> str:
    """`1,234,567` -> `1.23 M`."""
    for size, letter in UNITS:
        if value >= 10 * size or (size >= 1e6 and value >= size):
            return f"{value / size:.3g} {letter}"
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"


def _three(value: float) -> str:
    """Three digits, and no powers of ten for what is less than ten thousand."""
    if 0 < value < 0.001:
        return "< 0.001"
    return f"{value:,.0f}" if value >= 100 else f"{value:.2g}" if value < 0.1 else f"{value:.3g}"


def _time(seconds: float) -> str:
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:,.3g} {unit}"
    return f"{seconds:.0f} s" if seconds >= 1 or not seconds else "< 1 s"
