"""Forms of tests: no part of a candidate decides an assertion, and none learns what it expects.

Each form is a small source with a right program. `SECRET` stands on the expected side only. Plain
Python, the tests and the program in one namespace, is what verdicts are compared with.
"""

import asyncio
import contextlib
import io
import re
import unittest
from pathlib import Path

import pytest
from conftest import execute

from rrtf.records import Execution, Outcome, Problem, Response

SECRET = "271828"
RUNNERS = r"^unittest.main\(\)$|^from solution import f$"


def blocks(name: str) -> dict[str, str]:
    """The texts of a file of tests/data that stand behind lines `== NAME`."""
    text = (Path(__file__).parent / "data" / name).read_text()
    parts = [part.split("\n", 1) for part in re.split("^== ", text, flags=re.MULTILINE)[1:]]
    return {title: body.strip("\n") + "\n" for title, body in parts}


# Tests, a right program and, where there is one, the prompt.
FORMS = {
    name: re.split(r"-- \w+\n", text.replace("SECRET", SECRET))
    for name, text in blocks("forms.txt").items()
}
WRONG = blocks("wrong_programs.txt")


def problem(name: str) -> Problem:
    tests, _, *prompt = FORMS[name]
    return Problem(name, "".join(prompt), "f", tests)


def program(name: str, source: str) -> str:
    """The source behind what the form's prompt defines."""
    given = "".join(FORMS[name][2:]).replace("class f:\n", "")
    return f"from collections import Counter\nfrom math import isclose\n{given}{source}"


def in_plain_python(name: str, source: str) -> bool:
    """Whether tests and program in one namespace go through, at least one assertion among them."""
    space: dict = {"__name__": "plain"}
    tests = re.sub(
        r"^unittest.main\(\)$|^from solution import f$", "", problem(name).tests, flags=re.M
    )
    try:
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(source + "\n" + tests, space)
            if "check" in space:
                found = space["check"](space["f"])
                if asyncio.iscoroutine(found):
                    asyncio.run(found)
            for found in [value for key, value in space.items() if key[:4].lower() == "test"]:
                run_as_pytest_does(found)
    except (Exception, SystemExit, pytest.fail.Exception):
        return False
    return "False" not in printed.getvalue()


def run_as_pytest_does(found) -> None:
    """Calls a test, with all values that it is marked with, or all tests of a class."""
    if isinstance(found, type):
        for name in unittest.TestLoader().getTestCaseNames(found):
            found(name).debug()
        return
    marks = [m.args for m in getattr(found, "pytestmark", ()) if m.name == "parametrize"]
    for names, values in marks or [("", [()])]:
        for value in values:
            given = value if "," in names or not names else (value,)
            found(**dict(zip(filter(None, re.split(", *", names)), given, strict=True)))


def judged(sources: dict[tuple[str, str], str], **options) -> dict[tuple[str, str], Execution]:
    """Verdicts by form and name of the program."""
    asked = [Response(form, name, 0, "", text) for (form, name), text in sources.items()]
    found = execute([problem(name) for name in FORMS], asked, **options)
    return {(e.task_id, e.source): e for e in found}


def test_right_programs_pass_every_form_or_are_said_not_to_cross():
    assert len(FORMS) >= 60
    right = {(name, "right"): form[1] for name, form in FORMS.items()}
    assert [name for name, _ in right if not in_plain_python(name, right[name, "right"])] == []
    found = judged(right)
    failed = {n: e for (n, _), e in found.items() if e.outcome is not Outcome.PASS}
    assert {n: e.reason for n, e in failed.items()} == dict.fromkeys(
        CANNOT_CROSS, "cannot_cross"
    ) | {"own object": "wrong_type"}


CANNOT_CROSS = (
    "equals",
    "a method of a result that was a result",
    "unknown reference",
    "unknown helper",
    "unknown expected",
)


@pytest.mark.slow
def test_wrong_programs_pass_no_form_that_plain_python_fails():
    sources = {(f, w): program(f, text) for f in FORMS for w, text in WRONG.items()}
    forged = [
        (form, wrong)
        for (form, wrong), verdict in judged(sources, cpu_seconds=4.0).items()
        if verdict.outcome is Outcome.PASS and not in_plain_python(form, sources[form, wrong])
    ]
    assert forged == []


def test_what_compares_itself_passes_only_where_any_such_value_does():
    deciding = ("stops", "agrees", "hides", "hides fields", "says so", "equal to five")
    sources = {(f, w): program(f, WRONG[w]) for f in FORMS for w in deciding}
    passed = {form for (form, _), e in judged(sources).items() if e.outcome is Outcome.PASS}
    assert {form for form in passed if not form.startswith(ANY_VALUE)} == set()


# Forms that plain Python passes for whatever is true, can be called, or does not end the call.
ANY_VALUE = ("truth", "callable", "unchanged", "same object", "stop", "dunder")


RECORDER = """
import functools, json
def note(*things):
    with open({path!r}, "a") as file:
        file.write(show(things) + "\\n")
def show(thing, depth=0):
    if depth < 9 and isinstance(thing, (list, tuple, set, frozenset)):
        return "[" + ", ".join(show(x, depth + 1) for x in list(thing)[:99]) + "]"
    if depth < 9 and isinstance(thing, dict):
        return show(list(thing.items()), depth + 1)
    if depth < 9 and hasattr(thing, "__dict__") and not callable(thing):
        return show(vars(thing), depth + 1)
    return object.__repr__(thing) if isinstance(thing, R) else repr(thing)
class R:
    def __init__(self, *args, **kwargs):
        note("init", args, kwargs)
    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        note("get", name)
        return R.quiet()
    def __setattr__(self, name, value):
        note("set", name, value)
    @classmethod
    def quiet(cls):
        return object.__new__(cls)
    def __iter__(self):
        return iter([R.quiet(), R.quiet()])
    def __len__(self):
        return 1
    def __hash__(self):
        return 1
for name in (
    "eq ne lt le gt ge add radd sub rsub mul rmul truediv mod pow and or xor contains getitem call "
    "setitem delitem rtruediv iadd matmul await aiter enter exit round divmod format"
).split():
    def method(self, *args, _name=name, **kwargs):
        note(_name, args, kwargs)
        return R.quiet()
    setattr(R, f"__{{name}}__", method)
isclose = equal = reference = Counter = Pair = Negative = R
def f(*args, **kwargs):
    note("call", args, kwargs)
    return R.quiet()
"""


def test_a_program_that_records_all_that_reaches_it_never_sees_what_is_expected(tmp_path):
    tmp_path.chmod(0o777)
    for parent in (tmp_path.parent, tmp_path.parent.parent):
        parent.chmod(0o755)
    sources = {}
    for number, name in enumerate(FORMS):
        recorder = RECORDER.format(path=str(tmp_path / str(number)))
        own = "" if name == "own exception" else recorder.replace("Negative = R", "Other = R")
        sources[name, "recorder"] = program(name, own or recorder)
    judged(sources, isolation="none", exactly="none")
    told = {
        name: (tmp_path / str(number)).read_text()
        for number, name in enumerate(FORMS)
        if (tmp_path / str(number)).exists()
    }
    assert len(told) >= 0.9 * len(FORMS)
    handed = {"million", "unchanged"}  # here it is an argument too
    assert [n for n, text in told.items() if SECRET in text and n not in handed] == []
