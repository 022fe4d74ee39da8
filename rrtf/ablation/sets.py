"""From an arm to what it trains on: who teaches, what is compared, what is left out."""

import hashlib
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from rrtf import config, methods, prompts, rank, store
from rrtf.ablation.registration import ALL_TESTS, Arm, Registration
from rrtf.nano import corpus, grammar, wording
from rrtf.nano import problems as nano_problems
from rrtf.nano.grammar import Operation
from rrtf.records import Execution, Outcome, Problem, RankedGroup, Response

SITUATIONS = dict(zip(Outcome, (0.0, 1.0, 2.0, 3.0), strict=True))
TIE_BREAK = 0.5  # of stage 04
EARLIER = 1850  # problems of the test split that stage 06 and the replaced registration drew from
TEACHER = {"source": "teacher", "index": 0}


@dataclass(frozen=True, slots=True)
class Answers:
    """Responses with their verdicts, in the same order."""

    responses: Sequence[Response]
    executions: Sequence[Execution]

    def __add__(self, other: "Answers") -> "Answers":
        both = [*self.responses, *other.responses], [*self.executions, *other.executions]
        return Answers(*both)


def training_set(
    arm: Arm,
    plan: Registration,
    problems: Sequence[Problem],
    asked: Mapping[str, str],
    student: Answers,
    teacher: Answers,
    *,
    seed: int,
) -> list[RankedGroup]:
    """The groups that `arm` trains on with this seed.

    `asked` are the prompts by task; the verdicts of `student` and `teacher` are those of the arm's
    tests. Of the prompts whose teacher and student differ the first `plan.prompts` in an order
    drawn by the seed are filtered; where the data is `refilled`, the first that pass the filter.
    """
    kind = plan.data[arm.data]
    both = student + (own(student) if kind.get("teacher") == "own" else teacher)
    scored = {"scores": SITUATIONS, "tie_break": TIE_BREAK, "pass_ratio": 0.0}
    as_asked = {"teacher": "teacher", "prompts": asked, "prompt_format": "starcoder"}
    found, _ = rank.rank(problems, both.responses, both.executions, **scored, **as_asked)
    groups = sorted(found, key=lambda g: config.derive_seed(seed, "prompts", g.task_id))
    every, kept = (_pairs(groups, by, seed=seed) for by in ("none", kind["filter"]))
    if kind.get("refilled"):
        kept = kept[: plan.prompts]
    else:
        first = {pair.task_id for pair in every[: plan.prompts]}
        kept = [pair for pair in kept if pair.task_id in first]
    most = plan.objectives[arm.objective].get("max_responses", 0)
    if not most:
        return kept
    names = {pair.task_id for pair in kept}
    whole = [group for group in groups if group.task_id in names]
    return methods.training_set("rrhf", whole, [], max_responses=most)[0]


def _pairs(groups: Sequence[RankedGroup], by: str, *, seed: int) -> list[RankedGroup]:
    """`rank.pairs` by one of its filters, or `must_fail`: the pairs that `must_pass` drops."""
    how = {"pairing": "one", "seed": seed}
    if by != "must_fail":
        return rank.pairs(groups, teacher_filter=by, **how)[0]
    right = {pair.task_id for pair in _pairs(groups, "must_pass", seed=seed)}
    return [pair for pair in _pairs(groups, "none", seed=seed) if pair.task_id not in right]


def own(student: Answers) -> Answers:
    """The student's first passing answer to each task, in the place of a teacher's."""
    found: dict[str, tuple[Response, Execution]] = {}
    for response, verdict in zip(student.responses, student.executions, strict=True):
        if verdict.outcome == Outcome.PASS:
            found.setdefault(response.task_id, (response, verdict))
    return Answers(
        [replace(response, **TEACHER) for response, _ in found.values()],
        [replace(verdict, **TEACHER) for _, verdict in found.values()],
    )


def weakened(problems: Sequence[Problem], count: int) -> list[Problem]:
    """The problems with `count` of their assertions, drawn by task; fewer are in more."""
    if count == ALL_TESTS:
        return list(problems)
    found = []
    for problem in problems:
        head, *asserts = problem.tests.splitlines(keepends=True)
        drawn = sorted(asserts, key=lambda line: config.derive_seed(0, problem.task_id, line))
        found.append(replace(problem, tests=head + "".join(drawn[:count])))
    return found


def made(problems: Sequence[Problem], *, errors: str, accuracy: int, seed: int) -> list[Response]:
    """The answers of a teacher of whom about `accuracy` percent are right, in canonical style.

    Some of the others may be right by chance: the verdicts have the last word.
    """
    if errors == "systematic":
        wrong = misread(problems, 1 - accuracy / 100, seed=seed)
        table = {**grammar.operations(), **{name: misreading(name) for name in wrong}}
    answers = []
    for problem in problems:
        spec, rng = grammar.spec_of(problem), random.Random(_of(seed, errors, problem.task_id))
        operations = table if errors == "systematic" else grammar.operations()
        if errors == "random" and rng.random() >= accuracy / 100:
            spec = grammar.neighbour(spec, rng)
        how = {"style": wording.CANONICAL, "rng": rng, "table": operations}
        text = "\n" + wording.solution(spec, grammar.argument_of(problem), **how).rstrip("\n")
        program = prompts.extract(problem, text)
        answers.append(Response(problem.task_id, **TEACHER, text=text, program=program))
    return answers


def misread(problems: Sequence[Problem], share: float, *, seed: int) -> list[str]:
    """Operations, drawn by the seed, of which about this share of the problems has at least one."""
    used = {problem.task_id: set(grammar.spec_of(problem).names[1:]) for problem in problems}
    order = sorted({name for names in used.values() for name in names})
    order.sort(key=lambda name: _of(seed, "misread", name))
    wanted, chosen, hit = share * len(problems), [], set()
    for name in order:
        more = hit | {task for task, names in used.items() if name in names}
        if abs(len(more) - wanted) < abs(len(hit) - wanted):
            chosen.append(name)
            hit = more
    return chosen


def misreading(name: str) -> Operation:
    """The operation as it is misunderstood: as recorded, else as one fixed other of its types."""
    operation, believed = grammar.operations()[name], grammar.blind_spots()[name]
    if believed != operation:
        return believed
    same = [
        other
        for other in grammar.taking(operation.takes)
        if other.gives == operation.gives and other.name != name and other.expressions
    ]
    if not same:
        return operation
    other = same[_of(0, "misreading", name) % len(same)]
    settings = other.choices[_of(0, "setting", name) % len(other.choices)]
    expression = grammar.fill(other.expressions[0], settings)
    return replace(operation, expressions=(expression,), blocks=())


def _of(seed: int, *names: str) -> int:
    return config.derive_seed(seed, "ablation", *names)


def drawn(
    plan: Registration,
    *,
    trained_on: Sequence[Problem],
    isolation: str,
    workers: int,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[list[list[Problem]], list[Problem]]:
    """(the validation problems of every seed, the test problems) of the registration.

    Of the world that `rrtf.nano` lives in. None behaves like a problem of its splits, of the
    replaced registration's test set, of pre-training, or like one of `trained_on`, which come from
    a file and are run in the sandbox, at the least at level `isolation`. ValueError if they are not
    those whose hash was registered.
    """
    how = {"workers": workers}
    world = nano_problems.world(workers)
    taken = {key for name, (_, keys) in world.items() if name != "test" for key in keys}
    taken |= {*world["test"][1], *nano_problems.build("test", EARLIER, avoid=taken, **how)[1]}
    taken |= corpus.behaviours(workers=workers, progress=progress)
    specs = map(grammar.spec_of, trained_on)
    taken |= set(nano_problems.behaviours(specs, isolation=isolation, workers=workers))
    found: dict[str, list[Problem]] = {}
    seeds = max(arm.seeds for arm in plan.arms if plan.world(arm) == grammar.world())
    for split, parts in (("test", 1), ("validation", seeds)):
        for hardness in ("same", "harder"):
            depths = dict.fromkeys(plan.problems[hardness], 1)
            count = plan.problems[split][hardness] * parts
            own = {"series": ("ablation", hardness), "depths": depths, "avoid": taken}
            problems, keys, _ = nano_problems.build(split, count, **own, **how)
            found[f"{split} {hardness}"] = problems
            taken |= set(keys)
    same, harder = plan.problems["validation"]["same"], plan.problems["validation"]["harder"]
    validation = [
        found["validation same"][seed * same : (seed + 1) * same]
        + found["validation harder"][seed * harder : (seed + 1) * harder]
        for seed in range(seeds)
    ]
    test = found["test same"] + found["test harder"]
    digest = digest_of(validation, test)
    if digest != plan.problems["sha256"][grammar.world()]:
        raise ValueError(f"other problems were drawn than those registered: sha256 {digest}")
    return validation, test


def digest_of(validation: Sequence[Sequence[Problem]], test: Sequence[Problem]) -> str:
    """The hash of all problems that decide anything."""
    every = [problem for part in (*validation, test) for problem in part]
    return hashlib.sha256(store.encode(every, ".jsonl")).hexdigest()
