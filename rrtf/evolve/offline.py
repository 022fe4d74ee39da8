"""Evolution without a model: the five methods as transformations of a nano specification.

Every evolved problem names its parent, its method and its depth; every attempt that yields none
has a reason.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from rrtf import config
from rrtf.nano import evolution, grammar
from rrtf.nano import problems as nano_problems
from rrtf.records import Problem

SPLIT_SHARES = {"test": 20, "validation": 10}  # percent of a user's own problems held out


def draw_method(weights: Mapping[str, int], seed: int, task_id: str) -> str:
    """The method for one problem, drawn by its task id with the given weights."""
    ticket = config.derive_seed(seed, "method", task_id) % sum(weights.values())
    for method, weight in weights.items():
        if ticket < weight:
            return method
        ticket -= weight
    raise AssertionError("unreachable: the weights add up")


def check_methods(weights: Mapping[str, int], known: Sequence[str]) -> None:
    """ValueError for a method that is none of `known`."""
    if unknown := set(weights) - set(known):
        raise ValueError(f"unknown methods {sorted(unknown)}: expected {', '.join(known)}")


def evolve_problems(
    seeds: Sequence[Problem],
    *,
    rounds: int,
    weights: Mapping[str, int],
    seed: int,
    isolation: str,
    workers: int,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[list[Problem], dict[str, int]]:
    """(evolved problems of all rounds, attempts without a result by reason).

    Each round evolves every problem of the round before once; attempts = evolved + dropped.
    References run in the sandbox, at the least at level `isolation`. ValueError names a seed
    without a specification that fits the grammar; RuntimeError as `sandbox.executor.call`.
    """
    for problem in seeds:
        grammar.spec_of(problem)
    check_methods(weights, evolution.METHODS)
    evolved: list[Problem] = []
    dropped: Counter[str] = Counter()
    behaviours: set[str] = set()
    parents = list(seeds)
    for number in range(1, rounds + 1):
        attempts = [_attempt(parent, number, weights, seed) for parent in parents]
        children = []
        for result in evolution.evolve(attempts, isolation=isolation, workers=workers):
            reason = result.reason or _repeats(result, behaviours)
            if reason:
                dropped[reason] += 1
                continue
            behaviours.add(result.behaviour)
            children.append(result.problem)
        evolved += children
        parents = children
        if progress:
            progress(number, rounds)
    return evolved, dict(dropped)


def _attempt(parent: Problem, number: int, weights: Mapping[str, int], seed: int) -> tuple:
    method = draw_method(weights, seed, parent.task_id)
    stem = parent.task_id.rpartition("/")[2]  # behind the number of the round before
    task_id = f"nano/evolved/{number}-{stem if number == 1 else stem.split('-', 1)[-1]}"
    return parent, method, task_id, config.derive_seed(seed, "evolve", task_id)


def _repeats(result: evolution.Evolved, behaviours: set[str]) -> str:
    """A rewording keeps its parent's behaviour; any other method has to change it."""
    rewording = result.problem.operator in ("misdirect", "tighten")
    if result.behaviour in behaviours and not rewording:
        return "behaves like an earlier problem"
    return ""


def lineage(problem: Problem, problems: Mapping[str, Problem]) -> list[Problem]:
    """The problem's ancestors, seed first, itself last."""
    chain = [problem]
    while chain[0].parent_id:
        if chain[0].parent_id not in problems:
            raise ValueError(f"{chain[0].task_id}: its parent {chain[0].parent_id} is missing")
        chain.insert(0, problems[chain[0].parent_id])
    return chain


def split_problems(
    problems: Sequence[Problem], seed: int, *, families: Mapping[str, str] | None = None
) -> dict[str, list[Problem]]:
    """A user's problems as `train`, `validation` and `test`, by a hash of the task id.

    `families` maps task ids to what is hashed instead: those of one family stay together.
    ValueError for duplicate task ids or if one of the three is empty.
    """
    repeated = [name for name, n in Counter(p.task_id for p in problems).items() if n > 1]
    if repeated:
        raise ValueError(f"duplicate task_id {repeated[0]!r} ({len(repeated)} in all)")
    found: dict[str, list[Problem]] = {"train": [], "validation": [], "test": []}
    for problem in problems:
        name = (families or {}).get(problem.task_id, problem.task_id)
        ticket = config.derive_seed(seed, "split", name) % 100
        held_out = "test" if ticket < SPLIT_SHARES["test"] else "validation"
        found[held_out if ticket < sum(SPLIT_SHARES.values()) else "train"].append(problem)
    for name, rows in found.items():
        if not rows:
            raise ValueError(f"{len(problems)} problems are too few: the {name} split is empty")
    return found


def nano_world(n_seeds: int, workers: int) -> dict[str, list[Problem]]:
    """The small world's `seeds` (the first `n_seeds` of fine-tuning), `validation`, `test`."""
    world = {name: rows for name, (rows, *_) in nano_problems.world(workers).items()}
    if n_seeds > len(world["finetune"]):
        known = len(world["finetune"])
        raise ValueError(f"n_seeds = {n_seeds}: the small world has {known} seeds")
    seeds = world["finetune"][:n_seeds]
    return {"seeds": seeds, "validation": world["validation"], "test": world["test"]}


def one_of_each(problem: Problem, *, seed: int, isolation: str) -> list[dict[str, str]]:
    """Rows (method, prompt, specification) of one problem evolved by every method.

    A method that finds nothing to do with this problem gives its reason instead.
    """
    if not problem.spec:
        return []
    attempts = [(problem, method, f"example/{method}", seed) for method in evolution.METHODS]
    rows = []
    results = evolution.evolve(attempts, isolation=isolation, workers=1)
    for method, result in zip(evolution.METHODS, results, strict=True):
        found = result.problem
        text = (found.prompt, found.spec) if found else (f"({result.reason})", "")
        rows.append({"method": method, "prompt": text[0], "specification": text[1]})
    return rows


def reasons(dropped: Mapping[str, int]) -> list[dict[str, str | int]]:
    """Reasons with their counts, most frequent first."""
    ordered = sorted(dropped.items(), key=lambda item: (-item[1], item[0]))
    return [{"reason": reason, "attempts": count} for reason, count in ordered]


def by_method(problems: Sequence[Problem]) -> list[dict[str, str | int]]:
    """A row per method with a column per round."""
    rounds = sorted({problem.depth for problem in problems})
    counts = Counter((problem.operator, problem.depth) for problem in problems)
    return [
        {"method": method} | {f"round {number}": counts[method, number] for number in rounds}
        for method in evolution.METHODS
    ]


def depths(**sets: Sequence[Problem]) -> dict[str, dict[int, int]]:
    """For each named set, how many problems have how many steps (0 where unknown)."""
    return {
        name: dict(sorted(Counter(_steps(problem) for problem in problems).items()))
        for name, problems in sets.items()
    }


def _steps(problem: Problem) -> int:
    return len(grammar.spec_of(problem).steps) if problem.spec else 0
