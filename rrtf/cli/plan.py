"""A plan on a terminal, section by section, and as values for programs."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rrtf import config, store
from rrtf.cli import screen
from rrtf.plan import work
from rrtf.plan.memory import Parts
from rrtf.plan.models import Fact, device, device_of
from rrtf.plan.planning import Asked, Need, Plan, model_override, plan
from rrtf.plan.work import Line

_DEVICES = "Devices"  # panels of the help
_WORK = "Amount of work"

Out = Annotated[
    str | None, typer.Option(metavar="FILE", help="also write the plan as JSON: a .json file, or -")
]
Device = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="of data/devices.toml: cpu, rtx4090, a100, h100, h200",
        show_default="the profile's",
        rich_help_panel=_DEVICES,
    ),
]
GpuMemory = Annotated[
    float | None,
    typer.Option(
        metavar="GB",
        min=0.1,
        help="of one GPU",
        show_default="the device's",
        rich_help_panel=_DEVICES,
    ),
]
Gpus = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=1,
        help="how many there are",
        show_default="as few as training fits on",
        rich_help_panel=_DEVICES,
    ),
]
Flops = Annotated[
    float | None,
    typer.Option(
        "--tflops",
        metavar="N",
        min=0.001,
        help="of one GPU at its best",
        show_default="the device's",
        rich_help_panel=_DEVICES,
    ),
]
Watts = Annotated[
    float | None,
    typer.Option(
        metavar="W",
        min=0,
        help="of one GPU",
        show_default="the device's",
        rich_help_panel=_DEVICES,
    ),
]
Mfu = Annotated[
    float | None,
    typer.Option(
        metavar="0..1",
        min=0.001,
        max=1,
        help="share of the FLOPs that training reaches",
        show_default="the device's",
        rich_help_panel=_DEVICES,
    ),
]
MfuGenerate = Annotated[
    float | None,
    typer.Option(
        "--mfu-generate",
        metavar="0..1",
        min=0.001,
        max=1,
        help="share of the FLOPs that generation reaches",
        show_default="the device's",
        rich_help_panel=_DEVICES,
    ),
]
Groups = Annotated[
    int | None,
    typer.Option(
        "--groups-at-a-time",
        metavar="N",
        min=1,
        help="groups that one GPU computes together",
        show_default="the profile's",
        rich_help_panel=_DEVICES,
    ),
]
Prompts = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=1,
        help="training problems",
        show_default="the profile's",
        rich_help_panel=_WORK,
    ),
]
PromptTokens = Annotated[
    float | None,
    typer.Option(
        "--prompt-tokens",
        metavar="N",
        min=1,
        help="of a mean prompt",
        show_default="data/measured.toml",
        rich_help_panel=_WORK,
    ),
]
AnswerTokens = Annotated[
    float | None,
    typer.Option(
        "--answer-tokens",
        metavar="N",
        min=1,
        help="of a mean answer",
        show_default="data/measured.toml",
        rich_help_panel=_WORK,
    ),
]


HEADINGS = {
    "weights": "weights", "gradients": "grads", "optimizer": "optim.", "working": "working",
    "activations": "activ.", "logits": "logits",
}  # fmt: skip
UNITS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def show(found: Plan, console: Console) -> None:
    """Prints a plan: the model, memory, sharding, stages, what a run took, what it rests on."""
    for title, body in (
        ("", model_lines(found)),
        (memory_title(found), [memory_table(found), *memory_notes(found)]),
        (f"GPUs that share the model, {_scale(found)[1]}", sharding(found)),
        (stages_title(found), [stage_table(found.lines), *stage_notes(found)]),
        ("Planned and measured", measured_table(found)),
        ("What this rests on (data/measured.toml)", [facts_table(found.facts)]),
    ):
        parts = list(body)
        if title and parts:
            screen.explain(console, f"\n{title}")
        for part in parts:
            screen.explain(console, part) if isinstance(part, str) else console.print(part)


def rows(found: Plan) -> dict[str, Any]:
    """A plan as JSON-ready values: bytes, seconds of all devices together, kWh, FLOPs."""
    keep = ("profile", "devices", "fits", "answers_at_a_time", "row", "measured")
    records = ("shape", "device", "step", "way", "units")
    teacher = (
        {"name": found.teacher.name, "origin": found.teacher.origin} if found.teacher else None
    )
    return {
        **{name: getattr(found, name) for name in keep},
        "model": {"name": found.model.name, "origin": found.model.origin},
        "teacher": teacher,
        **{name: store.to_row(getattr(found, name)) for name in records},
        "memory": [_need_row(need) for need in found.needs],
        "sharding": [store.to_row(share) for share in found.shares],
        "stages": [_line_row(line) for line in found.lines],
        "facts": [store.to_row(fact) for fact in found.facts],
    }


def _need_row(need: Need) -> dict[str, Any]:
    def with_total(parts: Parts | None) -> dict[str, float] | None:
        return parts and {**store.to_row(parts), "total": parts.total}

    alone, sharded = with_total(need.alone), with_total(need.sharded)
    return {**store.to_row(need.way), "alone": alone, "gpus": need.gpus, "sharded": sharded}


def _line_row(line: Line) -> dict[str, Any]:
    return {**store.to_row(line.work), "seconds": line.seconds, "kwh": line.kwh}


# The model


def model_lines(found: Plan) -> Iterator[str]:
    """Name, size and shape of the student, and who the teacher is."""
    shape = found.shape
    kind = found.model.settings.model_type
    yield f"{found.model.name} ({kind}, from {found.model.origin}), profile {found.profile}"
    yield (
        f"{shape.parameters:,} parameters: {shape.layers} layers of width {shape.hidden}, "
        f"attention {shape.attention} wide, keys and values {shape.key_value}, "
        f"vocabulary {shape.vocabulary:,}, {shape.positions:,} positions"
    )
    teacher = found.teacher.name if found.teacher else "none named, its answers are left out"
    yield f"teacher: {teacher}"


# Memory


def memory_title(found: Plan) -> str:
    """What a device computes at a time."""
    step, precision = found.step, "bfloat16" if found.step.bfloat16 else "float32"
    groups = "one group" if step.rows == 1 else f"{step.rows} groups"
    scale, unit = _scale(found)
    return (
        f"Memory of a training step in {unit} (10^{9 if scale == 1e9 else 6} bytes), {precision}, "
        f"{groups} of up to {step.length:,} tokens at a time"
    )


def _scale(found: Plan) -> tuple[float, str]:
    return (1e9, "GB") if max(n.alone.total for n in found.needs) >= 1e9 else (1e6, "MB")


def memory_table(found: Plan) -> Table:
    """Parts by method and checkpointing on one device, and the GPUs that it takes."""
    scale, unit = _scale(found)
    on_gpus = [] if found.device.cpu else ["GPUs", f"{unit} each"]
    table = _table("method", "ckpt", right=[*HEADINGS.values(), "sum", *on_gpus], gap=1)
    for need in found.needs:
        cells = [_three(getattr(need.alone, name) / scale) for name in HEADINGS]
        each = _three(need.sharded.total / scale) if need.sharded else "-"
        count = [str(need.gpus or "-"), each] if on_gpus else []
        mark = "*" if need.way == found.way else ""
        again = "yes" if need.way.checkpointing else "no"
        _add(
            table, [need.way.method + mark, again, *cells, _three(need.alone.total / scale), *count]
        )
    return table


def memory_notes(found: Plan) -> Iterator[str]:
    """What the table's marks mean."""
    yield (
        "* as the profile trains. ckpt: activation checkpointing, layers are computed again in the "
        "backward pass. working: bfloat16 copies of the weights and gradients on their way, on "
        "several GPUs gathered layers."
    )


def sharding(found: Plan) -> Iterator[str | Table]:
    """What each GPU holds by their number, and what `fully_shard` wraps; nothing for a CPU."""
    if found.device.cpu:
        return
    scale, _ = _scale(found)
    table = _table("GPUs", right=[f"{share.shards}" for share in found.shares])
    _add(table, ["parameters each", *(_short(share.parameters) for share in found.shares)])
    _add(table, ["GB each", *(_three(share.total / scale) for share in found.shares)])
    yield table
    units = found.units
    yield (
        f"fully_shard wraps {units.blocks} blocks of up to {units.largest_block:,} parameters, "
        f"then the root with {units.root:,}: every parameter once."
    )


# Stages


def stages_title(found: Plan) -> str:
    """On what the stages are planned to run."""
    what = "cores" if found.device.cpu else found.device.name
    short = "" if found.fits else ", on which training does NOT fit"
    return (
        f"Work and time on {found.devices} x {what} at {found.device.watts:g} W{short}; "
        "programs on the profile's workers"
    )


def stage_table(lines: Sequence[Line]) -> Table:
    """The sum of every stage, under it every piece of its work; at the end the sum of all.

    `count` are answers generated or learnt from, or programs executed.
    """
    scale, unit = (1, "kWh") if sum(line.kwh for line in lines) >= 1 else (1000, "Wh")
    table = _table("", right=["runs", "count", "tokens", "FLOPs", "time", unit], gap=1)
    for stage in work.STAGES:
        own = [line for line in lines if line.work.stage == stage]
        _add(table, [stage, "", "", "", *_costs(own, scale)], style="bold")
        for line in own:
            one = line.work
            runs = str(one.runs) if one.runs > 1 else ""
            counts = [one.programs or one.answers, one.tokens]
            shown = [_short(count) if count else "" for count in counts]
            _add(table, [f"  {one.what}", runs, *shown, *_costs([line], scale)])
    _add(table, ["all", "", "", "", *_costs(lines, scale)], style="bold")
    return table


def _costs(lines: Sequence[Line], scale: float) -> list[str]:
    flops = sum(line.work.flops for line in lines)
    energy = scale * sum(line.kwh for line in lines)
    seconds = sum(line.seconds for line in lines)
    shown = f"{flops:.1e}".replace("e+", "e") if flops else ""
    return [shown, _time(seconds), _three(energy)]


def stage_notes(found: Plan) -> Iterator[str]:
    """What the table cannot say: shared prompts, how many answers fit, what is left out."""
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


def measured_table(found: Plan) -> Iterator[Table | str]:
    """Planned seconds beside those of a finished run with these settings; nothing without one."""
    if not found.measured:
        return
    table = _table("stage", right=["planned s", "measured s", "planned / measured"])
    for stage, seconds in found.measured.items():
        planned = sum(line.seconds for line in found.lines if line.work.stage == stage)
        _add(table, [stage, f"{planned:.0f}", f"{seconds:.0f}", f"{planned / seconds:.2f}"])
    yield table
    yield (
        "The rates were measured apart from that run; what a stage needs to start, and a quantised "
        "variant to be made, was measured on such a run."
    )


def facts_table(facts: Sequence[Fact]) -> Table:
    """Every figure, measured or assumed, and where it is from; commands by the script's name."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_column(overflow="fold")
    for fact in facts:
        named = f"{fact.name.replace('_', ' ')}, {fact.unit}"
        scripts = [part for part in fact.source.split() if part.endswith(".py")]
        source = scripts[0].rpartition("/")[2] if scripts else fact.source
        kind = "measured" if fact.measured else "assumed"
        _add(table, [_short(fact.value), named, f"{kind}: {source}"])
    return table


# Numbers and cells


def _table(*left: str, right: Sequence[str], gap: int = 2) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, gap, 0, 0))
    for name in left:
        table.add_column(name, no_wrap=True, overflow="ellipsis")
    for name in right:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _add(table: Table, cells: Sequence[str], style: str = "") -> None:
    table.add_row(*(Text(screen.plain(cell)) for cell in cells), style=style)


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


def run(
    profile: str,
    *,
    model: str | None = None,
    changes: Sequence[str] = (),
    out: str | None = None,
    on: str | None = None,
    memory: float | None = None,
    flops: float | None = None,
    watts: float | None = None,
    train: float | None = None,
    generate: float | None = None,
    **asked: float | None,
) -> None:
    """The verb `plan`: prints the plan, and writes it to `out` (`-`: instead, to standard output).

    `changes` are `stage.key=value`; `on` names a device of which the figures that follow are
    replaced (GB, TFLOP/s, W, shares of the TFLOP/s); `asked` are the fields of `Asked`. ValueError
    and FileNotFoundError for what a caller can get wrong.
    """
    import transformers
    from rich.console import Console

    transformers.logging.set_verbosity_error()  # of configurations that are not meant to be run
    if out not in (None, "-") and Path(out).suffix != ".json":
        raise ValueError(f"--out {out}: expected a name that ends in .json")
    overrides = dict(config.parse_override(text) for text in changes) | model_override(model)
    settings = config.resolve(profile, "train", overrides)
    figures = {"memory": memory, "flops": flops, "watts": watts}
    figures |= {"train": train, "generate": generate}
    place = device(on or device_of(str(settings["profile"])), **figures)
    found = plan(profile, on=place, overrides=overrides, asked=Asked(**asked))
    if out == "-":
        print(json.dumps(rows(found), indent=1))
        return
    show(found, Console(highlight=False))
    if out:
        store.write_json(Path(out), rows(found))
        print(f"\nThe same for programs: {out}")
