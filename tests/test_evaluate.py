"""Scores, results and comparisons against counts that can be checked by hand."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from conftest import DECODING, LIMITS

from rrtf import stats
from rrtf.cli import evaluate as evaluate_verb
from rrtf.cli.options import Given
from rrtf.engines import Note
from rrtf.evaluate import exam as evaluate_exam
from rrtf.evaluate import results
from rrtf.evaluate.entries import entrants
from rrtf.evaluate.exam import Contender, contenders, responses_of
from rrtf.evaluate.results import PARTS, Comparison
from rrtf.records import Execution, Outcome, Problem, Response, TaskScore
from rrtf.sample import Author
from rrtf.stats import Metric

GREEDY, SAMPLED = Metric(1, 0.0), Metric(10, 0.8)


def problem(name, spec=""):
    return Problem(name, "def f(x):\n", "f", "def check(candidate):\n    pass\n", spec=spec)


def execution(task, source, index, passed):
    outcome = Outcome.PASS if passed else Outcome.FAILED_TESTS
    return Execution(task, source, index, outcome, "", int(passed), 1, "process")


def task_scores(method, rows, *, temperature=0.0, n=1, family=str):
    """Scores of one method: `rows[seed][task]` passing samples of n."""
    return [
        TaskScore(method, "toy", f"t/{t:03}", n, int(c), seed, temperature, family(t))
        for seed, row in enumerate(rows)
        for t, c in enumerate(row)
    ]


def answer(problems, author, *, n_samples, decodings):
    """A sampler's double; module-level, because other processes import it by name."""
    (warmth,) = [decoding.temperature for decoding in decodings]
    text = f"{author.model} {warmth}"
    return [
        Response(p.task_id, author.source, i, text, "", temperature=warmth)
        for p in problems
        for i in range(n_samples)
    ]


def refuse(problems, author, **options):
    raise ValueError("no such model")


AUTHOR = partial(Author, engine="double", prompt_format="starcoder")
GREEDILY, WARMLY = (replace(DECODING, temperature=t) for t in (0.0, 0.8))


def comparison(**changes):
    row = Comparison(
        a="rrtf", b="sft", benchmark="toy", metric="pass@1 greedy", difference=0.04,
        low=0.02, high=0.06, p=0.001, test="t", p_holm=0.003, p_tasks=0.001, p_equivalence=0.97,
        margin=0.02, detectable=0.03, n_tasks=600, n_families=590, n_seeds_a=3, n_seeds_b=3,
        table="primary",
    )  # fmt: skip
    return replace(row, **changes)


def test_a_label_and_its_parts_are_inverse():
    for parts in [("rrtf", 2, 0.8), ("sft-kept", 0, 0.0), ("base", 12, 1.0)]:
        assert stats.parse_label(stats.label(*parts)) == parts
    assert stats.label("rrtf", 2, 0.8) == "rrtf/2@0.8"


@pytest.mark.parametrize("source", ["student", "rrtf@0", "rrtf/x@0", "/1@0", "rrtf/1@hot"])
def test_a_source_without_seed_and_temperature_is_refused(source):
    with pytest.raises(ValueError, match="expected method/seed@temperature"):
        stats.parse_label(source)


def test_the_base_and_the_teachers_stand_before_the_trained_runs():
    runs = [Contender("rrtf", 1, "models/rrtf-1")]
    fixed = {"base": "student", "teachers": [], "formats": []}
    taught = fixed | {"teachers": [Author("oracle", "teacher", "double", "starcoder")]}
    found = contenders(runs, ["/x/models/rrtf-1"], **taught)
    assert [(c.method, c.seed, c.model) for c in found] == [
        ("base", 0, "student"), ("teacher", 0, "oracle"), ("rrtf", 1, "/x/models/rrtf-1"),
    ]  # fmt: skip
    order = [Contender("rrtf", 1, ""), Contender("sft", 1, ""), Contender("sft", 0, "")]
    found = contenders(order, ["a", "b", "c"], **fixed)
    assert [(c.method, c.seed) for c in found[1:]] == [("sft", 0), ("sft", 1), ("rrtf", 1)]
    without = contenders(runs, ["/x"], **fixed)
    assert [c.method for c in without] == ["base", "rrtf"]


def test_each_contender_is_asked_in_its_own_engine_and_format():
    runs, taught = [Contender("rrtf", 1, "")], Author("gpt", "teacher", "openai@http://x", "chat")
    fixed = {"base": "student", "teachers": [taught], "formats": ["base=pangu"]}
    found = contenders(runs, ["/x"], **fixed)
    asked = [one.author(AUTHOR, 0.8) for one in found]
    assert asked == [
        Author("student", "base/0@0.8", "double", "pangu"),
        Author("gpt", "teacher/0@0.8", "openai@http://x", "chat"),
        Author("/x", "rrtf/1@0.8", "double", "starcoder"),
    ]
    for formats, said in ((["base=parrot"], "expected NAME=FORMAT"), (["bass=chat"], "no such")):
        with pytest.raises(ValueError, match=said):
            contenders(runs, ["/x"], **fixed | {"formats": formats})


@pytest.mark.slow
def test_answers_come_in_order_whatever_the_number_of_processes():
    entries = [Contender("base", 0, "student"), Contender("rrtf", 1, "folder")]
    problems, told = [problem("t/0"), problem("t/1")], []
    how = dict(author=AUTHOR, draws=[(1, GREEDILY), (2, WARMLY)], sampler=answer)
    one, two = (
        responses_of(
            entries, problems, **how, processes=count,
            progress=lambda done, total: told.append((done, total)),
        )
        for count in (1, 2)
    )  # fmt: skip
    assert one == two and len(one) == 2 * 2 * 3
    assert list(dict.fromkeys(r.source for r in one)) == [
        "base/0@0", "base/0@0.8", "rrtf/1@0", "rrtf/1@0.8",
    ]  # fmt: skip
    assert told[-1] == (4, 4)


def answer_first(problems, author, **asked):
    return answer(problems[:1], author, **asked)


def test_a_prompt_that_a_contender_cannot_hold_counts_as_failed():
    how = dict(author=AUTHOR, draws=[(2, WARMLY)], sampler=answer_first, processes=1)
    entries, problems = [Contender("base", 0, "x")], [problem("t/0"), problem("t/1")]
    with pytest.warns(Note, match="base/0@0.8: 2 answers to prompts that leave no room"):
        found = responses_of(entries, problems, **how)
    assert [(r.task_id, r.index, bool(r.text)) for r in found] == [
        ("t/0", 0, True), ("t/0", 1, True), ("t/1", 0, False), ("t/1", 1, False),
    ]  # fmt: skip
    assert {(r.source, r.temperature) for r in found} == {("base/0@0.8", 0.8)}


def test_an_error_of_the_sampler_is_passed_on():
    how = dict(author=AUTHOR, draws=[(1, WARMLY)], sampler=refuse)
    for processes in (1, 2):
        with pytest.raises(ValueError, match="no such model"):
            responses_of([Contender("base", 0, "x")], [problem("t/0")], processes=processes, **how)


def test_scores_count_passing_answers_by_source_and_task():
    problems = [problem("t/0", "a"), problem("t/1", "b")]
    runs = [execution("t/0", "base/0@0.8", i, i < 2) for i in range(3)]
    runs += [execution("t/1", "base/0@0.8", i, False) for i in range(3)]
    found = evaluate_exam.score(problems, runs, benchmark="toy", family=lambda p: p.spec)
    assert found == [
        TaskScore("base", "toy", "t/0", 3, 2, 0, 0.8, "a"),
        TaskScore("base", "toy", "t/1", 3, 0, 0, 0.8, "b"),
    ]
    assert [row.family for row in evaluate_exam.score(problems, runs)] == ["t/0", "t/1"]


def test_scoring_names_what_is_unknown_double_or_missing():
    problems = [problem("t/0"), problem("t/1")]
    run = execution("t/0", "base/0@0", 0, True)
    with pytest.raises(ValueError, match="t/9: executed for base/0@0"):
        evaluate_exam.score(problems, [replace(run, task_id="t/9")])
    with pytest.raises(ValueError, match="t/0: answer 0 of base/0@0 comes twice"):
        evaluate_exam.score(problems, [run, run])
    with pytest.raises(ValueError, match="t/1: no answer of base/0@0"):
        evaluate_exam.score(problems, [run])


def test_a_grid_has_the_tasks_of_all_methods_in_one_order():
    scores = task_scores("rrtf", [[1, 0, 1], [0, 0, 1]])
    assert results.grid(scores[::-1], "rrtf", GREEDY) == {0: [1, 0, 1], 1: [0, 0, 1]}
    with pytest.raises(ValueError, match="sft: no scores for pass@1 greedy"):
        results.grid(scores, "sft", GREEDY)


def test_measured_metrics_are_greedy_pass_at_1_and_pass_at_the_number_of_samples():
    scores = task_scores("base", [[1]]) + task_scores("base", [[4]], temperature=0.8, n=10)
    assert results.measured(scores) == (GREEDY, SAMPLED)
    with pytest.raises(ValueError, match="no greedy or no sampled"):
        results.measured(scores[:1])


def test_a_sampled_rate_has_the_interval_of_stats_over_families():
    counts = np.random.default_rng(0).integers(0, 11, 60)
    scores = task_scores("base", [counts], temperature=0.8, n=10, family=lambda t: str(t // 2))
    (row,) = results.results(scores, [Metric(1, 0.8)])
    expected, how = stats.rate(counts / 10, [str(t // 2) for t in range(60)])
    assert (row.value, row.low, row.high) == (expected.value, expected.low, expected.high)
    assert row.interval == how and "families" in how
    (row,) = results.results(task_scores("base", [[1] * 40 + [0] * 60]), [GREEDY])
    assert (row.value, row.low) == (0.4, stats.wilson(40, 100).low)
    assert (row.seed, row.n_seeds, row.n_tasks, row.n_samples) == (0, 1, 100, 1)


@pytest.mark.parametrize("text", ["pass@1", "pass@0 T=1", "pass@10 greedy", "pass@1 T=warm", ""])
def test_a_measure_and_its_text_are_inverse_and_another_form_is_refused(text):
    for metric in (GREEDY, SAMPLED, Metric(100, 1.2)):
        assert stats.parse_metric(metric.name) == metric
    with pytest.raises(ValueError, match="expected 'pass@1 greedy'"):
        stats.parse_metric(text)


def test_every_temperature_is_drawn_once_as_the_paper_has_it():
    table = ["pass@1 greedy", "pass@1 T=0.2", "pass@10 T=1.2", "pass@100 T=1.2"]
    measures = [stats.parse_metric(text) for text in table]
    assert stats.draws(measures, 200) == [(1, 0.0), (200, 0.2), (200, 1.2)]
    with pytest.raises(ValueError, match=r"pass@100 T=1\.2 needs 100 answers"):
        stats.draws(measures, 20)


def test_exams_are_the_test_split_and_benchmarks_by_name(monkeypatch):
    monkeypatch.setattr(
        "rrtf.benchmarks.load", lambda name, since=None: [problem(f"{name} {since}")]
    )
    split = dict(test=[problem("t/0")], test_name="toy", limits=LIMITS, family=lambda p: p.spec)
    mine, plus = evaluate_exam.exams(["test", "humaneval+"], **split)
    assert (mine.name, mine.problems[0].task_id, mine.limits) == ("toy", "t/0", LIMITS)
    assert (plus.name, plus.problems[0].task_id) == ("humaneval+", "humaneval+ None")
    assert plus.limits == replace(LIMITS, cpu_seconds=60, wall_seconds=180)
    assert plus.file("responses") == "responses-humaneval+.jsonl"
    assert mine.family and plus.family is None
    (late,) = evaluate_exam.exams(["leetcode-v0.3-test since 2022-07-01"], **split)
    assert late.problems[0].task_id == "leetcode-v0.3-test 2022-07-01"
    assert late.file("responses") == "responses-leetcode-v0.3-test-since-2022-07-01.jsonl"
    with pytest.raises(ValueError, match="unknown benchmark 'humanevil'"):
        evaluate_exam.exams(["humanevil"], **split)
    for names in ([], ["test", "test"]):
        with pytest.raises(ValueError, match="at least one, each once"):
            evaluate_exam.exams(names, **split)


def test_an_exam_is_answered_executed_and_scored_under_its_own_limits():
    seen = []

    def judge(problems, responses, *, progress, limits):
        seen.append(limits)
        return [execution(r.task_id, r.source, r.index, r.temperature == 0) for r in responses]

    exam = evaluate_exam.Exam(
        "toy", (problem("t/0", "a"), problem("t/1", "b")), LIMITS, lambda p: p.spec
    )
    how = dict(author=AUTHOR, draws=[(1, GREEDILY), (3, WARMLY)], processes=1)
    how |= dict(sampler=answer, judge=judge)
    sat = evaluate_exam.sit(exam, [Contender("base", 0, "student")], **how)
    assert len(sat.responses) == len(sat.executions) == 2 * (1 + 3)
    assert [(s.benchmark, s.n, s.c, s.family) for s in sat.scores] == [
        ("toy", 1, 1, "a"), ("toy", 1, 1, "b"), ("toy", 3, 0, "a"), ("toy", 3, 0, "b"),
    ]  # fmt: skip
    assert seen == [LIMITS]


def test_benchmarks_are_scored_apart_and_corrected_together():
    random = np.random.default_rng(8)
    other = [
        replace(row, benchmark="other")
        for name in ("sft", "rrtf")
        for row in task_scores(name, random.integers(0, 2, (1, 80)))
    ]
    first = [
        row for name in ("sft", "rrtf") for row in task_scores(name, random.integers(0, 2, (1, 40)))
    ]
    rows = results.results(first + other, [GREEDY])
    assert [(r.benchmark, r.model, r.n_tasks) for r in rows] == [
        ("toy", "sft", 40), ("toy", "rrtf", 40), ("other", "sft", 80), ("other", "rrtf", 80),
    ]  # fmt: skip
    assert results.headline(rows) == rows
    key_figures = results.key_figures(rows)
    assert list(key_figures) == ["sft pass@1 greedy", "rrtf pass@1 greedy"]
    assert key_figures["sft pass@1 greedy"] == round(100 * rows[0].value, 1)
    found = results.comparisons(
        first + other, [GREEDY], primary=["rrtf - sft"], secondary=[], margin=0.02, seed=0
    )
    assert [(r.benchmark, r.table) for r in found] == [("toy", "primary"), ("other", "secondary")]
    twice = planned(first, metrics=[GREEDY, GREEDY], primary=["rrtf - sft"])
    assert [row.table for row in twice] == ["primary", "secondary"], "the first metric alone"


def test_a_mean_over_trainings_stands_before_its_seeds_and_is_the_headline():
    rows = np.random.default_rng(1).integers(0, 2, (3, 50))
    found = results.results(task_scores("rrtf", rows), [GREEDY])
    assert [(r.seed, r.n_seeds) for r in found] == [(None, 3), (0, 1), (1, 1), (2, 1)]
    assert found[0].value == pytest.approx(rows.mean())
    assert results.headline(found) == [found[0]]


def test_the_table_by_model_has_one_row_per_model():
    scores = task_scores("base", [[1, 0] * 20]) + task_scores("rrtf", [[1, 1, 0, 1] * 10] * 2)
    rows = results.by_model(results.headline(results.results(scores, [GREEDY])))
    assert [row["model"] for row in rows] == ["base", "rrtf"]
    assert rows[0]["pass@1 greedy"].startswith("50.0 [35.2, 64.8]")
    assert [row["trainings"] for row in rows] == ["1", "2"]


def test_curves_hold_pass_at_k_for_every_k_up_to_the_samples():
    scores = task_scores("base", [[1, 0]]) + task_scores("base", [[1, 3]], temperature=0.8, n=3)
    expected = [100 * (stats.pass_at_k(3, 1, k) + 1) / 2 for k in (1, 2, 3)]
    assert [value for _, value in results.curves(scores)["base"]] == pytest.approx(expected)


def planned(scores, *, metrics=(GREEDY,), **changes):
    plan = dict(primary=["rrtf - base"], secondary=[], margin=0.02, seed=0) | changes
    return results.comparisons(scores, metrics, **plan)


def drawn(shape, *, n=1, family=str, other=1):
    """Scores of rrtf (one row a seed) and base (`other` rows), each c of n drawn anew."""
    random, temperature = np.random.default_rng(2), 0.8 if n > 1 else 0.0
    rows = random.integers(0, n + 1, shape), random.integers(0, n + 1, (other, shape[1]))
    how = {"n": n, "temperature": temperature, "family": family}
    named = zip(("rrtf", "base"), rows, strict=True)
    return rows, [score for name, own in named for score in task_scores(name, own, **how)]


@pytest.mark.parametrize(
    ("how", "test"),
    [
        ({}, "exact McNemar"),
        ({"n": 10}, "paired permutation over tasks"),
        ({"family": lambda t: str(t // 2)}, "paired permutation over families"),
    ],
)
def test_the_test_of_single_models_follows_from_their_answers_and_families(how, test):
    (a, b), scores = drawn((1, 40), **how)
    metric = SAMPLED if how.get("n") else GREEDY
    (row,) = planned(scores, metrics=[metric])
    only = int((a > b).sum()), int((a < b).sum())
    assert row.test == test
    assert row.p == (stats.mcnemar(*only) if test == "exact McNemar" else row.p_tasks)


@pytest.mark.parametrize("other", [1, 3])
def test_several_trainings_are_compared_with_the_variance_of_their_seeds(other):
    """Paired where both sides have the same seeds."""
    (a, b), scores = drawn((3, 40), other=other)
    (row,) = planned(scores)
    expected = stats.crossed(a, b, paired=other == 3)
    assert (row.difference, row.low, row.high) == (expected.value, expected.low, expected.high)
    assert row.p == stats.t_test(expected) and row.test == "t, seeds x families"
    assert (row.n_seeds_a, row.n_seeds_b) == (3, other)


def test_holm_runs_within_each_table():
    random = np.random.default_rng(5)
    scores = [
        score
        for name in ("base", "sft", "rrtf", "dpo")
        for score in task_scores(name, random.integers(0, 2, (1, 60)))
    ]
    rows = planned(
        scores, primary=["rrtf - base", "rrtf - sft"], secondary=["dpo - base", "dpo - sft"]
    )
    assert [row.table for row in rows] == ["primary"] * 2 + ["secondary"] * 2
    for pair in (rows[:2], rows[2:]):
        assert [row.p_holm for row in pair] == stats.holm([row.p for row in pair])


@pytest.mark.parametrize("text", ["rrtf-base", "rrtf - ", "- base", ""])
def test_a_contrast_names_two_methods_which_may_have_hyphens(text):
    assert results.parse_contrast("sft-verified - sft-kept") == ("sft-verified", "sft-kept")
    with pytest.raises(ValueError, match="expected 'a - b'"):
        results.parse_contrast(text)


SURE = {"p_equivalence": 0.001}
SAID = [  # what differs from a clear gain, and what is said then
    ({"difference": -0.04, "low": -0.06, "high": -0.02}, "-4.0 points [-6.0, -2.0]: rrtf is worse"),
    (SURE | {"difference": 0.006, "p_holm": 0.01}, "rrtf is better, by less than 2 points"),
    (SURE | {"p_holm": 0.7}, "no difference of 2 points or more (equivalence p = 0.001"),
    ({"p_holm": 0.5}, "neither a difference nor its absence is shown; a true one of 3.0 points"),
    ({"p": 0.03, "p_holm": 0.09}, "neither a difference nor its absence is shown"),
]


@pytest.mark.parametrize(("changes", "words"), SAID)
def test_no_more_is_said_of_a_comparison_than_it_shows(changes, words):
    assert words in results.sentence(comparison(**changes))


def test_a_clear_gain_is_called_better_with_its_size_interval_and_p():
    said = results.sentence(comparison())
    assert said == (
        "rrtf - sft, toy, pass@1 greedy: +4.0 points [+2.0, +6.0]: rrtf is better "
        "(p = 0.003 after Holm; 600 tasks, seeds 3 against 3)."
    )
    row = results.brief(comparison())
    assert row["points"] == "+4.0 [+2.0, +6.0]" and row["verdict"] == "better"


def test_points_have_a_sign_and_no_negative_zero():
    assert [results.points(x) for x in (0.041, -0.0123, -0.0001)] == ["+4.1", "-1.2", "+0.0"]


def chain_scores():
    random = np.random.default_rng(6)
    shapes = {"base": 1, "sft": 3, "sft-kept": 3, "rrtf": 3}
    return [
        score
        for name, seeds in shapes.items()
        for score in task_scores(name, random.integers(0, 2, (seeds, 50)))
    ]


def test_the_parts_of_the_gain_add_up_to_the_whole():
    scores = chain_scores()
    parts = results.gain_parts(scores, GREEDY, ["base", "sft", "sft-kept", "rrtf"])
    (whole,) = planned(scores)
    assert sum(estimate.value for *_, estimate in parts) == pytest.approx(whole.difference)
    assert [(a, b) for a, b, _ in parts] == list(PARTS)
    rows = results.headline(results.results(scores, [GREEDY]))
    start, rises, last = results.ladder(rows, parts)
    assert start == ("base", rows[0].value) and last == "rrtf"
    assert rises[0][0] == "imitating the teacher (sft)"


def test_the_chain_skips_methods_that_were_not_trained():
    scores = [row for row in chain_scores() if row.model != "sft-kept"]
    parts = results.gain_parts(scores, GREEDY, ["base", "sft", "sft-kept", "rrtf"])
    assert [(a, b) for a, b, _ in parts] == [("sft", "base"), ("rrtf", "sft")]
    with pytest.raises(ValueError, match="only"):
        results.gain_parts(scores, GREEDY, ["base", "oracle"])


def test_the_story_names_every_part_with_its_interval():
    parts = [
        (a, b, stats.Estimate(value, value - 0.02, value + 0.02))
        for (a, b), value in zip(PARTS, (0.09, 0.04, -0.003), strict=True)
    ]
    assert results.story(parts) == (
        "From base to rrtf: +12.7 points in all. Of these: imitating the teacher +9.0 "
        "[+7.0, +11.0]; the tests as a filter +4.0 [+2.0, +6.0]; the ranking loss -0.3 "
        "[-2.3, +1.7]."
    )


def test_comparisons_with_a_method_that_was_not_trained_are_named():
    scores = task_scores("rrtf", [[1, 0]]) + task_scores("base", [[0, 0]])
    told = results.uncompared(scores, ["rrtf - base", "rrtf - dpo", "sft - base"])
    assert told == "Not compared, for want of dpo, sft: rrtf - dpo; sft - base."
    rows = planned(scores, primary=["rrtf - base", "rrtf - sft"])
    assert [(row.a, row.b) for row in rows] == [("rrtf", "base")]
    assert results.uncompared(scores, ["rrtf - base"]) == ""


def test_each_model_on_a_board_has_its_own_engine_and_format():
    every = entrants([], ["a=gpt", "b=nano-student"])
    how = {"max_new_tokens": 8, "top_p": 1.0, "seed": 1, "n_samples": 1}
    told = {"engine": ["a=openai@http://x/v1"], "prompt_format": ["chat", "b=pangu"]}
    given = Given(**how, **told)
    asked = [evaluate_verb._asked(given, one, evaluate_verb._told(given, every)) for one in every]
    own = [(author.engine, author.prompt_format) for _, author, _ in asked]
    assert own == [("openai@http://x/v1", "chat"), ("auto", "pangu")]
    for wrong, said in ((["c=chat"], "no entry 'c'"), (["parrot"], "'parrot': expected one of")):
        with pytest.raises(ValueError, match=said):
            evaluate_verb._told(Given(**told | {"prompt_format": wrong}), every)
