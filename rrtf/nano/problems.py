"""Tested problems from specifications, and their split by behaviour.

Specifications are run to compute expected outputs, in processes of their own under limits, because
a random composition can loop or explode. Those of problems that come from a file run behind the
sandbox's fences (`fenced`). The small world is drawn from a fixed seed and reads no file of a user,
and each draw waits for the outputs of the one before (`run`): its programs are the texts of
`data/nano/operations.toml` with parameters from there, because the grammar can say nothing else.
"""

import hashlib
import inspect
import random
import resource
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import cache
from typing import Any

from rrtf import config
from rrtf.cluster import pool
from rrtf.nano import wording
from rrtf.nano.grammar import Degenerate, Spec, Step, draw_spec, neighbour, operations, vocabulary
from rrtf.records import Problem
from rrtf.sandbox import executor

SPLITS = ("test", "validation", "finetune", "pretrain")
N_TESTS = 12
CPU_SECONDS = 0.25  # of one call: CPU time, so that a busy machine draws the same problems
MEMORY_MB = 2048  # of a process that computes outputs
GRAMMAR_SEED = 1  # the world is one fixed world; run seeds change samples and training, not it
DEPTHS = {"finetune": {2: 2, 3: 1}, "pretrain": {1: 20, 2: 50, 3: 25, 4: 5}}  # depth: weight
HELD_OUT_DEPTHS = {2: 1, 3: 1, 4: 1}
SLACK = 1.5  # drawn on top in each shard, because the behaviours of shards can collide


def random_input(kind: str, rng: random.Random) -> Any:
    """A value of one of the types, small enough to read."""
    row = vocabulary()[kind]
    if "length" in row:
        return _drawn(row, rng)
    words, size = vocabulary()["word_list"], rng.randrange(9)
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


def _drawn(row: Mapping[str, Any], rng: random.Random) -> Any:
    """A value as the vocabulary describes it: rows of columns, a string or a list of letters."""
    size = rng.randint(*row["length"])
    if "columns" in row:
        names, span = row["columns"]
        return [(rng.choice(names), rng.randint(*span)) for _ in range(size)]
    letters = [rng.choice(row["letters"]) for _ in range(size)]
    return "".join(letters) if isinstance(row["letters"], str) else letters


@cache
def probes(kind: str, count: int = 20) -> tuple[Any, ...]:
    """Fixed inputs of one type: equal outputs on all of them count as equal behaviour."""
    rng = random.Random(f"probes {kind}")
    edges = edges_of(kind)
    return (*edges, *(random_input(kind, rng) for _ in range(count - len(edges))))


def edges_of(kind: str) -> list[Any]:
    """The inputs of a type that every problem is tested on; the rows of a table are tuples."""
    row = vocabulary()[kind]
    table = "columns" in row
    return [[tuple(pair) for pair in edge] if table else edge for edge in row["edges"]]


def watched(function: Callable, inputs: Sequence[Any], seconds: float) -> list[Any] | str:
    """Outputs, or in a word why there are none. Its source goes behind the fences too, so it uses
    no name of this module."""
    import copy
    import signal

    class TimeLimit(BaseException):
        pass

    def ring(*_: object) -> None:
        raise TimeLimit

    before, outputs = signal.signal(signal.SIGVTALRM, ring), []
    try:
        for value in inputs:
            signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
            try:
                outputs.append(function(copy.deepcopy(value)))
            finally:
                signal.setitimer(signal.ITIMER_VIRTUAL, 0)
            if isinstance(outputs[-1], int) and abs(outputs[-1]) > 10**7:
                return "a value too large"
            if len(repr(outputs[-1])) > 160:
                return "an output too long"
    except (Exception, TimeLimit) as error:
        return f"the reference fails: {type(error).__name__}"
    finally:
        signal.signal(signal.SIGVTALRM, before)
    return outputs


def run(spec: Spec, inputs: Sequence[Any]) -> list[Any]:
    """Outputs of the canonical solution; Degenerate if it fails, runs long or explodes.

    In this process, so only for specifications that were drawn here, as the module says.
    """
    namespace: dict[str, Any] = {}
    exec(compile(wording.reference_program(spec), "<nano>", "exec"), namespace)
    return told(watched(namespace["reference"], inputs, CPU_SECONDS))


def told(outputs: list[Any] | str) -> list[Any]:
    """The outputs of `watched`, or Degenerate with the reason why there are none."""
    if isinstance(outputs, str):
        raise Degenerate(outputs)
    return outputs


Asked = tuple[Spec, Sequence[Any]]  # a specification and the inputs whose outputs are wanted


def fenced(
    asked: Sequence[Sequence[Asked]], *, isolation: str, workers: int
) -> list[list[list[Any] | str]]:
    """What `watched` says of everything asked, computed in the sandbox: a program for each list."""
    longest = max((sum(len(inputs) for _, inputs in parts) for parts in asked), default=0)
    limits = executor.Limits(1 + CPU_SECONDS * longest, 3 + longest, MEMORY_MB, isolation)
    programs = [(_program(parts), "outputs") for parts in asked]
    found = executor.call(programs, [()], limits=limits, workers=workers) if programs else []
    return [
        result.value if not result.error else [f"the reference fails: {result.error}"] * len(parts)
        for parts, (result,) in zip(asked, found, strict=True)
    ]


def _program(parts: Sequence[Asked]) -> str:
    """A program whose function `outputs` computes all that is asked."""
    written = [wording.reference_program(spec, f"f{n}") for n, (spec, _) in enumerate(parts)]
    calls = [f"watched(f{n}, {inputs!r}, {CPU_SECONDS})" for n, (_, inputs) in enumerate(parts)]
    head = f"from __future__ import annotations\n{inspect.getsource(watched)}"
    return "\n".join([head, *written, f"def outputs():\n    return [{', '.join(calls)}]\n"])


def guard() -> None:
    """Prepares a worker process for `run`: 2 GiB of address space."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_MB << 20, MEMORY_MB << 20))


def behaviour(spec: Spec) -> str:
    """A hash of the outputs on the probes: what the function does, not how it is written."""
    return behaviour_of(spec, run(spec, probes(spec.takes)))


def behaviours(specs: Iterable[Spec], *, isolation: str, workers: int) -> list[str]:
    """`behaviour` of each, computed in the sandbox."""
    asked = [[(spec, probes(spec.takes))] for spec in specs]
    found = fenced(asked, isolation=isolation, workers=workers)
    return [
        behaviour_of(spec, told(outputs))
        for ((spec, _),), (outputs,) in zip(asked, found, strict=True)
    ]


def behaviour_of(spec: Spec, outputs: list[Any]) -> str:
    """`behaviour` where the outputs on the probes are known."""
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


def draw_inputs(spec: Spec, rng: random.Random) -> list[Any]:
    """The inputs of a problem's tests: the edges of its type, and eight drawn ones."""
    drawn = (random_input(spec.takes, rng) for _ in range(8))
    return [*edges_of(spec.takes), *drawn]


def make_problem(
    spec: Spec,
    inputs: Sequence[Any],
    outputs: list[Any],
    task_id: str,
    rng: random.Random,
    *,
    style: str = wording.CANONICAL,
    wrong: Spec | None = None,
    one_pass: bool = False,
    **origin: Any,
) -> Problem:
    """A problem with tests of these `outputs`; Degenerate if they tell too little.

    `wrong` adds a misdirecting piece of code to the docstring, `one_pass` a complexity
    requirement; `origin` are further fields of the Problem.
    """
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
    split, shard, count, avoid, series, depths = task
    rng = random.Random(config.derive_seed(GRAMMAR_SEED, "nano", split, *series, shard))
    name = "-".join([split, *series])
    depths = depths or DEPTHS.get(split, HELD_OUT_DEPTHS)
    found: dict[str, tuple[Problem, str]] = {}
    dropped: Counter[str] = Counter()
    while len(found) < count:
        spec = draw_spec(rng, rng.choices(list(depths), list(depths.values()))[0])
        if split_of(spec.names) != split:
            continue
        task_id = f"nano/{name}/{shard:03d}-{len(found):04d}"
        try:
            key = behaviour(spec)
            if key in avoid or (key in found and split != "pretrain"):
                dropped["behaves like a problem of another split, or of this one"] += 1
                continue
            form, inputs = _form(split, spec, rng), draw_inputs(spec, rng)
            outputs, source = run(spec, inputs), f"nano-{split}"
            problem = make_problem(spec, inputs, outputs, task_id, rng, source=source, **form)
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
    series: Sequence[str] = (),
    depths: Mapping[int, int] | None = None,
    workers: int,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[list[Problem], list[str], dict[str, int]]:
    """`count` problems of `split`, their behaviours, and the dropped specifications by reason.

    Problems of one call have distinct behaviours (not so for `pretrain`) and none of `avoid`.
    Other draws of a split than the world's have a name of their own, `series`; `depths` (number of
    operations: weight) are the split's where none are given. The result does not depend on
    `workers`.
    """
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}: expected one of {', '.join(SPLITS)}")
    shards = -(-count // shard_size)
    slack = 1 if split == "pretrain" else SLACK
    sizes = [int(slack * min(shard_size, count - i * shard_size)) for i in range(shards)]
    own = frozenset(avoid), tuple(series), dict(depths or {})
    tasks = [(split, i, size, *own) for i, size in enumerate(sizes)]
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
    results = []
    with pool(workers, guard) as processes:
        for result in processes.map(work, tasks):
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
    for split, count in vocabulary()["sizes"].items():  # each avoids those before it
        problems, keys, _ = build(split, count, avoid=avoid, workers=workers)
        found[split] = (problems, keys)
        avoid += keys
        if split == last:
            break
    return found
