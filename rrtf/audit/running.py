"""The detector `execution`: does any function of a training row pass a benchmark task's tests?

Words, names and style do not matter to it. Every function of every row is tried on every task that
takes as many arguments, in two steps. First it is called with a few arguments that the task's tests
use, those of all tasks in one process, and what it returns is compared with what the reference
returns, loosely: nothing that could pass is lost by order, type of container or rounding. Then
whatever agreed is judged by all of the task's tests, as any response is.

What it cannot see: rows without a function, or whose code does not parse; functions that need a
project, a package, the network or standard input; a solution that is wrong. And tests that are too
weak say "passes" of programs that do something else.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import Any

from rrtf import config, probes, store
from rrtf.audit import callables
from rrtf.audit.callables import Function
from rrtf.audit.exams import Call, Exam, alike, examine, parameters, parsed
from rrtf.audit.rows import Row
from rrtf.records import Execution, Leak, Outcome, Problem, Response

DETECTOR = "execution"
BATCH = 256  # functions that are called, and saved, together
FURTHER = 32  # calls that tell the same function from one that weak tests let through
ROUNDS = 3  # calls that may hang in one function before the rest of its calls is given up
_ORDERED = 3  # arguments that are also tried in every other order

Judge = Callable[[Sequence[Problem], Sequence[Response]], list[Execution]]


@dataclass(frozen=True, slots=True)
class Promise:
    """The function with this key returned what the task's examples expect of it."""

    key: str
    task_id: str
    order: tuple[int, ...]


def passes_tests(
    rows: Sequence[Row],
    benchmark: str,
    tasks: Sequence[Problem],
    *,
    call: Call,
    judge: Judge,
    shards: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Leak]:
    """A leak for each row and task where a function of the row passes all of the task's tests.

    `call` is `sandbox.call`, `judge` takes problems and responses as `execution.execute`, both with
    their options bound; programs run only inside them. With the folder `shards` every batch of
    functions that was called is saved and found again. The evidence names the function and the
    tests it passes, the score is the share of `further` calls on which it agrees with the
    reference: tests can be weak. `progress(done, total)` counts batches.
    """
    owners: defaultdict[str, dict[str, str]] = defaultdict(dict)  # key -> row -> name there
    known: dict[str, Function] = {}
    for row in rows:
        for function in callables.functions(row.code):
            known.setdefault(function.key, function)
            owners[function.key].setdefault(row.task_id, function.name)
    exams = {exam.problem.task_id: exam for exam in examine(tasks, call)}
    functions = list(known.values())
    promises = promising(functions, [*exams.values()], call=call, shards=shards, progress=progress)
    verdicts = _verdicts(promises, known, exams, judge)
    passed = [(p, v) for p, v in zip(promises, verdicts, strict=True) if v.outcome is Outcome.PASS]
    shares = further([(known[p.key], exams[p.task_id], p.order) for p, _ in passed], call)
    leaks: dict[tuple[str, str], Leak] = {}
    for (promise, verdict), share in zip(passed, shares, strict=True):
        for row_id, name in owners[promise.key].items():
            told = f"{name} passes {verdict.n_passed} of {verdict.n_tests} tests"
            leak = Leak(row_id, benchmark, promise.task_id, DETECTOR, share, told)
            if (row_id, promise.task_id) not in leaks or leaks[
                row_id, promise.task_id
            ].score < share:
                leaks[row_id, promise.task_id] = leak
    return list(leaks.values())


def _verdicts(
    promises: Sequence[Promise],
    known: Mapping[str, Function],
    exams: Mapping[str, Exam],
    judge: Judge,
) -> list[Execution]:
    tried = [(exams[p.task_id].problem, known[p.key], p.order) for p in promises]
    asked = {promise.task_id for promise in promises}
    return judge([exams[name].problem for name in exams if name in asked], as_responses(tried))


def as_responses(
    tried: Sequence[tuple[Problem, Function] | tuple[Problem, Function, tuple[int, ...]]],
) -> list[Response]:
    """What a judge is given: each function, with its order of arguments, as an answer to a task."""
    responses = []
    for index, (task, function, *order) in enumerate(tried):
        names = parameters(task) or tuple(f"a{at}" for at in range(function.most))
        how = (task.entry_point, names, order[0] if order else range(len(names)))
        program = callables.as_answer(function, *how, _alone(task.prompt))
        responses.append(Response(task.task_id, "row", index, "", program))
    return responses


def _alone(prompt: str) -> str:
    """The prompt where it is a program (imports, classes, a docstring), else nothing."""
    return "" if not parsed(prompt).body else prompt


# --- the first step: examples ------------------------------------------------------------------


def promising(
    functions: Sequence[Function],
    exams: Sequence[Exam],
    *,
    call: Call,
    shards: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Promise]:
    """The functions and tasks worth a judge, with the order of arguments that agreed.

    Tasks without examples are promised to every function that takes as many arguments.
    """
    groups: defaultdict[tuple[int, int], list[Function]] = defaultdict(list)
    for function in functions:
        groups[function.least, function.most].append(function)
    batches = [
        (span, members[at : at + BATCH])
        for span, members in sorted(groups.items())
        for at in range(0, len(members), BATCH)
    ]
    trials = {span: _trials(exams, *span) for span in groups}

    def work(batch: tuple[tuple[int, int], list[Function]]) -> list[Promise]:
        return list(_tried(batch[1], trials[batch[0]], call))

    def key(batch: tuple[tuple[int, int], list[Function]]) -> list:
        programs = [callables.to_call(function) for function in batch[1]]
        return [config.version(), programs, repr(trials[batch[0]])]

    if shards:
        found = store.through_shards(shards, batches, key, work, Promise, progress=progress)
    else:
        found = []
        for done, batch in enumerate(batches, start=1):
            found += work(batch)
            if progress:
                progress(done, len(batches))
    return found + [
        Promise(function.key, exam.problem.task_id, tuple(range(len(exam.parameters))))
        for exam in exams
        if not exam.examples
        for function in functions
        if function.least <= len(exam.parameters) <= function.most
    ]


Trial = tuple[str, tuple[int, ...], list[tuple[tuple, Any]]]  # task, order, examples so ordered


def _trials(exams: Sequence[Exam], least: int, most: int) -> list[Trial]:
    """What functions of `least` to `most` arguments are tried on."""
    found = []
    for exam in exams:
        size = len(exam.examples[0][0]) if exam.examples else -1
        if least <= size <= most:
            straight = tuple(range(size))
            for order in permutations(straight) if size <= _ORDERED else [straight]:
                turned = [(tuple(args[at] for at in order), out) for args, out in exam.examples]
                found.append((exam.problem.task_id, order, turned))
    return found


def _tried(functions: Sequence[Function], trials: Sequence[Trial], call: Call) -> Iterator[Promise]:
    """What one batch promises: the first order in which a function agrees on a task's examples."""
    inputs = {repr(args): args for _, _, examples in trials for args, _ in examples}
    place = {text: at for at, text in enumerate(inputs)}
    asked = [(name, order, [(place[repr(args)], out) for args, out in examples])
             for name, order, examples in trials]  # fmt: skip
    called = _called(functions, list(inputs.values()), call)
    for function, results in zip(functions, called, strict=True):
        kept = set()
        for task_id, order, examples in asked:
            if task_id not in kept and _agree([(results[at], out) for at, out in examples]):
                kept.add(task_id)
                yield Promise(function.key, task_id, order)


def _agree(pairs: Sequence[tuple[Any, Any]]) -> bool:
    """Whether at least one example agrees and no other one differs, as far as calls ended."""
    heard = [(result, out) for result, out in pairs if result.error != callables.UNHEARD]
    return bool(heard) and all(not r.error and alike(r.value, out) for r, out in heard)


def further(passed: Sequence[tuple[Function, Exam, tuple[int, ...]]], call: Call) -> list[float]:
    """How often each function agrees with the reference on FURTHER calls that no test makes.

    They are varied from the examples (`probes.varied_calls`); where the reference fails or takes
    too long, nothing is asked. In [0, 1]; 1 where nothing could be asked.
    """
    programs = []
    for function, exam, order in passed:
        task, examples = exam.problem, [dict(enumerate(args)) for args, _ in exam.examples]
        varied = probes.varied_calls(
            examples, [task.reference, function.source], count=FURTHER if examples else 0, seed=1
        )
        calls = [tuple(one[at] for at in sorted(one)) for one in varied]
        turned = [tuple(one[at] for at in order) for one in calls]
        source = task.prompt + task.reference if task.reference else ""
        programs.append(callables.asked(source, task.entry_point, calls))
        programs.append(callables.to_ask(function, turned))
    answers = [found[0] for found in call(programs, [()])] if programs else []
    return [_share(*answers[at : at + 2]) for at in range(0, len(answers), 2)]


def _share(theirs: Any, ours: Any) -> float:
    """Of the calls to which the reference returned something, those that agree."""
    if theirs.error or not isinstance(theirs.value, list):
        return 1.0
    mine = ours.value if not ours.error and isinstance(ours.value, list) else []
    mine = mine + [(False, None)] * (len(theirs.value) - len(mine))
    same = [
        fine and alike(value, expected)
        for (told, expected), (fine, value) in zip(theirs.value, mine, strict=True)
        if told
    ]
    return sum(same) / len(same) if same else 1.0


@dataclass(frozen=True, slots=True)
class _Given:
    """In place of a result: the function was given up."""

    value: None = None
    error: str = callables.UNHEARD


def _called(functions: Sequence[Function], inputs: Sequence[tuple], call: Call) -> list[list]:
    """Every function on every input; after a call that ends the process with the ones after it."""
    results: list[list] = [[] for _ in functions]
    waiting = list(range(len(functions))) if inputs else []
    for _ in range(ROUNDS):
        programs = [callables.to_call(functions[at], after=len(results[at])) for at in waiting]
        for at, found in zip(waiting, call(programs, inputs) if programs else (), strict=True):
            known = len(results[at])
            results[at] += found[known : max(known + 1, _ended(found))]
        waiting = [at for at in waiting if len(results[at]) < len(inputs)]
    return [known + [_Given()] * (len(inputs) - len(known)) for known in results]


def _ended(found: Sequence[Any]) -> int:
    """How many results there are until a call that ended the process, that one counted."""
    last = found[-1].error
    if not last or last[0].isupper():  # the name of an exception: it went on after it
        return len(found)
    at = len(found)
    while at and found[at - 1].error == last:
        at -= 1
    return at + 1
