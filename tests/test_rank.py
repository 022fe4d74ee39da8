"""Ranking: scores, ties, the filter, and that nothing is lost without a reason."""

from dataclasses import replace

import pytest

from rrtf import execution, rank
from rrtf.records import Execution, Outcome, Problem, Response
from rrtf.sample import of_one_teacher

C, R, F, P = Outcome
SCORES = {C: 0.0, R: 1.0, F: 2.0, P: 3.0}
HOW = {
    "teacher": "teacher", "scores": SCORES, "tie_break": 0.5, "pass_ratio": 0.0,
    "prompts": {"t/0": "def f(x):"}, "prompt_format": "starcoder",
}  # fmt: skip


def problem(task_id="t/0"):
    return Problem(task_id, "def f(x):\n", "f", "def check(candidate):\n    assert True\n")


def answers(*rows, task_id="t/0"):
    """Responses and executions from (source, text, outcome) rows."""
    responses, executions, seen = [], [], {}
    for source, text, outcome in rows:
        index = seen[source] = seen.get(source, -1) + 1
        responses.append(Response(task_id, source, index, text, text))
        executions.append(Execution(task_id, source, index, outcome, "", 0, 1, "process"))
    return responses, executions


def ranked(*rows, tie=0.5):
    responses, executions = answers(*rows)
    prompts = {"t/0": "def f(x):"}
    how = HOW | {"tie_break": tie, "prompts": prompts}
    return rank.rank([problem()], responses, executions, **how)


def test_scores_follow_the_situations_and_the_teacher_wins_ties():
    groups, _ = ranked(("student", "a", P), ("teacher", "b", P), ("student", "c", R))
    assert groups[0].responses == ("\nb", "\na", "\nc")
    assert groups[0].scores == (3.5, 3.0, 1.0)
    assert groups[0].sft_index == 0


def test_a_pass_ratio_orders_programs_that_fail_tests_and_lifts_none_over_a_situation():
    rows = [("teacher", "a", F), ("student", "b", F), ("student", "c", F), ("student", "d", P)]
    responses, executions = answers(*rows)
    counts = [(1, 12), (0, 12), (11, 12), (12, 12)]
    executions = [
        replace(run, n_passed=k, n_tests=n) for run, (k, n) in zip(executions, counts, strict=True)
    ]
    how = HOW | {"tie_break": 0.1, "pass_ratio": 0.6}
    groups, _ = rank.rank([problem()], responses, executions, **how)
    assert groups[0].scores == pytest.approx((2.15, 2.0, 2.55, 3.0))
    with pytest.raises(ValueError, match=r"pass_ratio 0\.9: .* less than 0\.9"):
        rank.rank([problem()], responses, executions, **how | {"pass_ratio": 0.9})


def test_equal_texts_count_once_and_a_task_needs_its_teacher():
    groups, left_out = ranked(("student", "a", P), ("student", "a", P), ("teacher", "a", P))
    assert groups[0].sources == ("teacher",), "the teacher's copy is the one kept"
    assert left_out == {"response: repeats another of its task": 2}
    groups, left_out = ranked(("student", "a", P), ("student", "b", P))
    assert groups == []
    assert left_out == {"response: its task has no complete teacher response": 2}


def test_a_task_behind_one_without_a_teacher_is_ranked():
    both = answers(("student", "a", P)), answers(("teacher", "b", P), task_id="t/1")
    responses, executions = ([*one, *other] for one, other in zip(*both, strict=True))
    how = HOW | {"prompts": {"t/0": "def f(x):", "t/1": "def f(x):"}}
    groups, _ = rank.rank([problem(), problem("t/1")], responses, executions, **how)
    assert [group.task_id for group in groups] == ["t/1"]


def test_a_cut_off_answer_is_left_out_with_its_reason():
    responses, executions = answers(("teacher", "a", P), ("student", "b", F))
    cut = Response("t/0", "student", 1, "c", "c", finish_reason="length")
    more = Execution("t/0", "student", 1, C, "", 0, 1, "process")
    groups, left_out = rank.rank([problem()], [*responses, cut], [*executions, more], **HOW)
    assert groups[0].responses == ("\na", "\nb")
    assert left_out == {"response: cut off at max_new_tokens": 1}


def test_of_several_teachers_a_task_takes_the_one_that_stands_highest():
    rows = [("teacher", "a", F), ("student", "b", R), ("teacher-2", "c", P), ("teacher-3", "d", P)]
    responses, executions = answers(*rows)
    kept, runs, lost = of_one_teacher(responses, executions, ["teacher", "teacher-2"])
    assert [(r.source, r.text) for r in kept] == [
        ("student", "b"),
        ("teacher", "c"),
        ("teacher-3", "d"),
    ]
    assert [run.source for run in runs] == [r.source for r in kept]
    assert lost == {"response: another teacher's is taken": 1}
    alone = of_one_teacher(responses, executions, ["teacher-2"])
    assert alone == (responses, executions, {})
    with pytest.raises(ValueError, match="'teacher' that is no teacher"):
        of_one_teacher(responses, executions, ["teacher-2", "teacher-3"])


def test_executions_in_another_order_than_the_responses_are_refused():
    responses, executions = answers(("teacher", "a", P), ("student", "b", F))
    with pytest.raises(ValueError, match="stands beside"):
        rank.rank([problem()], responses, executions[::-1], **HOW)
    with pytest.raises(ValueError, match="2 responses but 1 executions"):
        rank.rank([problem()], responses, executions[:1], **HOW)


@pytest.mark.parametrize(
    ("name", "teacher", "student", "kept"),
    [
        ("drop_below", F, P, False),
        ("drop_below", F, F, True),  # both fail: the paper keeps them
        ("drop_below", P, C, True),
        ("must_pass", F, C, False),
        ("must_pass", P, P, True),
        ("none", C, P, True),
    ],
)
def test_the_filter_compares_situations(name, teacher, student, kept):
    groups, _ = ranked(("teacher", "a", teacher), ("student", "b", student))
    found, dropped = rank.pairs(groups, pairing="one", teacher_filter=name, seed=0)
    assert bool(found) == kept
    assert len(found) + sum(dropped.values()) == 1


def test_pairing_one_draws_a_student_by_key_and_pairing_all_takes_every_one():
    groups, _ = ranked(("teacher", "t", P), *[("student", f"s{i}", F) for i in range(8)])

    def paired(pairing, seed=3):
        return rank.pairs(groups, pairing=pairing, teacher_filter="none", seed=seed)[0][0].responses

    assert paired("one") == paired("one") and len(paired("one")) == 2
    assert len(paired("all")) == 9
    assert len({paired("one", seed)[1] for seed in range(40)}) > 4


def test_all_pairs_drop_only_the_students_above_the_teacher():
    groups, _ = ranked(("teacher", "t", F), ("student", "a", P), ("student", "b", R))
    kept, _ = rank.pairs(groups, pairing="all", teacher_filter="drop_below", seed=0)
    assert kept[0].responses == ("\nt", "\nb") and kept[0].sft_index == 0


def test_every_dropped_prompt_is_counted_and_those_behind_it_are_kept():
    alone, below, fine = (
        replace(ranked(*rows)[0][0], task_id=name)
        for name, *rows in (
            ("alone", ("teacher", "a", P)),
            ("below", ("teacher", "a", F), ("student", "b", P)),
            ("fine", ("teacher", "a", P), ("student", "b", F)),
        )
    )
    groups = [alone, fine, below, below, alone, fine]
    for name, why in (("drop_below", "scores below the student"), ("must_pass", "does not pass")):
        kept, dropped = rank.pairs(groups, pairing="one", teacher_filter=name, seed=0)
        assert [group.task_id for group in kept] == ["fine", "fine"]
        assert dropped == {
            "prompt: no student response differs from the teacher's": 2,
            f"prompt: the teacher {why}": 2,
        }


def test_tables_count_what_the_executions_say():
    _, executions = answers(("teacher", "a", P), ("student", "b", F), ("student", "c", P))
    assert execution.outcome_counts(executions)["student"]["PASS"] == 1
    assert execution.fraction_passing(executions) == {"student": 0.5, "teacher": 1.0}
    groups, _ = ranked(("teacher", "a", P), ("student", "b", F))
    kept, _ = rank.pairs(groups, pairing="one", teacher_filter="none", seed=0)
    row = next(r for r in rank.filter_rows(kept, kept) if r["teacher"] == "PASS")
    assert row["FAILED_TESTS"] == 1 and row["kept"] == 1
    for teacher, wrong in ((P, 0), (F, 1), (C, 1)):
        groups, _ = ranked(("teacher", "a", teacher), ("student", "b", C))
        unfiltered = [r for r in rank.choices(groups, seed=0) if r["filter"] == "none"]
        assert {r["teacher wrong"] for r in unfiltered} == {wrong}
    groups, _ = ranked(("teacher", "a", F), *[("student", f"s{i}", R) for i in range(3)])
    counts = [(r["pairing"], r["prompts"], r["pairs"]) for r in rank.choices(groups, seed=0)]
    kept = [count for count in counts if count[1]]
    assert kept == [("one", 1, 1)] * 2 + [("all", 1, 3)] * 2, "none where the teacher must pass"


def test_preferences_name_the_better_response_and_count_those_that_are_equal():
    groups, _ = ranked(("teacher", "t", F), ("student", "a", P), ("student", "b", R))
    every, _ = rank.pairs(groups, pairing="all", teacher_filter="none", seed=0)
    rows, left_out = rank.preferences(every)
    chosen = [(row["chosen"], row["rejected"]) for row in rows]
    assert chosen == [("\na", "\nt"), ("\nt", "\nb")]
    assert all(row["prompt"] == "def f(x):" for row in rows) and left_out == {}
    groups, _ = ranked(("teacher", "t", F), ("student", "a", F), tie=0.0)
    every, _ = rank.pairs(groups, pairing="one", teacher_filter="none", seed=0)
    assert rank.preferences(every) == ([], {"pair: equal scores": 1})


@pytest.mark.parametrize(
    ("work", "told"),
    [
        (lambda: rank.check_scores({C: 0, R: 2, F: 1, P: 3}, 0.1, 0.0), "do not rise"),
        (lambda: rank.check_scores({C: 0, R: 1, F: 1, P: 3}, 0.0, 0.0), "do not rise"),
        # a tie break may not lift the teacher over a better situation
        (lambda: ranked(("teacher", "a", P), ("student", "b", P), tie=1.0), r"tie_break 1\.0"),
        (lambda: rank.pairs([], pairing="some", teacher_filter="none", seed=0), "'some'"),
        (lambda: rank.pairs([], pairing="one", teacher_filter="best", seed=0), "'best'"),
    ],
)
def test_what_cannot_be_ranked_or_paired_is_named(work, told):
    with pytest.raises(ValueError, match=told):
        work()


def test_answers_to_problems_left_out_are_left_out_and_counted():
    responses, _ = answers(("teacher", "a", P), ("student", "b", F))
    assert rank.answers_to([problem()], responses) == (responses, {})
    other, _ = answers(("student", "c", P), task_id="t/1")
    lost = {"response: its problem is left out": 2}
    assert rank.answers_to([problem("t/1")], [*responses, *other]) == (other, lost)


def test_one_program_in_two_forms_is_one_answer_behind_whatever_prompt():
    code = "    more = x + 1\n    return more // 2\n"
    rows = [("teacher", f"Sure.\n```python\ndef f(x):\n{code}```\n", P), ("student", code, P),
            ("student", f"\n{code.rstrip()}", P),
            ("student", f"<think>\n</think>\n{code}", P)]  # fmt: skip
    responses, executions = answers(*rows)
    for style, asked in (("starcoder", "def f(x):"), ("starcoder", "def f(x):\n"), ("chat", "?")):
        how = HOW | {"prompts": {"t/0": asked}, "prompt_format": style}
        groups, left_out = rank.rank([problem()], responses, executions, **how)
        assert left_out == {"response: repeats another of its task": 3}
        (text,) = groups[0].responses
        assert style == "chat" or asked + text == f"def f(x):\n{code}"


def test_a_group_holds_only_the_code_of_a_chatty_teacher():
    chatty = "Sure!\n```python\ndef f(x):\n    return x\n```\nDone."
    other = "```python\ndef f(y):\n    return y\n```"
    rows = [("teacher", chatty, P), ("teacher", other, P), ("student", "\n    return 1\n", F)]
    groups, left_out = ranked(*rows)
    assert groups[0].responses == ("\n    return x\n", "\n    return 1\n")
    assert left_out == {"response: its code does not continue the prompt": 1}
