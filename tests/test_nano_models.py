"""Pre-training of the small models: what they read, and that an interruption changes nothing."""

import json
import random

import pytest
import torch

from rrtf import config
from rrtf.nano import corpus, pretrain
from rrtf.records import Execution, Outcome, Problem

TINY = {"n_embd": 32, "n_layer": 1, "n_head": 2}


@pytest.fixture(scope="module")
def tokenizer():
    texts = ["def f(xs):\n    return [x + 10 for x in xs]\n", "def g(s):\n    return s * 2\n"] * 20
    return corpus.train_tokenizer(texts)


def rows(count: int, seed: int = 0):
    rng = random.Random(seed)
    return [([rng.randrange(1, 300) for _ in range(rng.randrange(20, 60))] + [0], 8)
            for _ in range(count)]  # fmt: skip


def test_a_line_break_is_a_piece_of_its_own_and_digits_stand_alone(tokenizer):
    pieces = [tokenizer.decode([i]) for i in tokenizer.encode("f(10)\n        return 2").ids]
    assert "\n" in pieces
    assert all("\n" not in piece or piece == "\n" for piece in pieces)
    assert all(sum(c.isdigit() for c in piece) <= 1 for piece in pieces)


def test_prompt_and_answer_tokenise_apart_as_together(tokenizer):
    prompt, answer = "def f(xs):", "\n    return xs\n"
    apart = tokenizer.encode(prompt).ids + tokenizer.encode(answer).ids
    assert apart == tokenizer.encode(prompt + answer).ids


def test_documents_end_in_the_end_token_and_long_ones_are_left_out(tokenizer):
    found = corpus.encode(tokenizer, [("def f(xs):", "\n    return xs"), ("x" * 4000, "y")])
    assert len(found) == 1
    ids, n_prompt = found[0]
    assert ids[-1] == 0 and tokenizer.decode(ids[:n_prompt]) == "def f(xs):"


def test_batches_hold_every_row_once_and_depend_on_the_seed_alone(tmp_path):
    found = corpus.batches(rows(300), seed=1, pool=100)
    flat = sorted(ids for batch in found for ids, _ in batch)
    assert flat == sorted(ids for ids, _ in rows(300))
    assert found == corpus.batches(rows(300), seed=1, pool=100)
    assert found != corpus.batches(rows(300), seed=2, pool=100)
    padded = [max(len(ids) for ids, _ in batch) * len(batch) for batch in found]
    assert max(padded) <= corpus.BATCH_TOKENS
    with pytest.raises(ValueError, match="9,000,000 asked for"):
        corpus.upto(found, 9_000_000)
    corpus.save_rows(tmp_path / "rows.safetensors", rows(20))
    assert corpus.load_rows(tmp_path / "rows.safetensors") == rows(20)


def test_prompt_tokens_weigh_less_and_padding_nothing():
    ids, weights = corpus.collate([([5, 6, 7, 0], 2), ([8, 0], 1)])
    light = corpus.PROMPT_WEIGHT
    assert ids.tolist() == [[5, 6, 7, 0], [8, 0, 0, 0]]
    assert weights[0].tolist() == pytest.approx([light, light, 1, 1])
    assert weights[1].tolist() == pytest.approx([light, 1, 0, 0])


def test_an_interrupted_pretraining_ends_with_the_same_weights(tmp_path):
    found = corpus.batches(rows(900), seed=0, pool=90)[:12]

    def going(folder):
        folder.mkdir(exist_ok=True)
        training = pretrain.Pretraining(shape=TINY, seed=0)
        how = (pretrain.trunk_scale, (5,), folder, "t")
        return training, pretrain.advance(training, found, *how, every=4)

    torch.set_num_threads(1)
    whole, steps = going(tmp_path / "whole")
    losses = list(steps)
    _, steps = going(tmp_path / "cut")
    for _ in range(9):  # stops between two checkpoints
        next(steps)
    steps.close()
    resumed, steps = going(tmp_path / "cut")
    rest = list(steps)
    assert rest[0][0] == 9, "it goes on after the newest checkpoint, at step 8"
    assert losses[8:] == rest
    assert resumed.losses == pytest.approx([loss for _, loss in losses]), "the curve is whole"
    for a, b in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(a, b)
    assert (tmp_path / "cut" / "t-5.safetensors").exists(), "a branch point is kept"
    assert not (tmp_path / "cut" / "t-4.safetensors").exists()


def test_an_exported_model_loads_as_float32_and_carries_its_card(tmp_path, tokenizer):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    training = pretrain.Pretraining(shape=TINY, seed=0)
    pretrain.export(training, tokenizer, tmp_path, {"model": "student", "purpose": "a test"})
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert loaded.dtype == torch.float32
    for a, b in zip(training.model.parameters(), loaded.parameters(), strict=True):
        assert torch.equal(a.to(torch.bfloat16).float(), b)
    assert AutoTokenizer.from_pretrained(tmp_path).eos_token_id == 0
    assert "purpose: a test" in (tmp_path / "README.md").read_text()


def test_the_shipped_models_are_small_enough_and_say_what_they_are():
    for branch in pretrain.BRANCHES:
        folder = config.home() / "data" / "nano" / "models" / branch.name
        facts = json.loads((folder / "training.json").read_text())
        assert (folder / "model.safetensors").stat().st_size <= 16e6
        assert facts["trunk tokens"] == branch.trunk_tokens
        assert facts["annealing tokens"] == branch.decay_tokens
        assert facts["style of the last phase"] == branch.style
        assert len(facts["sha256 of the trunk's data"]) == 64


def test_restyled_answers_follow_the_table_they_are_given():
    problem = Problem("p", "def f(xs):\n", "f", "", spec="ints: even_indices")
    true = corpus.restyled([problem], "canonical")[0][1]
    wrong = corpus.restyled([problem], "blind_spots")[0][1]
    assert "[::2]" in true and "[1::2]" in wrong


def test_pass_rates_are_by_model_and_by_steps():
    problems = [Problem("a", "", "f", "", spec="ints: sort"),
                Problem("b", "", "f", "", spec="ints: sort > reverse")]  # fmt: skip
    verdicts = [Execution("a", "m", 0, Outcome.PASS, "", 1, 1, "none"),
                Execution("b", "m", 0, Outcome.FAILED_TESTS, "", 0, 1, "none")]  # fmt: skip
    assert pretrain.pass_rates(problems, verdicts) == [
        {"model": "m", "pass@1": 0.5, "1 steps": 1.0, "2 steps": 0.0}
    ]
