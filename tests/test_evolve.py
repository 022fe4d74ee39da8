"""Evolution: nothing lost, families traceable, independent of processes and order."""

from collections import Counter

import pytest
from conftest import LIMITS

from rrtf.evolve import offline
from rrtf.nano import problems
from rrtf.records import Problem

WEIGHTS = {"constrain": 3, "specialise": 3, "deepen": 3, "misdirect": 1, "tighten": 1}


@pytest.fixture(scope="module")
def seeds():
    return problems.build("finetune", 40, shard_size=40, workers=2)[0]


def evolve(seeds, **options):
    how = {"weights": WEIGHTS, "isolation": LIMITS.isolation, "seed": 0, "rounds": 1, "workers": 1}
    return offline.evolve_problems(seeds, **how | options)


@pytest.fixture(scope="module")
def grown(seeds):
    return evolve(seeds, rounds=2, seed=1, workers=2)


def test_attempts_are_evolved_or_dropped_with_a_reason(seeds, grown):
    evolved, dropped = grown
    first = [problem for problem in evolved if problem.depth == 1]
    assert len(seeds) + len(first) == len(evolved) + sum(dropped.values())


def test_every_child_knows_its_parent_and_its_round(seeds, grown):
    known = {problem.task_id: problem for problem in [*seeds, *grown[0]]}
    for problem in grown[0]:
        line = offline.lineage(problem, known)
        assert [p.depth for p in line] == list(range(problem.depth + 1))
    assert max(Counter(p.task_id for p in grown[0]).values()) == 1


def test_an_orphan_is_named():
    orphan = Problem("child", "", "f", "", parent_id="gone")
    with pytest.raises(ValueError, match="child: its parent gone is missing"):
        offline.lineage(orphan, {})


def test_evolution_does_not_depend_on_processes_or_on_the_order_of_seeds(seeds, grown):
    other, _ = evolve(seeds[::-1], seed=1)
    first = {p.task_id: p for p in grown[0] if p.depth == 1}
    shared = {p.task_id: p for p in other if p.task_id in first}
    assert len(shared) >= len(first) - 2, "only which of two equal behaviours stays may differ"
    assert all(first[name] == problem for name, problem in shared.items())


def test_methods_are_drawn_with_their_weights():
    drawn = Counter(offline.draw_method(WEIGHTS, 0, f"t/{i}") for i in range(5500))
    assert abs(drawn["constrain"] - 1500) < 150
    assert abs(drawn["tighten"] - 500) < 100


def test_a_seed_without_specification_is_refused_by_name():
    with pytest.raises(ValueError, match="HumanEval/0: no specification"):
        evolve([Problem("HumanEval/0", "", "f", "")])


def test_an_unknown_method_is_refused_by_name(seeds):
    with pytest.raises(ValueError, match="shorten"):
        evolve(seeds, weights={"shorten": 1})


def test_a_users_problems_split_by_task_id_alone():
    rows = [Problem(f"mine/{i}", "", "f", "") for i in range(200)]
    whole = offline.split_problems(rows, seed=0)
    again = offline.split_problems(rows[::-1], seed=0)
    assert {k: {p.task_id for p in v} for k, v in whole.items()} == {
        k: {p.task_id for p in v} for k, v in again.items()
    }
    assert sum(map(len, whole.values())) == 200


def test_duplicate_ids_and_too_few_problems_are_refused():
    with pytest.raises(ValueError, match="duplicate task_id 'a'"):
        offline.split_problems([Problem("a", "", "f", "")] * 2, seed=0)
    with pytest.raises(ValueError, match="too few"):
        offline.split_problems([Problem("a", "", "f", "")], seed=0)


def test_more_seeds_than_the_world_has_is_refused():
    with pytest.raises(ValueError, match="has 1000 seeds"):
        offline.nano_world(5000, 2)
