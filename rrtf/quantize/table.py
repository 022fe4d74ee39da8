"""Table 4 completed: rates with intervals, paired differences, and which of them are noise."""

import math
from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from rrtf import stats
from rrtf.nano import grammar
from rrtf.records import Execution, Outcome, Problem, Response

UNBROKEN = "\u00a0"  # a space at which no line is broken
NOT_COUNTED = -1  # of a count that a failed variant does not have
NO_NUMBER = stats.Estimate(math.nan, math.nan, math.nan)


@dataclass(frozen=True, slots=True)
class Decoded:
    """A variant's answers of one decoding: the rate, and its difference to full precision.

    Both are shares of tasks. `p` belongs to the difference, `p_holm` is adjusted within the table,
    `detectable` the true difference that would be found four times in five.
    """

    rate: stats.Estimate = NO_NUMBER
    difference: stats.Estimate = NO_NUMBER
    p: float = math.nan
    p_holm: float = math.nan
    detectable: float = math.nan


@dataclass(frozen=True, slots=True)
class QuantRow:
    """One variant of one model: the shape of the paper's Table 4, completed.

    Differences are against the table's first row, full precision, and its own are nan, as is
    everything that a variant with another `status` than `ok` has no number for. The p of `greedy`
    is exact McNemar, `only_variant` and `only_full` the tasks behind it; `sampled` is of
    `n_samples` answers per task at `temperature` and `top_p`. Times and memory, which differ
    between equal runs, are kept beside.
    """

    model: str
    variant: str
    precision: str
    engine: str
    status: str
    size_mb: float
    weights_sha256: str
    nll: float
    n_tasks: int
    n_samples: int
    temperature: float
    top_p: float
    greedy: Decoded = Decoded()
    sampled: Decoded = Decoded()
    only_variant: int = NOT_COUNTED
    only_full: int = NOT_COUNTED
    changed_answers: int = NOT_COUNTED


@dataclass(frozen=True, slots=True)
class Settings:
    """How variants are asked and timed: `[quantize]` of profiles.toml says what each means."""

    prompt_format: str
    max_new_tokens: int
    n_samples: int
    temperature: float
    top_p: float
    nll_margin: float
    batch_sizes: Sequence[int]
    repetitions: int
    timeout: float
    workers: int
    seed: int

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "Settings":
        """Of a stage's settings those that are of measuring."""
        return cls(**{one.name: values[one.name] for one in fields(cls)})


@dataclass(frozen=True, slots=True)
class Measured:
    """What one variant did. `status` is `ok` or `failed: ` and the reason.

    `weight_bytes` and `weights_sha256` are of what was made, `nll` nats per token of the tasks'
    references; `greedy` and `sampled` the answers, none of a variant that failed. `time` is what
    its timing process found: milliseconds per token of each repetition by batch size (`ms`), peak
    memory, device, versions; empty if it was not timed. `seconds`, on the wall and of the
    processor, by kind of process.
    """

    variant: str
    status: str
    engine: str = ""
    weight_bytes: int = 0
    weights_sha256: str = ""
    nll: float = math.nan
    greedy: tuple[Response, ...] = ()
    sampled: tuple[Response, ...] = ()
    time: Mapping[str, Any] = field(default_factory=dict)
    seconds: Mapping[str, Any] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        return self.status == "ok"


def sources(variant: str, temperature: float) -> tuple[str, str]:
    """What the greedy and the sampled answers of a variant are labelled."""
    return stats.label(variant, 0, 0.0), stats.label(variant, 0, temperature)


Passed = Mapping[str, Mapping[str, float]]  # source -> task id -> share of its answers that pass


def rows(
    measured: Sequence[Measured],
    executions: Sequence[Execution],
    tasks: Sequence[Problem],
    settings: Settings,
    *,
    model: str,
) -> list[QuantRow]:
    """One row per variant, paired task by task with the first one, full precision.

    Greedy rates have Wilson's interval, sampled ones that of a bootstrap over families of tasks.
    Holm's correction runs over all tests of the table. Where the first variant failed, nothing is
    compared.
    """
    passed, full = shares(executions), measured[0]
    families = [grammar.family(task) for task in tasks]
    if len(set(families)) < 2:
        raise ValueError(f"{len(tasks)} tasks of one family: an interval needs two families")
    both = {
        entry.variant: [_values(passed, name, tasks)
                        for name in sources(entry.variant, settings.temperature)]
        for entry in measured if entry.ok
    }  # fmt: skip
    table = []
    for entry in measured:
        row = _start(entry, model, settings, len(tasks))
        if entry.ok:
            own, against = both[entry.variant], both.get(full.variant)
            solved = stats.wilson(round(sum(own[0])), len(tasks))
            drawn = stats.bootstrap(own[1], families, seed=settings.seed)
            row = replace(row, greedy=Decoded(solved), sampled=Decoded(drawn))
            if entry is not full and against:
                texts = zip(entry.greedy, full.greedy, strict=True)
                changed = sum(our.program != their.program for our, their in texts)
                row = replace(row, changed_answers=changed)
                row = _against(row, own, against, families, settings.seed)
        table.append(row)
    return _adjusted(table)


def _adjusted(table: Sequence[QuantRow]) -> list[QuantRow]:
    """The rows with Holm's correction over all tests of the table."""
    tests = [one.p for row in table for one in (row.greedy, row.sampled)]
    adjusted = iter(stats.holm([p for p in tests if not math.isnan(p)]))

    def of(one: Decoded) -> Decoded:
        return one if math.isnan(one.p) else replace(one, p_holm=next(adjusted))

    return [replace(row, greedy=of(row.greedy), sampled=of(row.sampled)) for row in table]


def shares(executions: Sequence[Execution]) -> Passed:
    """The share of answers that pass, of every source and task."""
    runs: dict[str, dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
    for run in executions:
        runs[run.source][run.task_id].append(run.outcome == Outcome.PASS)
    return {
        source: {task: sum(all_runs) / len(all_runs) for task, all_runs in of_task.items()}
        for source, of_task in runs.items()
    }


def _values(passed: Passed, source: str, tasks: Sequence[Problem]) -> list[float]:
    found = passed.get(source, {})
    if found.keys() != {task.task_id for task in tasks}:
        raise ValueError(f"{source}: executed on {len(found)} tasks, not on these {len(tasks)}")
    return [found[task.task_id] for task in tasks]


def _start(entry: Measured, model: str, settings: Settings, n_tasks: int) -> QuantRow:
    """A row that knows what was made, and of all else that there is no number."""
    precision = entry.variant.rpartition("-")[2]
    if entry.variant == "full" and entry.engine:  # transformers-float32-sdpa
        precision = entry.engine.split("-")[1]
    return QuantRow(
        model=model,
        variant=entry.variant,
        precision=precision,
        engine=entry.engine,
        status=entry.status,
        size_mb=entry.weight_bytes / 1e6 if entry.weight_bytes else math.nan,
        weights_sha256=entry.weights_sha256,
        nll=entry.nll,
        n_tasks=n_tasks if entry.ok else 0,
        n_samples=settings.n_samples if entry.ok else 0,
        temperature=settings.temperature,
        top_p=settings.top_p,
    )


def _against(
    row: QuantRow,
    own: Sequence[Sequence[float]],
    full: Sequence[Sequence[float]],
    families: Sequence[Hashable],
    seed: int,
) -> QuantRow:
    """The row with its paired differences: exact McNemar of greedy, permutation of sampled."""
    greedy, sampled = (
        [a - b for a, b in zip(*side, strict=True)] for side in zip(own, full, strict=True)
    )
    won, lost = sum(d > 0 for d in greedy), sum(d < 0 for d in greedy)
    tests = stats.mcnemar(won, lost), stats.permutation(sampled, families, seed=seed)
    found = []
    for one, a, b, p in zip((row.greedy, row.sampled), own, full, tests, strict=True):
        of = stats.crossed([a], [b], families)
        seen = stats.smallest_detectable(of.standard_error, of.df)
        found.append(replace(one, difference=of, p=p, detectable=seen))
    return replace(row, greedy=found[0], sampled=found[1], only_variant=won, only_full=lost)


def records(table: Sequence[QuantRow]) -> list[dict[str, Any]]:
    """The rows as flat JSON objects; numbers that do not exist are None."""
    return [{name: _none(value) for name, value in _flat(row).items()} for row in table]


def _flat(row: QuantRow) -> dict[str, Any]:
    names = (one.name for one in fields(row) if one.name not in ("greedy", "sampled"))
    found = {name: getattr(row, name) for name in names}
    for prefix, rate, p, one in (
        ("", "pass_at_1", "p_value", row.greedy),
        ("sampled_", "sampled", "sampled_p", row.sampled),
    ):
        for name, start, of in (
            (rate, prefix, one.rate),
            (f"{prefix}difference", f"{prefix}difference_", one.difference),
        ):
            found |= {name: of.value, f"{start}low": of.low, f"{start}high": of.high}
        found |= {p: one.p, f"{prefix}p_holm": one.p_holm, f"{prefix}detectable": one.detectable}
    return found


def _none(value: Any) -> Any:
    missing = math.isnan(value) if isinstance(value, float) else value == NOT_COUNTED
    return None if missing else value


def timing(measured: Sequence[Measured]) -> list[dict[str, Any]]:
    """One row per timed variant and batch size: the spread of its times, its memory, its device.

    `ms` is the median, `lowest` and `highest` of the repetitions, per generated token of a whole
    batch. `memory_mb` is the peak above what the process had before the model was loaded,
    `process_mb` in all: resident on a CPU, allocated by torch on a GPU. `seconds` are those of
    each kind of process, on the wall and of the processor.
    """
    from statistics import median

    rows = []
    for entry in measured:
        found = entry.time
        for size, values in found.get("ms", {}).items():
            above, whole = (peak / 1e6 for peak in found["memory_bytes"][size])
            row = {"variant": entry.variant, "engine": entry.engine, "batch": int(size)}
            row |= {"ms": median(values), "lowest": min(values), "highest": max(values)}
            row |= {"repetitions": len(values), "memory_mb": above, "process_mb": whole}
            row |= {name: found[name] for name in ("device", "threads", "versions")}
            rows.append(row | {"seconds": dict(entry.seconds)})
    return rows


def differences(
    table: Sequence[QuantRow], *, alpha: float
) -> list[tuple[str, float, float, float, bool]]:
    """(variant and decoding, difference, low, high, told apart) against full precision."""
    return [(f"{row.variant}, {one['decoding']}", *span, one["p after Holm"] < alpha)
            for row in table for one, span in _compared(row)]  # fmt: skip


def shown(table: Sequence[QuantRow]) -> list[dict[str, Any]]:
    """The rates for a reader, a line per variant: percent with intervals, NLL, weights.

    `status` is a column where a variant failed.
    """
    failed = any(row.status != "ok" for row in table)
    return [
        {"variant": row.variant, "computes in": row.engine or None, "MB": _none(row.size_mb),
         "NLL": _none(row.nll), "greedy %": _interval(row.greedy.rate),
         f"T = {row.temperature:g} %": _interval(row.sampled.rate),
         "changed answers": _none(row.changed_answers), "weights": row.weights_sha256[:8] or None}
        | ({"status": row.status} if failed else {})
        for row in table
    ]  # fmt: skip


def tested(table: Sequence[QuantRow]) -> list[dict[str, Any]]:
    """The differences for a reader, in points, two lines per variant: greedy, then sampled."""
    return [line for row in table for line, _ in _compared(row)]


def _compared(row: QuantRow) -> list[tuple[dict[str, Any], tuple[float, float, float]]]:
    """(line for a reader, (difference, low, high)) of both decodings; none of full precision."""
    if math.isnan(row.greedy.difference.value):
        return []
    found = []
    ways = (
        ("greedy", row.greedy, f"{row.only_variant} won, {row.only_full} lost"),
        (f"T = {row.temperature:g}", row.sampled, f"{row.n_samples} samples each"),
    )
    for decoding, one, tasks in ways:
        span = one.difference.value, one.difference.low, one.difference.high
        value, low, high = (100 * share for share in span)
        line = {"variant": row.variant, "decoding": decoding}
        line |= {"points": f"{value:+.1f} [{low:+.1f}, {high:+.1f}]", "p": one.p}
        line |= {"p after Holm": one.p_holm, "detectable": f"{100 * one.detectable:.1f}"}
        found.append((line | {"tasks": tasks}, span))
    return found


def _interval(of: stats.Estimate) -> str | None:
    if math.isnan(of.value):
        return None
    return f"{100 * of.value:.1f} [{100 * of.low:.1f}, {100 * of.high:.1f}]".replace(" ", UNBROKEN)


def time_lines(found: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """`timing` for a reader: a line per variant, a column per batch size."""
    lines: dict[str, dict[str, Any]] = {}
    for row in found:
        line = lines.setdefault(row["variant"], {"variant": row["variant"]})
        batch = f"batch {row['batch']}"
        spread = f"{row['lowest']:.2f} to {row['highest']:.2f}"
        line[f"ms/token, {batch}"] = f"{row['ms']:.2f} ({spread})"
        line[f"peak MB, {batch}"] = f"{row['memory_mb']:.0f} of {row['process_mb']:.0f}"
    return list(lines.values())


def ran_on(found: Sequence[Mapping[str, Any]]) -> str:
    """The device, threads and library versions that `timing` was taken with, in a line."""
    devices = sorted({f"{row['device']}, {row['threads']} thread" for row in found})
    used = {name: version for row in found for name, version in row["versions"].items()}
    return "; ".join([*devices, ", ".join(f"{name} {used[name]}" for name in sorted(used))])
