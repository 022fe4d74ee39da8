"""Adapters: what they train, what is saved of them, and that they resume."""

import json
from functools import partial
from importlib.util import find_spec

import pytest
import torch
from test_train import ARCHITECTURES, _resumed, _same, _weights, recipe, stopping
from test_train import _train as _trained
from transformers import AutoModelForCausalLM

from rrtf import train
from rrtf.step import networks, sharding

LORA = {"lora_rank": 4, "lora_alpha": 8.0, "learning_rate": 1e-2}


def _train(model, output, objective="rrtf", told=None, **changes):
    return _trained(model, output, objective, told, **LORA | changes)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_adapters_learn_and_are_merged_into_a_plain_model(model_of, tmp_path, architecture):
    from peft import PeftModel

    base = model_of(architecture)
    steps = _train(base, tmp_path / "r")
    assert steps[-1].loss < steps[0].loss
    start, merged = (AutoModelForCausalLM.from_pretrained(f) for f in (base, tmp_path / "r"))
    names = merged.state_dict().keys()
    assert names == start.state_dict().keys() and not any("lora" in name for name in names)
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        before, after = start(ids).logits, merged(ids).logits
        apart = PeftModel.from_pretrained(start, tmp_path / "r" / "adapter")(ids).logits
    assert torch.allclose(after, apart, atol=1e-4) and not torch.allclose(after, before, atol=1e-2)


def test_only_adapters_are_trained_and_the_first_row_is_that_of_the_start_model(
    tiny_model, tmp_path
):
    scorer, _ = train.load(tiny_model, recipe(lora_rank=2))
    learnt = [name for name, p in scorer.named_parameters() if p.requires_grad]
    assert len(learnt) == 2 * 2 * 4 and all("lora_" in name for name in learnt)
    plain = _train(tiny_model, tmp_path / "plain", lora_rank=0, updates=1)
    first = _train(tiny_model, tmp_path / "lora", updates=1)
    assert first[0].loss == pytest.approx(plain[0].loss, rel=1e-6), "B starts at zero"


def test_named_targets_get_adapters_and_the_other_weights_stay(tiny_model, tmp_path):
    _train(tiny_model, tmp_path / "r", lora_targets="c_attn, c_fc")
    before, after = _weights(tiny_model), _weights(tmp_path / "r")
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    kinds = ("attn.c_attn.weight", "mlp.c_fc.weight")
    assert changed == {f"transformer.h.{k}.{kind}" for k in (0, 1) for kind in kinds}
    settings = json.loads((tmp_path / "r" / "adapter" / "adapter_config.json").read_text())
    assert set(settings["target_modules"]) == {"c_attn", "c_fc"}
    assert (settings["r"], settings["lora_alpha"]) == (4, 8.0)


def test_an_adapter_on_a_weight_of_two_modules_is_refused_with_the_way_out(tiny_model):
    with pytest.raises(ValueError, match=r"wte and lm_head are one weight.*or all-linear"):
        train.load(tiny_model, recipe(lora_rank=2, lora_targets="lm_head"))


def test_interrupted_adapters_resume_to_the_weights_of_uninterrupted_ones(tiny_model, tmp_path):
    made = partial(_train, tiny_model, checkpoint_every=2, lora_dropout=0.1)
    whole = made(tmp_path / "r")

    with pytest.raises(KeyboardInterrupt):
        made(tmp_path / "cut" / "r", told=stopping(5))
    kept = (tmp_path / "cut" / "r" / "checkpoints").rglob("*.safe*")
    saved = sum(file.stat().st_size for file in kept)
    assert saved < 0.9 * 2 * 3 * sum(4 * v.numel() for v in _weights(tiny_model).values())
    assert _resumed(made, tmp_path / "cut" / "r") == ([5, 6], whole)
    assert _same(tmp_path / "cut" / "r", tmp_path / "r")


def test_dpo_with_adapters_starts_at_its_reference(tiny_model, tmp_path):
    steps = _train(tiny_model, tmp_path / "r", "dpo")
    assert steps[0].loss == pytest.approx(0.693147, abs=1e-5)
    assert steps[-1].loss < steps[0].loss


def test_with_bfloat16_the_frozen_base_is_bfloat16_and_adapters_are_float32(tiny_model):
    scorer, _ = train.load(tiny_model, recipe(lora_rank=2, precision="bfloat16"))
    kinds = {(p.requires_grad, p.dtype) for p in scorer.parameters()}
    assert kinds == {(True, torch.float32), (False, torch.bfloat16)}


def test_what_qlora_lacks_is_said_before_a_model_is_loaded(tmp_path, monkeypatch):
    def load(**changes):
        train.load(tmp_path / "no model", recipe(qlora=True, **changes))

    with pytest.raises(ValueError, match="qlora freezes the base: give lora_rank"):
        load()
    monkeypatch.setattr(networks, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"needs bitsandbytes, which is not installed: pip ins"):
        load(lora_rank=4)
    monkeypatch.setattr(sharding, "processes", lambda: 2)
    with pytest.raises(ValueError, match="qlora works in one process"):
        load(lora_rank=4)


@pytest.mark.skipif(not find_spec("bitsandbytes"), reason="needs bitsandbytes")
@pytest.mark.parametrize("architecture", ["gpt_bigcode", "llama"])
def test_qlora_learns_on_four_bits_and_is_merged_into_the_whole_base(
    model_of,
    tmp_path,
    architecture,
):
    base = model_of(architecture)
    scorer, _ = train.load(base, recipe(lora_rank=4, qlora=True))
    assert any(type(module).__name__ == "Linear4bit" for module in scorer.modules())
    steps = _train(base, tmp_path / "r", qlora=True)
    assert steps[-1].loss < steps[0].loss
    before, after = _weights(base), _weights(tmp_path / "r")
    assert before.keys() == after.keys()
    embeddings = [name for name in before if name.endswith(("wte.weight", "embed_tokens.weight"))]
    assert embeddings and all(torch.equal(before[name], after[name]) for name in embeddings)
