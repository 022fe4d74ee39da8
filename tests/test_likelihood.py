"""Log-probabilities by tiles: their values, their gradients and the memory they take."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from rrtf.step import likelihood
from rrtf.step.likelihood import token_log_probs


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


@pytest.fixture(params=[(3, 4), (7, 11), (512, 4096)])
def tiles(request, monkeypatch):
    """Several of both sides, exactly one, and the default."""
    monkeypatch.setattr(likelihood, "TILE_WORDS", request.param[1])
    return request.param[0]


def test_tiles_equal_all_logits_at_once_in_value_and_gradients(tiles):
    hidden, head, targets = _inputs(7, 5, 11)
    ours = token_log_probs(hidden, head, targets, chunk=tiles)
    full = torch.log_softmax(head(hidden), dim=-1)[torch.arange(7), targets]
    torch.testing.assert_close(ours, full, rtol=1e-5, atol=1e-5)
    for a, b in zip(_gradients(ours, hidden, head), _gradients(full, hidden, head), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_the_gradient_of_tiles_is_the_derivative(tiles):
    hidden, head, targets = _inputs(4, 3, 9, torch.double)

    def logs(states, weight):
        return likelihood._TileByTile.apply(states, weight, targets, tiles)

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
