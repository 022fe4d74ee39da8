"""The small world: correct solutions, splits by behaviour, evolutions that mean what they say."""

import random

import pytest
from conftest import LIMITS

from rrtf.nano import evolution, grammar, problems, wording
from rrtf.records import Problem

WORLDS = ("nano", "second")


@pytest.fixture(scope="module")
def world():
    return problems.world(workers=2)


def accepts(problem: Problem, body: str) -> str:
    """The error of `body` against the problem's tests; '' if it passes."""
    namespace: dict = {}
    try:
        exec(problem.prompt + body + problem.tests, namespace)
        namespace["check"](namespace[problem.entry_point])
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def argument_of(problem: Problem) -> str:
    return problem.prompt.partition("(")[2].partition(")")[0]


def test_the_grammar_is_as_large_and_as_varied_as_promised():
    table = grammar.operations()
    worded = [op for op in table.values() if len(op.verbs) + len(op.nouns) >= 3]
    styled = [op for op in table.values() if len(op.expressions) + len(op.blocks) >= 2]
    assert len(table) >= 60
    assert {op.takes for op in table.values()} == set(grammar.vocabulary()["start"])
    assert len(worded) > 0.9 * len(table)
    assert len(styled) > 0.9 * len(table)
    with grammar.living_in("second"):
        assert len(grammar.operations()) > 90 and not set(table) & set(grammar.operations())
    assert set(grammar.operations()) == set(table), "no operation belongs to both worlds"


@pytest.mark.parametrize("place", WORLDS)
def test_every_style_of_solution_passes_the_problems_tests(place):
    rng = random.Random(0)
    with grammar.living_in(place):
        failures = [
            (problem.task_id, style, error)
            for problem in problems.build("validation", 60, workers=1)[0]
            for style in (*wording.STYLES, wording.CANONICAL)
            if (error := accepts(problem, wording.solution(
                grammar.parse_spec(problem.spec), argument_of(problem), style, rng)))
        ]  # fmt: skip
    assert failures == []


def outputs(template: str, choice, inputs) -> list:
    """What a solution text of one operation computes, as `{o} = ...` or as a block."""
    body = grammar.fill(template, choice).replace("@", "x").replace("{v}", "given")
    body = body.replace("{o}", "out").replace("\n", "\n    ")
    namespace: dict = {}
    exec(f"def f(given):\n    {body}\n    return out", namespace)
    return [namespace["f"](value) for value in inputs]


VALUES = {"place": [(0, 0), (1, -2), (-3, 4), (7, 7)]}  # a type that no problem begins with


@pytest.mark.parametrize("place", WORLDS)
def test_every_solution_of_every_operation_computes_the_same_function(place):
    with grammar.living_in(place):
        for operation in grammar.operations().values():
            texts = [*[f"{{o}} = {e}" for e in operation.expressions], *operation.blocks]
            for choice in operation.choices:
                inputs = VALUES.get(operation.takes) or problems.probes(operation.takes)
                found = [outputs(text, choice, inputs) for text in texts]
                assert all(values == found[0] for values in found), (operation.name, choice)


def test_references_pass_and_sizes_are_as_promised(world):
    assert {name: len(rows) for name, (rows, _) in world.items()} == grammar.vocabulary()["sizes"]
    for rows, _ in world.values():
        assert all(accepts(problem, problem.reference) == "" for problem in rows[:60])


def test_no_two_splits_share_a_behaviour(world):
    behaviours = {name: set(keys) for name, (_, keys) in world.items()}
    for name, keys in behaviours.items():
        assert len(keys) == len(world[name][0]), "within a split every behaviour is distinct"
    assert behaviours["test"].isdisjoint(behaviours["validation"] | behaviours["finetune"])
    assert behaviours["validation"].isdisjoint(behaviours["finetune"])
    again = ("ints", "reverse", "sort", "reverse")  # what computes one function is in one split
    assert problems.split_of(("ints", "sort", "reverse")) == problems.split_of(again)
    assert problems.split_of(("ints", "sort")) == "pretrain"


def test_the_world_does_not_depend_on_the_number_of_processes(world):
    rows, keys, _ = problems.build("test", 40, workers=1, shard_size=20)
    again, same, _ = problems.build("test", 40, workers=2, shard_size=20)
    assert (rows, keys) == (again, same)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("ints: fly", "unknown operation 'fly'"), ("ints: ", "unknown operation"),
        ("nothing at all", "unknown operation"), ("ints: sum > sum", "do not fit together"),
        ("words: sort", "do not fit together"), ("import os: sort", "do not fit together"),
        ("ints: keep_above(k=99)", r"'keep_above\(k=99\)' is no choice.*keep_above\(k=-2\)"),
        ("ints: keep_above(k='3 + 0')", "is no choice of keep_above"),
        ("ints: keep_above(k=3, k='4')", "is no choice of keep_above"),
        ("ints: keep_above(k=3)x", "is no choice of keep_above"),
        ("ints: keep_above", "is no choice of keep_above"),
        ("ints: sort(k=1)", r"expected sort$"),
        ("ints: sort > keep_above(k=3 > sort)", "is no choice of keep_above"),
    ],
)  # fmt: skip
def test_a_specification_is_made_of_the_grammars_own_choices_and_of_nothing_else(text, told):
    with pytest.raises(ValueError, match=told):
        grammar.parse_spec(text)
    with pytest.raises(ValueError, match=f"nano/7: .*{told}"):
        grammar.spec_of(Problem("nano/7", "", "f", "", spec=text))


def test_a_reference_that_hangs_or_explodes_has_no_outputs_here_and_behind_the_fences():
    large = grammar.parse_spec("number: " + " > ".join(["number_square", "number_add(k=1)"] * 2))
    hang = grammar.parse_spec("number: number_square > number_multiply(k=9) > divisors")
    fine, failing = grammar.parse_spec("ints: sort > reverse"), grammar.parse_spec("ints: max")
    asked = [(large, [200]), (hang, [9000]), (fine, [[1, 3, 2], []]), (failing, [["a", 1]])]
    told = ["a value too large", "the reference fails: TimeLimit", [[3, 2, 1], []]]
    told += ["the reference fails: TypeError"]
    assert problems.fenced([asked], isolation=LIMITS.isolation, workers=1) == [told]
    for (spec, inputs), found in zip(asked, told, strict=True):
        if isinstance(found, str):
            with pytest.raises(grammar.Degenerate, match=found):
                problems.run(spec, inputs)
        else:
            assert problems.run(spec, inputs) == found


def test_behaviours_are_the_same_here_and_behind_the_fences(world):
    rows, keys = world["validation"]
    specs = [grammar.spec_of(problem) for problem in rows]
    assert [str(spec) for spec in specs] == [problem.spec for problem in rows]
    assert problems.behaviours(specs, isolation=LIMITS.isolation, workers=2) == keys


def test_blind_spots_change_what_they_name_and_nothing_else():
    believed, true = grammar.blind_spots(), grammar.operations()
    changed = {name for name in true if believed[name] != true[name]}
    assert 10 <= len(changed) <= 20
    for name in changed:
        choice, inputs = true[name].choices[-1], problems.probes(true[name].takes)
        wrong = outputs(f"{{o}} = {believed[name].expressions[0]}", choice, inputs)
        assert wrong != outputs(f"{{o}} = {true[name].expressions[0]}", choice, inputs), name


@pytest.fixture(scope="module")
def evolved(world):
    seeds = world["finetune"][0][:60]
    found = {}
    for method in evolution.METHODS:
        attempts = [(seed, method, f"e/{i}", i) for i, seed in enumerate(seeds)]
        made = evolution.evolve(attempts, isolation=LIMITS.isolation, workers=2)
        found[method] = [(seed, one.problem) for seed, one in zip(seeds, made, strict=True)]
    return found


def test_every_method_evolves_most_seeds_into_solvable_problems(evolved):
    for method, rows in evolved.items():
        found = [child for _, child in rows if child]
        assert len(found) > 0.3 * len(rows), method
        assert all(accepts(child, child.reference) == "" for child in found), method
        assert all(child.operator == method and child.depth == 1 for child in found)


def test_each_method_does_what_its_name_says(evolved):
    for method, rows in evolved.items():
        for parent, child in rows:
            if child is None:
                continue
            before = grammar.parse_spec(parent.spec).names
            after = grammar.parse_spec(child.spec).names
            if method == "deepen":
                assert after[: len(before)] == before and len(after) == len(before) + 1
            elif method == "constrain":
                assert len(after) == len(before) + 1
            elif method == "specialise":
                assert sum(a != b for a, b in zip(before, after, strict=True)) == 1
            else:
                assert after == before
            assert ("This code is wrong" in child.prompt) == (method == "misdirect")
            assert (wording.ONE_PASS in child.prompt) == (method == "tighten")


def test_a_family_is_a_composition_without_its_parameters():
    one = Problem("a", "", "f", "", spec="ints: take(k=2) > sum")
    two = Problem("b", "", "f", "", spec="ints: take(k=3) > sum")
    assert grammar.family(one) == grammar.family(two) == "ints > take > sum"
    assert grammar.family(Problem("HumanEval/3", "", "f", "")) == "HumanEval/3"
