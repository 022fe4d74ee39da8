"""On-policy rounds: the trained model's own answers, ranked against the teacher that was asked."""

from dataclasses import replace
from pathlib import Path

import pytest

from rrtf import nano, rounds, sandbox
from rrtf.records import Outcome, Problem, Response

pytestmark = pytest.mark.skipif(
    sandbox.probe() not in sandbox.LEVELS[:2], reason="needs an isolated sandbox"
)
SCORES = dict(zip(Outcome, (0.0, 1.0, 2.0, 3.0), strict=True))
OPTIONS = {
    "model": "nano-student",
    "number": 2,
    "sampling": {"temperatures": [0.8], "n_samples": 4, "top_p": 0.95},
    "limits": {},
    "scores": SCORES,
    "tie_break": 0.5,
    "seed": 7,
}


@pytest.fixture(scope="module")
def problems() -> list[Problem]:
    return nano.build("finetune", 6, workers=1)[0]


@pytest.fixture(scope="module")
def teacher(problems) -> list[Response]:
    """One answer per task: the reference, and for the last task a wrong one."""
    rows = [problem.reference for problem in problems[:-1]] + ["    return None\n"]
    return [
        Response(p.task_id, "teacher", 0, body, p.prompt + body)
        for p, body in zip(problems, rows, strict=True)
    ]


@pytest.fixture(scope="module")
def made(problems, teacher, tmp_path_factory) -> tuple[Path, tuple]:
    """(the folder of shards, what the second round is)."""
    folder = tmp_path_factory.mktemp("rounds")
    return folder, rounds.next_groups(problems, teacher, shards=folder, **OPTIONS)


def test_a_round_ranks_fresh_answers_against_the_same_teacher(problems, teacher, made):
    groups, pairs, counts = made[1]
    assert [group.task_id for group in groups] == [problem.task_id for problem in problems]
    targets = [group.responses[group.sft_index] for group in groups]
    assert targets == [response.text for response in teacher]
    assert [group.outcomes[0] for group in groups[:-1]] == [Outcome.PASS] * 5
    assert groups[-1].outcomes[0] < Outcome.PASS
    others = {source for group in groups for source in group.sources[1:]}
    assert others == {"round-2"}
    assert {o for group in groups for o in group.outcomes[1:]} >= {Outcome.FAILED_TESTS}
    assert all(pair.outcomes[0] >= pair.outcomes[1] for pair in pairs)
    assert counts["responses"] == 6 + 6 * 4


def test_every_response_and_every_prompt_is_kept_or_counted(made):
    groups, pairs, counts = made[1]
    lost = {name: n for name, n in counts.items() if name.startswith("response: ")}
    assert counts["responses"] == sum(lost.values()) + sum(len(g.responses) for g in groups)
    dropped = {name: n for name, n in counts.items() if name.startswith("prompt: ")}
    assert counts["groups"] == len(groups) == len(pairs) + sum(dropped.values())


def test_an_interrupted_round_goes_on_and_a_finished_one_computes_nothing(
    problems, teacher, made, tmp_path, monkeypatch
):
    def interrupt(name):
        def tell(done, total):
            if name == "executing":
                raise KeyboardInterrupt

        return tell

    with pytest.raises(KeyboardInterrupt):
        rounds.next_groups(problems, teacher, shards=tmp_path, progress=interrupt, **OPTIONS)
    assert len(list(tmp_path.iterdir())) == 1  # the answers, no verdict
    monkeypatch.setattr("rrtf.sample._opened", None)
    assert rounds.next_groups(problems, teacher, shards=tmp_path, **OPTIONS) == made[1]
    monkeypatch.setattr("rrtf.sandbox.execute", None)
    assert rounds.next_groups(problems, teacher, shards=tmp_path, **OPTIONS) == made[1]


def test_another_round_draws_other_answers_and_judges_the_teacher_no_second_time(
    problems, teacher, made, monkeypatch
):
    folder, (groups, _, _) = made
    judged = []
    real = sandbox.execute

    def noting(problems, responses, **options):
        judged.extend(response.source for response in responses)
        return real(problems, responses, **options)

    monkeypatch.setattr("rrtf.sandbox.execute", noting)
    third, _, _ = rounds.next_groups(problems, teacher, shards=folder, **OPTIONS | {"number": 3})
    assert [g.responses for g in third] != [g.responses for g in groups]
    assert [g.responses[0] for g in third] == [g.responses[0] for g in groups]
    assert set(judged) == {"round-3"}


def test_answers_to_problems_that_were_left_out_are_counted(problems, teacher, made):
    folder, _ = made
    _, _, counts = rounds.next_groups(problems[:5], teacher, shards=folder, **OPTIONS)
    assert counts["response: its problem is left out"] == 1


def test_the_first_round_and_mixed_teachers_are_refused(problems, teacher, tmp_path):
    with pytest.raises(ValueError, match="round 1: expected 2 or more"):
        rounds.next_groups(problems, teacher, shards=tmp_path, **OPTIONS | {"number": 1})
    mixed = [*teacher[1:], replace(teacher[0], source="other")]
    with pytest.raises(ValueError, match="expected those of one source"):
        rounds.next_groups(problems, mixed, shards=tmp_path, **OPTIONS)
