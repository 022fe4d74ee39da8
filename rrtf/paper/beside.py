"""The paper's findings beside those of a run of this project: the same question, both answers.

Ours are the rows that stages 06 and 08 saved (`comparisons.json`, `quantization.json`) and the
runs of stage 05. Where one side has no answer, that is said instead of a number.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from rrtf import config, stats, store
from rrtf.paper.pairs import detectable_rows, least_lead, p_range, p_text, paired, spread
from rrtf.paper.printed import IN_FIG_5, Figures, Row, counts, name_of, row, solved, tasks_of

OURS, RIVAL, BASE = IN_FIG_5


@dataclass(frozen=True, slots=True)
class Side:
    """One answer: a difference in shares of tasks, with interval and p as far as there are any.

    `words` says it where there is no number, or what the number leaves unsaid.
    """

    value: float | None = None
    low: float | None = None
    high: float | None = None
    p: tuple[float, ...] = ()
    n_tasks: int = 0
    words: str = ""


@dataclass(frozen=True, slots=True)
class Beside:
    """One question with the paper's answer and this run's."""

    question: str
    place: str
    paper: Side
    ours: Side


def beside(
    paper: Figures,
    *,
    comparisons: Sequence[Row],
    quantization: Sequence[Row],
    runs: Sequence[Row],
    alpha: float,
    power: float,
) -> list[Beside]:
    """Every question that the paper's figures or this run can say something about."""
    greedy, *sampled = _metrics(comparisons)
    first, last = sampled[0], sampled[-1]
    ours = partial(_compared, comparisons, alpha=alpha)
    elsewhere = f"{RIVAL} was trained on another corpus"
    untested = Side(words="not tested: no baseline on the same data")
    return [
        Beside("tuned model over its base, greedy", "Fig 5",
               _from_fig_5(paper, OURS, BASE), ours("base", greedy)),
        Beside("ranking over imitation on the same prompts, greedy", "-",
               untested, ours("sft-kept", greedy)),
        Beside("RRTF over plain fine-tuning, greedy", "Fig 5",
               _from_fig_5(paper, OURS, RIVAL, elsewhere), ours("sft", greedy)),
        Beside(f"the same lead, sampled (pass@1; here {first})", "Table 2",
               _rates(paper, "pass_at_1"), ours("sft", first)),
        Beside(f"the same lead at the largest k (pass@100; here {last})", "Table 2",
               _rates(paper, "pass_at_100"), ours("sft", last)),
        Beside("RRTF over its teacher, greedy", "-",
               Side(words="teacher not disclosed"), ours("teacher", greedy)),
        *(_quantised(paper, quantization, name, alpha) for name in TWINS),
        _smaller(paper, quantization),
        Beside(f"smallest lead found with chance {power:g}", "Fig 5",
               _found(paper, alpha, power), _detected(comparisons, greedy)),
        Beside("share of L_rank in the loss, end of training", "-",
               Side(words="not given"), _share_of_ranking(runs)),
        Beside("more training data, greedy", "Fig 4", _more_data(paper, alpha),
               Side(words="nothing comparable: no run here varies the amount of data")),
    ]  # fmt: skip


TWINS = {  # a row of Table 4 -> the variant of this project that is its counterpart
    "CTranslate2 int8": "ctranslate2-int8",
    "GPTQ (AutoGPTQ) int8": "gptq-int8",
    "GPTQ (AutoGPTQ) int4": "gptq-int4",
}
FULL = "PanGu-Coder2 float16"


def _metrics(comparisons: Sequence[Row]) -> list[str]:
    """Greedy first, then the sampled metrics by k."""
    names = dict.fromkeys(str(line["metric"]) for line in comparisons)
    greedy = [name for name in names if name.endswith("greedy")]
    rest = [name for name in names if name not in greedy]
    if not greedy or not rest:
        raise ValueError(f"comparisons hold {', '.join(names)}: expected greedy and sampled ones")
    return [*greedy, *sorted(rest, key=lambda name: stats.parse_metric(name).k)]


def _from_fig_5(paper: Figures, a: str, b: str, words: str = "") -> Side:
    pair = paired(paper, a, b)
    return Side(
        pair.difference, pair.low, pair.high, (pair.p,), tasks_of(paper, "humaneval"), words
    )


def _rates(paper: Figures, column: str) -> Side:
    a, b = (row(paper, "table_2", model=name)[column] for name in (OURS, RIVAL))
    words = "two rates: no interval or test follows from them"
    return Side((a - b) / 100, n_tasks=tasks_of(paper, "humaneval"), words=words)


def _compared(comparisons: Sequence[Row], b: str, metric: str, *, alpha: float) -> Side:
    """This run's rrtf - b, and what the equivalence test adds where it excludes the margin."""
    line, seeds = _ours(comparisons, b, metric)
    if line is None:
        return Side(words=seeds)
    margin = f"; no difference of {100 * line['margin']:g} points or more"
    words = f"after Holm; {seeds}{margin if line['p_equivalence'] < alpha else ''}"
    p = (line["p_holm"],)
    return Side(line["difference"], line["low"], line["high"], p, line["n_tasks"], words)


def _ours(comparisons: Sequence[Row], b: str, metric: str) -> tuple[Row | None, str]:
    """(this run's rrtf - b, its training seeds), or (None, that there is none)."""
    for line in comparisons:
        if (line["a"], line["b"], line["metric"]) == ("rrtf", b, metric):
            return line, f"training seeds {line['n_seeds_a']} against {line['n_seeds_b']}"
    return None, f"rrtf - {b} is not among this run's comparisons"


def _quantised(paper: Figures, found: Sequence[Row], name: str, alpha: float) -> Beside:
    full, small = (next(counts(paper, "table_4", "humaneval", n)) for n in (FULL, name))
    bounds = p_range(small, full, alpha=alpha)
    least = bounds.shared_least
    widest = spread(small.solved - least, full.solved - least, full.tasks)
    theirs = Side(
        widest.value, widest.low, widest.high, (bounds.smallest, bounds.largest), full.tasks,
        "interval for the smallest overlap possible",
    )  # fmt: skip
    return Beside(f"{name} over float16", "Table 4", theirs, _variant(found, TWINS[name]))


def _variant(found: Sequence[Row], name: str) -> Side:
    for line in found:
        compared = line["status"] == "ok" and line["only_variant"] is not None
        if line["variant"] == name and compared:
            seen = spread(line["only_variant"], line["only_full"], line["n_tasks"])
            words = f"{name} against float32"
            p = (line["p_value"],)
            return Side(seen.value, seen.low, seen.high, p, line["n_tasks"], words)
    return Side(words=f"{name} was not measured in this run")


def _smaller(paper: Figures, found: Sequence[Row]) -> Beside:
    name = "CTranslate2 int8"
    printed = by_variant(paper)
    theirs = printed["full"]["memory_gb"] / printed[TWINS[name]]["memory_gb"]
    ours = {line["variant"]: line["size_mb"] for line in found if line["status"] == "ok"}
    there = {"full", TWINS[name]} <= ours.keys()
    words = f"{ours['full'] / ours[TWINS[name]]:.1f} times, weights" if there else "not measured"
    return Beside(
        f"{name} is smaller by", "Table 4",
        Side(words=f"{theirs:.1f} times, GPU memory"), Side(words=words),
    )  # fmt: skip


def _found(paper: Figures, alpha: float, power: float) -> Side:
    line = detectable_rows(paper, alpha=alpha, power=power)[0]
    points = line["found, disagreeing as in Fig 5"]
    return Side(words=f"{points:.1f} points on {line['tasks']} tasks, one model against another")


def _detected(comparisons: Sequence[Row], metric: str) -> Side:
    line, words = _ours(comparisons, "sft-kept", metric)
    if line is not None:
        words = f"{100 * line['detectable']:.1f} points on {line['n_tasks']} tasks, {words}"
    return Side(words=words)


def _share_of_ranking(runs: Sequence[Row]) -> Side:
    shares = [100 * run["rank_loss"] / run["loss"] for run in runs if run["method"] == "rrtf"]
    if not shares or not all(map(math.isfinite, shares)):
        return Side(words="no run of rrtf")
    listed = ", ".join(f"{share:.1f}" for share in shares)
    return Side(words=f"{listed} percent, by training seed")


def _more_data(paper: Figures, alpha: float) -> Side:
    names = [f"{line['size']:,} rows" for line in paper["figure_4"]["rows"]]
    small, large = (next(counts(paper, "figure_4", "humaneval", n)) for n in (names[0], names[-1]))
    bounds = p_range(large, small, alpha=alpha)
    return Side(
        (large.solved - small.solved) / large.tasks, p=(bounds.smallest, bounds.largest),
        n_tasks=large.tasks, words=f"{names[0]} to {names[-1]}, confounded with the batch size",
    )  # fmt: skip


def beside_rows(found: Sequence[Beside]) -> list[dict[str, str]]:
    """The questions with both answers, for a reader."""
    return [
        {
            "question": line.question,
            "place": _unbroken(line.place),
            "the paper": _text(line.paper),
            "this run": _text(line.ours),
        }
        for line in found
    ]


def _text(side: Side) -> str:
    if side.value is None:
        return side.words
    shown = f"{100 * side.value:+.1f} points"
    if side.low is not None:
        shown += f" [{100 * side.low:+.1f}, {100 * side.high:+.1f}]"
    if side.p:
        shown += f", p = {p_text(side.p)}"
    return f"{shown}, {side.n_tasks} tasks" + (f" ({side.words})" if side.words else "")


def answer_lines(found: Sequence[Beside]) -> dict[str, dict[str, tuple[float, float, float]]]:
    """Question -> whose answer -> (difference, low, high), where there is an interval."""
    lines: dict[str, dict[str, tuple[float, float, float]]] = {}
    for line in found:
        for whose, side in (("the paper", line.paper), ("this run", line.ours)):
            if side.low is not None:
                lines.setdefault(line.question, {})[whose] = (side.value, side.low, side.high)
    return lines


def undisclosed(paper: Figures, profile: str) -> list[dict[str, str]]:
    """What the paper leaves open and what the stages of `profile` were run with instead.

    The settings are those of the finished stages, or of the profile where a stage has not run.
    """
    return [
        {
            "not disclosed": gap["what"],
            "place": _unbroken(gap["source"]),
            "here": ", ".join(_setting(profile, *name.split(".")) for name in gap["parameters"])
            or "no parameter",
        }
        for gap in paper["not_disclosed"]
    ]


def _unbroken(place: str) -> str:
    return place.replace(" ", "\u00a0")


def _setting(profile: str, stage: str, key: str) -> str:
    done = store.manifest(profile, stage)
    settings = config.resolve(profile, stage) | (done["settings"] if done else {})
    return f"{key} = {settings[key]}"


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
    if row["only_variant"] is None:  # full precision failed
        return f"{solved_here} of {row['n_tasks']}, nothing to compare with"
    change = row["only_variant"] - row["only_full"]
    return f"{change:+d} of {row['n_tasks']}, p = {p_text((row['p_value'],))}"


def noise_note(paper: Figures, *, alpha: float) -> str:
    """What the lead of the paper's int8 model over its float16 one is worth, in a sentence."""
    name = next(label for label, variant in TWINS.items() if variant == "ctranslate2-int8")
    small, full = (next(counts(paper, "table_4", "humaneval", n)) for n in (name, FULL))
    share = full.solved / full.tasks
    error = (share * (1 - share) * full.tasks) ** 0.5
    bounds = p_range(small, full, alpha=alpha)
    verdict = "inside the noise" if bounds.smallest >= alpha else "not settled by the counts"
    return (
        f"{name} solves {small.solved} tasks, {full.name} {full.solved} of {full.tasks}: "
        f"{small.solved - full.solved:+d}. One standard error of either count is {error:.1f} "
        "tasks. Whatever tasks the two have in common, exact McNemar gives "
        f"p = {bounds.smallest:.2g} or more; a lead of "
        f"fewer than {least_lead(alpha)} tasks can never go below {alpha:g}. The lead is {verdict}."
    )
