"""On-policy rounds: the trained model's own answers, drawn anew in every round."""

from functools import partial

import pytest
from conftest import LIMITS

from rrtf import execution, sample
from rrtf.ablation import runs
from rrtf.engines import Decoding
from rrtf.nano.problems import build
from rrtf.sandbox import lanes

pytestmark = pytest.mark.skipif(
    lanes.probe() not in lanes.LEVELS[:2], reason="needs an isolated sandbox"
)


def asking(problems, shards, judge=None):
    here = {"shards": shards, "workers": 2, "cluster": "local"}
    return partial(
        runs.answers,
        problems,
        model="nano-student",
        author=partial(sample.Author, engine="auto", prompt_format="starcoder"),
        decodings=[Decoding(0.8, 0.95, 140, 7)],
        n_samples=4,
        sampler=partial(sample.sample, **here),
        judge=judge or partial(execution.execute, limits=LIMITS, **here),
    )


def test_a_round_answers_every_problem_goes_on_and_draws_unlike_another_round(
    tmp_path, monkeypatch
):
    problems = build("finetune", 6, workers=1)[0]

    def interrupt(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        asking(problems, tmp_path, interrupt)(number=2)
    assert len(list(tmp_path.iterdir())) == 1  # the answers, no verdict
    with monkeypatch.context() as patched:
        patched.setattr("rrtf.sample._opened", None)
        found, verdicts = asking(problems, tmp_path)(number=2)
    assert len(found) == len(verdicts) == 6 * 4
    assert {response.source for response in found} == {"round-2"}
    third, _ = asking(problems, tmp_path)(number=3)
    assert [r.text for r in third] != [r.text for r in found]


def test_the_first_round_is_sampled_before_training(tmp_path):
    with pytest.raises(ValueError, match="round 1: expected 2 or more"):
        asking([], tmp_path)(number=1)
