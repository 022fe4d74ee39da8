"""GRPO on the sandbox's verdicts: CodeRL's rewards, positions under padding, resumable runs."""

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import LIMITS
from safetensors.torch import load_file
from test_train import recipe
from transformers import AutoModelForCausalLM

from rrtf.ablation import grpo, grpo_learn
from rrtf.engines import Decoding
from rrtf.sandbox import lanes

ROOT = Path(__file__).resolve().parent.parent

pytestmark = pytest.mark.skipif(
    lanes.probe() not in lanes.LEVELS[:2], reason="needs an isolated sandbox"
)
OPTIONS = {
    "recipe": recipe(updates=4, checkpoint_every=2, seed=5, beta=0.0),
    "decoding": Decoding(1.0, 1.0, 24, seed=5),
    "n_samples": 3,
    "limits": LIMITS,
    "workers": 2,
}


@pytest.fixture(scope="module")
def python() -> str:
    """One that has TRL."""
    try:
        return grpo.interpreter()
    except ImportError as error:
        pytest.skip(str(error))


@pytest.fixture
def problems(add_problem):
    longer = add_problem.prompt.replace("the sum", "the sum of a and b, whatever they are")
    rows = [replace(add_problem, task_id=f"toy/{n}") for n in range(4)]
    return [*rows, replace(add_problem, task_id="toy/longer", prompt=longer)]


def rewarded(problems, texts):
    """(rewards, what was logged) of `texts`, one per problem in turn."""
    reward = grpo_learn.rewarder(problems, limits=LIMITS, workers=2)
    logged = {}
    tasks = [problem.task_id for problem in problems][: len(texts)]
    found = reward(texts, tasks, log_metric=logged.__setitem__, trainer_state=None)
    return found, logged


def test_an_answers_reward_is_coderls_for_its_situation(problems):
    texts = ["    return a + b\n", "    return a\n", "    return a.b\n", "    return (\n"]
    found, logged = rewarded(problems, texts)
    assert found == [1.0, -0.3, -0.6, -1.0]
    assert logged == {"passing": 0.25}


def test_an_answer_is_cut_where_a_sampled_one_would_end(problems):
    found, _ = rewarded(problems, ["    return a + b\n\nprint(add(1, 2)\n"])
    assert found == [1.0]


def test_padding_on_the_left_does_not_move_a_models_learned_positions(tiny_model):
    network = AutoModelForCausalLM.from_pretrained(tiny_model).eval()
    ids = torch.tensor([[5, 6, 7, 8]])
    padded, mask = torch.tensor([[0, 0, 5, 6, 7, 8]]), torch.tensor([[0, 0, 1, 1, 1, 1]])
    with torch.no_grad():
        alone = network(input_ids=ids).logits
        moved = network(input_ids=padded, attention_mask=mask).logits[:, 2:]
        network.register_forward_pre_hook(grpo_learn.count_positions, with_kwargs=True)
        held = network(input_ids=padded, attention_mask=mask).logits[:, 2:]
        unpadded = network(input_ids=ids).logits
    assert not torch.allclose(moved, alone, atol=1e-2)
    assert torch.allclose(held, alone, atol=1e-5) and torch.equal(unpadded, alone)


_SCORES = """
import json, sys
import torch
from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer
from rrtf.ablation import grpo_learn
from rrtf.step import packing
network, tokenizer = packing.load(sys.argv[1], dropout=0.0, threads=1)
network.register_forward_pre_hook(grpo_learn.count_positions, with_kwargs=True)
options = dict(bf16=False, use_cpu=True, report_to="none", gradient_checkpointing=False)
run = GRPOTrainer(
    model=network, reward_funcs=lambda completions, **_: [0.0] * len(completions),
    args=GRPOConfig(output_dir=sys.argv[2], **options), processing_class=tokenizer,
    train_dataset=Dataset.from_list([{"prompt": "x"}]),
)
prompts, answer = json.loads(sys.argv[3])
width = max(map(len, prompts))
ids = [[0] * (width - len(p)) + p + answer for p in prompts]
mask = [[0] * (width - len(p)) + [1] * (len(p) + len(answer)) for p in prompts]
with torch.no_grad():
    logs, *_ = run._get_per_token_logps_and_entropies(
        run.model, torch.tensor(ids), torch.tensor(mask), len(answer)
    )
print(json.dumps(logs.sum(dim=1).tolist()))
"""


@pytest.mark.slow
def test_trl_scores_the_answers_to_prompts_of_different_lengths_as_one_by_one(
    python, tiny_model, tmp_path
):
    prompts, answer = [[9, 8, 7, 6, 5], [4, 3]], [20, 21, 22]
    done = subprocess.run(
        [python, "-c", _SCORES, tiny_model, tmp_path, json.dumps([prompts, answer])],
        capture_output=True, text=True, timeout=300,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    network = AutoModelForCausalLM.from_pretrained(tiny_model).eval()
    alone = []
    for prompt in prompts:
        with torch.no_grad():
            logs = network(input_ids=torch.tensor([prompt + answer])).logits[0].log_softmax(-1)
        alone.append(sum(float(logs[len(prompt) - 1 + t, a]) for t, a in enumerate(answer)))
    assert json.loads(done.stdout.splitlines()[-1]) == pytest.approx(alone, abs=1e-4)


@pytest.fixture
def commented(problems):
    """Problems solved before a model says a word, unless it breaks the line or the code."""
    prompt = "def add(a, b):\n    return a + b  #"
    return [replace(problem, prompt=prompt) for problem in problems]


@pytest.mark.slow
@pytest.mark.usefixtures("python")
def test_a_run_leaves_a_model_and_a_killed_one_goes_on_to_the_same_weights(
    commented, tiny_model, tmp_path, monkeypatch
):
    def interrupt(done, total):
        if done == 3:
            raise KeyboardInterrupt

    options = {"model": tiny_model, **OPTIONS}
    seen = []
    whole = grpo.train(
        commented, output=tmp_path / "a", progress=lambda *now: seen.append(now), **options
    )
    assert [row.step for row in whole] == [1, 2, 3, 4] and seen[-1] == (4, 4)
    assert any(row.spread > 0 for row in whole)
    assert all(-1 <= row.reward <= 1 and row.length <= 24 for row in whole)
    with pytest.raises(KeyboardInterrupt):
        grpo.train(commented, output=tmp_path / "b", progress=interrupt, **options)
    assert not (tmp_path / "b/training.json").exists()
    assert grpo.train(commented, output=tmp_path / "b", **options) == whole
    first, second = (load_file(tmp_path / name / "model.safetensors") for name in "ab")
    assert all(torch.equal(first[name], second[name]) for name in first)
    start = load_file(tiny_model / "model.safetensors")
    assert any(not torch.equal(first[name], start[name]) for name in start)
    assert not (tmp_path / "b/checkpoints").exists()

    monkeypatch.setattr(grpo, "interpreter", None)
    finished = grpo.train(commented, output=tmp_path / "a", **options)
    assert finished == whole  # read, no process started
    card = (tmp_path / "a/README.md").read_text()
    assert "# GRPO from" in card and "| n_samples | 3 |" in card


@pytest.mark.slow
@pytest.mark.usefixtures("python")
def test_a_run_that_fails_says_where_its_log_lies(problems, tiny_model, tmp_path):
    options = OPTIONS | {"decoding": Decoding(1.0, 1.0, 0, seed=5)}
    with pytest.raises(RuntimeError, match=r"grpo\.log: TRL's process ended with"):
        grpo.train(problems, model=tiny_model, output=tmp_path / "m", **options)


def test_without_trl_the_error_says_how_to_get_it(problems, tiny_model, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setenv("RRTF_TRL", str(tmp_path / "none"))
    with pytest.raises(ImportError, match="make peers"):
        grpo.train(problems, model=tiny_model, output=tmp_path / "m", **OPTIONS)
    assert not (tmp_path / "m").exists()


def test_a_single_sample_is_refused(problems, tiny_model, tmp_path):
    with pytest.raises(ValueError, match="n_samples 1: expected 2 or more"):
        grpo.train(problems, model=tiny_model, output=tmp_path, **OPTIONS | {"n_samples": 1})
