"""How much a problem's tests can see: does its own reference pass, and do faulty copies fail?

A mutant is the reference with one small fault; tests that accept it cannot see that fault, nor
the like of it in an answer. Strength = mutants killed / mutants, killed = any verdict but PASS.

What this is not. Some mutants compute the same function as the reference (`x != 0` for `x > 0`
where x is a length); no test can kill them, no program can find all of them, and they pull the
strength of good tests below 1. So survivors are tried on further inputs: those that differ from
the reference there are faults the tests miss, for sure (as far as such inputs are meant by the
task); those that never differ are *suspected* to be equivalent, and `discounted` leaves them out.
The truth lies between `strength` and about `discounted`. And mutants are not the errors models
make: a high strength says that small slips are seen, not that every wrong idea is.
"""

import ast
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from textwrap import dedent

from rrtf import config, probes
from rrtf.records import Execution, Outcome, Problem, Response
from rrtf.sandbox import wire
from rrtf.sandbox.executor import Limits
from rrtf.strength.mutants import Mutant, mutants

NO_REFERENCE = "no reference"
QUICK_SECONDS = 0.5  # of a mutant whose reference needs no more: endless loops cost this much
N_CALLS = 100  # further calls in which a survivor is compared with its reference
COMPARE_SECONDS = 1.0  # of CPU time for all of them; what takes longer is no suspect

_COMPARISON = """\
import copy
def load(source):
    space = {{"__name__": "candidate"}}
    exec(source, space)
    return space
def outcome(space, call):
    call = copy.deepcopy(call)
    args = [value for name, value in call.items() if type(name) is int]
    named = {{name: value for name, value in call.items() if type(name) is str}}
    try:
        value = eval({entry_point!r}, space)(*args, **named)
    except Exception as error:
        return type(error)
    return value, call
reference, mutant = load({reference!r}), load({mutant!r})
def same(calls):
    return all(outcome(reference, call) == outcome(mutant, call) for call in calls)
"""  # a generator or an object of its own never equals another: then nothing is suspected

Execute = Callable[..., list[Execution]]  # with everything bound but limits and progress
Tell = Callable[[int, int], None] | None


@dataclass(frozen=True, slots=True)
class Strength:
    """What a task's tests said of the mutants of its reference, mutant by mutant.

    `operators`, `changes`, `outcomes` and `alike` are parallel, one entry per mutant; `alike`: it
    survived, and gave what the reference gives in all further calls.
    """

    task_id: str
    operators: tuple[str, ...]
    changes: tuple[str, ...]
    outcomes: tuple[Outcome, ...]
    alike: tuple[bool, ...]

    @property
    def n_mutants(self) -> int:
        return len(self.outcomes)

    @property
    def n_killed(self) -> int:
        return sum(outcome != Outcome.PASS for outcome in self.outcomes)

    @property
    def n_alike(self) -> int:
        return sum(self.alike)

    @property
    def strength(self) -> float:
        """Killed / mutants, in [0, 1]; NaN without mutants."""
        return self.n_killed / self.n_mutants if self.n_mutants else math.nan

    @property
    def discounted(self) -> float:
        """Killed / mutants not suspected to be equivalent, in [0, 1]; NaN without any."""
        counted = self.n_mutants - self.n_alike
        return self.n_killed / counted if counted else math.nan


def reference_program(problem: Problem) -> str:
    """The reference as a whole program; without the prompt where that is prose, not code."""
    head = problem.prompt.rstrip() + "\n    pass\n\n"
    for program in (problem.prompt + problem.reference, head + problem.reference):
        try:
            ast.parse(program)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
        return program
    return problem.reference


def examine(
    problems: Sequence[Problem],
    *,
    n_mutants: int,
    seed: int,
    limits: Limits,
    execute: Execute,
    progress: Tell = None,
) -> tuple[dict[str, str], list[Strength]]:
    """(task id -> why its own reference does not pass, the strength of the others' tests).

    At most `n_mutants` per problem, drawn by `seed`, kinds of faults in turn. All references and
    mutants run in one call of `execute`; loops that a fault makes endless are ended after
    QUICK_SECONDS of CPU time where the reference needs less, else at the `limits`. A problem
    without a reference is named NO_REFERENCE, unless its tests cannot be run at all.
    """

    def run(chosen: Sequence[Problem], seconds: float) -> dict[str, list[Execution]]:
        return _run(chosen, made, partial(execute, limits=within(seconds), progress=progress))

    def within(seconds: float) -> Limits:
        return replace(limits, cpu_seconds=min(seconds, limits.cpu_seconds))

    present = [problem for problem in problems if problem.reference.strip()]
    made: dict[str, list[Mutant]] = {problem.task_id: [] for problem in problems}
    made |= {problem.task_id: _mutants(problem, n_mutants, seed) for problem in present}
    found = run(problems, QUICK_SECONDS)
    slow = [p for p in present if not _passes(found[p.task_id][0])]
    found |= run(slow, limits.cpu_seconds)
    sound = [problem for problem in present if _passes(found[problem.task_id][0])]
    compare = partial(execute, limits=within(COMPARE_SECONDS), progress=progress)
    alike = _alike(sound, made, found, seed, compare)
    names = {problem.task_id for problem in sound}
    judged = {p.task_id for p in present}
    judged |= {name for name, runs in found.items() if wire.is_unusable(runs[0].reason)}
    broken = {
        p.task_id: _said(found[p.task_id][0]) if p.task_id in judged else NO_REFERENCE
        for p in problems
        if p.task_id not in names
    }
    measured = []
    for name in (problem.task_id for problem in sound):
        changes = [(m.operator, f"line {m.line}: {m.change}", m.program) for m in made[name]]
        kinds, told, programs = zip(*changes, strict=True) if changes else ((), (), ())
        outcomes = tuple(verdict.outcome for verdict in found[name][1:])
        same = tuple(program in alike[name] for program in programs)
        measured.append(Strength(name, kinds, told, outcomes, same))
    return broken, measured


def broken_references(
    problems: Sequence[Problem], *, limits: Limits, execute: Execute, progress: Tell = None
) -> dict[str, str]:
    """Task id -> why its own reference does not pass: `FAILED_TESTS (wrong_value), 2 of 3`.

    Nothing such a problem says of an answer can be trusted. A problem without a reference is
    named NO_REFERENCE. Arguments as `examine`.
    """
    how = {"limits": limits, "execute": execute, "progress": progress}
    return examine(problems, n_mutants=0, seed=0, **how)[0]


def drop_broken(
    problems: Sequence[Problem], broken: Mapping[str, str]
) -> tuple[list[Problem], dict[str, int]]:
    """(problems whose reference passes or that have none, problems dropped by reason)."""
    bad = {task_id for task_id, reason in broken.items() if reason != NO_REFERENCE}
    kept = [problem for problem in problems if problem.task_id not in bad]
    lost = len(problems) - len(kept)
    return kept, {"problem: its own reference fails": lost} if lost else {}


def drop_weak(
    problems: Sequence[Problem], strengths: Sequence[Strength], *, min_strength: float
) -> tuple[list[Problem], dict[str, int]]:
    """(problems whose tests are strong enough, problems dropped by reason).

    Compared is `discounted`: no tests are blamed for mutants that may well be right. 0 keeps all;
    above it a problem whose strength is not known (no reference, no mutant) is dropped too, under
    its own reason. ValueError unless `min_strength` is in [0, 1].
    """
    if not 0 <= min_strength <= 1:
        raise ValueError(f"min_strength {min_strength}: expected a share between 0 and 1")
    known = {s.task_id: s.discounted for s in strengths if not math.isnan(s.discounted)}
    kept, dropped = [], Counter()
    for problem in problems:
        if not min_strength or known.get(problem.task_id, -1.0) >= min_strength:
            kept.append(problem)
        elif problem.task_id in known:
            dropped[f"problem: its tests kill less than {min_strength:g} of the mutants"] += 1
        else:
            dropped["problem: the strength of its tests is not known"] += 1
    return kept, dict(dropped)


def _passes(verdict: Execution) -> bool:
    return verdict.outcome == Outcome.PASS


def _said(verdict: Execution) -> str:
    if wire.is_unusable(verdict.reason):
        return verdict.reason
    reason = f" ({verdict.reason})" if verdict.reason else ""
    return f"{verdict.outcome.name}{reason}, {verdict.n_passed} of {verdict.n_tests}"


def _mutants(problem: Problem, limit: int, seed: int) -> list[Mutant]:
    """None of what does not parse or defines nothing: its reference's verdict says so."""
    program = reference_program(problem)
    given = problem.prompt.count("\n") if program.startswith(problem.prompt) else 0
    try:
        return mutants(program, problem.entry_point, limit=limit, seed=seed, first_line=given + 1)
    except ValueError:
        return []


def _run(
    problems: Sequence[Problem], made: Mapping[str, Sequence[Mutant]], execute: Execute
) -> dict[str, list[Execution]]:
    """Task id -> verdicts of its reference and of its mutants, all in one call."""
    responses = [
        Response(problem.task_id, "mutant", index, "", program)
        for problem in problems
        for index, program in enumerate(
            (reference_program(problem), *(m.program for m in made[problem.task_id]))
        )
    ]
    found: dict[str, list[Execution]] = {problem.task_id: [] for problem in problems}
    for verdict in execute(problems, responses) if responses else []:
        found[verdict.task_id].append(verdict)
    return found


def _alike(
    problems: Sequence[Problem],
    made: Mapping[str, Sequence[Mutant]],
    found: Mapping[str, Sequence[Execution]],
    seed: int,
    execute: Execute,
) -> dict[str, set[str]]:
    """Task id -> programs of the survivors that do as the reference does on further inputs."""
    asked, responses, survivors = [], [], []
    for problem in problems:
        rows = zip(made[problem.task_id], found[problem.task_id][1:], strict=True)
        left = [mutant.program for mutant, verdict in rows if _passes(verdict)]
        reference = reference_program(problem)
        key = config.derive_seed(seed, "calls", problem.task_id)
        shown = probes.literal_calls(problem.tests, problem.entry_point) if left else []
        calls = probes.varied_calls(shown, (reference, *left), count=N_CALLS, seed=key)
        if not calls:
            continue
        asked.append(Problem(problem.task_id, "", "same", f"assert same({calls!r})"))
        of = {"entry_point": problem.entry_point, "reference": reference}
        for index, program in enumerate(left):
            text = _COMPARISON.format(mutant=program, **of)
            responses.append(Response(problem.task_id, "mutant", index, "", text))
        survivors += left
    alike: dict[str, set[str]] = defaultdict(set)
    verdicts = execute(asked, responses) if responses else []
    for verdict, program in zip(verdicts, survivors, strict=True):
        if _passes(verdict):
            alike[verdict.task_id].add(program)
    return alike


def shares(strengths: Sequence[Strength]) -> dict[str, list[float]]:
    """Both readings of the strength of every problem that has one, by name."""
    read = {
        "of all mutants": [one.strength for one in strengths],
        "without those like the reference": [one.discounted for one in strengths],
    }
    return {name: [v for v in values if not math.isnan(v)] for name, values in read.items()}


def mutant_rows(strengths: Sequence[Strength]) -> list[dict]:
    """One row per mutant: the fault, what the tests said of it, and what that makes it."""
    rows = []
    for one in strengths:
        columns = zip(one.operators, one.changes, one.outcomes, one.alike, strict=True)
        for operator, change, outcome, alike in columns:
            survivor = "like the reference" if alike else "missed"
            row = {"kind of fault": operator, "fault": change, "verdict": outcome.name}
            rows.append(row | {"so it is": survivor if outcome == Outcome.PASS else "killed"})
    return rows


def operator_rows(strengths: Sequence[Strength]) -> list[dict]:
    """Per kind of fault: mutants, how many were killed, missed, or like the reference."""
    rows: dict[str, Counter] = defaultdict(Counter)
    for row in mutant_rows(strengths):
        rows[row["kind of fault"]][row["so it is"]] += 1
    table = []
    for kind, fates in sorted(rows.items()):
        counts = {name: fates[name] for name in ("killed", "missed", "like the reference")}
        seen = counts["killed"] + counts["missed"]
        missed = 100 * counts["missed"] / seen if seen else None
        row = {"kind of fault": kind, "mutants": fates.total(), **counts}
        table.append(row | {"missed (%)": missed})
    return sorted(table, key=lambda row: -(row["missed (%)"] or 0))


def threshold_rows(
    strengths: Sequence[Strength], thresholds: Sequence[float] = (0.5, 0.8, 0.9, 1.0)
) -> list[dict]:
    """How many of the measured problems each threshold of `drop_weak` would drop."""
    return [
        {"min_strength": least, "problems": len(strengths),
         "dropped": sum(one.discounted < least for one in strengths),
         "dropped, if suspects counted": sum(one.strength < least for one in strengths)}
        for least in thresholds
    ]  # fmt: skip


def missed_rows(
    problems: Sequence[Problem], strengths: Sequence[Strength], *, count: int = 3
) -> list[dict]:
    """The problems with the weakest tests: the reference, and the faults in it that they miss."""
    references = {problem.task_id: problem.reference for problem in problems}
    rows = []
    for one in sorted(strengths, key=lambda one: (one.discounted, one.task_id)):
        mutants = [row for row in mutant_rows([one]) if row["so it is"] == "missed"]
        faults = [row["fault"].partition(": ")[2] for row in mutants]
        if faults:
            code = dedent(references[one.task_id].strip("\n"))
            row = {"problem": one.task_id, "reference": code, "faults missed": "\n".join(faults)}
            rows.append(row | {"killed": f"{one.n_killed} of {one.n_mutants}"})
    return rows[:count]


def ledger_row(
    problems: Sequence[Problem], broken: Mapping[str, str], kept: Sequence[Problem]
) -> dict[str, int]:
    """Problems in, left out by reason, kept; those without a reference are no reason by itself."""
    failing = sum(reason != NO_REFERENCE for reason in broken.values())
    weak, unknown = len(problems) - failing - len(kept), len(broken) - failing
    return {"problems": len(problems), "own reference fails": failing, "below min_strength": weak,
            "kept": len(kept), "of all, without a reference": unknown}  # fmt: skip
