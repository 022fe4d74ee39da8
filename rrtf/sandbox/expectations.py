"""What tests use of pytest, which a judge does not have: `raises`, `approx`, `fail`, `mark`.

And when two printed texts are the same.
"""

import re
from collections.abc import Callable
from typing import Any


def fail(reason: str = "", pytrace: bool = True) -> None:
    """AssertionError in any case."""
    raise AssertionError(reason)


class _Raises:
    """The context of `raises`; `value` is the exception, once it has come."""

    def __init__(self, kind, match):
        self.kind, self.match, self.value, self.type = kind, match, None, None

    def __enter__(self):
        return self

    def __exit__(self, kind, value, _):
        if kind is None:
            fail(f"{self.kind} was not raised")
        if not issubclass(kind, self.kind):
            return False
        self.type, self.value = kind, value
        if self.match is not None and not re.search(self.match, str(value)):
            fail(f"{str(value)!r} does not match {self.match!r}")
        return True


def raises(
    kind: type | tuple,
    function: Callable | None = None,
    *args: Any,
    match: str | None = None,
    **kwargs: Any,
) -> "_Raises":
    """A context that expects an exception of this kind, or a call of `function` that does."""
    expected = _Raises(kind, match)
    if function is None:
        return expected
    with expected:
        function(*args, **kwargs)
    return expected


class approx:
    """Equals what is within `rel` of the expected number, or within `abs`; also in containers."""

    __hash__ = None

    def __init__(self, expected, rel=1e-6, abs=1e-12):
        self.expected, self.bounds = expected, (rel, abs)

    def __eq__(self, value):
        return _is_near(value, self.expected, *self.bounds)


def _is_near(value, expected, rel, absolute):
    if isinstance(expected, dict):
        alike = type(value) is dict and value.keys() == expected.keys()
        return alike and all(_is_near(value[k], expected[k], rel, absolute) for k in expected)
    if isinstance(expected, list | tuple):
        alike = isinstance(value, type(expected)) and len(value) == len(expected)
        pairs = zip(value, expected, strict=True) if alike else ()
        return alike and all(_is_near(v, e, rel, absolute) for v, e in pairs)
    if not isinstance(value, int | float | complex):
        return False
    return value == expected or abs(value - expected) <= max(rel * abs(expected), absolute)


class _Marks:
    """`parametrize` runs a test with each of its values; every other mark changes nothing."""

    def __getattr__(self, name):
        return lambda *given, **_: given[0] if given and callable(given[0]) else lambda test: test

    def parametrize(self, names: str | list, values: list, **_: Any) -> Callable:
        several = not isinstance(names, str) or "," in names
        names = [n.strip() for n in names.split(",")] if isinstance(names, str) else list(names)

        def decorated(test):
            def run(**more):
                for value in values:
                    given = value if several else (value,)
                    test(**dict(zip(names, given, strict=True)), **more)

            return run

        return decorated


mark = _Marks()


def is_same_output(printed: str, expected: str) -> bool:
    """Whether a program printed what was expected.

    As the graders of APPS and LiveCodeBench: line by line, without white space at their ends and
    without empty lines at the end of all. A line whose words are not equal letter by letter is so
    if as many words are the same numbers: whole ones exactly (`3` and `3.0`), where decimals are
    expected within 1e-8 + 1e-5 of their size. Not taken over: other orders of lines or words.
    """
    ours, theirs = (text.strip().split("\n") for text in (printed, expected))
    return len(ours) == len(theirs) and all(map(_is_same_line, ours, theirs))


def _is_same_line(ours: str, theirs: str) -> bool:
    if ours.strip() == theirs.strip():
        return True
    words = ours.split(), theirs.split()
    return len(words[0]) == len(words[1]) and all(map(_is_same_number, *words))


_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?")


def _is_same_number(ours: str, theirs: str) -> bool:
    if not _NUMBER.fullmatch(ours) or not _NUMBER.fullmatch(theirs):
        return False
    if max(len(ours), len(theirs)) > 300:  # characters
        return ours == theirs
    if theirs.lstrip("+-").isdecimal():
        whole, _, rest = ours.partition(".")
        return not rest.strip("0") and whole.strip("+-").isdecimal() and int(whole) == int(theirs)
    return abs(float(ours) - float(theirs)) <= 1e-8 + 1e-5 * abs(float(theirs))
