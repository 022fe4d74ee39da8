"""Probe inputs, argument types and comparable outputs."""

import math

import pytest

from rrtf import probes

CODE = "def f(x):\n    return x\n"


@pytest.mark.parametrize("kind", list(probes.PROBES))
def test_every_type_has_the_same_number_of_distinct_probes_that_have_the_type(kind):
    values = probes.PROBES[kind]
    assert len({repr(value) for value in values}) == len(values) == probes.N_FIXED
    tests = "".join(f"assert candidate({value!r}) == 0\n" for value in values)
    assert probes.argument_kinds(CODE, "f", tests) == [(kind,)]


def test_random_probes_follow_the_fixed_ones_and_repeat_under_one_seed():
    kinds = ("list[int]", "int")
    first = probes.probe_inputs(kinds, n_random=5, seed=3)
    assert first == probes.probe_inputs(kinds, n_random=5, seed=3)
    assert first != probes.probe_inputs(kinds, n_random=5, seed=4)
    assert first[: probes.N_FIXED] == probes.probe_inputs(kinds, n_random=0, seed=4)
    assert len(first) == probes.N_FIXED + 5


def test_two_arguments_of_one_type_get_different_values():
    pairs = probes.probe_inputs(("int", "int"), n_random=0, seed=1)
    assert {left for left, _ in pairs} == {right for _, right in pairs} == set(probes.PROBES["int"])
    assert sum(left == right for left, right in pairs) <= 3


def test_argument_types_come_from_tests_then_annotations_then_everything():
    several = "def g(a, b):\n    return a\n"
    typed = "def g(a: List[int], b: 'str') -> int:\n    return 0\n"
    assert probes.argument_kinds(
        several, "g", "assert g([], 'x') == 1\nassert g([2], '') == 1"
    ) == [("list[int]", "str")]
    assert probes.argument_kinds(typed.replace("'", ""), "g") == [("list[int]", "str")]
    assert probes.argument_kinds(CODE, "f") == [(kind,) for kind in probes.PROBES]
    assert probes.argument_kinds(several, "g") == []
    assert probes.argument_kinds(CODE, "f", "assert f(y) == f(3 * 2) == f('a')") == [("str",)]
    for call in ("f([1, 'a'])", "f(1.5)", "f(True)", "f({1: 2})", "f((1,))"):
        assert probes.argument_kinds(CODE, "f", f"assert {call} == 0") == [], "no probes for it"
    assert probes.argument_kinds("def f(:", "f") == probes.argument_kinds(CODE, "g") == []


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (3, 3.0), (True, 1), ({"a": 1, "b": 2}, {"b": 2, "a": 1}), ({3, 1}, frozenset({1, 3})),
        (0.1 + 0.2, 0.3), (math.nan, math.nan),
    ],
)  # fmt: skip
def test_values_that_count_as_equal_have_one_fingerprint(left, right):
    assert probes.fingerprint([left]) == probes.fingerprint([right])


@pytest.mark.parametrize(
    ("left", "right"), [(1, "1"), ([1], (1,)), ([], {}), (None, ""), (10**400, 10**400 + 1)]
)
def test_values_that_differ_have_different_fingerprints(left, right):
    assert probes.fingerprint(left) != probes.fingerprint(right)
    assert probes.fingerprint(10**6000).startswith("0x")


def test_errors_and_one_constant_tell_nothing_and_agreement_is_the_share_of_equal_outputs():
    assert not probes.is_telling((probes.FAILED, probes.FAILED))
    assert not probes.is_telling((probes.FAILED, "1", "1"))
    assert probes.is_telling((probes.FAILED, "1", "2"))
    assert probes.agreement(("1", "2", "3", "4"), ("1", "2", "0", "4")) == 0.75
