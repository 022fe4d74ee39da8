"""Log-probabilities of chosen tokens in memory that does not grow with their number.

The logits of N positions over V words are the largest tensor of a training step. They are made a
tile at a time, TILE_ROWS positions by TILE_WORDS words, and again for the gradient, which is
added up in float32. On a CPU that takes about as long as all logits at once for V = 2,048 and is
faster for large V in bfloat16, where gradients of chunks would be added to the whole head.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

TILE_ROWS, TILE_WORDS = 512, 4096
GPU_ROWS = 4096  # fewer launches than with smaller tiles; not measured


def token_log_probs(
    hidden: Tensor, head: Callable[[Tensor], Tensor], targets: Tensor, *, chunk: int = TILE_ROWS
) -> Tensor:
    """log P of each target token: hidden (N, D), targets (N,) -> (N,) float32.

    Only the positions that predict a response token are handed in, so prompts cost no logits.
    `chunk` positions at a time, 0 = all with all their logits. A plain linear `head` without bias
    is also cut along the vocabulary, on a GPU in tiles of at least GPU_ROWS positions; any other
    (adapters, quantised) is called chunk by chunk.
    """
    if hidden.shape[0] != targets.shape[0]:
        raise ValueError(f"{hidden.shape[0]} hidden states but {targets.shape[0]} targets")
    if chunk and type(head) is nn.Linear and head.bias is None and type(head.weight) in _PLAIN:
        rows = max(chunk, GPU_ROWS) if hidden.is_cuda else chunk
        return _TileByTile.apply(hidden, head.weight, targets, rows)

    def some(states: Tensor, wanted: Tensor) -> Tensor:
        return -functional.cross_entropy(head(states).float(), wanted, reduction="none")

    if not chunk or hidden.shape[0] <= chunk:
        return some(hidden, targets)
    from torch.utils.checkpoint import checkpoint

    pieces = zip(hidden.split(chunk), targets.split(chunk), strict=True)
    return torch.cat([checkpoint(some, h, t, use_reentrant=False) for h, t in pieces])


def response_sums(log_probs: Tensor, response: Tensor, n_responses: int) -> tuple[Tensor, Tensor]:
    """(sum_t log P, |y|) of each response, both (R,), of token log-probabilities (N,).

    `response` (N,) is the response that a token belongs to. ValueError for a response without a
    token: its p_i would be 0 / 0.
    """
    zeros = log_probs.new_zeros(n_responses)
    sums = zeros.index_add(0, response, log_probs)
    lengths = zeros.index_add(0, response, torch.ones_like(log_probs))
    if bool((lengths == 0).any()):
        raise ValueError(f"response {int((lengths == 0).nonzero()[0])} has no token")
    return sums, lengths


_PLAIN = (Tensor, nn.Parameter)  # and not, say, a shard of a weight


class _TileByTile(torch.autograd.Function):
    """h_n . w_y - log sum_v exp(h_n . w_v) for hidden (N, D), weight (V, D), targets y (N,).

    d/dlogit_nv = g_n * ([v = y_n] - P_nv): tiles of it are made from the saved logarithm.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, rows: int) -> Tensor:
        ctx.dtype, ctx.rows = _product_dtype(hidden), rows
        kind = torch.promote_types(hidden.dtype, torch.float32)
        total = torch.full(targets.shape, -torch.inf, dtype=kind, device=hidden.device)  # (N,)
        chosen = torch.zeros_like(total)
        with torch.autocast(hidden.device.type, enabled=False):
            h = hidden.to(ctx.dtype)
            for words, n in _tiles(weight, targets, rows):
                logits = (h[n] @ weight[words].to(ctx.dtype).T).to(kind)
                total[n] = torch.logaddexp(total[n], logits.logsumexp(dim=1))
                here, column = _own(targets[n], words)
                chosen[n] += torch.where(here, logits.gather(1, column[:, None])[:, 0], 0.0)
        ctx.save_for_backward(hidden, weight, targets, total)
        return chosen - total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, targets, total = ctx.saved_tensors
        h, both = hidden.to(ctx.dtype), ctx.needs_input_grad
        dh = torch.zeros(hidden.shape, dtype=total.dtype, device=hidden.device)
        dw = torch.zeros(weight.shape, dtype=total.dtype, device=hidden.device) if both[1] else None
        for words, n in _tiles(weight, targets, ctx.rows):
            w = weight[words].to(ctx.dtype)
            d = (h[n] @ w.T).to(total.dtype)
            d.sub_(total[n][:, None]).exp_().mul_(-grad[n][:, None])  # - g P
            here, column = _own(targets[n], words)
            d.scatter_add_(1, column[:, None], torch.where(here, grad[n], 0.0)[:, None])
            d = d.to(ctx.dtype)
            dh[n] += d @ w
            if dw is not None:
                dw[words] += d.T @ h[n]
        return dh.to(hidden.dtype), None if dw is None else dw.to(weight.dtype), None, None


def _product_dtype(hidden: Tensor) -> torch.dtype:
    """The dtype that autocast would multiply in."""
    kind = hidden.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden.dtype


def _tiles(weight: Tensor, targets: Tensor, rows: int) -> Iterator[tuple[slice, slice]]:
    """(words, positions) of every tile, all positions of one part of the vocabulary in turn."""
    for word in range(0, len(weight), TILE_WORDS):
        for n in range(0, len(targets), rows):
            yield (
                slice(word, min(word + TILE_WORDS, len(weight))),
                slice(n, min(n + rows, len(targets))),
            )


def _own(targets: Tensor, words: slice) -> tuple[Tensor, Tensor]:
    """(whether a target lies in this part of the vocabulary, its column there or 0)."""
    here = (targets >= words.start) & (targets < words.stop)
    return here, torch.where(here, targets - words.start, 0)
