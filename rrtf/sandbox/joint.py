"""The weaker mode `joint`: a problem's tests run in the candidate's own process.

For tests whose values cannot cross to a judge: compiled patterns, arrays, objects of classes that
only the program knows. Program and tests become one program, fenced as any other, which says of
every assertion whether it held; the judge asks for these answers one by one. Such a program can
read the tests and forge the answers, so a verdict reached this way says so in its `isolation`.

Nobody gets this mode unasked: a problem is judged so if its tests begin with `MARK`.
"""

import ast
import inspect
import textwrap
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache

from rrtf.records import Problem, Response
from rrtf.sandbox import counting, instrument

MARK = "# joint: these tests run in the candidate's own process, which can forge their verdict\n"
SUFFIX = ", joint"  # of the isolation of such a verdict
_ENTRY_POINT = "rrtf_joint"

# What follows the program: on few lines, so that nothing the program leaves open swallows it.
_APPENDED = """

if callable(globals().get({defined!r})):
    exec({runner!r})
"""
# `state` holds the answers: True, False or the exception that came.
_RUNNER = """\
def {entry_point}(number=None, *, state=[]):
    if number is None:
        state[:] = _rrtf_answers()
        return len(state)
    if isinstance(state[number], BaseException):
        raise state[number]
    return state[number]


def _rrtf_answers():
    answers, losses = [], []
{poison}
    def must(value):
        if not value:
            raise AssertionError
        answers.append(True)

    def lost(error):
        if type(error) is AssertionError:
            answers.append(False)
        else:
            losses.append(error)
        return Poison()

    def raised(error):
        error = False if type(error) is AssertionError else error
        answers.append(losses[0] if losses and type(error) is Poisoned else error)

    def candidate(*args, **kwargs):
        return eval({target!r}, globals())(*args, **kwargs)

    space = dict(globals(), __name__="tests")
    space.update({holds}=lambda value: answers.append(bool(value)), {must}=must, {lost}=lost)
    space.update({raised}=raised, {exception}=Exception)
    try:
        exec(compile({tests!r}, "tests.py", "exec", dont_inherit=True), space)
        if {has_check!r}:
            space["check"](candidate)
    except Exception as error:
        lost(error)
    if losses:
        answers += losses[:1] * ({n_asserts} - len(answers))
        if all(answer is True for answer in answers):
            answers.append(losses[0])
    return answers
"""
# One assertion per answer. Those that are never reached are the count for a program that dies.
_ASKED = """\
def check(candidate):
    for number in range(candidate()):
        assert candidate(number)
"""


def mark(problem: Problem) -> Problem:
    """The problem, to be judged in this mode."""
    return problem if is_joint(problem) else replace(problem, tests=MARK + problem.tests)


def is_joint(problem: Problem) -> bool:
    """Whether the problem's tests ask for this mode."""
    return problem.tests.startswith(MARK)


def unfold(
    problems: Sequence[Problem], responses: Sequence[Response]
) -> tuple[Sequence[Problem], Sequence[Response]]:
    """Problems and responses as a judge takes them: of the joint ones, tests inside the program.

    Tests that do not compile or assert nothing stay as they are, to be refused like any such.
    """
    marked = {problem.task_id: problem for problem in problems if is_joint(problem)}
    if not marked:
        return problems, responses
    runners = {}
    for task_id, problem in marked.items():
        with suppress(SyntaxError, ValueError, RecursionError):
            runners[task_id] = _runner(problem.entry_point, problem.tests)
    asked = [
        replace(p, prompt="", entry_point=_ENTRY_POINT, tests=runners[p.task_id][1])
        if p.task_id in runners
        else p
        for p in problems
    ]
    programs = [
        replace(r, program=r.program + runners[r.task_id][0]) if r.task_id in runners else r
        for r in responses
    ]
    return asked, programs


def isolation(problem: Problem, level: str) -> str:
    """What a verdict on an unfolded problem says of its isolation."""
    return level + SUFFIX if problem.entry_point == _ENTRY_POINT else level


@lru_cache(maxsize=512)
def _runner(entry_point: str, tests: str) -> tuple[str, str]:
    """(what is put after every program, the tests that the judge holds)."""
    tree = compile(tests, "tests.py", "exec", ast.PyCF_ONLY_AST, dont_inherit=True)
    n_asserts, has_check = instrument.rewrite(tree, instrument.plain_name(entry_point))
    if not n_asserts:
        raise ValueError("they assert nothing")
    poison = "\n".join(map(inspect.getsource, (counting.Poisoned, counting.Poison)))
    runner = _RUNNER.format(
        target=entry_point,
        entry_point=_ENTRY_POINT,
        poison=textwrap.indent(poison, "    "),
        tests=ast.unparse(ast.fix_missing_locations(tree)),
        has_check=has_check,
        n_asserts=n_asserts,
        holds=counting.HOLDS,
        must=counting.MUST,
        lost=counting.LOST,
        raised=counting.RAISED,
        exception=counting.EXCEPTION,
    )
    unreached = "        assert number\n" * (n_asserts - 1)
    asked = _ASKED + ("    if False:\n" + unreached if unreached else "")
    return _APPENDED.format(defined=entry_point.partition("(")[0], runner=runner), asked
