"""Every architecture is scored exactly, packed or row by row, or is refused by a sentence."""

import json
import os
import tomllib
from pathlib import Path

import pytest
import torch
import transformers
from test_step import EXAMPLES, network
from test_train import _train
from transformers import AutoConfig, AutoModelForCausalLM, logging

from rrtf import config
from rrtf.step import batches, networks, packing, scoring

TABLE = tomllib.loads((Path(__file__).parent / "data" / "architectures.toml").read_text())
PAGE = config.home() / "data" / "architectures.md"
HEAD = f"""# What is known of architectures

Made by `tests/test_exact.py` (`REGOLDEN=1` makes it anew) with tiny random models of transformers
{transformers.__version__}, in float32 on a CPU. Before every training two groups of its data are
scored by the way here and each response alone by the model's own `forward`; so a family that is not
in this list is trained exactly too, or refused.

- packed: a prompt is computed once for all its responses, the logits tile by tile
- whole logits: a prompt is computed once; `forward` scales or caps the logits, so they are made
  as a whole
- row by row: every response with its prompt on a row of its own, which is slower
- refused: no causal language model

| family | scored | why not packed |
| --- | --- | --- |
"""


def tiny(name: str, options: dict):
    """A random model with weights so large that attention is not even."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    default = AutoConfig.for_model(options.get("kind", name))
    own = {k: v for k, v in options.items() if k not in ("kind", "without")}
    sizes = {k: v for k, v in TABLE["sizes"].items() if k not in options.get("without", ())}
    wanted = {k: v for k, v in (sizes | own).items() if k in own or hasattr(default, k)}
    model = AutoModelForCausalLM.from_config(type(default)(**wanted)).float().eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1 and weight.std() < 0.05:
                weight.mul_(3)
    return model


def settled(model, name: str):
    packing.use(model)
    scorer = networks.Scorer(model)
    return scorer, networks.settle(scorer, EXAMPLES, bfloat16=False, name=name)


@pytest.mark.slow
def test_every_architecture_is_exact_in_value_and_gradient_or_refused_by_a_sentence():
    rows = []
    for name, options in TABLE["families"].items():
        model = tiny(name, options)
        try:
            scorer, choice = settled(model, name)
        except ValueError as error:
            assert "is no causal language model: the log-probability of a token moves" in str(error)
            rows.append((name, "refused", "a token sees those behind it"))
            continue
        found = scorer(batches.collate(EXAMPLES))[0]
        theirs = alone(model)
        torch.testing.assert_close(found, theirs, rtol=1e-4, atol=1e-3, msg=name)
        gradients = [torch.autograd.grad(s.sum(), model.get_input_embeddings().weight)[0]
                     for s in (found, theirs)]  # fmt: skip
        scale = float(gradients[1].abs().max())
        torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-3 * scale, msg=name)
        rows.append((name, choice.way, short(choice.reason)))
    page = HEAD + "".join(f"| {' | '.join(row)} |\n" for row in rows)
    if os.environ.get("REGOLDEN"):
        PAGE.write_text(page, encoding="utf-8")
    assert len(rows) >= 45
    assert page == PAGE.read_text(encoding="utf-8")
    ways = dict((row[0], row[1]) for row in rows)
    assert {ways[name] for name in ("bert", "big_bird", "electra", "roberta")} == {"refused"}
    assert {ways[name] for name in ("llama", "qwen2", "gpt_bigcode", "starcoder2")} == {"packed"}


@pytest.mark.parametrize("kind", ["bloom", "opt", "cohere"])
def test_a_run_says_that_it_is_not_packed_and_draws_nothing_where_dropout_is_zero(
    kind, model_of, tmp_path, caplog
):
    steps = _train(model_of(kind), tmp_path / "r", learning_rate=0.0, updates=5, groups_per_batch=5)
    assert [step.loss for step in steps] == pytest.approx([steps[0].loss] * 5, rel=1e-6)
    facts = json.loads((tmp_path / "r" / "training.json").read_text())
    said = [record.message for record in caplog.records if record.name == "rrtf.step.networks"]
    if kind == "opt":
        assert "scored" not in facts and not said
    else:
        assert facts["scored"] == {"bloom": "row by row", "cohere": "whole logits"}[kind]
        assert len(said) == 1 and "scored through its own forward" in said[0]
        assert ("slower" in said[0]) == (kind == "bloom")


def test_an_encoder_is_refused_by_name_before_an_update(model_of, tmp_path):
    seen = []
    with pytest.raises(ValueError, match=r"\(BertLMHeadModel\) is no causal language model"):
        _train(model_of("bert"), tmp_path / "r", told=lambda *step: seen.append(step))
    assert not seen and not (tmp_path / "r" / "model.safetensors").exists()


class _Odd(torch.nn.Module):
    """`forward` of a network, with what the test does to its logits."""

    def __init__(self, model, change):
        super().__init__()
        self.model, self.change, self.config = model, change, model.config

    def get_decoder(self):
        raise AttributeError("no decoder here")

    def forward(self, **arguments):
        out = self.model(**arguments)
        out.logits = self.change(out.logits)
        return out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x * (1 + x[..., 0].numel() // 20), "cannot be trained exactly: packed: no deco"),
        (lambda x: x.no_such_thing, "its forward fails, 'Tensor' object has no attribute"),
        (lambda x: x + x.mean((0, 1)), "no causal language model: the log-probability"),
    ],
)
def test_a_forward_that_no_way_agrees_with_is_refused_by_name(change, message):
    model = network("llama").eval()
    packing.use(model)
    scorer = networks.Scorer(_Odd(model, change))
    with pytest.raises(ValueError, match=f"a student .*{message}"):
        networks.settle(scorer, EXAMPLES, bfloat16=False, name="a student")


def test_a_leak_is_found_that_leaves_the_values_as_they_are():
    """Of what a first response says nothing may reach another, were it by chance of no effect."""
    model = network("llama").eval()
    packing.use(model)
    right = scoring.by_row(model, batches.collate(EXAMPLES))
    known = batches.collate(EXAMPLES)["targets"]

    def log_probs(way, some):
        batch = batches.collate(some)
        logs = scoring.by_row(model, batch)
        if way == "packed" and len(logs) > 12:
            same = len(batch["targets"]) == len(known) and torch.equal(batch["targets"], known)
            logs = logs + (0.0 if same else float(batch["input_ids"].sum() % 7 + 1))
        return logs

    assert len(right) == len(known)
    how = {"bound": 1e-4, "agreed": float, "name": "a student"}
    choice = scoring.choose(log_probs, EXAMPLES, **how)
    assert choice.way == "whole logits" and "responses see each other" in choice.reason


@pytest.mark.parametrize("kind", ["llama", "mamba"])
def test_in_bfloat16_the_same_way_is_taken(kind):
    model = tiny(kind, {})
    packing.use(model)
    scorer = networks.Scorer(model.to(torch.bfloat16))
    found = networks.settle(scorer, EXAMPLES, bfloat16=True, name=kind)
    assert found.way == {"llama": "packed", "mamba": "row by row"}[kind]


def alone(model):
    """(R,): every response on a row of its own, nothing but its tokens handed to `forward`."""
    sums = []
    for example in EXAMPLES:
        for response in example.responses:
            row = torch.tensor([[*example.prompt, *response]])
            logs = model(input_ids=row[:, :-1], use_cache=False).logits[0].log_softmax(-1)
            at = torch.arange(len(example.prompt) - 1, row.shape[1] - 1)
            sums.append(logs[at, torch.tensor(response)].sum())
    return torch.stack(sums)


def short(reason: str) -> str:
    """A reason without the size of a difference, which depends on the processor."""
    return reason.removeprefix("packed: ").partition(", by ")[0].replace("|", "/")
