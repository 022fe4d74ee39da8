"""Table 4 completed: sizes, rates with intervals, paired differences, times with their spread."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rrtf import stats
from rrtf.records import Execution, Outcome, QuantRow, Response


@dataclass(frozen=True, slots=True)
class Measured:
    """What one variant did. `status` is `ok` or `failed: ` and the reason; the rest is empty then.

    `size_mb` is that of the weights (10^6 bytes), `nll` nats per token of the problems'
    references, `ms` the milliseconds per generated token of each repetition, by batch size.
    """

    variant: str
    status: str
    engine: str = ""
    size_mb: float = math.nan
    nll: float = math.nan
    responses: tuple[Response, ...] = ()
    ms: Mapping[int, tuple[float, ...]] | None = None
    seconds: float = 0.0


def rows(
    measured: Sequence[Measured], executions: Sequence[Execution], *, model: str
) -> list[QuantRow]:
    """One row per variant, paired task by task with the first one (full precision).

    `difference` is in pass@1, `p_value` exact McNemar; a variant that failed has no numbers (nan)
    and its reason in `status`. ValueError if the first variant failed: nothing to compare with.
    """
    if measured[0].status != "ok":
        raise ValueError(f"{measured[0].variant}: {measured[0].status}; nothing to compare with")
    passed = passes(executions)
    full = passed[measured[0].variant]
    return [_row(entry, passed.get(entry.variant, {}), full, model) for entry in measured]


def passes(executions: Sequence[Execution]) -> dict[str, dict[str, bool]]:
    """variant -> task id -> whether its greedy answer passes."""
    found: dict[str, dict[str, bool]] = {}
    for run in executions:
        found.setdefault(run.source, {})[run.task_id] = run.outcome == Outcome.PASS
    return found


def _row(
    entry: Measured, passed: Mapping[str, bool], full: Mapping[str, bool], model: str
) -> QuantRow:
    precision = entry.variant.partition("-")[2] or entry.engine.split("-")[1]
    if entry.status != "ok":
        numbers = [math.nan] * 6
        return QuantRow(model, entry.variant, precision, *numbers, 0, entry.status)
    if passed.keys() != full.keys():
        raise ValueError(f"{entry.variant}: executed on other tasks than full precision")
    gained, lost = discordant(passed, full)
    rate = stats.wilson(sum(passed.values()), len(passed))
    return QuantRow(
        model=model,
        variant=entry.variant,
        precision=precision,
        size_mb=round(entry.size_mb, 3),
        pass_at_1=rate.value,
        low=rate.low,
        high=rate.high,
        difference=(gained - lost) / len(full),
        p_value=stats.mcnemar(gained, lost),
        n_tasks=len(full),
        status="ok",
    )


def discordant(passed: Mapping[str, bool], full: Mapping[str, bool]) -> tuple[int, int]:
    """(tasks only the variant solves, tasks only full precision solves)."""
    gained = sum(passed[task] and not full[task] for task in full)
    lost = sum(full[task] and not passed[task] for task in full)
    return gained, lost


def detectable(gained: int, lost: int, n_tasks: int) -> float:
    """The smallest true difference in pass@1 that such a paired comparison would find (power .8).

    From the spread of the task-wise differences. Without any task solved by only one side it is
    the bound that seeing none of `n_tasks` gives with 95 % confidence (the rule of three).
    """
    if gained + lost == 0:
        return min(1.0, 3 / n_tasks)
    mean = (gained - lost) / n_tasks
    variance = ((gained + lost) / n_tasks - mean**2) / n_tasks
    return stats.smallest_detectable(math.sqrt(variance)) if variance > 0 else 1.0


def records(
    table: Sequence[QuantRow], measured: Sequence[Measured], executions: Sequence[Execution]
) -> list[dict[str, Any]]:
    """The rows as JSON objects, with NLL, changed answers and the smallest detectable effect.

    Numbers that do not exist are None.
    """
    passed = passes(executions)
    full = measured[0]
    found = []
    for row, entry in zip(table, measured, strict=True):
        more: dict[str, Any] = {"engine": entry.engine, "nll": entry.nll}
        if entry.status == "ok":
            gained, lost = discordant(passed[entry.variant], passed[full.variant])
            texts = zip(entry.responses, full.responses, strict=True)
            more |= {
                "only_variant": gained,
                "only_full": lost,
                "detectable": detectable(gained, lost, row.n_tasks),
                "changed_answers": sum(ours.program != theirs.program for ours, theirs in texts),
            }
        found.append({name: _none(value) for name, value in (asdict(row) | more).items()})
    return found


def _none(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value


def timing(measured: Sequence[Measured]) -> list[dict[str, Any]]:
    """Median, lowest and highest milliseconds per token, by variant and batch size."""
    from statistics import median

    return [
        {
            "variant": entry.variant,
            "batch": size,
            "ms/token": median(values),
            "lowest": min(values),
            "highest": max(values),
            "seconds in all": entry.seconds,
        }
        for entry in measured
        for size, values in (entry.ms or {}).items()
    ]


def differences(found: Sequence[Mapping[str, Any]]) -> list[tuple[str, float, float, float]]:
    """(variant, difference, low, high) in pass@1 against full precision, for the figure.

    The 95 % interval of the paired difference, from the spread of the task-wise differences.
    """
    lines = []
    for row in found[1:]:
        if row["status"] != "ok":
            continue
        share = (row["only_variant"] + row["only_full"]) / row["n_tasks"]
        spread = math.sqrt(max(0.0, share - row["difference"] ** 2) / row["n_tasks"])
        low, high = (row["difference"] + sign * 1.96 * spread for sign in (-1, 1))
        lines.append((row["variant"], row["difference"], low, high))
    return lines


def shown(found: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """`records` for a reader: rates in percent, differences in points."""
    return [
        {
            "variant": row["variant"],
            "MB": row["size_mb"],
            "NLL": row["nll"],
            "pass@1 %": _times(row["pass_at_1"], 100),
            "95 %": _interval(row),
            "difference": _times(row["difference"], 100),
            "p": row["p_value"],
            "detectable": _times(row.get("detectable"), 100),
            "changed answers": row.get("changed_answers"),
            "tasks": row["n_tasks"],
            "status": row["status"],
        }
        for row in found
    ]


def _times(value: float | None, factor: float) -> float | None:
    return None if value is None else factor * value


def _interval(row: Mapping[str, Any]) -> str | None:
    return None if row["low"] is None else f"{100 * row['low']:.1f} to {100 * row['high']:.1f}"
