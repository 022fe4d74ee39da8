"""Unit tests for problems that have none: literal inputs, and outputs that several answers share.

A model is asked for inputs only, as literals that are parsed and never run, and for further
answers to the same function head. All answers run in the sandbox on all inputs; an input with its
output becomes a test where enough answers agree (as AlphaCode and CodeT group programs). Agreement
is no proof: answers of one model share its misconceptions.
"""

import ast
import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rrtf import probes, prompts, similarity
from rrtf.engines import Decoding
from rrtf.evolve.asking import Asker, again_ask, inputs_ask, task_text
from rrtf.evolve.rules import Dropped
from rrtf.evolve.seeds import Function, function_of
from rrtf.probes import literal
from rrtf.prompts import code_of
from rrtf.records import Instruction, Problem

Call = Callable[..., list[tuple]]  # `executor.call`, or what stands in for it
Seen = tuple[str, Any]  # ("value", what was returned) or ("error", why nothing was)

LONGEST = 5_000  # characters of an input, or of an output, as a literal
LEAST_TESTS = 3
ROWS_PER_CALL = 200
TOLERANCE = 1e-6

_WRAPPER = """


def _rrtf_calls(_rrtf_function={name}):
    import copy
    results = []
    for inputs in {inputs}:
        try:
            value = _rrtf_function(*inputs)
        except Exception as error:
            results.append(("error", type(error).__name__))
            continue
        try:
            results.append(("value", copy.deepcopy(value)))
        except Exception:
            results.append(("error", "no plain value"))
    return results
"""
_CLOSE = f"""\
def close(found, expected):
    if isinstance(expected, float):
        alike = found == expected or (found != found and expected != expected)
        return alike or abs(found - expected) <= {TOLERANCE} * max(1.0, abs(expected)) < 1e300
    if isinstance(expected, (list, tuple)):
        return len(found) == len(expected) and all(map(close, found, expected))
    if isinstance(expected, dict):
        return found.keys() == expected.keys() and all(close(found[k], expected[k]) for k in found)
    return found == expected


"""


@dataclass(frozen=True, slots=True)
class Trial:
    """A row's function, the inputs to try, and the programs that answer it, its own one first."""

    row: Instruction
    function: Function
    inputs: tuple[tuple, ...]
    programs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Tested:
    """What became of rows without tests, and of the inputs offered for them."""

    rows: tuple[tuple[Instruction, Problem], ...]  # with the answer that passes as its output
    dropped: tuple[Dropped, ...]
    inputs: dict[str, int]  # `kept`, and the others by reason
    n_trials: int  # rows whose programs ran
    n_alike: int  # of these, rows whose answers are all one but for names and layout


def add_tests(
    rows: Sequence[Instruction],
    *,
    ask: Asker,
    call: Call,
    answers: int,
    inputs: int,
    least_share: float,
    decoding: Decoding,
) -> Tested:
    """Problems with tests for the rows that can have them; rows = problems + dropped.

    `answers` programs vote, the row's own among them; an output needs `least_share` of all of
    them, a problem LEAST_TESTS inputs with outputs that are not all one. The reference is the
    first answer that gives every agreed output; a row none of whose answers does is dropped.
    ValueError unless answers >= 2 and `least_share` is in (0.5, 1].
    """
    if answers < 2 or not 0.5 < least_share <= 1:
        raise ValueError(
            f"answers {answers}, agreement {least_share}: expected at least 2 answers, and a share "
            "above one half (else two outputs could win) up to 1"
        )
    functions: list[tuple[Instruction, Function]] = []
    dropped: list[Dropped] = []
    for row in rows:
        try:
            functions.append((row, function_of(code_of(row.output), task_text(row))))
        except ValueError as error:
            dropped.append((row, str(error)))
    trials, counts = _trials(functions, ask, answers, inputs, decoding)
    found: list[tuple[Instruction, Problem]] = []
    for at in range(0, len(trials), ROWS_PER_CALL):
        chunk = trials[at : at + ROWS_PER_CALL]
        for trial, seen in zip(chunk, run_trials(chunk, call), strict=True):
            verdicts = [vote(column, answers, least_share) for column in zip(*seen, strict=True)]
            counts.update(reason or "kept" for reason, _ in verdicts)
            try:
                found.append(_judged(trial, seen, verdicts))
            except ValueError as error:
                dropped.append((trial.row, str(error)))
    alike = sum(_is_one_text(trial) for trial in trials)
    return Tested(tuple(found), tuple(dropped), dict(counts), len(trials), alike)


def _is_one_text(trial: Trial) -> bool:
    """Whether all answers are the same but for names and layout: then they only agree by that."""
    name = trial.function.name
    return len({similarity.canonical_functions(p).get(name, p) for p in trial.programs}) == 1


def _trials(
    functions: Sequence[tuple[Instruction, Function]],
    ask: Asker,
    answers: int,
    count: int,
    decoding: Decoding,
) -> tuple[list[Trial], Counter[str]]:
    """One call of `ask` for all rows; the inputs that cannot be tried, by reason."""
    asks = []
    for row, function in functions:
        asks.append(inputs_ask(row.task_id, function.head, count, decoding))
        asks += [again_ask(row.task_id, function.head, n, decoding) for n in range(1, answers)]
    replies = ask(asks) if asks else []
    trials, counts = [], Counter()
    for place, (row, function) in enumerate(functions):
        first, *rest = replies[place * answers : (place + 1) * answers]
        inputs, bad = parse_inputs(first.text, function.parameters)
        counts.update(bad)
        problem = Problem(row.task_id, function.head, function.name, "")
        own = function.head + function.body
        programs = [prompts.extract(problem, reply.text) for reply in rest if not reply.error]
        trials.append(Trial(row, function, tuple(inputs), (own, *programs)))
    return trials, counts


def parse_inputs(
    text: str, parameters: tuple[int, int | None]
) -> tuple[list[tuple], dict[str, int]]:
    """(argument tuples in a reply, what cannot be used by reason); nothing is executed.

    One literal per line, Python's or JSON's, or one list of them all. `parameters`: the fewest
    and most arguments.
    """
    lines, reasons = _literals(text, parameters), Counter()
    found: dict[str, tuple] = {}
    for line in lines:
        try:
            key = literal(tuple(line)) if isinstance(line, list | tuple) else ""
        except (ValueError, RecursionError):
            key = ""
        if not key:
            reasons["the input is no literal list of arguments"] += 1
        elif not _fits(line, parameters):
            reasons["other arguments than the function takes"] += 1
        elif len(key) > LONGEST:
            reasons["the input is too long"] += 1
        elif key in found:
            reasons["the same input again"] += 1
        else:
            found[key] = tuple(line)
    return list(found.values()), dict(reasons)


def _fits(line: Sequence, parameters: tuple[int, int | None]) -> bool:
    least, most = parameters
    return least <= len(line) and (most is None or len(line) <= most)


def _literals(text: str, parameters: tuple[int, int | None]) -> list[Any]:
    """The values on the lines that begin like a list or tuple; None for what is no literal.

    A list of lists is as many calls where it stands on several lines or fits no single call.
    """
    body = code_of(text).strip()
    whole = _value(body)
    if isinstance(whole, list | tuple):
        several = all(isinstance(item, list | tuple) for item in whole)
        return (
            list(whole) if several and ("\n" in body or not _fits(whole, parameters)) else [whole]
        )
    lines = (re.sub(r"^\s*(?:[-*]\s+|\d+[.)]\s+)", "", line) for line in body.splitlines())
    return [_value(line.strip().rstrip(",")) for line in lines if line.lstrip()[:1] in ("[", "(")]


def _value(text: str) -> Any:
    for read in (ast.literal_eval, json.loads):
        try:
            return read(text)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            continue
    return None


def run_trials(trials: Sequence[Trial], call: Call) -> list[list[tuple[Seen, ...]]]:
    """Per trial and program what every input gave, in two runs with different random seeds.

    A program that gives something else the second time has given nothing; one that does not get
    through all inputs (time, memory, exit) has failed on each.
    """
    programs = [
        (program + _WRAPPER.format(name=t.function.name, inputs=literal(t.inputs)), "_rrtf_calls")
        for t in trials
        for program in t.programs
    ]
    runs = [call(programs, [()], hash_seed=seed) for seed in (1, 2)] if programs else [[], []]
    pairs = iter(zip(*runs, strict=True))
    return [[_seen(*next(pairs), len(trial.inputs)) for _ in trial.programs] for trial in trials]


def _seen(first: tuple, second: tuple, count: int) -> tuple[Seen, ...]:
    once, again = (_results(result, count) for (result,) in (first, second))
    return tuple(
        one if key(one) == key(other) else ("error", "another value when run again")
        for one, other in zip(once, again, strict=True)
    )


def _results(result: Any, count: int) -> list[Seen]:
    value = result.value
    if result.error or type(value) is not list or len(value) != count:
        return [("error", result.error or "no values")] * count
    return [_plain(*pair) for pair in value]


def _plain(how: str, value: Any) -> Seen:
    if how == "error":
        return how, str(value)
    try:
        text = literal(value)
    except (ValueError, RecursionError):
        return "error", "no plain value"
    return ("value", value) if len(text) <= LONGEST else ("error", "too long a value")


def key(seen: Seen) -> str:
    """Equal for outcomes that count as one: values as `probes.fingerprint`, errors as one."""
    how, value = seen
    return f"value {probes.fingerprint(value)}" if how == "value" else "error"


def vote(column: Sequence[Seen], answers: int, least_share: float) -> tuple[str, Any]:
    """('', the value that `least_share` of `answers` programs give), or (why there is none, None).

    `column`: what each program gave for one input; programs that never came give nothing.
    """
    (most, count), *_ = Counter(map(key, column)).most_common(1)
    if count < least_share * answers - 1e-9:
        return "the answers disagree", None
    seen = next(one for one in column if key(one) == most)
    if seen[0] == "value":
        return "", seen[1]
    reasons = Counter(why for how, why in column if how == "error")
    why = reasons.most_common(1)[0][0]
    told = why in ("another value when run again", "no plain value", "too long a value")
    return (why if told else "the answers raise errors or do not end"), None


def _judged(
    trial: Trial, seen: Sequence[Sequence[Seen]], verdicts: Sequence[tuple[str, Any]]
) -> tuple[Instruction, Problem]:
    """The row with the answer that gives all agreed outputs, and its problem."""
    agreed = [place for place, (reason, _) in enumerate(verdicts) if not reason]
    values = [verdicts[place][1] for place in agreed]
    if len(agreed) < LEAST_TESTS:
        raise ValueError(f"tests: fewer than {LEAST_TESTS} inputs that the answers agree on")
    if len(set(map(probes.fingerprint, values))) == 1:
        raise ValueError("tests: one output for all inputs")
    wanted = [key(("value", value)) for value in values]
    right = [n for n, of in enumerate(seen) if [key(of[place]) for place in agreed] == wanted]
    tests = write_tests([trial.inputs[place] for place in agreed], values)
    for number in right:
        try:
            return _problem(trial, number, tests)
        except ValueError:
            continue  # right, but not in a form that has a head and a body
    raise ValueError("tests: no answer gives all that the answers agree on")


def _problem(trial: Trial, number: int, tests: str) -> tuple[Instruction, Problem]:
    row, function = trial.row, trial.function
    if number:
        function = function_of(trial.programs[number], task_text(row))
        if function.name != trial.function.name:
            raise ValueError("another function than the one asked for")
        row = replace(row, output=function.head + function.body)
    family = row.source, row.parent_id, row.operator, row.depth
    head, name = function.head, function.name
    return row, Problem(row.task_id, head, name, tests, function.body, *family)


def write_tests(inputs: Sequence[tuple], values: Sequence[Any]) -> str:
    """`check(candidate)` with one assertion per input; floats are compared with a tolerance."""
    lines = []
    for arguments, value in zip(inputs, values, strict=True):
        called = f"candidate({', '.join(map(literal, arguments))})"
        close = _has_float(value)
        line = f"close({called}, {literal(value)})" if close else f"{called} == {literal(value)}"
        lines.append(f"    assert {line}\n")
    helper = _CLOSE if any(map(_has_float, values)) else ""
    return f"{helper}def check(candidate):\n{''.join(lines)}"


def _has_float(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_has_float, value.values()))
    if isinstance(value, list | tuple):
        return any(map(_has_float, value))
    return isinstance(value, float)
