"""Tested problems from specifications, and their split by behaviour.

Specifications are run to compute expected outputs. That happens only in worker processes under
an address-space limit and a CPU-time alarm, because a random composition can loop or explode.
"""

import copy
import hashlib
import multiprocessing
import random
import resource
import signal
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from typing import Any

from rrtf import config
from rrtf.nano import wording
from rrtf.nano.grammar import Degenerate, Spec, Step, draw_spec, neighbour, operations, vocabulary
from rrtf.records import Problem

SPLITS = ("test", "validation", "finetune", "pretrain")
N_TESTS = 12
CPU_SECONDS = 0.25  # of one call: CPU time, so that a busy machine draws the same problems
GRAMMAR_SEED = 1  # the world is one fixed world; run seeds change samples and training, not it
SIZES = {"test": 600, "validation": 300, "finetune": 1000}  # each split avoids those before it
DEPTHS = {"finetune": {2: 2, 3: 1}, "pretrain": {1: 20, 2: 50, 3: 25, 4: 5}}  # depth: weight
HELD_OUT_DEPTHS = {2: 1, 3: 1, 4: 1}
SLACK = 1.5  # drawn on top in each shard, because the behaviours of shards can collide


def random_input(kind: str, rng: random.Random) -> Any:
    """A value of one of the five types, small enough to read."""
    words = vocabulary()["word_list"]
    size = rng.randrange(9)
    if kind == "ints":
        low, high = (-5, 5) if rng.random() < 0.3 else (-10, 25)
        return [rng.randint(low, high) for _ in range(size)]
    if kind == "words":
        return [rng.choice(words) if rng.random() > 0.03 else "" for _ in range(size)]
    if kind == "text":
        pool = words + vocabulary()["text_words"]
        return " ".join(rng.choice(pool) for _ in range(rng.randrange(6)))
    if kind == "number":
        return rng.choice([*vocabulary()["numbers"], rng.randint(1, 200)])
    return {word: rng.randint(0, 12) for word in rng.sample(words, size)}


@cache
def probes(kind: str, count: int = 20) -> tuple[Any, ...]:
    """Fixed inputs of one type: equal outputs on all of them count as equal behaviour."""
    rng = random.Random(f"probes {kind}")
    edges = vocabulary()[kind]["edges"]
    return (*edges, *(random_input(kind, rng) for _ in range(count - len(edges))))


def run(spec: Spec, inputs: Sequence[Any]) -> list[Any]:
    """Outputs of the canonical solution; Degenerate if it fails, runs long or explodes."""
    namespace: dict[str, Any] = {}
    exec(compile(wording.reference_program(spec), "<nano>", "exec"), namespace)
    function, outputs = namespace["reference"], []
    for value in inputs:
        signal.setitimer(signal.ITIMER_VIRTUAL, CPU_SECONDS)
        try:
            outputs.append(function(copy.deepcopy(value)))
        except (Exception, TimeLimit) as error:
            raise Degenerate(f"the reference fails: {type(error).__name__}") from None
        finally:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        if isinstance(outputs[-1], int) and abs(outputs[-1]) > 10**7:
            raise Degenerate("a value too large")
        if len(repr(outputs[-1])) > 160:
            raise Degenerate("an output too long")
    return outputs


class TimeLimit(BaseException):
    """A reference used more than its CPU time."""


def _ring(*_: object) -> None:
    raise TimeLimit


def guard_alarm() -> None:
    """Makes the CPU-time alarm of `run` raise `TimeLimit` in this process."""
    signal.signal(signal.SIGVTALRM, _ring)


def guard() -> None:
    """Prepares a worker process for `run`: an alarm handler and 2 GiB of address space."""
    guard_alarm()
    resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))


def behaviour(spec: Spec) -> str:
    """A hash of the outputs on the probes: what the function does, not how it is written."""
    outputs = run(spec, probes(spec.takes))
    return hashlib.sha256(f"{spec.takes}\n{outputs!r}".encode()).hexdigest()[:16]


@cache
def split_of(names: tuple[str, ...]) -> str:
    """The split of a composition, by its behaviour at the first setting of its parameters.

    Compositions that compute the same function fall into the same split; single operations
    belong to pre-training. About 10 % test, 5 % validation, 20 % fine-tuning.
    """
    takes, *steps = names
    if len(steps) == 1:
        return "pretrain"
    spec = Spec(takes, tuple(Step(n, operations()[n].choices[0]) for n in steps))
    try:
        text = behaviour(spec)
    except Degenerate:
        text = " ".join(names)
    place = int(hashlib.sha256(text.encode()).hexdigest(), 16) % 20
    return ("test", "test", "validation", *["finetune"] * 4)[place] if place < 7 else "pretrain"


def make_problem(
    spec: Spec,
    task_id: str,
    rng: random.Random,
    *,
    style: str = wording.CANONICAL,
    wrong: Spec | None = None,
    one_pass: bool = False,
    **origin: Any,
) -> Problem:
    """A problem with tests from the reference; Degenerate if the outputs tell too little.

    `wrong` adds a misdirecting piece of code to the docstring, `one_pass` a complexity
    requirement; `origin` are further fields of the Problem.
    """
    inputs = [*vocabulary()[spec.takes]["edges"]]
    inputs += [random_input(spec.takes, rng) for _ in range(8)]
    outputs = run(spec, inputs)
    shown = [repr(value) for value in outputs]
    _telling(outputs, shown)
    argument = rng.choice(vocabulary()[spec.takes]["arguments"])
    name = rng.choice(vocabulary()["function_names"])
    text = wording.docstring(spec, argument, rng)
    text += f"\n    {wording.ONE_PASS}" if one_pass else ""
    text += wording.misdirection(wrong, argument) if wrong else ""
    order = rng.sample(range(len(inputs)), len(inputs))
    examples = _examples(order, inputs, shown)[: rng.choice([1, 2, 2])]
    form = "doctest" if rng.random() < 0.8 else "equals"
    chosen = sorted(order[:N_TESTS])
    asserts = [f"    assert candidate({inputs[i]!r}) == {shown[i]}\n" for i in chosen]
    return Problem(
        task_id=task_id,
        prompt=wording.prompt(name, argument, text, examples, form),
        entry_point=name,
        tests="def check(candidate):\n" + "".join(asserts),
        reference=wording.solution(spec, argument, style, rng),
        spec=str(spec),
        **origin,
    )


def _telling(outputs: list[Any], shown: list[str]) -> None:
    needed = 2 if isinstance(outputs[0], bool) else 4
    if len(set(shown)) < needed:
        raise Degenerate(f"fewer than {needed} distinct outputs")
    if Counter(shown).most_common(1)[0][1] > 0.65 * len(shown):
        raise Degenerate("one output for most inputs")


def _examples(order: list[int], inputs: list, shown: list[str]) -> list[tuple[str, str]]:
    """Up to two short examples with different outputs."""
    found: dict[str, str] = {}
    for i in order:
        given = repr(inputs[i])
        if len(given) < 60 and len(shown[i]) < 50:
            found.setdefault(shown[i], given)
    return [(given, expected) for expected, given in found.items()][:2]


def _draw(task: tuple) -> tuple[list[tuple[Problem, str]], dict[str, int]]:
    """One shard: `count` problems of one split with their behaviours, and what was dropped."""
    split, shard, count, avoid = task
    rng = random.Random(config.derive_seed(GRAMMAR_SEED, "nano", split, shard))
    depths = DEPTHS.get(split, HELD_OUT_DEPTHS)
    found: dict[str, tuple[Problem, str]] = {}
    dropped: Counter[str] = Counter()
    while len(found) < count:
        spec = draw_spec(rng, rng.choices(list(depths), list(depths.values()))[0])
        if split_of(spec.names) != split:
            continue
        task_id = f"nano/{split}/{shard:03d}-{len(found):04d}"
        try:
            key = behaviour(spec)
            if key in avoid or (key in found and split != "pretrain"):
                dropped["behaves like a problem of another split, or of this one"] += 1
                continue
            problem = make_problem(
                spec, task_id, rng, source=f"nano-{split}", **_form(split, spec, rng)
            )
        except Degenerate as error:
            dropped[str(error)] += 1
            continue
        found[key if split != "pretrain" else task_id] = (problem, key)
    return list(found.values()), dict(dropped)


def _form(split: str, spec: Spec, rng: random.Random) -> dict[str, Any]:
    """Pre-training sees every style, and some of the forms that evolution will produce."""
    if split != "pretrain":
        return {}
    draw = rng.random()
    return {
        "style": rng.choice(wording.STYLES),
        "one_pass": draw < 0.04,
        "wrong": neighbour(spec, rng) if draw > 0.96 else None,
    }


def build(
    split: str,
    count: int,
    *,
    avoid: Collection[str] = (),
    shard_size: int = 300,
    workers: int,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[list[Problem], list[str], dict[str, int]]:
    """`count` problems of `split`, their behaviours, and the dropped specifications by reason.

    Problems of one call have distinct behaviours (not so for `pretrain`) and none of `avoid`.
    The result does not depend on `workers`.
    """
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}: expected one of {', '.join(SPLITS)}")
    shards = -(-count // shard_size)
    slack = 1 if split == "pretrain" else SLACK
    sizes = [int(slack * min(shard_size, count - i * shard_size)) for i in range(shards)]
    tasks = [(split, i, size, frozenset(avoid)) for i, size in enumerate(sizes)]
    dropped: Counter[str] = Counter()
    kept: dict[str, tuple[Problem, str]] = {}
    for pairs, reasons in guarded(_draw, tasks, workers, progress=progress):
        dropped.update(reasons)
        for problem, key in pairs:
            kept.setdefault(problem.task_id if split == "pretrain" else key, (problem, key))
    problems = [problem for problem, _ in kept.values()][:count]
    keys = [key for _, key in kept.values()][:count]
    if len(problems) < count:
        raise ValueError(f"{split}: only {len(problems)} of {count} distinct behaviours found")
    return problems, keys, dict(dropped)


def guarded(
    work: Callable[[Any], Any],
    tasks: Sequence[Any],
    workers: int,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> list[Any]:
    """`work` over `tasks` in spawned, limited processes; results in order."""
    context = multiprocessing.get_context("spawn")
    results = []
    with ProcessPoolExecutor(workers, mp_context=context, initializer=guard) as pool:
        for result in pool.map(work, tasks):
            results.append(result)
            if progress:
                progress(len(results), len(tasks))
    return results


def world(workers: int, *, last: str = "finetune") -> dict[str, tuple[list[Problem], list[str]]]:
    """Test, validation and fine-tuning problems with their behaviours: the same in every run.

    `last`: the split after which it ends; those before it do not depend on what follows.
    """
    found: dict[str, tuple[list[Problem], list[str]]] = {}
    avoid: list[str] = []
    for split, count in SIZES.items():
        problems, keys, _ = build(split, count, avoid=avoid, workers=workers)
        found[split] = (problems, keys)
        avoid += keys
        if split == last:
            break
    return found
