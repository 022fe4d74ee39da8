"""The decode loop: what it draws is the model's distribution, as transformers computes it."""

import math
from collections import Counter
from functools import cache

import pytest
import torch

from rrtf import engines
from rrtf.engines import decoding, gptbigcode, transformers

DRAWS = 10_000
TEMPERATURE, TOP_P = 1.0, 0.95
PROMPT = 'def solve(xs):\n    """Return the sum of the squares of the even numbers.\n    """'
Pair = tuple[int, int]


@cache
def reference():
    """(transformers' float32 model of the shipped student, its tokenizer)."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = engines.model_folder("nano-student")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval(), tokenizer


def nucleus(ids: list[int], temperature: float = TEMPERATURE) -> dict[int, float]:
    """{next token: probability} by transformers' own warpers, sorted nucleus and all."""
    from transformers import TemperatureLogitsWarper, TopPLogitsWarper

    tokens = torch.tensor([ids])
    with torch.inference_mode():
        logits = reference()[0](tokens).logits[:, -1]
    for warp in (TemperatureLogitsWarper(temperature), TopPLogitsWarper(TOP_P)):
        logits = warp(tokens, logits)
    chances = torch.softmax(logits, -1)[0]
    return {token: chances[token].item() for token in torch.nonzero(chances)[:, 0].tolist()}


def pairs(ids: list[int], temperature: float = TEMPERATURE) -> dict[Pair, float]:
    """{(next token, the one after): probability}: one step from the prompt, one from the cache."""
    return {
        (first, second): p * q
        for first, p in nucleus(ids, temperature).items()
        for second, q in nucleus([*ids, first], temperature).items()
    }


@cache
def beginning() -> list[int]:
    """The prompt and as much of the greedy answer as leaves most to choose for a next token."""
    model, tokenizer = reference()
    ids = tokenizer(PROMPT, return_tensors="pt").input_ids
    with torch.inference_mode():
        whole = model.generate(ids, max_new_tokens=30, do_sample=False)
        chances = torch.softmax(model(whole).logits[0] / TEMPERATURE, -1)
    entropy = torch.distributions.Categorical(chances).entropy()
    entropy[: ids.shape[1]] = 0
    return whole[0, : int(entropy.argmax()) + 1].tolist()


@cache
def drawn(name: str, dtype: str) -> Counter[Pair]:
    """How often each pair of tokens came in `DRAWS` samples."""
    engine = engines.open_engine(name, "nano-student", dtype=dtype)
    opened = {"gptbigcode": gptbigcode.Batch, "transformers": transformers.Batch}
    two = engines.Decoding(TEMPERATURE, TOP_P, 2, 0)
    with torch.inference_mode():
        batch = opened[name](engine.model, [beginning()] * DRAWS)
        numbers = decoding.uniforms(range(DRAWS), 2)
        rows = decoding.run(
            batch, numbers, decoding=two, ends=frozenset(), stopped=lambda row: False
        )
    return Counter((first, second) for (first, second), _ in rows)


def pooled(chances: dict[Pair, float]) -> dict[Pair | None, float]:
    """The pairs that are due at least five times, and all others as one."""
    common = {pair: p for pair, p in chances.items() if p * DRAWS >= 5}
    return {**common, None: 1 - sum(common.values())}


def variation(seen: Counter[Pair], expected: dict[Pair, float]) -> float:
    """Total variation between the shares that were `seen` and the `expected` chances, pooled."""
    due = pooled(expected)
    of = Counter({None: 0})
    for pair, count in seen.items():
        of[pair if pair in due else None] += count
    return sum(abs(of[pair] / DRAWS - p) for pair, p in due.items()) / 2


def allowed(expected: dict[Pair, float]) -> float:
    """What `DRAWS` exact draws exceed once in a million times.

    The mean of their variation is at most half the sum of the standard deviations; a draw moves it
    by at most 1 / DRAWS, so it exceeds its mean by t with a chance of at most exp(-2 DRAWS t^2)
    (McDiarmid).
    """
    mean = sum(math.sqrt(max(p * (1 - p), 0) / DRAWS) for p in pooled(expected).values()) / 2
    return mean + math.sqrt(math.log(1e6) / (2 * DRAWS))


@pytest.mark.parametrize("name", ["gptbigcode", "transformers"])
def test_samples_follow_the_exact_nucleus_in_float32(name):
    expected = pairs(beginning())
    assert len(pooled(expected)) > 8, "something to choose"
    seen = drawn(name, "float32")
    assert set(seen) <= set(expected), "nothing outside the nucleus"
    assert variation(seen, expected) < allowed(expected)


def test_samples_in_bfloat16_are_near_the_exact_nucleus_and_more_temperature_would_be_noticed():
    expected = pairs(beginning())
    assert variation(drawn("gptbigcode", "bfloat16"), expected) < allowed(expected) + 0.02
    hotter = pairs(beginning(), TEMPERATURE * 1.25)
    assert variation(drawn("gptbigcode", "float32"), hotter) > allowed(hotter)


def test_logits_of_rows_that_share_a_prompt_are_those_of_whole_texts():
    """Different lengths, samples that leave, prompts that leave, caches that grow."""
    _, tokenizer = reference()
    engine = engines.open_engine("gptbigcode", "nano-student", dtype="float32")
    texts = [tokenizer.encode(PROMPT[:cut]) for cut in range(20, 20 + 3 * 12, 3)]
    rows = [text for text in texts for _ in range(3)]
    batch = gptbigcode.Batch(engine.model, rows)
    generator = torch.Generator().manual_seed(0)
    for step in range(gptbigcode.GRAIN + 4):
        tokens = torch.randint(1, 2000, (len(rows),), generator=generator)
        batch.advance(tokens)
        rows = [[*row, token] for row, token in zip(rows, tokens.tolist(), strict=True)]
        if step % 12 == 11:
            staying = torch.arange(step // 2, len(rows))
            batch.keep(staying)
            rows = rows[step // 2 :]
    assert len(batch.padding_mask) < len(texts)
    found = batch.predict(slice(None))
    for row, logits in zip(rows, found, strict=True):
        whole = reference()[0](torch.tensor([row])).logits[0, -1]
        torch.testing.assert_close(logits, whole, atol=2e-3, rtol=1e-4)


def test_a_round_number_of_rows_stays_and_the_wanted_ones_are_among_them():
    wanted = torch.zeros(100, dtype=torch.bool)
    wanted[[3, 50, 99]] = True
    kept = decoding.rounded(wanted)
    assert len(kept) == 8 and {3, 50, 99} <= set(kept.tolist())
    assert kept.tolist() == sorted(kept.tolist())
    assert len(decoding.rounded(torch.ones(41, dtype=torch.bool))) == 41


@pytest.mark.parametrize("name", ["gptbigcode", "transformers"])
def test_a_row_does_not_depend_on_what_is_written_beside_it(tiny_model, name):
    prompts = ["def f(x):", "x = 1\n", "Return the sum of all the items", "a"]
    how = {"decoding": engines.Decoding(1.0, 0.9, 24, 7), "stops": ["\n\n"]}
    wide, narrow = (
        engines.open_engine(name, tiny_model, dtype="float32", rows=rows) for rows in (64, 3)
    )
    whole = wide.generate(prompts, n=5, **how)
    assert narrow.generate(prompts[::-1], n=5, **how)[::-1] == whole
    fewer = wide.generate(prompts[:2], n=2, **how)
    assert fewer == [row[:2] for row in whole[:2]]
