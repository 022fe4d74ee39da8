"""Rounds of evolution through a language model: the paper's way, on instruction rows.

Each round asks for a harder version of every row, then for an answer to what came back. A row's
id decides its method and the seed of its requests, so results depend neither on the order of rows
nor on how they are cut into calls; a killed run goes on where the saved replies end.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from rrtf.engines import Decoding
from rrtf.evolve import rules
from rrtf.evolve.asking import Asker, answer_ask, evolve_ask, methods, task_text, version
from rrtf.evolve.offline import check_methods, draw_method
from rrtf.evolve.rules import Dropped
from rrtf.prompts import code_of
from rrtf.records import Instruction

AFTER_FAILURE = ("retry", "stop")


def evolve_rows(
    seeds: Sequence[Instruction],
    *,
    ask: Asker,
    generator: str,
    rounds: int,
    weights: Mapping[str, int],
    decoding: Decoding,
    after_failure: str,
) -> tuple[list[Instruction], list[Dropped]]:
    """(evolved rows of all rounds, failed attempts with their reasons); nothing is cleaned yet.

    Attempts = evolved + failed. A row whose evolution fails stands in the next round again with
    `retry` (WizardLM puts it back into its pool: another method is drawn, and 20K seeds could
    not grow to 100K in a handful of rounds otherwise); `stop` ends its branch.

    ValueError for unknown methods, weights that add up to nothing, or rows that have been evolved
    to the same round before.
    """
    _check(seeds, weights, rounds, after_failure)
    evolved: list[Instruction] = []
    failed: list[Dropped] = []
    branches = [(seed.task_id, seed) for seed in seeds]
    for number in range(1, rounds + 1):
        children = [_child(stem, row, number, weights, decoding.seed) for stem, row in branches]
        parents = [row for _, row in branches]
        results = _attempts(parents, children, ask, decoding, generator)
        branches = [
            (stem, parent if reason else row)
            for (stem, parent), (row, reason) in zip(branches, results, strict=True)
            if not reason or after_failure == "retry"
        ]
        evolved += [row for row, reason in results if not reason]
        failed += [(row, reason) for row, reason in results if reason]
    return evolved, failed


def _check(
    seeds: Sequence[Instruction], weights: Mapping[str, int], rounds: int, after_failure: str
) -> None:
    check_methods(weights, methods())
    if not weights or min(weights.values()) < 0 or not sum(weights.values()):
        raise ValueError(f"weights {dict(weights)}: expected at least one above 0, none below")
    if after_failure not in AFTER_FAILURE:
        raise ValueError(f"after_failure {after_failure!r}: expected {' or '.join(AFTER_FAILURE)}")
    known = {seed.task_id for seed in seeds}
    made = (f"{name}/r{number}" for name in known for number in range(1, rounds + 1))
    if repeated := sorted(known.intersection(made)):
        raise ValueError(
            f"{repeated[0]} is among the seeds, with the row it came from: evolve either the "
            f"seeds or what became of them ({len(repeated)} such rows)"
        )


def _child(
    stem: str, parent: Instruction, number: int, weights: Mapping[str, int], seed: int
) -> Instruction:
    """What is known of a child before anything is asked; its id is the seed's and the round."""
    task_id = f"{stem}/r{number}"
    return Instruction(
        task_id=task_id,
        instruction="",
        seed_id=parent.seed_id or parent.task_id,
        parent_id=parent.task_id,
        operator=draw_method(weights, seed, task_id),
        depth=parent.depth + 1,
        prompt_version=version(),
        source=parent.source,
    )


def _attempts(
    parents: Sequence[Instruction],
    children: Sequence[Instruction],
    ask: Asker,
    decoding: Decoding,
    generator: str,
) -> list[Dropped]:
    """Every child with its task and answer, and why it failed ('' where it did not)."""
    asks = [
        evolve_ask(parent, child.operator, child.task_id, decoding)
        for parent, child in zip(parents, children, strict=True)
    ]
    results: list[Dropped] = []
    for parent, child, asked, reply in zip(parents, children, asks, ask(asks), strict=True):
        row = replace(child, instruction=rules.rewritten(reply.text), generator=generator)
        results.append((row, rules.failed_evolution(reply, parent, asked.messages[-1][1])))
    good = [place for place, (_, reason) in enumerate(results) if not reason]
    replies = ask([answer_ask(results[place][0], decoding) for place in good]) if good else []
    for place, reply in zip(good, replies, strict=True):
        row = results[place][0]
        reason = rules.failed_answer(reply, task_text(row))
        results[place] = (replace(row, output=code_of(reply.text)), reason)
    return results
