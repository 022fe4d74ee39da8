"""The paper's findings beside those of a run of this project: the same question, both answers.

Ours are the rows that stages 06 and 08 saved (`comparisons.json`, `quantization.json`) and the
runs of stage 05. Where one side has no answer, that is said instead of a number.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from rrtf import config, stats, store
from rrtf.paper.claims import PRange, bounds, detectable_rows, least_lead, p_text, paired, spread
from rrtf.paper.printed import IN_FIG_5, Figures, Row, count_of, name_of, row, tasks_of

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
    pair, n_tasks = paired(paper, a, b), tasks_of(paper, "humaneval")
    return Side(pair.difference, pair.low, pair.high, (pair.p,), n_tasks, words)


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
    small, full, p = bounds(paper, "table_4", (name, FULL), alpha=alpha)
    least = p.shared_least
    widest = spread(small.solved - least, full.solved - least, full.tasks)
    theirs = Side(
        widest.value, widest.low, widest.high, (p.smallest, p.largest), full.tasks,
        "interval for the smallest overlap possible",
    )  # fmt: skip
    return Beside(f"{name} over float16", "Table 4", theirs, _variant(found, TWINS[name]))


def _variant(found: Sequence[Row], name: str) -> Side:
    for line in found:
        if line["variant"] == name and line["status"] == "ok" and line["only_variant"] is not None:
            seen = spread(line["only_variant"], line["only_full"], line["n_tasks"])
            p, words = (line["p_value"],), f"{name} against float32"
            return Side(seen.value, seen.low, seen.high, p, line["n_tasks"], words)
    return Side(words=f"{name} was not measured in this run")


def _smaller(paper: Figures, found: Sequence[Row]) -> Beside:
    name, printed = "CTranslate2 int8", by_variant(paper)
    theirs = printed["full"]["memory_gb"] / printed[TWINS[name]]["memory_gb"]
    ours = {line["variant"]: line["size_mb"] for line in found if line["status"] == "ok"}
    there = {"full", TWINS[name]} <= ours.keys()
    words = f"{ours['full'] / ours[TWINS[name]]:.1f} times, weights" if there else "not measured"
    question, memory = f"{name} is smaller by", Side(words=f"{theirs:.1f} times, GPU memory")
    return Beside(question, "Table 4", memory, Side(words=words))


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
    return Side(words=f"{', '.join(f'{s:.1f}' for s in shares)} percent, by training seed")


def _more_data(paper: Figures, alpha: float) -> Side:
    rows = paper["figure_4"]["rows"]
    names = name_of(rows[-1]), name_of(rows[0])
    large, small, p = bounds(paper, "figure_4", names, alpha=alpha)
    words = f"{names[1]} to {names[0]}, confounded with the batch size"
    more = (large.solved - small.solved) / large.tasks
    return Side(more, p=(p.smallest, p.largest), n_tasks=large.tasks, words=words)


def beside_rows(found: Sequence[Beside]) -> list[dict[str, str]]:
    """The questions with both answers, for a reader."""
    return [
        {"question": line.question, "place": _unbroken(line.place),
         "the paper": _text(line.paper), "this run": _text(line.ours)}
        for line in found
    ]  # fmt: skip


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
    rows = []
    for gap in paper["not_disclosed"]:
        here = ", ".join(_setting(profile, *name.split(".")) for name in gap["parameters"])
        row = {"not disclosed": gap["what"], "place": _unbroken(gap["source"])}
        rows.append(row | {"here": here or "no parameter"})
    return rows


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
    full = printed["full"]
    size = {row["variant"]: row["size_mb"] for row in quantization if row["status"] == "ok"}
    ms = {row["variant"]: row["ms"] for row in timing if row["batch"] == first}
    named = {row["variant"]: row for row in quantization}
    return [
        {"the paper's": name_of(theirs), "here": variant,
         "smaller": _times(full["memory_gb"], theirs["memory_gb"]),
         "smaller here": _ratio(size, variant),
         "faster": _times(full["ms_per_token"], theirs["ms_per_token"]),
         "faster here": _ratio(ms, variant),
         "tasks": _tasks(paper, theirs, alpha), "tasks here": _tasks_here(named.get(variant))}
        for variant, theirs in printed.items()
    ]  # fmt: skip


def _times(full: float, small: float) -> str:
    return f"{full / small:.1f}\u00a0times"


def _ratio(values: Mapping[str, float], variant: str) -> str:
    there = {"full", variant} <= values.keys()
    return _times(values["full"], values[variant]) if there else "not measured"


def _tasks(paper: Figures, row: Row, alpha: float) -> str:
    own = count_of(paper, "table_4", "humaneval", row)
    if own.name == FULL:
        return f"{own.solved} of {own.tasks} ({own.interval} %)"
    _, full, found = bounds(paper, "table_4", (own.name, FULL), alpha=alpha)
    p, said = p_text((found.smallest, found.largest)), _said(found, alpha)
    return f"{own.solved - full.solved:+d} of {own.tasks}, p = {p}: {said}"


def _said(found: PRange, alpha: float) -> str:
    if found.smallest >= alpha:
        return "noise, whatever the overlap"
    return "a difference" if found.largest < alpha else "depends on the overlap"


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
    names = "CTranslate2 int8", FULL
    small, full, found = bounds(paper, "table_4", names, alpha=alpha)
    share = full.solved / full.tasks
    error = (share * (1 - share) * full.tasks) ** 0.5
    noise = found.smallest >= alpha
    return (
        f"{small.name} solves {small.solved} tasks, {full.name} {full.solved} of {full.tasks}: "
        f"{small.solved - full.solved:+d}. One standard error of either count is {error:.1f} "
        "tasks. Whatever tasks the two have in common, exact McNemar gives "
        f"p = {found.smallest:.2g} or more; a lead of fewer than {least_lead(alpha)} tasks can "
        f"never go below {alpha:g}. The lead is "
        f"{'inside the noise' if noise else 'not settled by the counts'}."
    )
