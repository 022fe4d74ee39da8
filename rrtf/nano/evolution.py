"""Evol-Instruct's five in-depth methods as transformations of a specification.

The paper evolves prompts with a language model; offline, the same five intentions act on the
composition behind a problem, and the text follows from it.
"""

import random
from dataclasses import dataclass

from rrtf.nano import grammar
from rrtf.nano.grammar import Degenerate, Spec, draw_step, operations, parse_spec, taking
from rrtf.nano.problems import behaviour, make_problem
from rrtf.records import Problem

METHODS = ("constrain", "specialise", "deepen", "misdirect", "tighten")
MAX_STEPS = 4  # the depth of the hardest held-out problems


@dataclass(frozen=True, slots=True)
class Evolved:
    """A problem with its behaviour hash, or the reason why there is none."""

    problem: Problem | None
    behaviour: str = ""
    reason: str = ""


def constrain(spec: Spec, rng: random.Random) -> Spec:
    """Add a requirement: one more operation that keeps the type, somewhere in the chain."""
    kinds = [spec.takes, *(operations()[step.name].gives for step in spec.steps)]
    places = [i for i, kind in enumerate(kinds) if any(op.gives == kind for op in taking(kind))]
    place = rng.choice(places)
    options = [op for op in taking(kinds[place]) if op.gives == kinds[place]]
    step = draw_step(rng.choice(options), rng)
    return Spec(spec.takes, (*spec.steps[:place], step, *spec.steps[place:]))


def specialise(spec: Spec, rng: random.Random) -> Spec:
    """Replace a common requirement by a more specific one: an operation with parameters."""
    place = rng.randrange(len(spec.steps))
    old = operations()[spec.steps[place].name]
    options = [
        op
        for op in taking(old.takes)
        if op.gives == old.gives and op.name != old.name and len(op.choices) > 1
    ]
    if not options:
        raise Degenerate("nothing more specific to replace it by")
    return grammar.replace_step(spec, place, draw_step(rng.choice(options), rng))


def deepen(spec: Spec, rng: random.Random) -> Spec:
    """Ask for one more reasoning step at the end."""
    options = taking(spec.gives)
    if not options:
        raise Degenerate("nothing can follow the last step")
    return Spec(spec.takes, (*spec.steps, draw_step(rng.choice(options), rng)))


_CHANGES = {"constrain": constrain, "specialise": specialise, "deepen": deepen}


def evolve_problem(parent: Problem, method: str, task_id: str, seed: int) -> Evolved:
    """One evolution of `parent` by `method`; runs the reference, so call it in a guarded process.

    The new problem must have at most MAX_STEPS steps and, but for misdirection and
    complexity, another behaviour than its parent.
    """
    rng = random.Random(seed)
    spec = parse_spec(parent.spec)
    origin = dict(
        source="nano-evolved", parent_id=parent.task_id, operator=method, depth=parent.depth + 1
    )
    try:
        if method == "misdirect":
            origin["wrong"] = grammar.neighbour(spec, rng)
        elif method == "tighten":
            origin["one_pass"] = True
        else:
            spec = _CHANGES[method](spec, rng)
            _worth(spec, parse_spec(parent.spec))
        return Evolved(make_problem(spec, task_id, rng, **origin), behaviour(spec))
    except Degenerate as error:
        return Evolved(None, reason=str(error))


def _worth(spec: Spec, parent: Spec) -> None:
    if len(spec.steps) > MAX_STEPS:
        raise Degenerate(f"more than {MAX_STEPS} steps")
    if not grammar.well_typed(spec):
        raise Degenerate("repeats its neighbour")
    if behaviour(spec) == behaviour(parent):
        raise Degenerate("behaves like its parent")
