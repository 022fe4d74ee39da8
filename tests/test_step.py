"""One training step: the packed form against every prompt + response on a padded row of its own,
log-probabilities by tiles, our attention against transformers'; batches, what is dropped and why;
which modules are sharded.
"""

import itertools
import os
import subprocess
import sys
from dataclasses import replace
from math import prod
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from rrtf import loss, methods
from rrtf.records import Outcome, RankedGroup
from rrtf.step import batches, likelihood, packing, scoring, sharding
from rrtf.step.batches import Example
from rrtf.step.likelihood import token_log_probs

SHAPE = {"vocab_size": 40, "pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0}
SHAPE |= {"initializer_range": 0.2}
WIDE = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
WIDE |= {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64}
ARCHITECTURES = {
    "gpt_bigcode": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "n_inner": 48,
                    "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0},
    "llama": WIDE,
    "qwen2": WIDE,
    "starcoder2": WIDE | {"sliding_window": None},
}  # fmt: skip
WEIGHTS = loss.Weights(
    ft_weight=0.7, rank_weight=3.0, ft_reduction="mean", normalise=True, margin=0.1,
    pairs_of="teacher", beta=0.5,
)  # fmt: skip


def network(kind: str, **changes):
    torch.manual_seed(0)
    torch.set_num_threads(1)
    config = AutoConfig.for_model(kind, **SHAPE, **(ARCHITECTURES.get(kind, WIDE) | changes))
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32)


def _example(name: str, prompt: int, *sizes: int) -> Example:
    """A group of random tokens; every response ends in token 0."""
    draw = torch.Generator().manual_seed(sum(map(ord, name)))

    def some(n: int) -> tuple[int, ...]:
        return tuple(torch.randint(1, 40, (n,), generator=draw).tolist())

    responses = tuple((*some(n - 1), 0) for n in sizes)
    scores = tuple(float((3 * k) % 4) for k in range(len(sizes)))
    return Example(name, some(prompt), responses, scores, sft_index=len(sizes) // 2)


EXAMPLES = [_example("a", 7, 5, 9, 2, 6), _example("b", 3, 1, 12), _example("c", 11, 4, 4, 8)]


def plain_scores(model, examples):
    """(sums, lengths): one padded row per prompt + response, all logits, no tricks."""
    rows = [(e.prompt, r) for e in examples for r in e.responses]
    width = max(len(p) + len(r) for p, r in rows)
    ids, mask = torch.zeros(len(rows), width, dtype=torch.long), torch.zeros(len(rows), width)
    for row, (p, r) in enumerate(rows):
        ids[row, : len(p) + len(r)] = torch.tensor([*p, *r])
        mask[row, : len(p) + len(r)] = 1
    logs = model(input_ids=ids, attention_mask=mask, use_cache=False).logits.log_softmax(-1)
    sums = [
        sum(logs[row, len(p) + t - 1, token] for t, token in enumerate(r))
        for row, (p, r) in enumerate(rows)
    ]
    return torch.stack(sums), torch.tensor([float(len(r)) for _, r in rows])


def step(model, examples, score=scoring.score, objective="rrtf"):
    """(loss, gradients by name) of one step."""
    batch = batches.collate(examples)
    sums, lengths = score(model, batch)
    parts = loss.objective(objective).loss(batch, sums, lengths, WEIGHTS)
    model.zero_grad()
    parts.loss.backward()
    return parts.loss.detach(), {n: p.grad.clone() for n, p in model.named_parameters()}


def assert_equal(ours, theirs, tolerance=1e-5):
    """Of a gradient to that share of its largest entry: sums of another order end otherwise."""
    torch.testing.assert_close(ours[0], theirs[0], rtol=tolerance, atol=tolerance)
    for name, gradient in theirs[1].items():
        least = tolerance * max(1.0, gradient.abs().max().item())
        torch.testing.assert_close(ours[1][name], gradient, rtol=tolerance, atol=least)


def plain_step(model, examples):
    return step(model, examples, lambda network, _: plain_scores(network, examples))


@pytest.mark.parametrize("kind", ARCHITECTURES)
@pytest.mark.parametrize("way", ["by span", "padded", "sdpa", "recomputed"])
def test_the_packed_step_equals_the_plain_one_in_loss_and_gradients(kind, way, monkeypatch):
    model = network(kind)
    theirs = plain_step(model, EXAMPLES)
    name = packing.use(model, "sdpa" if way == "sdpa" else "auto")
    assert name == ("sdpa" if way == "sdpa" else "shared_prompt")
    if way == "padded":
        monkeypatch.setattr(packing, "attend", packing.padded)
    if way == "recomputed":
        model.activation_checkpointing_enable()
        model.train()
    assert_equal(step(model, EXAMPLES), theirs)


@pytest.mark.parametrize("kind", ["gpt_bigcode", "starcoder2"])
def test_attention_with_dropout_draws_anew_while_training_and_not_otherwise(kind):
    name = "attn_pdrop" if kind == "gpt_bigcode" else "attention_dropout"
    model, batch = network(kind, **{name: 0.3}), batches.collate(EXAMPLES)
    packing.use(model)
    first, second = (scoring.score(model.train(), batch)[0] for _ in range(2))
    assert torch.isfinite(first).all() and not torch.equal(first, second)
    theirs = plain_scores(model.eval(), EXAMPLES)[0]
    torch.testing.assert_close(scoring.score(model, batch)[0], theirs, rtol=1e-5, atol=1e-5)


def test_no_pair_of_tokens_that_do_not_see_each_other_is_computed():
    layout = batches.collate(EXAMPLES)["layout"]
    seen = torch.zeros(sum(map(sum, layout)), sum(map(sum, layout)), dtype=torch.int)
    for span in packing.spans(layout, block=1):
        seen[span.first : span.stop, span.prompt : span.prompt_stop] += 1
        seen[span.first : span.stop, span.start : span.stop] += 1
    sdpa = SimpleNamespace(_attn_implementation="sdpa")
    visible = packing.inputs(batches.collate(EXAMPLES), sdpa)[0]["attention_mask"]
    assert int(seen.max()) == 1 and int(seen.sum()) < int(visible.sum()), "no padding is visited"
    blocks = [m[0, :n, :n].int() for m, n in zip(visible, [sum(g) for g in layout], strict=True)]
    assert torch.equal(seen, torch.block_diag(*blocks).int())


@pytest.mark.parametrize("block", [1, 3, 1000])
def test_the_size_of_a_block_of_queries_makes_no_difference(block, monkeypatch):
    model = network("llama")
    packing.use(model)
    whole = step(model, EXAMPLES)
    cut = packing.spans
    monkeypatch.setattr(packing, "spans", lambda layout: cut(layout, block))
    assert_equal(step(model, EXAMPLES), whole)


def test_attention_by_span_has_the_right_gradient():
    layout, draw = ((3, 2, 0, 4), (1, 1)), torch.Generator().manual_seed(0)
    q, k, v = (
        torch.randn(1, heads, 11, 2, dtype=torch.double, generator=draw, requires_grad=True)
        for heads in (4, 2, 2)
    )

    def by_span(*tensors):
        return packing.attend(*tensors, layout, scale=0.6, dropout=0.0)

    def padded(*tensors):
        return packing.padded(*tensors, layout, scale=0.6, dropout=0.0)

    torch.testing.assert_close(by_span(q, k, v), padded(q, k, v))
    assert torch.autograd.gradcheck(by_span, (q, k, v))


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_in_bfloat16_the_packed_step_is_as_near_to_float32_as_the_plain_one(kind):
    model = network(kind)
    exact = plain_scores(model, EXAMPLES)[0]
    with torch.autocast("cpu", torch.bfloat16):
        rough = plain_scores(model, EXAMPLES)[0]
        packing.use(model)
        ours = scoring.score(model, batches.collate(EXAMPLES))[0]
    assert bool((ours - exact).abs().mean() < 2 * (rough - exact).abs().mean())


@pytest.mark.parametrize("kind", ["gpt_bigcode", "qwen2"])
def test_a_batch_is_the_mean_of_its_prompts_in_any_order(kind):
    model = network(kind)
    packing.use(model)
    whole = step(model, EXAMPLES)
    alone = [step(model, [example]) for example in EXAMPLES]
    mean = sum(one[0] for one in alone) / 3
    gradients = {name: sum(one[1][name] for one in alone) / 3 for name in whole[1]}
    assert_equal((mean, gradients), whole)
    assert_equal(step(model, EXAMPLES[::-1]), whole)


def test_the_order_of_the_candidates_makes_no_difference():
    model = network("starcoder2")
    packing.use(model)
    order, first = (2, 0, 3, 1), EXAMPLES[0]
    responses, scores = (tuple(some[k] for k in order) for some in (first.responses, first.scores))
    index = order.index(first.sft_index)
    turned = replace(first, responses=responses, scores=scores, sft_index=index)
    assert_equal(step(model, [turned, *EXAMPLES[1:]]), step(model, EXAMPLES))


def test_where_the_order_is_right_only_the_imitated_response_has_a_gradient():
    model = network("gpt_bigcode")
    packing.use(model)
    batch = batches.collate(EXAMPLES)
    before = {n: t.clone() for n, t in batch.items() if isinstance(t, torch.Tensor)}
    with torch.no_grad():
        sums, lengths = scoring.score(model, batch)
        assert torch.equal(sums, scoring.score(model, batch)[0])
    assert all(torch.equal(batch[name], tensor) for name, tensor in before.items()), "unchanged"
    right = batch | {"scores": sums / lengths}  # the model's own order
    for weight in (0.0, 1.0):
        model.zero_grad()
        sums, lengths = scoring.score(model, right)
        weights = replace(WEIGHTS, ft_weight=weight, margin=0.0)
        loss.rrtf(right, sums, lengths, weights).loss.backward()
        largest = max(float(p.grad.abs().max()) for p in model.parameters())
        assert (largest == 0) == (weight == 0)


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_copies_of_the_prompt_for_flash_attention_score_the_same_on_sdpa(kind):
    model, batch = network(kind).eval(), batches.collate(EXAMPLES)
    flash = SimpleNamespace(_attn_implementation="flash_attention_2")
    arguments, read = packing.inputs(batch, flash)
    borders = arguments["cu_seq_lens_q"].tolist()
    longest = arguments["max_length_q"]
    sizes = [len(e.prompt) + len(r) - 1 for e in EXAMPLES for r in e.responses]
    assert [b - a for a, b in itertools.pairwise(borders)] == sizes
    assert longest == max(sizes) and arguments["input_ids"].shape == (1, sum(sizes))
    hidden = model.get_decoder()(**arguments, use_cache=False).last_hidden_state[0, read]
    logs = likelihood.token_log_probs(hidden, model.get_output_embeddings(), batch["targets"])
    sums, _ = likelihood.response_sums(logs, batch["response"], len(batch["scores"]))
    torch.testing.assert_close(sums, plain_scores(model, EXAMPLES)[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["gpt_neox", "mistral"])
def test_other_architectures_fall_back_to_a_row_per_group_with_the_same_result(kind):
    model = network(kind, **({"sliding_window": None} if kind == "mistral" else {}))
    theirs = plain_step(model, EXAMPLES)
    assert packing.use(model) == "sdpa"
    assert_equal(step(model, EXAMPLES), theirs)


def test_a_sliding_window_that_bites_is_refused_and_a_wide_one_is_not():
    narrow = network("starcoder2", sliding_window=8)
    for name in ("auto", "sdpa"):
        packing.use(narrow, name)
        with pytest.raises(ValueError, match="18 tokens do not fit the model's sliding window of"):
            scoring.score(narrow, batches.collate(EXAMPLES))
    wide = network("starcoder2", sliding_window=32)
    theirs = plain_step(wide, EXAMPLES)
    packing.use(wide)
    assert_equal(step(wide, EXAMPLES), theirs)


def test_flash_attention_is_refused_with_what_it_lacks():
    config = network("llama").config
    with pytest.raises(ValueError, match="needs a GPU, half precision, the package flash_attn"):
        packing.choose(config, "flash_attention_2")
    with pytest.raises(ValueError, match="unknown attention 'fast'"):
        packing.choose(config, "fast")
    with pytest.raises(ValueError, match=r"is for gpt_bigcode, llama, .*, not gpt_neox"):
        packing.choose(network("gpt_neox").config, "shared_prompt")


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


def _inputs(n: int, width: int, words: int, dtype=torch.float32):
    draw = torch.Generator().manual_seed(0)
    hidden = torch.randn(n, width, generator=draw, dtype=dtype)
    head = nn.Linear(width, words, bias=False, dtype=dtype)
    with torch.no_grad():
        head.weight.copy_(torch.randn(words, width, generator=draw, dtype=dtype))
    return hidden.requires_grad_(), head, torch.randint(0, words, (n,), generator=draw)


def _gradients(logs, hidden, head):
    """Of a weighted sum, so that every token has a gradient of its own."""
    weights = torch.linspace(-1, 2, len(logs), dtype=logs.dtype)
    return torch.autograd.grad((logs * weights).sum(), (hidden, head.weight))


@pytest.fixture(params=[(3, 4), (7, 11), (512, 4096), (0, 4096)])
def tiles(request, monkeypatch):
    """Several of both sides, exactly one, the default, and no tiles at all."""
    monkeypatch.setattr(likelihood, "TILE_WORDS", request.param[1])
    return request.param[0]


def test_tiles_equal_all_logits_at_once_in_value_and_gradients(tiles):
    hidden, head, targets = _inputs(7, 5, 11)
    ours = token_log_probs(hidden, head, targets, chunk=tiles)
    full = torch.log_softmax(head(hidden), dim=-1)[torch.arange(7), targets]
    torch.testing.assert_close(ours, full, rtol=1e-5, atol=1e-5)
    for a, b in zip(_gradients(ours, hidden, head), _gradients(full, hidden, head), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("rows", [3, 4, 512])
def test_the_gradient_of_tiles_is_the_derivative(rows):
    hidden, head, targets = _inputs(4, 3, 9, torch.double)

    def logs(states, weight):
        return likelihood._TileByTile.apply(states, weight, targets, rows)

    assert torch.autograd.gradcheck(logs, (hidden, head.weight))


def test_tiles_in_bfloat16_are_nearer_to_float32_than_chunks_whose_gradients_add_up_in_bfloat16():
    hidden, head, targets = _inputs(2000, 16, 50)
    exact = _gradients(token_log_probs(hidden, head, targets, chunk=0), hidden, head)[1]

    def error(some_head) -> float:
        with torch.autocast("cpu", torch.bfloat16):
            logs = token_log_probs(hidden, some_head, targets, chunk=50)
        return float((_gradients(logs, hidden, head)[1] - exact).abs().max())

    assert error(head) < error(lambda states: head(states)) < 0.05 * float(exact.abs().max())


def test_a_head_that_is_frozen_gets_no_gradient_and_one_with_a_bias_is_called():
    hidden, head, targets = _inputs(6, 4, 10)
    head.requires_grad_(False)
    (only,) = torch.autograd.grad(token_log_probs(hidden, head, targets).sum(), hidden)
    with_bias = nn.Linear(4, 10)
    with torch.no_grad():
        with_bias.weight.copy_(head.weight)
        with_bias.bias.zero_()
    logs = token_log_probs(hidden, with_bias, targets, chunk=2)
    torch.testing.assert_close(only, torch.autograd.grad(logs.sum(), hidden)[0])


def test_the_number_of_hidden_states_and_of_targets_must_agree():
    with pytest.raises(ValueError, match="6 hidden states but 5 targets"):
        hidden, head, targets = _inputs(6, 4, 10)
        token_log_probs(hidden, head, targets[:5])


MEASURE = """
import re, torch
from pathlib import Path
from torch import nn
from rrtf.step.likelihood import token_log_probs
torch.set_num_threads(1)

def peak(n, words, chunk=512):
    hidden, head = torch.randn(n, 8, requires_grad=True), nn.Linear(8, words, bias=False)
    logs = token_log_probs(hidden, head, torch.randint(0, words, (n,)), chunk=chunk)
    logs.sum().backward()
    status = Path("/proc/self/status").read_text()  # ru_maxrss would begin with the parent's
    return int(re.search(r"VmHWM:\\s+(\\d+)", status)[1]) >> 10

print(peak(64, 64), peak(1024, 8192), peak(8192, 8192), peak(1024, 65536), peak(1024, 65536, 0))
"""


def test_peak_memory_grows_neither_with_the_tokens_nor_with_the_vocabulary():
    out = subprocess.run(
        [sys.executable, "-c", MEASURE], capture_output=True, text=True, check=True
    )
    start, few, more_tokens, more_words, at_once = map(int, out.stdout.split())  # MiB
    logits = 8192 * 8192 * 4 >> 20  # one N x V of float32, of either of the larger two
    tile = likelihood.TILE_ROWS * likelihood.TILE_WORDS * 4 >> 20
    assert few - start < 8 * tile < logits / 3
    # head, its gradient and what the allocator keeps besides: 10 to 20 MiB
    assert more_tokens - few < logits / 4, "eight times the tokens"
    assert more_words - few < logits / 4, "eight times the vocabulary"
    assert at_once - more_words > 1.5 * logits, "the logits and their gradient"


def _group(task_id="toy/1", responses=("\n return a", "\n b", "\n cc"), scores=(3.5, 3.0, 0.0)):
    count = len(responses)
    return RankedGroup(
        task_id=task_id,
        prompt=f"def f{task_id}(a):",
        responses=tuple(responses),
        sources=("teacher",) + ("student",) * (count - 1),
        outcomes=tuple(Outcome(min(4, int(s) + 1)) for s in scores),
        scores=tuple(scores),
        sft_index=0,
    )


@pytest.fixture
def tokenizer(tiny_model):
    return AutoTokenizer.from_pretrained(tiny_model)


@pytest.fixture
def model(tiny_model):
    torch.set_num_threads(1)
    return AutoModelForCausalLM.from_pretrained(tiny_model).eval()


def test_a_batch_by_hand():
    example = batches.Example("t", (5, 6), ((7, 0), (8, 9, 0)), (1.0, 0.0), 0)
    batch = batches.collate([example])
    assert example.n_tokens == 7 and batch["width"].tolist() == [5, 5]
    assert batch["input_ids"].tolist() == [[5, 6, 7, 8, 9]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 2, 3]]
    assert batch["layout"] == ((2, 1, 2),)
    assert batch["read"].tolist() == [1, 2, 1, 3, 4]
    assert batch["targets"].tolist() == [7, 0, 8, 9, 0]
    assert batch["response"].tolist() == [0, 0, 1, 1, 1]


def test_two_groups_lie_in_one_sequence_and_a_mask_per_row_is_made_only_for_sdpa(model):
    two = [
        batches.Example("t", (5, 6), ((7, 0), (8, 9, 0)), (1.0, 0.0), 0),
        batches.Example("u", (4,), ((3, 0),), (1.0,), 0),
    ]
    batch = batches.collate(two)
    assert batch["input_ids"].tolist() == [[5, 6, 7, 8, 9, 4, 3]]
    assert (batch["layout"], batch["teacher"].tolist()) == (((2, 1, 2), (1, 1)), [0, 2])
    assert batch["read"].tolist()[-2:] == [5, 6] and batch["width"].tolist() == [5, 5, 3]
    arguments, read = packing.inputs(batch, model.config)  # sdpa
    assert arguments["input_ids"].tolist() == [[5, 6, 7, 8, 9], [4, 3, 0, 0, 0]]
    assert read.tolist() == [1, 2, 1, 3, 4, 5, 6]
    rows = ["".join(map(str, row)) for row in arguments["attention_mask"][0, 0].int().tolist()]
    assert rows == ["10000", "11000", "11100", "11010", "11011"]
    packing.use(model)
    assert packing.inputs(batch, model.config)[0]["attention_mask"].numel() == 1


def test_every_target_ends_in_the_end_of_text_token(tokenizer):
    example = batches.encode(_group(), tokenizer, "rrtf")
    assert all(response[-1] == tokenizer.eos_token_id for response in example.responses)
    assert tokenizer.decode(example.responses[0][:-1]) == "\n return a"
    alone = batches.encode(_group(), tokenizer, "sft")
    assert (alone.responses, alone.scores) == (example.responses[:1], example.scores[:1])
    other = batches.encode(replace(_group(), sft_index=1), tokenizer, "sft")
    assert (other.responses, other.scores, other.sft_index) == (example.responses[1:2], (3.0,), 0)


def test_dropped_groups_are_counted_by_reason_and_add_up(tokenizer):
    groups = [
        _group(),
        _group("toy/single", ("\n a",), (3.0,)),
        _group("toy/level", ("\n a", "\n b"), (2.0, 2.0)),
        _group("toy/long", ("\n a", "\n" + "b" * 90), (2.0, 1.0)),
    ]
    how = {"objective": "dpo", "max_length": 60}
    kept, dropped = batches.prepare(groups, tokenizer, **how)
    assert [e.task_id for e in kept] == ["toy/1"]
    assert dropped == {"equal_scores": 1, "one_response": 1, "too_long": 1}
    with pytest.raises(ValueError, match="dpo: none of 3 groups"):
        batches.prepare(groups[1:], tokenizer, **how)


def test_a_response_that_is_too_long_leaves_its_group_whole_and_is_counted(tokenizer):
    long = "\n" + "b" * 90
    groups = [
        _group("toy/student", ("\n a", long, "\n b", "\n c"), (2.0, 1.0, 3.0, 0.0)),
        _group("toy/teacher", (long, "\n a", "\n b"), (3.0, 1.0, 2.0)),
        _group("toy/last", (long, long, "\n b", "\n a"), (0.0, 1.0, 3.0, 2.0)),
    ]
    groups[2] = replace(groups[2], sft_index=3)
    kept, dropped = batches.prepare(groups, tokenizer, objective="rrtf", max_length=60)
    assert [e.task_id for e in kept] == ["toy/student", "toy/last"]
    assert dropped == {"response_too_long": 3, "too_long": 1}
    texts = [[tokenizer.decode(r[:-1]) for r in e.responses] for e in kept]
    assert texts == [["\n a", "\n b", "\n c"], ["\n b", "\n a"]]
    assert [(e.scores, e.sft_index) for e in kept] == [((2.0, 3.0, 0.0), 0), ((3.0, 2.0), 1)]
    assert max(len(e.prompt) + len(r) for e in kept for r in e.responses) <= 60


def test_what_is_imitated_is_the_teachers_or_the_best_response_as_the_objective_says(tokenizer):
    groups = [_group(scores=(1.0, 3.0, 3.0)), _group("toy/tie", scores=(3.0, 3.0, 0.0))]

    def imitated(objective):
        examples, _ = batches.prepare(groups, tokenizer, objective=objective, max_length=256)
        return [tokenizer.decode(e.responses[e.sft_index][:-1]) for e in examples]

    assert imitated("rrtf") == imitated("sft") == imitated("dpo-sft") == ["\n return a"] * 2
    assert imitated("rrhf") == imitated("pro") == imitated("best-of-n") == ["\n b", "\n return a"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scores": (1.0, 2.0)}, "toy/1: 3 responses but 2 scores"),
        ({"scores": ()}, "toy/1: 3 responses but 0 scores"),
        ({"scores": (1.0, 2.0, float("nan"))}, "toy/1: score nan"),
        ({"sft_index": 3}, "toy/1: sft_index 3 of 3 responses"),
        ({"prompt": ""}, "toy/1: empty prompt"),
    ],
)
def test_a_group_that_contradicts_itself_is_named(change, message):
    with pytest.raises(ValueError, match=message):
        batches.check(replace(_group(), **change))


def test_the_order_fills_every_batch_and_is_shared_by_methods_on_fewer_prompts():
    examples = [batches.Example(f"t{i}", (1,), ((2, 0),), (1.0,), 0) for i in range(7)]
    order = batches.in_order(examples, updates=5, groups_per_batch=4, seed=3)
    names = [e.task_id for e in order]
    assert len(names) == 20
    assert sorted(names[:7]) == sorted(names[7:14]) == [f"t{i}" for i in range(7)]
    assert "".join(names[:10]) == "t3t5t2t4t0t6t1t2t5t1"
    for count in (7, 8):
        with pytest.raises(ValueError, match=f"held_out {count}: there are 7 groups"):
            batches.apart(examples, count=count, seed=3)
    fewer = batches.in_order(examples[:4], updates=1, groups_per_batch=4, seed=3)
    assert [e.task_id for e in fewer] == [n for n in names[:7] if n in ("t0", "t1", "t2", "t3")]


def _stage():
    good = _group("toy/good")
    bad = replace(_group("toy/bad"), outcomes=(Outcome.FAILED_TESTS, Outcome.PASS, Outcome.PASS))
    cut = {n: getattr(good, n)[:2] for n in ("responses", "sources", "outcomes", "scores")}
    return [good, replace(bad, scores=(2.5, 3.0, 3.0))], [replace(good, **cut)]


@pytest.mark.parametrize(
    ("method", "tasks", "dropped"),
    [
        ("sft", ["toy/good", "toy/bad"], {}),
        ("sft-verified", ["toy/good"], {"teacher_not_passing": 1}),
        ("sft-kept", ["toy/good"], {"no_pair": 1}),
        ("rrtf", ["toy/good"], {"no_pair": 1}),
        ("dpo", ["toy/good"], {"no_pair": 1}),
        ("rrhf", ["toy/good", "toy/bad"], {}),
    ],
)
def test_each_method_learns_from_its_own_groups(method, tasks, dropped):
    groups, pairs = _stage()
    chosen, left_out = methods.training_set(method, groups, pairs, max_responses=0)
    assert [g.task_id for g in chosen] == tasks
    assert left_out == dropped
    assert len(chosen) + sum(left_out.values()) == len(groups)


def test_rrhf_imitates_the_best_response_and_prefers_the_teacher_among_equals():
    groups, pairs = _stage()
    chosen, _ = methods.training_set("rrhf", groups, pairs, max_responses=0)
    assert [g.sft_index for g in chosen] == [0, 1]
    level = replace(groups[0], scores=(3.0, 3.0, 3.0), sft_index=2)
    assert methods.training_set("rrhf", [level], [], max_responses=0)[0][0].sft_index == 2
    assert groups[1].sft_index == 0


SMALL = {"vocab_size": 96, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4}
SMALL |= {"bos_token_id": 0, "eos_token_id": 0}
GROUPED = {"intermediate_size": 48, "num_key_value_heads": 2}
CONFIGS = {
    kind: AutoConfig.for_model(kind, **SMALL, **more)
    for kind, more in (
        ("gpt_bigcode", {"n_positions": 64}), ("llama", GROUPED),
        ("qwen2", GROUPED | {"tie_word_embeddings": True}), ("starcoder2", GROUPED),
    )
}  # fmt: skip


def on_meta(config) -> nn.Module:
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config)


@pytest.mark.parametrize("kind", CONFIGS)
def test_every_parameter_is_in_exactly_one_unit_and_tied_ones_count_once(kind):
    model = on_meta(CONFIGS[kind])
    names = sharding.units(model)
    assert [name.rsplit(".", 1)[-1] for name in names] == ["0", "1", "2", ""], "then the root"
    held = sharding.members(model, names)
    found = [id(parameter) for unit in held.values() for _, parameter in unit]
    assert sorted(found) == sorted(id(parameter) for parameter in model.parameters())
    for name, unit in held.items():
        assert all(path.startswith(name) for path, _ in unit)


def test_a_model_that_cannot_be_cut_into_blocks_is_refused_by_name():
    with pytest.raises(ValueError, match="Linear: no blocks to shard by"):
        sharding.units(nn.Linear(2, 2))
    model = on_meta(CONFIGS["llama"])
    with pytest.raises(ValueError, match=r"model.embed_tokens.weight: in none of the units"):
        sharding.members(model, ["model.layers.0"])
    model.model.layers[1].mlp.up_proj.weight = model.model.layers[0].mlp.up_proj.weight
    with pytest.raises(ValueError, match=r"layers.1.mlp.up_proj.weight: shared by the units model"):
        sharding.members(model, sharding.units(model))


def test_the_fullest_rank_holds_the_first_rows_of_every_parameter():
    """7 rows over 3 ranks: 3, 3, 1, as torch.chunk cuts; a vector of 2 over 3 ranks: 1, 1, 0."""
    layer = nn.Linear(5, 7, bias=False)
    assert sharding.first_shard(layer.weight, 3) == tuple(layer.weight.chunk(3)[0].shape) == (3, 5)
    parameters = [("weight", layer.weight), ("bias", nn.Parameter(torch.zeros(2)))]
    assert sharding.held_elements(parameters, 3) == 3 * 5 + 1
    assert sharding.held_elements(parameters, 1) == 7 * 5 + 2


STARCODER = """
import torch, torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.testing._internal.distributed.fake_pg import FakeStore
from transformers import AutoModelForCausalLM, GPTBigCodeConfig
from rrtf.step import sharding as blocks

config = GPTBigCodeConfig(vocab_size=49152, n_positions=8192, n_embd=6144, n_layer=40, n_head=48)
with torch.device("meta"):
    model = AutoModelForCausalLM.from_config(config)
names = blocks.units(model)
held = blocks.members(model, names)
print(len(names), sum(p.numel() for unit in held.values() for _, p in unit))
planned = [blocks.first_shard(p, 8) for p in model.parameters()]
print(sum(blocks.held_elements(unit, 8) for unit in held.values()))
dist.init_process_group("fake", rank=0, world_size=8, store=FakeStore())
mesh = init_device_mesh("cpu", (8,))
for name in names:
    fully_shard(model.get_submodule(name), mesh=mesh)
local = [tuple(p.to_local().shape) for p in model.parameters()]
print(sum(p.to_local().numel() for p in model.parameters()), local == planned)
"""


@pytest.mark.slow
def test_fully_shard_of_starcoder_15b_over_8_ranks_holds_what_is_planned_parameter_by_parameter():
    """On the meta device and a process group that only pretends: nothing is allocated or sent."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", STARCODER]
    found = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert found.returncode == 0, found.stderr
    assert found.stdout.split() == ["41", "15517456384", *["1939682048"] * 2, "True"]
    assert prod([8, 1939682048]) == 15517456384
