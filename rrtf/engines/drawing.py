"""Drawing the next token: temperature and top-p without sorting the vocabulary.

For 256 rows of 2,048 entries a sort costs more than the small models this project ships take for
the whole step; so does one random number per entry. Here a token costs one uniform number and a
few passes over its row, and the distribution is exactly that of the sorted nucleus.
"""

import torch
import torch.nn.functional as F

TRIES = 4  # uniform numbers per token: three draws, then a sort
BLOCK = 64  # vocabulary entries per block of the two-level search
ROUNDING = 1e-4  # how far the sum of a float32 distribution may be from 1


def inverse_cdf(probabilities: torch.Tensor, uniforms: torch.Tensor) -> torch.Tensor:
    """Tokens (R,) with `probabilities` (R, V), from `uniforms` (R,) in [0, 1).

    Two levels, blocks and then entries, so that only sums of blocks run over the vocabulary.
    """
    rows, size = probabilities.shape
    blocks = F.pad(probabilities, (0, -size % BLOCK)).view(rows, -1, BLOCK)  # (R, V / 64, 64)
    ends = blocks.sum(-1).cumsum(-1)  # (R, V / 64)
    block, offset = _first_above(ends, uniforms[:, None] * ends[:, -1:])
    inside = blocks.gather(1, block[:, :, None].expand(rows, 1, BLOCK)).squeeze(1)  # (R, 64)
    entry, _ = _first_above(inside.cumsum(-1), offset)
    return (block * BLOCK + entry).squeeze(1)


def _first_above(ends: torch.Tensor, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(index (R, 1) of the first of the running sums `ends` (R, N) above `x`, rest of x there)."""
    x = torch.minimum(x, torch.nextafter(ends[:, -1:], ends.new_zeros(())))  # rounding
    index = torch.searchsorted(ends, x, right=True)
    before = ends.gather(1, (index - 1).clamp(min=0)) * (index > 0)
    return index, x - before


def in_nucleus(probabilities: torch.Tensor, tokens: torch.Tensor, top_p: float) -> torch.Tensor:
    """Whether the entries ranked before `tokens` (R,) hold less than `top_p`; ties by index."""
    own = probabilities.gather(1, tokens[:, None])  # (R, 1)
    place = torch.arange(probabilities.shape[1], device=tokens.device)
    ahead = (probabilities > own) | ((probabilities == own) & (place[None] < tokens[:, None]))
    return (probabilities * ahead).sum(-1) < top_p


def draw(
    logits: torch.Tensor, uniforms: torch.Tensor | None, *, temperature: float, top_p: float
) -> torch.Tensor:
    """Next tokens (R,) from `logits` (R, V); temperature 0 takes the most likely.

    Nucleus sampling without sorting: a draw from the whole distribution that falls inside the
    nucleus is a draw from the nucleus. What falls outside (at most 1 - top_p) is drawn again, from
    the next column of `uniforms` (R, TRIES), the last time from the sorted nucleus, which is exact
    as well.
    """
    if temperature == 0:
        return logits.argmax(-1)
    probabilities = torch.softmax(logits.float() / temperature, -1)
    tokens = inverse_cdf(probabilities, uniforms[:, 0])
    rows = _doubtful(probabilities, tokens, top_p)
    for attempt in range(1, TRIES):
        rows = rows[~in_nucleus(probabilities[rows], tokens[rows], top_p)]
        if not len(rows):
            break
        left, numbers = probabilities[rows], uniforms[rows, attempt]
        last = attempt == TRIES - 1
        tokens[rows] = _sorted_draw(left, numbers, top_p) if last else inverse_cdf(left, numbers)
    return tokens


def _doubtful(probabilities: torch.Tensor, tokens: torch.Tensor, top_p: float) -> torch.Tensor:
    """The rows whose token may lie outside the nucleus.

    The entries before a token more likely than 1 - top_p hold less than top_p: it lies inside.
    """
    if top_p == 1:
        return tokens.new_zeros(0)
    own = probabilities.gather(1, tokens[:, None]).squeeze(1)
    return torch.nonzero(own <= 1 - top_p + ROUNDING).squeeze(1)


def _sorted_draw(probabilities: torch.Tensor, uniforms: torch.Tensor, top_p: float) -> torch.Tensor:
    ranked, order = torch.sort(probabilities, dim=-1, descending=True, stable=True)
    nucleus = ranked * (ranked.cumsum(-1) - ranked < top_p)
    return order.gather(1, inverse_cdf(nucleus, uniforms)[:, None]).squeeze(1)
