"""Leaks made on purpose: how much of a known contamination would each detector notice?

A detector's silence on a clean corpus and on a contaminated one looks the same. So held-out
problems are copied in under growing disguise, and each detector's recall is counted.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from random import Random
from typing import Any

from rrtf import config, prompts, similarity
from rrtf.audit.detectors import Settings, observe
from rrtf.audit.rows import from_problem
from rrtf.audit.verdict import audit, pairs
from rrtf.audit.views import answers
from rrtf.nano import grammar, wording
from rrtf.nano.grammar import spec_of
from rrtf.records import Problem


def copied(problem: Problem, draw: Random) -> Problem:
    """The problem as it is."""
    return problem


def relaid(problem: Problem, draw: Random) -> Problem:
    """Other case, line breaks and punctuation of the description; the code stays."""
    text = prompts.split_prompt(problem)[2]
    loose = text.upper().replace(". ", "!\n    ").replace(", ", " ,  ")
    return _told(problem, loose, problem.reference)


def reworded(problem: Problem, draw: Random) -> Problem:
    """The specification told in other words, under the reference with other names."""
    functions = similarity.canonical_functions(problem.prompt + problem.reference)
    if not (body := functions.get(problem.entry_point)):
        raise ValueError(f"{problem.task_id}: the reference is no function {problem.entry_point}")
    head, _, rest = body.partition("\n")
    told = _told(problem, _other_words(problem, draw), rest + "\n")
    return replace(told, prompt=told.prompt.replace(told.prompt.partition("\n")[0], head, 1),
                   entry_point="v0")  # fmt: skip


def rewritten(problem: Problem, draw: Random) -> Problem:
    """Told in other words and solved in another style: only what the function does remains."""
    argument = grammar.argument_of(problem)
    body = wording.solution(spec_of(problem), argument, "mixed", draw)
    return _told(problem, _other_words(problem, draw), body)


PLANTS: Mapping[str, Callable[[Problem, Random], Problem]] = {
    "copied": copied,
    "other layout": relaid,
    "other words, other names": reworded,
    "other words, other style": rewritten,
}


def _other_words(problem: Problem, draw: Random) -> str:
    argument = draw.choice(grammar.vocabulary()[spec_of(problem).takes]["arguments"])
    return wording.docstring(spec_of(problem), argument, draw)


def _told(problem: Problem, text: str, reference: str) -> Problem:
    head, signature, _ = prompts.split_prompt(problem)
    prompt = f'{head}{signature}\n    """{text}\n    """\n'
    return replace(problem, prompt=prompt, reference=reference)


def planted(problems: Sequence[Problem], *, seed: int) -> dict[str, list[Problem]]:
    """Each nano problem under every disguise; task ids stay, so that each plant knows its source.

    ValueError for a problem without a specification.
    """
    for problem in problems:
        spec_of(problem)
    return {
        name: [disguise(p, Random(config.derive_seed(seed, name, p.task_id))) for p in problems]
        for name, disguise in PLANTS.items()
    }


def one_leak(
    problems: Sequence[Problem], call: Callable[..., list], *, n_random: int, seed: int
) -> tuple[list[tuple[str, str, str]], list[dict[str, str]]]:
    """The first nano problem and itself under the deepest disguise: as text, and as answers.

    (title, held out, disguised) for `tables.side_by_side`, then a table row per probe; both
    empty where no problem has a specification.
    """
    first = [problem for problem in problems if problem.spec][:1]
    if not first:
        return [], []
    *_, (name, disguised) = planted(first, seed=seed).items()
    pair = {"held out": from_problem(first[0]), "disguised": from_problem(disguised[0])}
    seen = observe(list(pair.values()), call, n_random=n_random, seed=seed)
    title = f"{first[0].task_id} and itself in {name}"
    text = [(title, pair["held out"].code, pair["disguised"].code)]
    return text, answers(pair, seen, n_random=n_random, seed=seed)


def recall_rows(
    problems: Sequence[Problem], call: Callable[..., list], settings: Settings, *, n_random: int
) -> list[dict[str, Any]]:
    """One table row per disguise: the share of `problems` that each detector finds again.

    A finding that the rule takes for chance does not count.
    """
    if not problems:
        return []
    tasks = [from_problem(problem) for problem in problems]
    rows = {
        name: [from_problem(plant) for plant in plants]
        for name, plants in planted(problems, seed=settings.seed).items()
    }
    everything = [*tasks, *(row for members in rows.values() for row in members)]
    seen = observe(everything, call, n_random=n_random, seed=settings.seed)
    own = {(task.task_id, "held out", task.task_id) for task in tasks}
    table: list[dict[str, Any]] = []
    for name, members in rows.items():
        result = audit(members, {"held out": tasks}, settings, behaviour=seen)
        shares = {d: len(own & pairs(result.leaks, d)) / len(own) for d in result.detectors}
        table.append({"disguise": name, **shares})
    return table
