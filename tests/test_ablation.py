"""The ablation: what was registered is what is run, and the ledger says it again."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
from conftest import execute

from rrtf import config, stats, store, train
from rrtf.ablation import registration, results, runs, sets
from rrtf.nano import grammar
from rrtf.nano.problems import build
from rrtf.records import Execution, Outcome, Problem, Response

C, R, F, P = Outcome
PLAN = registration.read()
ARMS = {arm.name: arm for arm in PLAN.arms}
TASKS = [f"t/{number}" for number in range(24)]


def answered(source, outcomes):
    """One response and verdict per (task, outcome), indices counted by task."""
    responses, executions, seen = [], [], {}
    for task_id, outcome in outcomes:
        index = seen[task_id] = seen.get(task_id, -1) + 1
        text = f"\n    return {source!r}, {index}"
        responses.append(Response(task_id, source, index, text, text))
        executions.append(Execution(task_id, source, index, outcome, "", 3, 12, "namespaces"))
    return sets.Answers(responses, executions)


STUDENT = answered(
    "student", [(t, o) for at, t in enumerate(TASKS) for o in (F, P if at % 3 else R, C)]
)
TEACHER = answered("teacher", [(t, P if at % 2 else R) for at, t in enumerate(TASKS)])


def groups_of(name, *, seed=1, prompts=12):
    problems = [Problem(task, "def f(x):\n", "f", "") for task in TASKS]
    plan, asked = replace(PLAN, prompts=prompts), dict.fromkeys(TASKS, "def f(x):")
    how = (plan, problems, asked, STUDENT, TEACHER)
    return sets.training_set(ARMS[name], *how, seed=seed)


def tasks(groups):
    return [group.task_id for group in groups]


def targets(groups):
    return {group.outcomes[group.sft_index] for group in groups}


def test_an_arm_learns_from_what_its_data_says():
    every = groups_of("unverified, imitation")
    kept, verified, wrong = (
        groups_of(f"{data}, imitation") for data in ("filtered", "verified", "wrong ones")
    )
    assert len(every) == 12 and targets(every) == {R, P}
    assert all(g.outcomes[0] >= g.outcomes[1] for g in kept) and set(tasks(kept)) < set(
        tasks(every)
    )
    assert targets(verified) == {P} and targets(wrong) == {R}
    assert sorted(tasks(verified) + tasks(wrong)) == sorted(tasks(every))
    refilled = groups_of("filtered, refilled, imitation")
    assert len(refilled) == 12 and all(g.outcomes[0] >= g.outcomes[1] for g in refilled)
    own = groups_of("own, imitation")
    assert targets(own) == {P} and {g.responses[0] for g in own} == {"\n    return 'student', 1"}


def test_objectives_are_compared_on_the_same_pairs_and_rrhf_on_their_prompts():
    imitated = groups_of("filtered, imitation")
    for objective in ("literal RRTF", "SimPO", "DPO", "ranking alone"):
        assert groups_of(f"filtered, {objective}") == imitated
    whole = groups_of("filtered, RRHF")
    assert tasks(whole) == tasks(imitated) and max(len(g.responses) for g in whole) == 4


def test_a_seed_draws_other_prompts_and_pairs():
    first, second = (groups_of("unverified, imitation", seed=seed) for seed in (1, 2))
    assert tasks(first) != tasks(second)
    both = {g.task_id: g for g in first}
    assert any(g != both[g.task_id] for g in second if g.task_id in both)


@pytest.fixture(scope="module")
def world():
    return build("finetune", 60, workers=1)[0]


def test_a_made_teacher_is_as_often_right_as_it_is_asked_to_be(world):
    for errors in registration.ERRORS:
        for accuracy in (20, 60, 100):
            answers = sets.made(world, errors=errors, accuracy=accuracy, seed=3)
            passed = [run.outcome == P for run in execute(world, answers, workers=1)]
            assert sum(passed) / len(passed) == pytest.approx(accuracy / 100, abs=0.12)


def test_systematic_errors_are_the_same_error_everywhere(world):
    wrong = sets.misread(world, 0.6, seed=3)
    answers = sets.made(world, errors="systematic", accuracy=40, seed=3)
    right = sets.made(world, errors="systematic", accuracy=100, seed=3)
    for problem, answer, other in zip(world, answers, right, strict=True):
        if answer.text != other.text:
            assert set(grammar.spec_of(problem).names) & set(wrong)
    assert sets.misread(world, 0.3, seed=3) != sets.misread(world, 0.3, seed=4)


def test_every_operation_is_misread_as_one_of_its_own_types():
    changed = 0
    for name, operation in grammar.operations().items():
        believed = sets.misreading(name)
        assert (believed.takes, believed.gives) == (operation.takes, operation.gives)
        changed += believed != operation
    assert changed > 0.9 * len(grammar.operations())


def test_fewer_assertions_are_among_more_of_them(world):
    distinct = next(p for p in world if len({*p.tests.splitlines()}) == 13)
    weak = [sets.weakened([distinct], n)[0] for n in (1, 2, 4, 12)]
    lines = [{*problem.tests.splitlines()} for problem in weak]
    assert [len(found) - 1 for found in lines] == [1, 2, 4, 12]
    assert lines[0] < lines[1] < lines[2] < lines[3]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"verified, imitation - unv', '"verify, imitation - unv', "'verify, imitation' is no arm"),
        ('data = ["own"]', 'data = ["owned"]', r"'owned' is not in \[data\]"),
        ('objectives = ["DPO", ', 'objectives = ["DPOO", ', r"'DPOO' is not in \[objectives\]"),
        ('filter = "must_fail"', 'filter = "fail"', "filter 'fail': expected one of none"),
        (
            'errors = ["random"]',
            'errors = ["rand"]',
            "errors 'rand': expected systematic",
        ),
        ("bases = [", "basis = [", "block of 'bases': unknown 'basis'"),
        ('data = ["own", "wrong ones"]', 'data = ["own", "verified"]', "comes twice"),
    ],
)
def test_a_registration_that_contradicts_itself_is_refused(tmp_path, old, new, message):
    text = registration.place().read_text()
    assert old in text
    wrong = tmp_path / "ablation.toml"
    wrong.write_text(text.replace(old, new, 1))
    with pytest.raises(ValueError, match=message):
        registration.read(wrong)


def test_every_objective_is_a_recipe_and_every_arm_has_rates():
    for arm in PLAN.arms:
        for rate in PLAN.rates(arm):
            train.check(runs.recipe(arm, PLAN, rate=rate, seed=0))


def test_marks_survive_packing():
    for bits in ([], [1], [0, 1, 1, 0], [1, 0, 1, 1, 0, 1, 1]):
        assert runs.unpacked(runs.packed(bits), len(bits)) == bits
    with pytest.raises(ValueError, match="1 digits for 9 problems"):
        runs.unpacked("f", 9)


def line(arm, seed, rate, validated, solved=()):
    return runs.Line(
        "ingredients", arm, seed, rate, 10, 0, 1.0, len(validated), runs.packed(validated),
        len(solved), runs.packed(solved), "", f"{arm}{seed}{rate}",
    )  # fmt: skip


def test_the_rate_is_the_one_with_most_validation_problems_and_of_equal_ones_the_smallest():
    tried = [
        line("a", 0, rate, marks)
        for rate, marks in ((1e-3, [1, 1]), (1e-4, [1, 1]), (1e-5, [1, 0]))
    ]
    assert runs.chosen(tried).learning_rate == 1e-4


@pytest.fixture
def bench(tmp_path, monkeypatch):
    """A bench whose units are counted instead of run."""
    made = []

    def unit(bench, job):
        arm, seed = job
        made.append(job)
        lines = [line(arm.name, seed, rate, [1, 0]) for rate in PLAN.rates(arm)]
        return [*lines[:-1], replace(lines[-1], n_test=4, solved=runs.packed([1, 1, 0, 0]))]

    def anchors(bench, seed):
        return [line(name, seed, 0.0, [], [1, 0, 0, 0]) for name in registration.ANCHORS]

    monkeypatch.setattr(runs, "unit", unit)
    monkeypatch.setattr(runs, "student", lambda *_: None)
    monkeypatch.setattr(runs, "anchors", anchors)
    monkeypatch.setattr(runs, "key_of", lambda arm, seed, rate, _: f"{arm.name}{seed}{rate}")
    return SimpleNamespace(plan=PLAN, bases={}), tmp_path / "ablation.jsonl", made


def test_what_the_ledger_holds_is_not_run_again_and_an_interruption_keeps_the_rest(
    bench, monkeypatch
):
    where, ledger, made = bench
    jobs = runs.jobs(PLAN, ["ingredients"])[:3]
    real = runs.unit

    def stop(bench, job):
        if len(made) == 2:
            raise KeyboardInterrupt
        return real(bench, job)

    monkeypatch.setattr(runs, "unit", stop)
    with pytest.raises(KeyboardInterrupt):
        runs.carry_out(jobs, where, workers=1, ledger=ledger)
    monkeypatch.setattr(runs, "unit", real)
    lines = runs.carry_out(jobs, where, workers=1, ledger=ledger)
    assert made == jobs and sorted(runs.read(ledger), key=str) == sorted(lines, key=str)
    assert runs.carry_out(jobs, where, workers=1, ledger=ledger) and len(made) == 3
    (arm, seed), *_ = jobs
    for other in (row for row in lines if (row.arm, row.seed) == (arm.name, seed)):
        store.write(ledger, [row if row != other else replace(row, key="") for row in lines])
        runs.carry_out(jobs, where, workers=1, ledger=ledger)
        assert made.pop() == jobs[0], "a line of what is no longer asked is made again"


def test_every_registered_unit_is_a_job_once_and_what_is_missing_is_said():
    studies = list(dict.fromkeys(arm.study for arm in PLAN.arms))
    jobs = []
    for world in ("nano", "second"):
        with grammar.living_in(world):
            jobs += runs.jobs(PLAN, studies)
    assert len({(arm.name, seed) for arm, seed in jobs}) == len(jobs)
    assert len(jobs) == sum(arm.seeds for arm in PLAN.arms)
    left = results.missing(PLAN, [line(jobs[0][0].name, 0, 1.0, [1], [1])])
    assert sum(left.values()) == len(jobs) - 1


PROBLEMS = [Problem(f"h/{n}", "def f(x):\n", "f", "") for n in range(40)]
GOOD, BAD = [1] * 30 + [0] * 10, [1] * 10 + [0] * 30


def test_a_question_is_answered_by_the_marks_of_the_seeds_that_both_arms_have():
    lines = [line("filtered, DPO", seed, 1e-5, [1], GOOD) for seed in range(2)]
    lines += [line("filtered, literal RRTF", seed, 1e-4, [1], BAD) for seed in range(5)]
    few = results.scores(lines, PROBLEMS, family=grammar.family)
    assert results.answered(PLAN, few, seed=1) == {}, "a registered seed is missing"
    lines = [line("filtered, DPO", seed, 1e-5, [1], GOOD) for seed in range(3)]
    lines += [
        line("filtered, literal RRTF", s, 1e-4, [1], BAD if s < 3 else GOOD) for s in range(5)
    ]
    rows = results.scores(lines, PROBLEMS, family=grammar.family)
    (question, only), *more = results.answered(PLAN, rows, seed=1).items()
    assert not more and PLAN.questions[question] == "filtered, DPO - filtered, literal RRTF"
    assert (only.difference, only.n_seeds_a, only.n_seeds_b) == (0.5, 3, 3)
    with pytest.raises(ValueError, match="arm 'filtered, DPO', seed 0: 40 problems, expected 39"):
        results.scores(lines, PROBLEMS[1:], family=grammar.family)


def test_a_row_without_training_is_compared_with_every_seed():
    lines = [line("wrong ones, imitation", seed, 1e-5, [1], BAD) for seed in range(5)]
    rows = results.scores([*lines, line("base", 0, 0.0, [], GOOD)], PROBLEMS, family=grammar.family)
    (only,) = results.answered(PLAN, rows, seed=1).values()
    assert (only.difference, only.n_seeds_a, only.n_seeds_b) == (-0.5, 5, 1)


def test_a_table_says_which_rates_were_chosen_and_what_was_not_run():
    lines = [line("verified, imitation", seed, 3e-4, [1], GOOD) for seed in range(5)]
    rows = results.scores(lines, PROBLEMS, family=grammar.family)
    first, *rest = results.arm_rows(PLAN, lines, rows, "ingredients")
    assert first["arm"] == "verified, imitation" and first["pass@1, %"].startswith("75.0 [")
    assert (first["chosen rates"], first["at an edge"], first["seeds"]) == ("0.0003", "mostly", 5)
    assert {row["seeds"] for row in rest} == {"not run"}


def test_the_curve_is_over_the_validation_problems_of_all_seeds():
    lines = [line("a", 0, 1e-5, [1, 0]), line("a", 1, 1e-5, [1, 1]), line("a", 0, 1e-4, [0, 0])]
    assert [row["pass@1"] for row in results.curves(lines, ["a"])] == [0.75, 0.0]


def test_two_lines_cross_where_their_difference_is_zero_and_the_interval_says_how_surely():
    def mean(share):
        return [int(at < share * 40) for at in range(40)]

    shares = {20: (0.2, 0.6), 60: (0.6, 0.6), 100: (1.0, 0.6)}
    lines = [
        line(f"systematic {place} %, unverified, {name}", seed, 1e-5, [1], mean(share))
        for place, both in shares.items()
        for name, share in zip(("imitation", "SimPO"), both, strict=True)
        for seed in range(3)
    ]
    rows = results.scores(lines, PROBLEMS, family=grammar.family)
    kinds = ("unverified, imitation", "unverified, SimPO")
    found, at, span = results.crossing(PLAN, rows, *kinds, errors="systematic", seed=1)
    assert [round(row.difference, 6) for row in found.values()] == [-0.4, 0.0, 0.4] and at == 60
    assert span[0] < 60 < span[1]
    told = results.overtaking((found, at, span))
    assert "equal where the teacher is 60 % right (" in told and "-40.0 [" in told
    none = results.crossing(PLAN, rows, *kinds, errors="random", seed=1)
    assert results.overtaking(none) == "not run"
    by = results.along(PLAN, rows, "accuracy", errors="systematic", tests=12)
    assert isinstance(by["unverified, SimPO"][60], stats.Estimate)


def test_a_made_teacher_is_learnt_from_at_the_neighbouring_rates_chosen_most_often():
    def chosen(*counts):
        return [
            line("filtered, SimPO", seed, rate, [1], [1])
            for rate, count in zip((1e-5, 3e-5, 1e-4), counts, strict=True)
            for seed in range(count)
        ]

    assert results.neighbours(PLAN, chosen(1, 3, 2), "filtered, SimPO") == (3e-5, 1e-4)
    assert results.neighbours(PLAN, chosen(2, 3, 2), "filtered, SimPO") == (1e-5, 3e-5)
    assert results.neighbours(PLAN, chosen(2, 3, 2), "verified, SimPO") is None
    ledger = store.read(config.home() / "data" / "ablation_bfloat16.jsonl", runs.Line)
    for name, rates in PLAN.teachers["rates"].items():
        assert results.neighbours(PLAN, ledger, name) == tuple(rates), name
    asked = {f"{arm.data}, {arm.objective}" for arm in PLAN.arms if arm.study == "teachers"}
    assert {*PLAN.teachers["rates"]} in ({*asked}, set()), "all of them, or none before study 1"


def test_a_start_model_is_compared_with_itself_and_on_the_problems_of_its_world():
    arms = {
        "1M, verified, imitation": GOOD, "1M, unverified, imitation": BAD,
        "verified, imitation": GOOD, "unverified, imitation": GOOD,
        "second, systematic 60 %, verified, imitation": BAD, "second, as it is": BAD,
        "second, systematic 60 %, unverified, imitation": GOOD, "base": BAD,
    }  # fmt: skip
    lines = [line(name, seed, 1e-4, [1], marks) for name, marks in arms.items() for seed in (0, 1)]
    rows = []
    for world in ("nano", "second"):
        with grammar.living_in(world):
            here = runs.of_world(PLAN, lines)
            assert {row.arm for row in here} == {
                n for n in arms if ("second" in n) == (world != "nano")
            }
            problems = [replace(p, task_id=f"{world}/{p.task_id}") for p in PROBLEMS]
            rows += results.scores(here, problems, family=grammar.family)
    found = results.across(PLAN, rows, seed=1)
    ((contrast, by_base),) = found.items()
    assert contrast == "verified, imitation - unverified, imitation"
    told = {base: (row.difference, row.n_tasks) for base, row in by_base.items()}
    assert told == {"nano-student": (0.0, 40), "1M": (0.5, 40), "second": (-0.5, 40)}


def test_the_map_has_the_order_of_the_registration():
    names = ("verified, DPO", "verified, imitation", "unverified, SimPO")
    lines = [line(name, seed, 1e-5, [1], GOOD) for name in names for seed in range(2)]
    rows = results.scores(lines, PROBLEMS, family=grammar.family)
    found = results.by_kind(PLAN, rows)
    assert [*found] == ["unverified", "verified"]
    assert [*found["verified"]] == ["imitation", "DPO"]
    assert found["verified"]["DPO"].value == 0.75


def test_every_line_of_the_ledger_belongs_to_a_registered_arm_and_rate():
    files = sorted((config.home() / "data").glob("ablation*.jsonl"))
    assert len(files) == 2, "what was measured in bfloat16, and in the precision of the weights"
    for found in (line for file in files for line in store.read(file, runs.Line)):
        if found.learning_rate:
            arm = ARMS[found.arm]
            assert found.learning_rate in PLAN.rates(arm) and found.seed < arm.seeds
        else:
            bare = map(registration.as_it_is, PLAN.bases)
            assert found.arm in (*registration.ANCHORS, *bare)
        assert len(runs.unpacked(found.validated, found.n_validation)) == found.n_validation
        assert len(runs.unpacked(found.solved, found.n_test)) == found.n_test


def test_arms_of_both_precisions_stand_beside_each_other_on_the_seeds_of_both():
    exact = [line("filtered, DPO", seed, 1e-5, [1], GOOD) for seed in (0, 1)]
    half = [line("filtered, DPO", seed, 1e-5, [1], GOOD if seed > 1 else BAD) for seed in range(4)]
    half += [line("filtered, RRHF", seed, 1e-5, [1], BAD) for seed in (0, 1)]
    sides = [results.scores(one, PROBLEMS, family=grammar.family) for one in (exact, half)]
    (row,) = results.beside(PLAN, *sides)
    assert (row["arm"], row["seeds"], row["taken back"]) == ("filtered, DPO", 2, "-50.0")
    assert row["in float32"].startswith("75.0 [")
    assert row["rounded to bfloat16"].startswith("25.0 [")


def test_the_questions_stand_in_both_precisions_on_the_seeds_of_both():
    question, contrast = next(iter(PLAN.questions.items()))
    a, b = contrast.split(" - ")
    exact = [line(a, seed, 1e-5, [1], GOOD) for seed in (0, 1)]
    exact += [line(b, seed, 1e-5, [1], BAD) for seed in (0, 1)]
    half = [line(name, seed, 1e-5, [1], GOOD) for name in (a, b) for seed in range(4)]
    sides = [results.scores(one, PROBLEMS, family=grammar.family) for one in (exact, half)]
    (row,) = results.answered_beside(PLAN, *sides, seed=0)
    assert (row["question"], row["seeds"]) == (question, 2)
    assert row["in float32"].startswith("+50.0 [")
    assert "0.0 [" in row["rounded to bfloat16"]
    assert results.answered_beside(PLAN, sides[0][:1], sides[1], seed=0) == []
    question, contrast = next((q, c) for q, c in PLAN.questions.items() if c.endswith(" - base"))
    base = [line("base", 0, 0.0, [], BAD)]
    more = [line(contrast.removesuffix(" - base"), seed, 1e-5, [1], GOOD) for seed in (0, 1)]
    alone = results.scores(base + more, PROBLEMS, family=grammar.family)
    assert results.answered_beside(PLAN, alone, alone, seed=0)[0]["seeds"] == 2, "base has none"
