"""The stage as notebook 01 walks through it, whichever way its settings name.

With `engine = "nano"` specifications are transformed; with an address a model is asked there,
about the nano seeds or about the rows of a file. Both give the same records.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from rrtf import config, prompts, store
from rrtf.benchmarks import tasks
from rrtf.engines import Decoding, endpoint
from rrtf.evolve import asking, offline, rules
from rrtf.evolve.asking import Asker, answer_ask, evolve_ask, methods, task_text, version
from rrtf.evolve.offline import check_methods, draw_method
from rrtf.evolve.rules import Dropped
from rrtf.evolve.seeds import as_problem, read_seeds
from rrtf.evolve.testing import add_tests
from rrtf.prompts import code_of
from rrtf.records import Instruction, Problem
from rrtf.sandbox import executor
from rrtf.sandbox.executor import Limits
from rrtf.store import Stage
from rrtf.strength import examine

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


OFFLINE = "nano"


@dataclass(frozen=True, slots=True)
class Grown:
    """What evolution made: all `evolved` problems, those to train on, and held-out ones.

    `dropped`: attempts, rows and problems that went, by reason. `rows`: the family tree of what a
    model wrote, empty offline.
    """

    evolved: list[Problem]
    train: list[Problem]
    validation: list[Problem]
    test: list[Problem]
    dropped: dict[str, int]
    rows: list[Instruction]


def open_world(stage: Stage, *, n_seeds: int, workers: int) -> dict[str, list]:
    """`seeds`, `evolvable`, `train`, `validation` and `test` of a run, as problems.

    `problems` is `nano`, or the path of a file: without a model one of tasks with tests, whose
    training part is used as it is. The rows of a file that a model is asked about are held out
    after they are evolved, by family: until then `validation` and `test` are empty. `rows` are
    the seeds as instructions, where a model is asked.
    """
    settings, world = stage.settings, {"validation": [], "test": []}
    asked = settings["engine"] != OFFLINE
    if settings["problems"] == "nano":
        for name in ("operations", "vocabulary"):
            stage.data(config.home() / "data" / "nano" / f"{name}.toml")
        world = offline.nano_world(n_seeds, workers)
        world |= {"evolvable": world["seeds"], "train": world["seeds"]}
        if asked:
            world["rows"] = [instruction_of(problem) for problem in world["seeds"]]
    elif not asked:
        path = stage.data(Path(settings["problems"]))
        problems = tasks.problems_of(store.read_rows(path), file=str(path))
        world = offline.split_problems(problems, settings["seed"])
        world |= {"seeds": world["train"], "evolvable": []}
    else:
        path = stage.data(Path(settings["problems"]))
        rows = read_seeds(store.rows(str(path)), source=path.name.partition(".")[0])[0][:n_seeds]
        seeds = [as_problem(row) for row in rows]
        world |= {"rows": rows, "seeds": seeds, "evolvable": seeds}
    return world


def instruction_of(problem: Problem) -> Instruction:
    """A problem as an instruction: its docstring as the task, its reference as the answer."""
    try:
        text = prompts.split_prompt(problem)[2] or problem.prompt
    except ValueError:
        text = problem.prompt
    return Instruction(
        task_id=problem.task_id,
        instruction=text,
        output=examine.reference_program(problem),
        seed_id=problem.task_id,
        source=problem.source,
    )


def grow(
    stage: Stage,
    world: Mapping[str, list],
    *,
    rounds: int,
    weights: Mapping[str, int],
    seed: int,
    workers: int,
    ask: Asker | None = None,
) -> Grown:
    """Evolves the world's seeds as the stage's settings say; `ask` stands in for the endpoint.

    Errors as `evolve_problems`, `evolve_rows`, `add_tests` and `endpoint.ask`.
    """
    tell = stage.progress("evolve")
    how = {"rounds": rounds, "weights": weights}
    if stage.settings["engine"] == OFFLINE:
        seeds, more = world["evolvable"], {"seed": seed, "workers": workers, "progress": tell}
        more |= {"isolation": stage.settings["isolation"]}
        evolved, dropped = offline.evolve_problems(seeds, **how, **more)
        train = evolved or world["train"]
        return Grown(evolved, train, world["validation"], world["test"], dropped, [])
    ask = ask or _asker(stage, tell)
    decoding = asking.freely(seed)
    how |= {"ask": ask, "generator": stage.settings["model"], "decoding": decoding}
    rows, failed = evolve_rows(world["rows"], after_failure="retry", **how)
    tested, gone = _tested(stage, [*world["rows"], *rows], ask, decoding, workers)
    dropped = {f"attempt: {why}": n for why, n in rules.reason_counts(failed).items()}
    dropped |= {f"row: {why}": n for why, n in rules.reason_counts(gone).items()}
    sets = _split(world, tested, seed)
    return Grown([as_problem(row) for row in rows], **sets, dropped=dropped, rows=rows)


def _asker(stage: Stage, tell: Callable[[int, int], None]) -> Asker:
    settings = stage.settings
    return partial(
        endpoint.ask,
        endpoint=endpoint.Endpoint(settings["engine"], settings["model"]),
        replies=stage.folder / "replies",
        concurrency=settings["concurrency"],
        progress=lambda done, total, *_: tell(done, total),
    )


def _tested(
    stage: Stage, rows: Sequence[Instruction], ask: Asker, decoding: Decoding, workers: int
) -> tuple[list[tuple[Instruction, Problem]], list[Dropped]]:
    """(rows with problems whose reference passes, the others with their reasons), all counted."""
    of = stage.settings
    bounds = (of[name] for name in ("cpu_seconds", "wall_seconds", "memory_mb", "isolation"))
    limits = Limits(*bounds)
    kept, gone = rules.sieve(rows, threshold=rules.NEAR)
    found = add_tests(
        kept,
        ask=ask,
        call=partial(executor.call, limits=limits, workers=workers),
        answers=of["test_answers"],
        inputs=of["test_inputs"],
        least_share=of["test_agreement"],
        decoding=decoding,
    )
    execute = partial(executor.execute, workers=workers)
    tested = [problem for _, problem in found.rows]
    broken = examine.broken_references(tested, limits=limits, execute=execute)
    gone += found.dropped
    gone += [(row, "tests: the reference fails") for row, p in found.rows if p.task_id in broken]
    good = [(row, problem) for row, problem in found.rows if problem.task_id not in broken]
    if len(rows) != len(good) + len(gone):
        raise ValueError(f"{len(rows)} rows, but {len(good)} kept and {len(gone)} dropped")
    return good, gone


def _split(
    world: Mapping[str, list], tested: Sequence[tuple[Instruction, Problem]], seed: int
) -> dict[str, list[Problem]]:
    """Held-out problems are the world's own where it has some, else whole families by hash."""
    problems = [problem for _, problem in tested]
    if world["test"]:
        made = [problem for problem in problems if problem.depth]
        return {"train": made, "validation": world["validation"], "test": world["test"]}
    families = {row.task_id: row.seed_id for row, _ in tested}
    return offline.split_problems(problems, seed, families=families)
