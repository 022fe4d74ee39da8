"""Stage 04: from executed responses to ranked groups and pairs (paper, section 3.2.2).

Four situations give four scores, the teacher is preferred within a situation, and a pair whose
teacher stands in a lower situation than the student is dropped: the paper's one filter.
"""

import random
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

from rrtf import config
from rrtf.prompts import extract, form_of, judged_target
from rrtf.records import Execution, Outcome, Problem, RankedGroup, Response

PAIRINGS = ("one", "all")
FILTERS = ("drop_below", "must_pass", "none")


def score(
    execution: Execution,
    is_teacher: bool,
    scores: Mapping[Outcome, float],
    *,
    tie: float,
    pass_ratio: float,
) -> float:
    """r of the paper: the situation's value, plus `tie` for the teacher.

    Not in the paper: a program that fails tests gets `pass_ratio` * k / n on top. `tie` must be
    positive (or ties would have no weight), and both together smaller than the smallest step
    between situations (or the teacher would overtake a better student).
    """
    value = scores[execution.outcome] + (tie if is_teacher else 0.0)
    if execution.outcome != Outcome.FAILED_TESTS or not execution.n_tests:
        return value
    return value + pass_ratio * execution.n_passed / execution.n_tests


def check_scores(scores: Mapping[Outcome, float], tie: float, pass_ratio: float) -> None:
    """ValueError unless the scores rise with the situations and what is added fits between them."""
    values = [scores[outcome] for outcome in Outcome]
    steps = [high - low for low, high in pairwise(values)]
    if min(steps) <= 0:
        raise ValueError(f"scores {values} do not rise from {Outcome(1).name} to PASS")
    if not 0 <= tie < min(steps):
        raise ValueError(f"tie_break {tie}: expected at least 0 and less than {min(steps)}")
    if not 0 <= pass_ratio < min(steps) - tie:
        room = min(steps) - tie
        raise ValueError(f"pass_ratio {pass_ratio}: expected at least 0 and less than {room}")


def rank(
    problems: Sequence[Problem],
    responses: Sequence[Response],
    executions: Sequence[Execution],
    *,
    teacher: str,
    scores: Mapping[Outcome, float],
    tie_break: float,
    pass_ratio: float,
    prompts: Mapping[str, str],
    prompt_format: str,
) -> tuple[list[RankedGroup], dict[str, int]]:
    """(one group per task with a teacher response, responses or tasks left out by reason).

    `executions` are parallel to `responses`; `prompts` maps a task id to the text, in
    `prompt_format`, that the student is sampled from. A group holds the code of each response in
    that format (`prompts.target`); a response whose code has none is left out. Programs of one
    task that differ in layout or comments are kept once (the teacher's, else the first); texts
    cut off at the token limit are left out. The teacher's first response is the target of L_ft.
    """
    check_scores(scores, tie_break, pass_ratio)
    added = {"tie": tie_break, "pass_ratio": pass_ratio}
    by_task = _by_task(problems, responses, executions)
    dropped: Counter[str] = Counter()
    groups = []
    for problem in problems:
        asked = prompts[problem.task_id]
        rows = _as_targets(problem, by_task[problem.task_id], asked, prompt_format, dropped)
        kept = _distinct(problem, rows, teacher, dropped)
        first = next((i for i, (r, _) in enumerate(kept) if r.source == teacher), None)
        if first is None:
            dropped["response: its task has no complete teacher response"] += len(kept)
            continue
        outcomes = tuple(execution.outcome for _, execution in kept)
        sources = tuple(response.source for response, _ in kept)
        groups.append(
            RankedGroup(
                task_id=problem.task_id,
                prompt=prompts[problem.task_id],
                responses=tuple(response.text for response, _ in kept),
                sources=sources,
                outcomes=outcomes,
                scores=tuple(
                    score(execution, response.source == teacher, scores, **added)
                    for response, execution in kept
                ),
                sft_index=first,
            )
        )
    return groups, dict(dropped)


def answers_to(
    problems: Sequence[Problem], responses: Sequence[Response]
) -> tuple[list[Response], dict[str, int]]:
    """(the responses to these problems, in order; responses left out by reason)."""
    known = {problem.task_id for problem in problems}
    kept = [response for response in responses if response.task_id in known]
    lost = len(responses) - len(kept)
    return kept, {"response: its problem is left out": lost} if lost else {}


def _by_task(
    problems: Sequence[Problem], responses: Sequence[Response], executions: Sequence[Execution]
) -> dict[str, list[tuple[Response, Execution]]]:
    if len(responses) != len(executions):
        raise ValueError(f"{len(responses)} responses but {len(executions)} executions")
    known = {problem.task_id for problem in problems}
    found: dict[str, list[tuple[Response, Execution]]] = defaultdict(list)
    for response, execution in zip(responses, executions, strict=True):
        key = (response.task_id, response.source, response.index)
        if key != (execution.task_id, execution.source, execution.index):
            raise ValueError(f"response {key} stands beside the execution of {execution.task_id}")
        if response.task_id not in known:
            raise ValueError(f"{response.task_id}: a response to an unknown task")
        found[response.task_id].append((response, execution))
    return found


def _as_targets(
    problem: Problem,
    rows: Sequence[tuple[Response, Execution]],
    prompt: str,
    prompt_format: str,
    dropped: Counter,
) -> list[tuple[Response, Execution]]:
    """The rows whose code can be a target of training, with it as their text."""
    texts = [judged_target(problem, r, prompt_format, prompt=prompt) for r, _ in rows]
    lost = texts.count(None)
    if lost:
        dropped["response: its code does not continue the prompt"] += lost
    return [
        (replace(response, text=text), execution)
        for text, (response, execution) in zip(texts, rows, strict=True)
        if text is not None
    ]


def _distinct(
    problem: Problem, rows: Sequence[tuple[Response, Execution]], teacher: str, dropped: Counter
) -> list[tuple[Response, Execution]]:
    """Teacher first, then the others in order, every program once, none cut off."""
    ordered = sorted(rows, key=lambda row: (row[0].source != teacher, row[0].source, row[0].index))
    seen: set[str] = set()
    kept = []
    for response, execution in ordered:
        form = form_of(extract(problem, response.text))
        if response.finish_reason == "length":
            dropped["response: cut off at max_new_tokens"] += 1
        elif form in seen:
            dropped["response: repeats another of its task"] += 1
        else:
            seen.add(form)
            kept.append((response, execution))
    return kept


def pairs(
    groups: Sequence[RankedGroup], *, pairing: str, teacher_filter: str, seed: int
) -> tuple[list[RankedGroup], dict[str, int]]:
    """(groups of the teacher and the student(s) it is compared with, prompts dropped by reason).

    `pairing`: `one` student response per prompt, drawn by key, as the paper's formula has it, or
    `all`. `teacher_filter`: `drop_below` (the paper's: no pair whose teacher is in a lower
    situation), `must_pass` (the teacher must pass all tests), `none`. The teacher comes first.
    """
    if pairing not in PAIRINGS:
        raise ValueError(f"unknown pairing {pairing!r}: expected one of {', '.join(PAIRINGS)}")
    if teacher_filter not in FILTERS:
        raise ValueError(f"unknown filter {teacher_filter!r}: expected {', '.join(FILTERS)}")
    kept, dropped = [], Counter()
    for group in groups:
        own = group.sources[group.sft_index]
        students = [i for i, source in enumerate(group.sources) if source != own]
        if not students:
            dropped["prompt: no student response differs from the teacher's"] += 1
            continue
        if pairing == "one":
            rng = random.Random(config.derive_seed(seed, "pair", group.task_id))
            students = [rng.choice(students)]
        best = group.outcomes[group.sft_index]
        if teacher_filter == "must_pass" and best != Outcome.PASS:
            dropped["prompt: the teacher does not pass"] += 1
            continue
        if teacher_filter == "drop_below":
            students = [i for i in students if group.outcomes[i] <= best]
            if not students:
                dropped["prompt: the teacher scores below the student"] += 1
                continue
        kept.append(take(group, [group.sft_index, *students]))
    return kept, dict(dropped)


def take(group: RankedGroup, places: Sequence[int]) -> RankedGroup:
    """The group reduced to some of its responses, the first of which becomes the target."""
    lists = ("responses", "sources", "outcomes", "scores")
    kept = {name: tuple(getattr(group, name)[i] for i in places) for name in lists}
    return replace(group, **kept, sft_index=0)


def situations(pairs: Sequence[RankedGroup]) -> dict[tuple[Outcome, Outcome], int]:
    """How many (teacher, student) comparisons fall on each pair of situations."""
    return dict(Counter((g.outcomes[0], outcome) for g in pairs for outcome in g.outcomes[1:]))


def filter_rows(before: Sequence[RankedGroup], after: Sequence[RankedGroup]) -> list[dict]:
    """Teacher's situation by student's: comparisons before the filter, and how many stay."""
    all_pairs, kept = situations(before), situations(after)
    return [
        {"teacher": high.name}
        | {low.name: all_pairs.get((high, low), 0) for low in Outcome}
        | {"kept": sum(kept.get((high, low), 0) for low in Outcome)}
        for high in Outcome
    ]


def choices(groups: Sequence[RankedGroup], *, seed: int) -> list[dict]:
    """For every pairing and filter: prompts and pairs kept, and prompts whose teacher fails."""
    rows = []
    for pairing in PAIRINGS:
        for name in FILTERS:
            kept, _ = pairs(groups, pairing=pairing, teacher_filter=name, seed=seed)
            wrong = sum(group.outcomes[0] != Outcome.PASS for group in kept)
            compared = sum(len(group.responses) - 1 for group in kept)
            row = {"pairing": pairing, "filter": name, "prompts": len(kept), "pairs": compared}
            rows.append(row | {"teacher wrong": wrong})
    return rows


def preferences(pairs: Sequence[RankedGroup]) -> tuple[list[dict], dict[str, int]]:
    """(TRL's rows `prompt, chosen, rejected`, pairs left out by reason) of compared responses.

    One row per teacher (first) and student; chosen is the one with the higher score. Beside
    TRL's fields stand `task_id` and of both sides source, outcome and score.
    """
    rows, equal = [], 0
    for group in pairs:
        for place in range(1, len(group.responses)):
            better, worse = sorted((0, place), key=lambda at: -group.scores[at])
            if group.scores[better] == group.scores[worse]:
                equal += 1
                continue
            row = {"task_id": group.task_id, "prompt": group.prompt}
            for side, at in (("chosen", better), ("rejected", worse)):
                row |= {side: group.responses[at], f"{side}_source": group.sources[at]}
                row |= {f"{side}_outcome": group.outcomes[at].name}
                row |= {f"{side}_score": group.scores[at]}
            rows.append(row)
    return rows, {"pair: equal scores": equal} if equal else {}
