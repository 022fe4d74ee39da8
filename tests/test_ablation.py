"""The ablation: what was registered is what is run, and the ledger says it again."""

import tomllib
from dataclasses import replace

import pytest
from conftest import LIMITS, execute

from rrtf import config, store, train
from rrtf.ablation import registration, results, runs, sets
from rrtf.evaluate.exam import Sat
from rrtf.nano import grammar
from rrtf.nano.problems import build
from rrtf.records import Execution, Outcome, Problem, Response, TaskScore

C, R, F, P = Outcome
PLAN = registration.read()
TASKS = [f"t/{number}" for number in range(12)]


def answered(source, outcomes):
    """One response and verdict per (task, outcome), indices counted by task."""
    responses, executions, seen = [], [], {}
    for task_id, outcome in outcomes:
        index = seen[task_id] = seen.get(task_id, -1) + 1
        text = f"\n    return {source!r}, {index}"
        responses.append(Response(task_id, source, index, text, text))
        executions.append(Execution(task_id, source, index, outcome, "", 3, 12, "namespaces"))
    return sets.Answers(responses, executions)


@pytest.fixture(scope="module")
def material():
    student = [(task, o) for at, task in enumerate(TASKS) for o in (F, P if at % 3 else R, C)]
    taught = [(task, P if at % 2 else R) for at, task in enumerate(TASKS)]
    teachers = dict.fromkeys(("blind_spots", "slips", "canonical", "varied"))
    problems = [Problem(task, "def f(x):\n", "f", "") for task in TASKS]
    return sets.Material(
        problems=problems,
        prompts=dict.fromkeys(TASKS, "def f(x):"),
        student=answered("student", student),
        teachers=dict.fromkeys(teachers, answered("teacher", taught)),
    )


def groups_of(name, material):
    return sets.training_set(PLAN.arms[name], material, seed=1)[0]


def test_every_registered_arm_has_a_training_set_and_a_rate(material):
    for arm in PLAN.arms.values():
        groups, _ = sets.training_set(arm, material, seed=1)
        assert groups and arm.family in PLAN.families, arm.name


def test_arms_that_are_compared_learn_from_the_same_prompts(material):
    def asked(name):
        return [group.task_id for group in groups_of(name, material)]

    assert asked("rrtf") == asked("sft-kept") == asked("placebo") == asked("dpo-sft")
    assert asked("rrhf") == asked("raft") == asked("pro")
    assert asked("sft-verified") == asked("rrtf-verified")
    assert len(asked("drop-random")) == len(asked("rrtf")) < len(asked("sft"))


def test_the_placebo_keeps_the_scores_and_loses_their_order(material):
    pairs = zip(groups_of("rrtf", material), groups_of("placebo", material), strict=True)
    moved = 0
    for real, placebo in pairs:
        assert real.responses == placebo.responses and real.sft_index == placebo.sft_index
        assert sorted(real.scores) == sorted(placebo.scores)
        moved += real.scores != placebo.scores
    assert moved > 0


def test_without_a_teacher_a_passing_sample_takes_its_place(material):
    groups = groups_of("sft, own", material)
    assert {g.task_id for g in groups} == {t for at, t in enumerate(TASKS) if at % 3}
    assert all(g.outcomes[g.sft_index] == P for g in groups)


def test_a_number_of_answers_is_drawn_and_the_teacher_stays(material):
    for group in groups_of("rrtf, K = 2", material):
        assert len(group.responses) <= 3 and group.sources[group.sft_index] == "teacher"


def test_equal_compute_means_as_many_tokens(material):
    made = {name: groups_of(name, material) for name in ("rrtf", "rrhf, equal compute")}
    sizes = {"rrtf": 100.0, "rrhf, equal compute": 250.0}
    arm = PLAN.arms["rrhf, equal compute"]
    how = {"n_groups": len(made[arm.name]), "sizes": sizes, "rate": 1e-5, "seed": 0}
    assert runs.recipe(PLAN, arm, **how).updates * 250 == PLAN.updates * 100


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"rrtf - sft-kept", ', '"rrtf - sft-keep", ', "'sft-keep' is no arm"),
        ('by = ["dpo"]', 'by = ["dpoo"]', "'dpoo' is no arm"),
        ('family = "dpo-sft"', 'family = "dpo-sfd"', "unknown family 'dpo-sfd'"),
        ('filter = "random"', 'filter = "chance"', "filter = 'chance': expected one of drop_below"),
        ('name = "raft"', 'name = "rrhf"', "'rrhf' comes twice"),
        ('against = "sft-kept"', 'against = "kept"', "names 'kept', which is no arm"),
    ],
)
def test_a_registration_that_contradicts_itself_is_refused(tmp_path, old, new, message):
    text = registration.place().read_text()
    assert old in text
    wrong = tmp_path / "ablation.toml"
    wrong.write_text(text.replace(old, new, 1))
    with pytest.raises(ValueError, match=message):
        registration.read(wrong)


def test_the_registration_has_no_key_that_nothing_reads():
    table = tomllib.loads(registration.place().read_text())
    known = {*runs.DECISIVE, "max_responses"}
    known |= {"name", "tier", "what", "against", "epochs", "rounds", "method", *table["defaults"]}
    assert {key for arm in table["arm"] for key in arm} <= known


def test_solved_problems_survive_packing():
    for bits in ([], [1], [0, 1, 1, 0], [1, 0, 1, 1, 0, 1, 1]):
        assert runs.unpacked(runs.packed(bits), len(bits)) == bits
    with pytest.raises(ValueError, match="1 digits for 9 problems"):
        runs.unpacked("f", 9)


def tried(arm, rate, passed):
    return runs.Line(arm, runs.VALIDATION, 0, rate, 1, 1, 1, 1.0, 10, passed, "", "")


def test_the_learning_rate_is_the_one_at_which_the_compared_arms_do_best_together():
    family = registration.Family("imitation", (1e-5, 1e-4), ("sft", "rrtf"))
    plan = replace(PLAN, families={"imitation": family})
    rows = [tried("sft", 1e-5, 6), tried("rrtf", 1e-5, 4), tried("sft", 1e-4, 7)]
    assert runs.chosen_rates(plan, rows) == {}, "a run is missing"
    even = [*rows, tried("rrtf", 1e-4, 3)]
    assert runs.chosen_rates(plan, even) == {"imitation": 1e-5}
    assert runs.chosen_rates(plan, [*rows, tried("rrtf", 1e-4, 4)]) == {"imitation": 1e-4}


@pytest.fixture
def bench(tmp_path, material, monkeypatch):
    """carry_out with doubles: models are never made, and every model solves every other task."""
    problems = tuple(Problem(f"h/{n}", "def f(x):\n", "f", "") for n in range(10))
    made = []

    def sit(exam, entries):
        rows = [
            TaskScore(e.method, exam.name, p.task_id, 1, at % 2, e.seed)
            for e in entries
            for at, p in enumerate(exam.problems)
        ]
        return Sat(exam, (), (), tuple(rows))

    model = tmp_path / "model"
    store.write_json(model / "config.json", {})
    how = {"exams": runs.exams(problems, problems, LIMITS), "make": made.extend, "sit": sit}
    how |= {"model": model, "folder": tmp_path, "ledger": tmp_path / "ablation.jsonl"}
    how |= {"run_missing": True}
    monkeypatch.setattr(runs, "WAVE", 2)
    plan = replace(PLAN, families={"dpo": PLAN.families["dpo"]})
    groups = {"dpo": groups_of("dpo", material)}
    return runs.grid(plan, groups, {"dpo": 100.0}, tiers=("A", "B", "C")), how, made


def test_every_round_goes_on_from_the_model_before_on_answers_drawn_anew(
    bench, material, tmp_path, monkeypatch
):
    (trial, *_), _, _ = bench
    trial = replace(trial, arm=replace(trial.arm, rounds=3))
    trained, asked = [], []

    def ask(*, model, number):
        asked.append((model, number))
        return material.student.responses[:-3], material.student.executions[:-3]

    monkeypatch.setattr(train, "train_all", lambda runs, **_: trained.extend(runs))
    where = {"model": tmp_path / "base", "folder": tmp_path, "workers": 1}
    runs.in_rounds([trial], material=material, ask=ask, seed=1, **where)
    folders = [tmp_path / run.folder for run in trained]
    assert [run.model for run in trained] == [str(f) for f in (where["model"], *folders[:2])]
    assert asked == [(folders[0], 2), (folders[1], 3)]
    assert folders[2] == tmp_path / trial.run.folder, "the last model lies where a plain one would"
    assert trained[0].groups == trial.run.groups != trained[1].groups
    assert len({run.recipe.seed for run in trained}) == 3


def test_a_run_that_the_ledger_holds_is_not_made_again(bench):
    trials, how, made = bench
    first = runs.carry_out(trials, **how)
    assert made == trials and len({row.key for row in first}) == len(trials)
    assert [row.learning_rate for row in first] == list(PLAN.families["dpo"].rates)
    assert all(row.passed == 5 and runs.unpacked(row.solved, 10) == [0, 1] * 5 for row in first)
    assert runs.carry_out(trials, **how) == first and len(made) == len(trials)


def test_an_interrupted_ablation_goes_on_after_the_last_whole_wave(bench):
    trials, how, made = bench

    def stop(some):
        if made:
            raise KeyboardInterrupt
        made.extend(some)

    with pytest.raises(KeyboardInterrupt):
        runs.carry_out(trials, **how | {"make": stop})
    assert len(runs.read(how["ledger"])) == 2
    left = runs.carry_out(trials, **how | {"run_missing": False})
    assert len(left) == 2 and len(made) == 2
    assert len(runs.carry_out(trials, **how)) == len(trials)
    assert [trial.run.name for trial in made] == [trial.run.name for trial in trials]


def test_another_training_set_or_option_is_another_line(bench):
    (trial, *_), how, _ = bench
    problems = how["exams"]["validation"].problems
    key = runs.key_of(trial, "base", problems)
    fewer = replace(trial, run=replace(trial.run, groups=trial.run.groups[1:]))
    own = trial.run.recipe
    other = replace(trial, run=replace(trial.run, recipe=replace(own, beta=0.3)))
    same = replace(trial, run=replace(trial.run, recipe=replace(own, threads=2)))
    assert key not in {runs.key_of(t, "base", problems) for t in (fewer, other)}
    assert key != runs.key_of(trial, "another base", problems)
    assert key == runs.key_of(same, "base", problems)


def test_what_is_not_finished_is_called_so_and_holds_nothing_else_up():
    rows = [tried("dpo", rate, 5) for rate in PLAN.families["dpo"].rates]
    rates = runs.chosen_rates(PLAN, rows)
    assert rates == {"dpo": min(PLAN.families["dpo"].rates)}
    table = {row["family"]: row for row in results.rate_rows(PLAN, rows, rates)}
    assert table["dpo"]["at the edge"] == "yes" and table["dpo"]["chosen"] == f"{rates['dpo']:g}"
    assert (table["groups"]["chosen"], table["groups"]["pass@1 by rate"]) == ("not yet", "not run")


def finished(arm, seed, solved):
    packed = runs.packed(solved)
    how = (1e-5, 150, 10, 20, 1000.0, len(solved), sum(solved), packed, f"{arm}{seed}")
    return runs.Line(arm, runs.HELD_OUT, seed, *how)


def test_the_contrasts_are_those_of_the_lines_and_what_is_missing_is_said():
    problems = [Problem(f"h/{n}", "def f(x):\n", "f", "") for n in range(40)]
    better, worse = [1] * 30 + [0] * 10, [1] * 10 + [0] * 30
    lines = [finished("rrtf", s, better) for s in range(5)]
    lines += [finished("sft-kept", s, worse) for s in range(5)]
    rows = results.scores(lines, problems, family=grammar.family)
    (only,) = results.primary(PLAN, rows, seed=1)
    assert (only.a, only.b, only.difference) == ("rrtf", "sft-kept", 0.5)
    left = results.missing(PLAN, lines)
    assert "rrtf" not in left and left["dpo"] == PLAN.seeds["A"] and left["pro"] == PLAN.seeds["B"]
    table = results.arm_rows(PLAN, lines, rows, {}, "A")
    shown = {row["arm"]: row["pass@1, %"] for row in table}
    assert shown["rrtf"].startswith("75.0 [") and shown["dpo"] == "not run"
    with pytest.raises(ValueError, match="arm 'rrtf', seed 0: 40 problems, expected 39"):
        results.scores(lines, problems[1:], family=grammar.family)
    wrong = [replace(lines[0], passed=7)]
    with pytest.raises(ValueError, match="7 passed, but 30 are marked"):
        results.scores(wrong, problems, family=grammar.family)


def test_the_cost_of_rounds_is_that_of_all_and_online_rl_has_no_targets_of_its_own():
    problems = [Problem(f"h/{n}", "def f(x):\n", "f", "") for n in range(4)]
    lines = [finished(arm, s, [1, 0, 1, 0]) for arm in ("rrtf, 2 rounds", "grpo") for s in range(3)]
    rows = results.scores(lines, problems, family=grammar.family)
    table = {row["arm"]: row for row in results.arm_rows(PLAN, lines, rows, {}, "C")}
    cost = ("updates", "million tokens", "targets that fail")
    assert [table["rrtf, 2 rounds"][name] for name in cost] == [300, 0.3, 0]
    assert [table["grpo"][name] for name in cost] == [150, None, None]


def test_an_oracle_answers_right_in_its_style():
    problems = build("finetune", 6, workers=1)[0]
    canonical = sets.oracle(problems, "canonical")
    varied = sets.oracle(problems, "varied")
    assert [a.text for a in canonical] != [b.text for b in varied]

    verdicts = execute(problems, [*canonical, *varied], workers=1)
    assert all(run.outcome == P for run in verdicts)


def test_the_kept_answers_are_those_that_the_finished_runs_learnt_from():
    ledger = store.read(config.home() / "data" / "ablation.jsonl", runs.Line)
    path = sets.answers_file()
    tasks = dict.fromkeys(row["task_id"] for _, row in store.read_rows(path))
    problems = [Problem(task, "def f(x):\n", "f", "") for task in tasks]
    answers = sets.given(path, problems)
    kept = sets.Material(problems, dict.fromkeys(tasks, "def f(x):"), answers["student"], answers)
    for name in ("sft", "rrtf", "sft-verified", "dpo", "rrtf, slips", "sft, own"):
        groups, _ = sets.training_set(PLAN.arms[name], kept, seed=20230727)
        found = {(line.prompts, line.responses) for line in ledger if line.arm == name}
        assert found == {(len(groups), sum(len(g.responses) for g in groups))}, name


def test_an_answer_to_no_problem_of_the_run_is_named_by_its_line():
    with pytest.raises(ValueError, match=r"ablation_answers.jsonl.gz:1: nano/.* not among"):
        sets.given(sets.answers_file(), [])
