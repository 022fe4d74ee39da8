"""What the ledger says: rates with intervals, the questions, curves over the rate, the map."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

from rrtf import stats
from rrtf.ablation.registration import (
    ALL_TESTS,
    ANCHORS,
    BASES,
    FIRST,
    TEACHERS,
    Arm,
    Registration,
    as_it_is,
)
from rrtf.ablation.runs import Line, unpacked
from rrtf.evaluate import results
from rrtf.evaluate.results import Comparison
from rrtf.nano import grammar
from rrtf.records import Problem, TaskScore
from rrtf.stats import Estimate

ON_EVERY_BASE = (  # what study 3 asks of each start model, each side a `data, objective`
    "verified, imitation - unverified, imitation",
    "unverified, SimPO - unverified, imitation",
    "unverified, SimPO - verified, imitation",
    "verified, SimPO - unverified, SimPO",
    "filtered, literal RRTF - unverified, imitation",
)


Crossing = tuple[dict[int, Comparison], float | None, tuple[float, float] | None]


def scores(
    lines: Iterable[Line], problems: Sequence[Problem], *, family: Callable[[Problem], str]
) -> list[TaskScore]:
    """The examined models on the test problems, problem by problem; a model is called as its arm.

    All are of the world at hand, after which the benchmark is called. ValueError naming the arm if
    a line counts other problems than these.
    """
    found, benchmark = [], f"{grammar.world()}, ablation"
    for line in lines:
        if not line.n_test:
            continue
        if line.n_test != len(problems):
            where = f"arm {line.arm!r}, seed {line.seed}"
            raise ValueError(f"{where}: {line.n_test} problems, expected {len(problems)}")
        found += [
            TaskScore(line.arm, benchmark, p.task_id, 1, c, line.seed, 0.0, family(p))
            for p, c in zip(problems, unpacked(line.solved, line.n_test), strict=True)
        ]
    return found


def answered(plan: Registration, rows: Sequence[TaskScore], *, seed: int) -> dict[str, Comparison]:
    """Question -> its contrast on the seeds that both sides have, Holm over all that were run.

    A question whose arms lack a registered seed is not answered yet.
    """
    whole = {arm.name for arm in plan.arms if seeds_of(rows, arm.name) >= set(range(arm.seeds))}
    whole |= {name for name in ANCHORS if seeds_of(rows, name)}
    found = {}
    for question, contrast in plan.questions.items():
        a, b = results.parse_contrast(contrast)
        if {a, b} <= whole:
            found[question] = contrasted(plan, rows, a, b, seed=seed)
    adjusted = stats.holm([row.p for row in found.values()])
    pairs = zip(found.items(), adjusted, strict=True)
    return {question: replace(row, p_holm=p) for (question, row), p in pairs}


def seeds_of(rows: Sequence[TaskScore], name: str) -> set[int]:
    """The seeds with which an arm was run."""
    return {row.seed for row in rows if row.model == name}


def contrasted(
    plan: Registration, rows: Sequence[TaskScore], a: str, b: str, *, seed: int
) -> Comparison:
    """a - b on the seeds that both have; a row without training has none and keeps its own."""
    shared = seeds_of(rows, a) & seeds_of(rows, b)
    alone = {a, b} & set(ANCHORS)
    rows = [row for row in rows if row.model in (a, b) and (alone or row.seed in shared)]
    metric = stats.parse_metric(plan.metric)
    how = {"margin": plan.margin, "seed": seed, "table": "primary"}
    return results.compare(rows, a, b, metric, **how)


def rates(plan: Registration, rows: Sequence[TaskScore]) -> dict[str, results.Result]:
    """Name of an arm -> its mean over seeds on the test problems, with its interval."""
    if not rows:
        return {}
    found = results.results(rows, [stats.parse_metric(plan.metric)])
    return {row.model: row for row in results.headline(found)}


def arm_rows(
    plan: Registration, lines: Sequence[Line], rows: Sequence[TaskScore], study: str
) -> list[dict[str, Any]]:
    """Every arm of `study`, the best first, with its rates and training set; or `not run`."""
    measured = rates(plan, rows)
    names = [*(ANCHORS if study == FIRST else ())]
    names += [as_it_is(base) for base in plan.bases if study == BASES]
    names += [arm.name for arm in plan.arms if arm.study == study]
    arms = {arm.name: arm for arm in plan.arms}
    names.sort(key=lambda name: measured[name].value if name in measured else -1, reverse=True)
    return [_arm_row(plan, arms.get(name), name, lines, measured.get(name)) for name in names]


def _examined_twice(*sides: Sequence[TaskScore]) -> list[list[TaskScore]]:
    """Of the scores in each precision those of the arms and seeds that every one has."""
    there = set.intersection(*({(row.model, row.seed) for row in side} for side in sides))
    return [[row for row in side if (row.model, row.seed) in there] for side in sides]


def beside(
    plan: Registration, exact: Sequence[TaskScore], rounded: Sequence[TaskScore]
) -> list[dict[str, Any]]:
    """The arms and start models that were examined in both precisions, on the seeds of both."""
    sides = _examined_twice(exact, rounded)
    in_float32, in_bfloat16 = (rates(plan, side) for side in sides)
    return [
        {
            "arm": name,
            "seeds": len(seeds_of(sides[0], name)),
            "in float32": _rate(found),
            "rounded to bfloat16": _rate(in_bfloat16[name]),
            "taken back": results.points(in_bfloat16[name].value - found.value),
        }
        for name, found in sorted(in_float32.items(), key=lambda item: -item[1].value)
    ]


def answered_beside(
    plan: Registration, exact: Sequence[TaskScore], rounded: Sequence[TaskScore], *, seed: int
) -> list[dict[str, Any]]:
    """The questions in both precisions, on the arms and seeds of `beside`; not corrected."""
    names = "in float32", "rounded to bfloat16"
    sides = dict(zip(names, _examined_twice(exact, rounded), strict=True))
    there, found = sides[names[0]], []
    for question, contrast in plan.questions.items():
        a, b = results.parse_contrast(contrast)
        if {a, b} <= set(results.methods(there)):
            trained = [seeds_of(there, name) for name in (a, b) if name not in ANCHORS]
            told = {
                name: results.brief(contrasted(plan, side, a, b, seed=seed))["points"]
                for name, side in sides.items()
            }
            seeds = len(set.intersection(*trained))
            found.append({"question": question, "seeds": seeds} | told)
    return found


def _arm_row(
    plan: Registration,
    arm: Arm | None,
    name: str,
    lines: Sequence[Line],
    result: results.Result | None,
) -> dict[str, Any]:
    if result is None:
        return {"arm": name, "pass@1, %": "", "seeds": "not run"}
    made = [line for line in lines if line.arm == name and line.n_test]
    row = {"arm": name, "pass@1, %": _rate(result), "seeds": len(made)}
    if arm is None:
        return row
    chosen = Counter(line.learning_rate for line in made)
    grid = plan.objectives[arm.objective]["rates"]
    edges = [count for rate, count in chosen.items() if rate in (min(grid), max(grid))]
    told = [f"{rate:g}" + f" ({n})" * (len(chosen) > 1) for rate, n in sorted(chosen.items())]
    return row | {
        "chosen rates": ", ".join(told),
        "at an edge": "mostly" if sum(edges) > len(made) / 2 else "",
        "prompts": round(_mean(line.prompts for line in made)),
        "wrong targets": round(_mean(line.wrong for line in made)),
        "tokens an update": round(_mean(line.tokens for line in made)),
    }


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return sum(found) / len(found)


def _rate(row: results.Result) -> str:
    return f"{100 * row.value:.1f} [{100 * row.low:.1f}, {100 * row.high:.1f}]"


def curves(lines: Iterable[Line], names: Iterable[str]) -> list[dict[str, Any]]:
    """pass@1 of these arms at every rate, over the validation problems of all their seeds."""
    passed: dict[tuple[str, float], list[int]] = {}
    for line in lines:
        if line.n_validation:
            marks = unpacked(line.validated, line.n_validation)
            passed.setdefault((line.arm, line.learning_rate), []).extend(marks)
    return [
        {"method": name, "variant": "", "learning_rate": rate, "pass@1": _mean(marks)}
        for name in names
        for (arm, rate), marks in sorted(passed.items())
        if arm == name
    ]


def neighbours(plan: Registration, lines: Iterable[Line], name: str) -> tuple[float, float] | None:
    """The two neighbouring rates of its grid that the seeds of an arm of study 1 chose most often.

    Of pairs chosen equally often the smaller rates; None where the arm was not run.
    """
    (objective,) = (arm.objective for arm in plan.arms if arm.name == name)
    grid = sorted(plan.objectives[objective]["rates"])
    chosen = Counter(line.learning_rate for line in lines if line.n_test and line.arm == name)
    pairs = max(pairwise(grid), key=lambda pair: chosen[pair[0]] + chosen[pair[1]])
    return pairs if chosen else None


def by_kind(plan: Registration, rows: Sequence[TaskScore]) -> dict[str, dict[str, Estimate]]:
    """Kind of data -> objective -> pass@1 of study 1, both in the order of the registration."""
    measured = rates(plan, rows)
    found: dict[str, dict[str, Estimate]] = {kind: {} for kind in plan.data}
    objectives = list(plan.objectives)
    for arm in sorted(plan.arms, key=lambda arm: objectives.index(arm.objective)):
        if arm.study == FIRST and (row := measured.get(arm.name)):
            found[arm.data][arm.objective] = _span(row)
    return {kind: row for kind, row in found.items() if row}


def along(
    plan: Registration, rows: Sequence[TaskScore], axis: str, **fixed: Any
) -> dict[str, dict[int, Estimate]]:
    """`data, objective` -> place along `axis` -> pass@1 of the arms of study 2 with these fields.

    `axis` is `accuracy` (in percent) or `tests`.
    """
    measured = rates(plan, rows)
    found: dict[str, dict[int, Estimate]] = {}
    for arm in plan.arms:
        result = measured.get(arm.name)
        if result and arm.study == TEACHERS and all(getattr(arm, k) == v for k, v in fixed.items()):
            lines = found.setdefault(f"{arm.data}, {arm.objective}", {})
            lines[getattr(arm, axis)] = _span(result)
    return found


def _span(row: results.Result) -> Estimate:
    return Estimate(row.value, row.low, row.high)


def crossing(
    plan: Registration,
    rows: Sequence[TaskScore],
    first: str,
    second: str,
    *,
    errors: str,
    seed: int,
) -> Crossing:
    """Where `first` overtakes `second` (each a `data, objective`) as the teacher gets better.

    (first - second by accuracy in percent, the accuracy at which it is zero, the accuracies at
    which its interval holds zero), the last two between neighbouring accuracies by straight lines;
    None where the difference, or its interval, has no zero.
    """  # fmt: skip
    arms = {
        (f"{arm.data}, {arm.objective}", arm.accuracy): arm.name
        for arm in plan.arms
        if (arm.study, arm.errors, arm.tests) == (TEACHERS, errors, ALL_TESTS)
    }
    there = set(results.methods(rows))
    found = {}
    for (kind, accuracy), name in sorted(arms.items(), key=lambda item: item[0][1]):
        other = arms.get((second, accuracy))
        if kind == first and {name, other} <= there:
            found[accuracy] = contrasted(plan, rows, name, other, seed=seed)
    at = _zero({place: row.difference for place, row in found.items()})
    ends = [_zero({place: getattr(row, end) for place, row in found.items()}) for end in ENDS]
    known = None not in ends
    return found, at, (min(ends), max(ends)) if known else None


def overtaking(crossed: Crossing) -> str:
    """`crossing` in words."""
    found, at, span = crossed
    if not found:
        return "not run"
    told = ", ".join(f"{results.brief(row)['points']} at {place} %" for place, row in found.items())
    where = f"equal where the teacher is {at:.0f} % right" if at is not None else "never equal"
    sure = f" ({span[0]:.0f} to {span[1]:.0f} %)" if span else ""
    return f"{where}{sure}; {told}"


def across(
    plan: Registration, rows: Sequence[TaskScore], *, seed: int
) -> dict[str, dict[str, Comparison]]:
    """Contrast of `ON_EVERY_BASE` -> start model -> the difference there, where both were run.

    The student of study 1 comes first, and not alone; nothing is corrected for the number of
    differences.
    """
    arms = {
        (arm.base, f"{arm.data}, {arm.objective}"): arm.name
        for arm in plan.arms
        if arm.study in (FIRST, BASES)
    }
    there = set(results.methods(rows))
    found: dict[str, dict[str, Comparison]] = {}
    for contrast in ON_EVERY_BASE:
        for base in ("", *plan.bases):
            a, b = (arms.get((base, side)) for side in results.parse_contrast(contrast))
            if {a, b} <= there:
                compared = contrasted(plan, rows, a, b, seed=seed)
                found.setdefault(contrast, {})[base or plan.base] = compared
    return {contrast: row for contrast, row in found.items() if row.keys() & plan.bases.keys()}


def across_rows(found: Mapping[str, Mapping[str, Comparison]]) -> list[dict[str, str]]:
    """`across` as a table: a row for each contrast, a column for each start model."""
    return [
        {"difference": contrast}
        | {base: results.brief(row)["points"] for base, row in by_base.items()}
        for contrast, by_base in found.items()
    ]


def across_panels(
    found: Mapping[str, Mapping[str, Comparison]],
) -> dict[str, list[tuple[str, float, float, float]]]:
    """The first three contrasts of `across` as `charts.intervals` takes them."""
    return {
        contrast.replace(" - ", "\n- "): [
            (base, row.difference, row.low, row.high) for base, row in by_base.items()
        ]
        for contrast, by_base in list(found.items())[:3]
    }


ENDS = ("low", "high")


def _zero(values: Mapping[int, float]) -> float | None:
    """Where straight lines through the values first go through zero."""
    places = sorted(values)
    for a, b in pairwise(places):
        if values[a] * values[b] <= 0 and values[a] != values[b]:
            return a + (b - a) * values[a] / (values[a] - values[b])
    return None


def missing(plan: Registration, lines: Iterable[Line]) -> dict[str, int]:
    """Study -> how many of its registered units, an arm with a seed, have no examined model yet."""
    made = {(line.arm, line.seed) for line in lines if line.n_test}
    left = Counter(
        arm.study for arm in plan.arms for seed in range(arm.seeds) if (arm.name, seed) not in made
    )
    return dict(left)
