"""The same loss and the same gradient as TRL, where TRL has the same objective.

TRL tokenises the texts, adds the end-of-text token, masks the prompts and computes its loss by
itself, in a process of its own (`peer_trl.py`); its Python is this one if it has TRL, else that
of `make peers`. What the two do not share is stated in the tests' names: TRL's mean over tokens
is one over the whole batch, ours one over each response and then over the prompts.
"""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from test_interop import peer
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from rrtf import loss
from rrtf.records import Outcome, RankedGroup
from rrtf.step import batches, packing, scoring

pytestmark = pytest.mark.slow

CLOSE = {"rel": 1e-5, "abs": 1e-5}
ROWS = [
    {"prompt": prompt, "chosen": chosen, "rejected": rejected}
    for prompt, chosen, rejected in (
        ("def add(a, b):", "\n    return a + b\n", "\n    return a\n"),
        ('def twice(x):\n    """Double x."""', "\n    return 2 * x\n",
         "\n    y = x\n    return y * x\n"),
        ("def é(xs):", "\n    return sum(xs)", ""),
    )
]  # fmt: skip


# name -> (kind of TRL's trainer, its arguments, our objective, our options)
HINGE = {"loss_type": "hinge", "beta": 0.01}
CASES = {
    # float32 leaves about 1e-5 of a log-probability sum of some hundreds: a small beta
    "dpo": ("dpo", {"beta": 0.1}, "dpo", {"beta": 0.1}),
    "simpo": ("cpo", {"loss_type": "simpo", "cpo_alpha": 0.0, "beta": 2.0, "simpo_gamma": 0.7},
              "simpo", {"beta": 2.0, "margin": 0.7}),
    "hinge": ("cpo", HINGE | {"cpo_alpha": 0.0},
              "cpo-hinge", {"beta": 0.01, "margin": 1.0, "ft_weight": 0.0}),
    "hinge + L_ft": ("cpo", HINGE | {"cpo_alpha": 0.5},
                     "cpo-hinge", {"beta": 0.01, "margin": 1.0, "ft_weight": 0.5}),
    "sft": ("sft", {}, "sft", {}),
}  # fmt: skip


MODELS = ("gptbigcode", "llama")


def changed(folder: Path, into: Path, seed: int) -> Path:
    """A copy of a model with other weights, near to its own."""
    network = AutoModelForCausalLM.from_pretrained(folder)
    torch.manual_seed(seed)
    for parameter in network.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    network.save_pretrained(into)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (into / name).write_bytes((folder / name).read_bytes())
    return into


@pytest.fixture(scope="module")
def models(tiny_model, tmp_path_factory) -> dict[str, dict[str, str]]:
    """For each architecture, the folders of the model trained and of DPO's reference."""
    folder = tmp_path_factory.mktemp("trl")
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=257, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=256,
        bos_token_id=0, eos_token_id=0, pad_token_id=0, initializer_range=0.2,
    )  # fmt: skip
    (folder / "llama").mkdir()
    LlamaForCausalLM(config).save_pretrained(folder / "llama")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / "llama" / name).write_bytes((tiny_model / name).read_bytes())
    starts = {"gptbigcode": tiny_model, "llama": folder / "llama"}
    return {
        name: {"policy": str(start), "reference": str(changed(start, folder / f"{name}-ref", 2))}
        for name, start in starts.items()
    }


BATCHES = [ROWS, *([row] for row in ROWS)]  # all texts in one batch, and each alone


@pytest.fixture(scope="module")
def theirs(models, tmp_path_factory) -> dict[tuple[str, str], list[dict]]:
    """What TRL computes for (model, case): the whole batch first, then row by row."""
    has_it = subprocess.run([sys.executable, "-c", "import trl"], capture_output=True)
    python = sys.executable if has_it.returncode == 0 else peer("trl", "RRTF_TRL")
    found = {}
    for model, folders in models.items():
        cases = [
            {"kind": kind, "args": arguments, "rows": rows}
            for kind, arguments, _, _ in CASES.values()
            for rows in BATCHES
        ]
        path = tmp_path_factory.mktemp("task") / "task.json"
        path.write_text(json.dumps({"models": folders, "cases": cases}))
        done = subprocess.run(
            [python, Path(__file__).with_name("peer_trl.py"), path],
            capture_output=True, text=True, timeout=300,
            env=os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        results = iter(json.loads(done.stdout.splitlines()[-1]))
        found |= {(model, name): [next(results) for _ in BATCHES] for name in CASES}
    return found


def group(row: dict) -> RankedGroup:
    return RankedGroup(
        row["prompt"], row["prompt"], (row["chosen"], row["rejected"]), ("teacher", "student"),
        (Outcome.PASS, Outcome.FAILED_TESTS), (3.5, 2.0), 0,
    )  # fmt: skip


def ours(folders: dict, rows: list[dict], objective: str, options: dict) -> dict:
    """Our loss of the rows as one batch, its gradient's norm, and our token ids."""
    network, tokenizer = packing.load(folders["policy"], dropout=0.0, threads=1)
    examples, _ = batches.prepare(
        [group(row) for row in rows], tokenizer, objective=objective, max_length=256
    )
    batch = batches.collate(examples)
    if objective == "dpo":
        with torch.no_grad():
            before = packing.load(folders["reference"], dropout=0.0, threads=1)[0]
            batch["reference"] = scoring.score(before, batch)[0]
    sums, lengths = scoring.score(network.train(), batch)
    weights = replace(loss.PAPER, **{"ft_reduction": "mean"} | options)
    parts = loss.OBJECTIVES[objective].loss(batch, sums, lengths, weights)
    parts.loss.backward()
    squares = [p.grad.double().square().sum() for p in network.parameters() if p.grad is not None]
    return {
        "loss": float(parts.loss.detach()),
        "gradient": float(sum(squares).sqrt()),
        "of": examples,
    }


def same(mine: dict, other: dict, factor: float = 1.0) -> None:
    assert mine["gradient"] > 1e-3  # a gradient to compare
    assert factor * mine["loss"] == pytest.approx(other["loss"], **CLOSE)
    assert factor * mine["gradient"] == pytest.approx(other["gradient"], **CLOSE)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("name", CASES)
def test_one_prompt_has_trls_loss_and_gradient(theirs, models, model, name):
    _, _, objective, options = CASES[name]
    for row, other in zip(ROWS, theirs[model, name][1:], strict=True):
        same(ours(models[model], [row], objective, options), other)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("name", ["dpo", "simpo", "hinge"])
def test_a_batch_has_trls_loss_and_gradient(theirs, models, model, name):
    _, _, objective, options = CASES[name]
    same(ours(models[model], ROWS, objective, options), theirs[model, name][0])


@pytest.mark.parametrize("model", MODELS)
def test_trls_mean_over_the_tokens_of_a_batch_is_our_token_sum_per_prompt_over_tokens_per_prompt(
    theirs, models, model
):
    mine = ours(models[model], ROWS, "sft", {"ft_reduction": "sum"})
    tokens = sum(len(example.responses[0]) for example in mine["of"])
    same(mine, theirs[model, "sft"][0], factor=len(ROWS) / tokens)
    per_response = ours(models[model], ROWS, "sft", {"ft_reduction": "mean"})
    assert per_response["loss"] != pytest.approx(theirs[model, "sft"][0]["loss"], **CLOSE)


@pytest.mark.parametrize("name", ["dpo", "hinge", "sft"])
def test_trl_makes_the_same_tokens_and_masks_of_the_texts(theirs, models, name):
    objective = CASES[name][2]
    examples = ours(models["gptbigcode"], ROWS, objective, CASES[name][3])["of"]
    found = theirs["gptbigcode", name][0]["inputs"]
    for at, example in enumerate(examples):
        for place, response in enumerate(example.responses):
            ids, labels = tokens_of(name, found, at, place)
            assert tuple(ids) == (*example.prompt, *response)
            assert tuple(labels) == (*[-100] * len(example.prompt), *response)
            assert response[-1] == 0  # end of text


def tokens_of(name: str, found: dict, at: int, place: int) -> tuple[list[int], list[int]]:
    """(ids, labels) of TRL's batch for the chosen (0) or rejected (1) response, without padding."""
    if name == "hinge":
        side = ("chosen", "rejected")[place]
        rows = (found[f"{side}_{part}"][at] for part in ("input_ids", "attention_mask", "labels"))
        ids, mask, labels = rows
    else:
        row = at + place * len(ROWS)
        ids, mask = found["input_ids"][row], found["attention_mask"][row]
        if name == "sft":
            labels = found["labels"][row]
        else:
            marks = zip(ids, found["completion_mask"][row], strict=True)
            labels = [token if mark else -100 for token, mark in marks]
    seen = sum(mask)
    return ids[:seen], labels[:seen]
