"""The packed step against every prompt + response on a padded row of its own, full logits."""

import itertools
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from rrtf import loss
from rrtf.step import batches, likelihood, packing, scoring
from rrtf.step.batches import Example

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
    torch.testing.assert_close(ours[0], theirs[0], rtol=tolerance, atol=tolerance)
    for name, gradient in theirs[1].items():
        torch.testing.assert_close(ours[1][name], gradient, rtol=tolerance, atol=tolerance)


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
    order = (2, 0, 3, 1)
    first = EXAMPLES[0]
    turned = Example(
        first.task_id,
        first.prompt,
        tuple(first.responses[k] for k in order),
        tuple(first.scores[k] for k in order),
        sft_index=order.index(first.sft_index),
    )
    assert_equal(step(model, [turned, *EXAMPLES[1:]]), step(model, EXAMPLES))


def test_where_the_order_is_right_only_the_imitated_response_has_a_gradient():
    model = network("gpt_bigcode")
    packing.use(model)
    batch = batches.collate(EXAMPLES)
    with torch.no_grad():
        sums, lengths = scoring.score(model, batch)
    right = batch | {"scores": sums / lengths}  # the model's own order
    for weight in (0.0, 1.0):
        model.zero_grad()
        sums, lengths = scoring.score(model, right)
        weights = replace(WEIGHTS, ft_weight=weight, margin=0.0)
        loss.rrtf(right, sums, lengths, weights).loss.backward()
        largest = max(float(p.grad.abs().max()) for p in model.parameters())
        assert (largest == 0) == (weight == 0)


def test_scoring_changes_no_tensor_of_the_batch():
    model = network("llama")
    packing.use(model)
    batch = batches.collate(EXAMPLES)
    before = {n: t.clone() for n, t in batch.items() if isinstance(t, torch.Tensor)}
    first, second = scoring.score(model, batch)[0], scoring.score(model, batch)[0]
    assert torch.equal(first, second)
    assert all(torch.equal(batch[name], tensor) for name, tensor in before.items())


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
