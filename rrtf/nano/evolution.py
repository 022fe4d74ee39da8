"""Evol-Instruct's five in-depth methods as transformations of a specification.

The paper evolves prompts with a language model; offline, the same five intentions act on the
composition behind a problem, and the text follows from it.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rrtf.nano import grammar, problems
from rrtf.nano.grammar import Degenerate, Spec, draw_step, operations, taking
from rrtf.nano.problems import Asked, behaviour_of, told
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


@dataclass(frozen=True, slots=True)
class Draft:
    """An evolution whose outputs are still to be computed, or the reason why there is none.

    `rng` stands where the drawing of the specification and of the tests' `inputs` has left it.
    """

    parent: Problem
    task_id: str
    spec: Spec
    inputs: list[Any]
    rng: random.Random
    origin: dict[str, Any]
    reason: str = ""

    @property
    def asked(self) -> list[Asked]:
        """What has to be known: outputs for the tests, and on the probes, also of the parent."""
        before = grammar.spec_of(self.parent)
        probed = [(spec, problems.probes(spec.takes)) for spec in (self.spec, before)]
        return [(self.spec, self.inputs), *probed]


def draft(parent: Problem, method: str, task_id: str, seed: int) -> Draft:
    """One evolution of `parent` by `method`: what it is, before anything is computed."""
    rng = random.Random(seed)
    spec, inputs, reason = grammar.spec_of(parent), [], ""
    origin = dict(
        source="nano-evolved", parent_id=parent.task_id, operator=method, depth=parent.depth + 1
    )
    try:
        if method == "misdirect":
            origin["wrong"] = grammar.neighbour(spec, rng)
        elif method == "tighten":
            origin["one_pass"] = True
        else:
            spec = _fitting(_CHANGES[method](spec, rng))
        inputs = problems.draw_inputs(spec, rng)
    except Degenerate as error:
        reason = str(error)
    return Draft(parent, task_id, spec, inputs, rng, origin, reason)


def _fitting(spec: Spec) -> Spec:
    if len(spec.steps) > MAX_STEPS:
        raise Degenerate(f"more than {MAX_STEPS} steps")
    if not grammar.well_typed(spec):
        raise Degenerate("repeats its neighbour")
    return spec


def finish(made: Draft, found: Sequence[list[Any] | str]) -> Evolved:
    """The evolved problem, with what `problems.fenced` found for the draft's `asked`.

    The new problem must have at most MAX_STEPS steps and, but for misdirection and complexity,
    another behaviour than its parent.
    """
    try:
        if made.reason:
            raise Degenerate(made.reason)
        outputs, own, before = found
        if made.origin["operator"] in _CHANGES:
            parent = grammar.spec_of(made.parent)
            if behaviour_of(made.spec, told(own)) == behaviour_of(parent, told(before)):
                raise Degenerate("behaves like its parent")
        problem = problems.make_problem(
            made.spec, made.inputs, told(outputs), made.task_id, made.rng, **made.origin
        )
        return Evolved(problem, behaviour_of(made.spec, told(own)))
    except Degenerate as error:
        return Evolved(None, reason=str(error))


def evolve(
    attempts: Sequence[tuple[Problem, str, str, int]], *, isolation: str, workers: int
) -> list[Evolved]:
    """What becomes of (parent, method, task_id, seed) each; outputs are computed in the sandbox."""
    drafts = [draft(*attempt) for attempt in attempts]
    asked = [made.asked for made in drafts if not made.reason]
    found = iter(problems.fenced(asked, isolation=isolation, workers=workers))
    return [finish(made, () if made.reason else next(found)) for made in drafts]
