"""Table 4 beside a run of this project: memory, speed and tasks, and which of them are noise."""

from collections.abc import Mapping, Sequence
from typing import Any

from rrtf import stats
from rrtf.paper.beside import FULL, TWINS
from rrtf.paper.pairs import least_lead, p_range, p_text
from rrtf.paper.printed import Figures, Row, counts, name_of, solved, tasks_of


def by_variant(paper: Figures) -> dict[str, Row]:
    """This project's name of a variant -> the row of Table 4 that is its counterpart."""
    ours = {FULL: "full"} | TWINS
    return {ours[name_of(row)]: row for row in paper["table_4"]["rows"]}


def inference_beside(
    paper: Figures, quantization: Sequence[Row], timing: Sequence[Row], *, alpha: float
) -> list[dict[str, str]]:
    """A line per row of Table 4 and what this run says to the same question, for a reader.

    `quantization` and `timing` are the rows that stage 08 saves; times are those of its smallest
    batch. The paper's p is the range that all overlaps of the two models allow.
    """
    printed, first = by_variant(paper), min((row["batch"] for row in timing), default=0)
    size = {row["variant"]: row["size_mb"] for row in quantization if row["status"] == "ok"}
    ms = {row["variant"]: row["ms"] for row in timing if row["batch"] == first}
    named = {row["variant"]: row for row in quantization}
    return [
        {
            "the paper's": name_of(theirs),
            "here": variant,
            "smaller": _times(printed["full"]["memory_gb"], theirs["memory_gb"]),
            "smaller here": _ratio(size, variant),
            "faster": _times(printed["full"]["ms_per_token"], theirs["ms_per_token"]),
            "faster here": _ratio(ms, variant),
            "tasks": _tasks(paper, theirs, alpha),
            "tasks here": _tasks_here(named.get(variant)),
        }
        for variant, theirs in printed.items()
    ]


def _times(full: float, small: float) -> str:
    return f"{full / small:.1f}\u00a0times"


def _ratio(values: Mapping[str, float], variant: str) -> str:
    there = {"full", variant} <= values.keys()
    return _times(values["full"], values[variant]) if there else "not measured"


def _tasks(paper: Figures, row: Row, alpha: float) -> str:
    n_tasks = tasks_of(paper, "humaneval")
    own = solved(row["humaneval"], n_tasks)
    if name_of(row) == FULL:
        rate = stats.wilson(own, n_tasks)
        return f"{own} of {n_tasks} ({100 * rate.low:.1f} to {100 * rate.high:.1f} %)"
    small, full = (next(counts(paper, "table_4", "humaneval", n)) for n in (name_of(row), FULL))
    bounds = p_range(small, full, alpha=alpha)
    p = p_text((bounds.smallest, bounds.largest))
    return f"{own - full.solved:+d} of {n_tasks}, p = {p}: {_said(bounds, alpha)}"


def _said(bounds: Any, alpha: float) -> str:
    if bounds.smallest >= alpha:
        return "noise, whatever the overlap"
    return "a difference" if bounds.largest < alpha else "depends on the overlap"


def _tasks_here(row: Row | None) -> str:
    if row is None or row["status"] != "ok":
        return "not measured" if row is None else str(row["status"])
    solved_here = round(row["pass_at_1"] * row["n_tasks"])
    if row["variant"] == "full":
        low, high = 100 * row["low"], 100 * row["high"]
        return f"{solved_here} of {row['n_tasks']} ({low:.1f} to {high:.1f} %)"
    change = row["only_variant"] - row["only_full"]
    return f"{change:+d} of {row['n_tasks']}, p = {p_text((row['p_value'],))}"


def noise_note(paper: Figures, *, alpha: float) -> str:
    """What the lead of the paper's int8 model over its float16 one is worth, in a sentence."""
    name = next(label for label, variant in TWINS.items() if variant == "ctranslate2-int8")
    small, full = (next(counts(paper, "table_4", "humaneval", n)) for n in (name, FULL))
    share, more = full.solved / full.tasks, small.solved - full.solved
    error = (share * (1 - share) * full.tasks) ** 0.5
    bounds = p_range(small, full, alpha=alpha)
    verdict = "inside the noise" if bounds.smallest >= alpha else "not settled by the counts"
    return (
        f"{name} solves {small.solved} tasks, {full.name} {full.solved} of {full.tasks}: "
        f"{more:+d}. One standard error of either count is {error:.1f} tasks. Whatever tasks the "
        f"two have in common, exact McNemar gives p = {bounds.smallest:.2g} or more; a lead of "
        f"fewer than {least_lead(alpha)} tasks can never go below {alpha:g}. The lead is {verdict}."
    )
