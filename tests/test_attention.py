"""Our attention on plain rows against transformers' sdpa."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from rrtf.step import packing


@pytest.fixture
def models(tiny_model):
    torch.set_num_threads(1)
    ours = AutoModelForCausalLM.from_pretrained(tiny_model)
    theirs = AutoModelForCausalLM.from_pretrained(tiny_model, attn_implementation="sdpa")
    assert packing.use(ours) == packing.NAME
    return ours, theirs


def _ids(rows: int, length: int) -> torch.Tensor:
    return torch.randint(1, 250, (rows, length), generator=torch.Generator().manual_seed(0))


def test_logits_and_gradients_equal_sdpa(models):
    grads = []
    for model in models:
        out = model(input_ids=_ids(3, 17), labels=_ids(3, 17), use_cache=False)
        out.loss.backward()
        grads.append((out.logits, [p.grad for p in model.parameters()]))
    (ours, our_grads), (theirs, their_grads) = grads
    assert torch.allclose(ours, theirs, atol=1e-5)
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(our_grads, their_grads, strict=True))


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_masks_equal_sdpa_at_real_positions(models, side):
    mask = torch.ones(2, 9, dtype=torch.long)
    mask[1, slice(0, 4) if side == "left" else slice(5, 9)] = 0
    ours, theirs = (m(input_ids=_ids(2, 9), attention_mask=mask).logits for m in models)
    assert torch.allclose(ours[mask.bool()], theirs[mask.bool()], atol=1e-5)


@pytest.mark.parametrize("as_bool", [True, False])
def test_block_masks_of_four_dimensions_equal_sdpa(models, as_bool):
    visible = torch.ones(6, 6, dtype=torch.bool).tril()
    visible[4:, 2:4] = False
    mask = visible.view(1, 1, 6, 6).expand(2, 1, 6, 6)
    if not as_bool:
        mask = torch.zeros(2, 1, 6, 6).masked_fill(~mask, torch.finfo(torch.float32).min)
    ours, theirs = (m(input_ids=_ids(2, 6), attention_mask=mask).logits for m in models)
    assert torch.allclose(ours, theirs, atol=1e-5)


def test_decoding_with_a_cache_equals_sdpa(models):
    texts = [
        model.generate(_ids(2, 5), max_new_tokens=12, do_sample=False, pad_token_id=0)
        for model in models
    ]
    assert torch.equal(*texts)


def test_architectures_that_were_not_tested_keep_sdpa():
    from transformers import GPTNeoXConfig, LlamaConfig

    assert packing.choose(LlamaConfig()) == packing.NAME
    assert packing.choose(GPTNeoXConfig()) == "sdpa"
