"""On-policy rounds: the trained model's own answers, drawn anew in every round."""

import pytest
from conftest import LIMITS

from rrtf.ablation import runs, sets
from rrtf.nano.problems import build
from rrtf.sandbox import lanes

pytestmark = pytest.mark.skipif(
    lanes.probe() not in lanes.LEVELS[:2], reason="needs an isolated sandbox"
)
OPTIONS = {
    "model": "nano-student",
    "sampling": sets.sampling("nano", workers=1) | {"temperatures": [0.8]},
    "limits": {"limits": LIMITS, "workers": 2, "cluster": "local"},
    "seed": 7,
}


def test_a_round_answers_every_problem_goes_on_and_draws_unlike_another_round(
    tmp_path, monkeypatch
):
    problems = build("finetune", 6, workers=1)[0]

    def interrupt(name):
        def tell(done, total):
            if name == "executing":
                raise KeyboardInterrupt

        return tell

    with pytest.raises(KeyboardInterrupt):
        runs.answers(problems, number=2, shards=tmp_path, progress=interrupt, **OPTIONS)
    assert len(list(tmp_path.iterdir())) == 1  # the answers, no verdict
    with monkeypatch.context() as patched:
        patched.setattr("rrtf.sample._opened", None)
        found, verdicts = runs.answers(problems, number=2, shards=tmp_path, **OPTIONS)
    assert len(found) == len(verdicts) == 6 * 4
    assert {response.source for response in found} == {"round-2"}
    third, _ = runs.answers(problems, number=3, shards=tmp_path, **OPTIONS)
    assert [r.text for r in third] != [r.text for r in found]


def test_the_first_round_is_sampled_before_training(tmp_path):
    with pytest.raises(ValueError, match="round 1: expected 2 or more"):
        runs.answers([], number=1, shards=tmp_path, **OPTIONS)
