"""Programs in, graded verdicts or values out."""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial

from rrtf.records import Execution, Outcome, Problem, Response
from rrtf.sandbox import instrument, joint, lanes, wire

_LONGEST = 1 << 21  # characters of a program that are worth sending


@dataclass(frozen=True, slots=True)
class Limits:
    """What a program may use for all its tests together, and the least isolation accepted.

    One that is run as a whole, anew for each test, may use it in each. Seconds of computing,
    seconds of waiting, MiB of address space; one of `lanes.LEVELS`.
    """

    cpu_seconds: float
    wall_seconds: float
    memory_mb: int
    isolation: str


@dataclass(frozen=True, slots=True)
class Result:
    """What one call gave: `value` where it returned (`error` is ''), else the reason in `error`.

    A value outside the closed set of types is a `wire.Opaque`, known by its truth and kind only.
    """

    value: object
    error: str = ""


def execute(
    problems: Sequence[Problem],
    responses: Sequence[Response],
    *,
    limits: Limits,
    workers: int,
    exactly: str | None = None,
    hash_seed: int = 0,
    packages: Sequence[str] = (),
    progress: Callable[[int, int], None] | None = None,
    finished: Callable[[dict[int, Execution]], None] | None = None,
) -> list[Execution]:
    """The verdict of every response, in the order of `responses`.

    Equal programs of one task run once, `workers` at a time. The strongest isolation available is
    used (`exactly` forces one, for comparisons). `hash_seed` fixes hash order and `random` in judge
    and worker. Beside Python's own modules a program may import `packages` of the caller's
    environment (`packages.view`). `progress(done, total)` counts responses; `finished` is given
    the verdicts that have just come in, each under its place in `responses`.

    A problem whose tests begin with `joint.MARK` is judged in that weaker mode, and its verdicts
    say so. Where a problem's tests cannot be run, the reason of its verdicts is `unusable_tests`
    and why: they say nothing of the programs, and the other problems are judged.

    ValueError names a response without a problem; RuntimeError a host that does not allow the
    isolation, or a sandbox that failed repeatedly.
    """
    problems, responses = joint.unfold(problems, responses)
    places = _places(_by_id(problems), responses)
    sources = [program for known in places.values() for program in known]
    with Bench(limits, sources, exactly=exactly, hash_seed=hash_seed, packages=packages) as bench:
        return _judged(problems, responses, workers, bench.standing, progress, finished)


class Bench:
    """Lanes under one set of limits that stay between calls, for any number of threads.

    `sources` are programs of the kind to come: what many of them import is imported ahead. The
    other options and errors as `execute`. `with`, or `close`, ends it.
    """

    def __init__(
        self,
        limits: Limits,
        sources: Sequence[str] = (),
        *,
        exactly: str | None = None,
        hash_seed: int = 0,
        packages: Sequence[str] = (),
    ):
        level = lanes.choose_level(limits.isolation, exactly)
        settings = lanes.settings_for(asdict(limits), hash_seed, sources, packages)
        self.standing = lanes.Standing(level, settings)

    def judge(
        self,
        problems: Sequence[Problem],
        responses: Sequence[Response],
        workers: int,
        *,
        progress: Callable[[int, int], None] | None = None,
        finished: Callable[[dict[int, Execution]], None] | None = None,
    ) -> list[Execution]:
        """The verdicts that `execute` gives."""
        problems, responses = joint.unfold(problems, responses)
        return _judged(problems, responses, workers, self.standing, progress, finished)

    def close(self) -> None:
        """Ends the lanes that no thread is using."""
        self.standing.close()

    def __enter__(self) -> "Bench":
        return self

    def __exit__(self, *_) -> None:
        self.close()


def _judged(
    problems: Sequence[Problem],
    responses: Sequence[Response],
    workers: int,
    standing: lanes.Standing,
    progress: Callable | None,
    finished: Callable | None,
) -> list[Execution]:
    by_id = _by_id(problems)
    places = _places(by_id, responses)
    jobs = _check_jobs(by_id, places, standing.settings["seed"], workers)
    by_index = {task_id: list(known.values()) for task_id, known in places.items()}
    level, found = standing.level, {}

    def take(done: list[lanes.Run]) -> None:
        new = {
            place: _execution(responses[place], by_id[tests.name], tests.rows.get(index), level)
            for tests, index in done
            for place in by_index[tests.name][index]
        }
        found.update(new)
        if finished:
            finished(new)
        if progress:
            progress(len(found), len(responses))

    lanes.run_jobs(jobs, workers=workers, standing=standing, progress=take)
    return [found[place] for place in range(len(responses))]


def distinct(problems: Sequence[Problem], responses: Sequence[Response]) -> list[list[int]]:
    """The places in `responses` of each program that `execute` would run, task by task.

    ValueError as `execute`.
    """
    places = _places(_by_id(problems), responses)
    return [where for known in places.values() for where in known.values()]


def call(
    programs: Sequence[tuple[str, str]],
    inputs: Sequence[tuple],
    *,
    limits: Limits,
    workers: int,
    exactly: str | None = None,
    hash_seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> list[tuple[Result, ...]]:
    """For each (source, entry point), the results of calling it with every tuple of arguments.

    Inputs are of the wire's closed types, each call gets fresh copies. After an event that ends
    the program (time, exit, signal) the remaining results carry its reason. Options as `execute`.
    """
    encoded = wire.encode([tuple(i) for i in inputs])
    distinct = {program: i for i, program in enumerate(dict.fromkeys(map(tuple, programs)))}
    sent = [(source[:_LONGEST], entry_point) for source, entry_point in distinct]
    message = {"inputs": encoded}
    tests = lanes.Tests("call", lambda: message, sent, {})
    jobs = _cut([(tests, i) for i in range(len(sent))], len(sent), workers)
    done = 0

    def count(new: list[lanes.Run]) -> None:
        nonlocal done
        done += len(new)
        if progress:
            progress(done, len(sent))

    sources = [source for source, _ in sent]
    with Bench(limits, sources, exactly=exactly, hash_seed=hash_seed) as bench:
        lanes.run_jobs(jobs, workers=workers, standing=bench.standing, progress=count)
    results = [_decoded(tests.rows.get(i), len(inputs)) for i in range(len(sent))]
    return [results[distinct[tuple(program)]] for program in programs]


def _by_id(problems: Sequence[Problem]) -> dict[str, Problem]:
    by_id: dict[str, Problem] = {}
    for problem in problems:
        if problem.task_id in by_id:
            raise ValueError(f"{problem.task_id}: two problems with this task_id")
        by_id[problem.task_id] = problem
    return by_id


def _places(
    by_id: dict[str, Problem], responses: Sequence[Response]
) -> dict[str, dict[str, list[int]]]:
    """Task id -> program -> the places of the responses that are this program."""
    places: dict[str, dict[str, list[int]]] = {}
    for place, response in enumerate(responses):
        if response.task_id not in by_id:
            raise ValueError(f"{response.task_id}: a response, but no problem of this task_id")
        places.setdefault(response.task_id, {}).setdefault(response.program, []).append(place)
    return places


def _check_jobs(
    by_id: dict[str, Problem], programs: dict[str, dict[str, list[int]]], seed: int, workers: int
) -> list[lanes.Job]:
    jobs = []
    for task_id, known in programs.items():
        sent = [program[:_LONGEST] for program in known]
        tests = lanes.Tests(task_id, partial(_check_message, by_id[task_id], seed), sent, {})
        runs = [(tests, i) for i in range(len(sent))]
        jobs += _cut(runs, sum(map(len, programs.values())), workers)
    return jobs


def _cut(runs: list[lanes.Run], total: int, workers: int) -> list[lanes.Job]:
    """Jobs of these runs, small enough for all `workers` to have some of `total`."""
    size = max(1, min(lanes.PROGRAMS_PER_JOB, -(-total // workers)))
    return [lanes.Job(runs[start : start + size]) for start in range(0, len(runs), size)]


def _check_message(problem: Problem, seed: int) -> dict:
    """What a judge is told of its problem; made when a judge is free to take it."""
    try:
        prepared = instrument.prepare(problem.prompt, problem.entry_point, problem.tests)
    except ValueError as error:
        raise lanes.Unusable(str(error)) from None
    return {"seed": seed} | prepared


def _execution(response: Response, problem: Problem, row: tuple | None, level: str) -> Execution:
    if row is None:
        n_asserts = _check_message(problem, 0)["n_asserts"]
        row = ("RUNTIME_ERROR", "judge_limit", 0, n_asserts)
    situation, reason, n_passed, n_tests, *failing = row
    isolation = joint.isolation(problem, level)
    if isolation != level:  # its values have stayed in the program, its lines are not the tests'
        failing = failing[:1]
    where = response.task_id, response.source, response.index
    return Execution(*where, Outcome[situation], reason, n_passed, n_tests, isolation, *failing)


def _decoded(row: tuple | None, n_inputs: int) -> tuple[Result, ...]:
    if row is None:
        return (Result(None, "judge_limit"),) * n_inputs
    return tuple(Result(None, item) if isinstance(item, str) else _value(item) for item in row[0])


def _value(item: bytes) -> Result:
    try:
        return Result(wire.decode(item, wire.Opaque))
    except wire.WireError:
        return Result(None, "protocol_violation")


HASH_SEEDS = (0, 0, 1, 2, 3, 4)  # the second round repeats the first
APART = 0.5  # seconds between the starts of two rounds, at least
_FIXED = ("syntax", "null_bytes", "encoding", "source_too_long")  # said before anything runs


def unstable(
    problems: Sequence[Problem],
    responses: Sequence[Response],
    *,
    execute: Callable[..., list[Execution]],
    first: Sequence[Execution] = (),
    hash_seeds: Sequence[int] = HASH_SEEDS,
    apart: float = APART,
    progress: Callable[[int, int], None] | None = None,
) -> list[bool]:
    """Per response: did its verdict differ between rounds of `execute`, one for each hash seed?

    A seed fixes hash order and `random`, so two rounds of one seed show what hangs on other
    things: the clock, addresses in memory, the kernel's random numbers, a limit that is met only
    sometimes. `first` are the verdicts of the first seed, where they are known. What has been
    found out, and sources that do not compile, are not run again. `progress(done, total)` counts
    responses of all rounds. `execute` is the function above with its limits bound; it must not
    answer from what it saved before. ValueError for fewer than two seeds.

    What can be promised. A program that passes under a share p of all hash orders stays unseen
    with probability p**r + (1 - p)**r, r different seeds: 1 in 16 for p = 1/2 and the default
    five. The clock cannot be shifted without privileges, but rounds start at least `apart`
    seconds apart: an answer that changes within that time, or every second, is seen; one that
    changes by the hour or at midnight is not.
    """
    if len(hash_seeds) < 2:
        raise ValueError(f"{len(hash_seeds)} seeds: two rounds at least are needed to compare")
    _check_first(first, responses)
    known, differs = list(first), [False] * len(responses)
    asked, total = list(range(len(responses))), len(hash_seeds) * len(responses)
    for number, hash_seed in enumerate(hash_seeds):
        if asked and (number or not first):
            again, began = [responses[i] for i in asked], time.monotonic()
            told = _counted(progress, number * len(responses), total)
            found = execute(problems, again, hash_seed=hash_seed, progress=told)
            known = known or found
            for place, verdict in zip(asked, found, strict=True):
                differs[place] = verdict != known[place]
            asked = [i for i in asked if not differs[i] and _may_differ(known[i])]
            if asked and number + 1 < len(hash_seeds):
                time.sleep(max(0.0, apart - (time.monotonic() - began)))
    if progress:
        progress(total, total)
    return differs


def _check_first(first: Sequence[Execution], responses: Sequence[Response]) -> None:
    """ValueError unless there is none or one for each response."""
    if first and len(first) != len(responses):
        raise ValueError(f"{len(first)} verdicts known of {len(responses)} responses")


def _may_differ(verdict: Execution) -> bool:
    return verdict.outcome != Outcome.COMPILE_ERROR or verdict.reason not in _FIXED


def _counted(progress: Callable | None, before: int, total: int) -> Callable | None:
    return progress and (lambda done, _: progress(before + done, total))
