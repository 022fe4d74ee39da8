"""The decode loop that the engines on torch share: draw, write down, let finished rows leave.

A model takes part by a `Batch`, which remembers what its rows have read. The random numbers of a
row depend on the seed, its prompt and its sample number alone, so neither the size nor the order
of batches decides what is drawn.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

import torch
import torch.nn.functional as F

from rrtf.config import derive_seed
from rrtf.engines import (
    NOTHING,
    Completion,
    Decoding,
    check_sampling,
    complete,
    portions,
    prompt_keys,
    stop_near_end,
)

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


PERIOD = 8  # tokens between two looks at finished rows
DRAWN = 128  # rows whose logits are held at a time: in float32 they stay in a CPU's cache
Prompts = Sequence[Sequence[int]]


class Batch(Protocol):
    """Rows that are being written, and what the model remembers of them."""

    device: torch.device

    def __len__(self) -> int:
        """R, the rows."""
        ...

    def predict(self, rows: slice) -> torch.Tensor:
        """Logits (r, V) of the next token of some rows."""
        ...

    def advance(self, tokens: torch.Tensor) -> None:
        """Reads one more token (R,) per row."""
        ...

    def keep(self, rows: torch.Tensor) -> None:
        """Goes on with the given rows (ascending indices) only."""
        ...


class Writer(Protocol):
    """What the loop needs of an engine; `rows` are the most that it writes at a time."""

    ends: frozenset[int]  # the tokens that end a text
    positions: int
    rows: int

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """The token ids of every prompt."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids, without those of special tokens."""
        ...

    def open_batch(self, prompts: Prompts) -> Batch:
        """Reads prompts, one per row; the samples of a prompt follow each other."""
        ...


@torch.inference_mode()
def generate(
    writer: Writer, prompts: Sequence[str], *, n: int, decoding: Decoding, stops: Sequence[str]
) -> list[list[Completion]]:
    """`Generator.generate` of the engine `writer`."""
    check_sampling(decoding, n)
    ids, keys = writer.encode(prompts), prompt_keys(prompts)
    how = {"max_new_tokens": decoding.max_new_tokens, "positions": writer.positions}
    found: dict[tuple[int, int], Completion] = {}
    for pairs, longest in portions([len(one) for one in ids], n=n, rows=writer.rows, **how):
        if not longest:
            found |= dict.fromkeys(pairs, NOTHING)
            continue
        seeds = [derive_seed(decoding.seed, *keys[prompt], sample) for prompt, sample in pairs]
        written = run(
            writer.open_batch([ids[prompt] for prompt, _ in pairs]),
            uniforms(seeds, longest) if decoding.temperature else None,
            decoding=replace(decoding, max_new_tokens=longest),
            ends=writer.ends,
            stopped=lambda row: stop_near_end(row, stops, writer.decode, fresh=PERIOD),
        )
        for pair, (row, ended) in zip(pairs, written, strict=True):
            found[pair] = complete(row, stops=stops, decode=writer.decode, ended=ended)
    return [[found[prompt, sample] for sample in range(n)] for prompt in range(len(prompts))]


@torch.inference_mode()
def follow(writer: Writer, rows: Prompts, length: int) -> list[list[int]]:
    """`Scorer.greedy` of the engine `writer`."""
    greedy = Decoding(0.0, 1.0, length, 0)
    how = {"decoding": greedy, "ends": writer.ends, "stopped": lambda row: False}
    return [row for row, _ in run(writer.open_batch(rows), None, **how)]


def run(
    batch: Batch,
    numbers: torch.Tensor | None,
    *,
    decoding: Decoding,
    ends: frozenset[int],
    stopped: Callable[[Sequence[int]], bool],
) -> list[tuple[list[int], bool]]:
    """(generated ids, whether end of text followed) per row.

    `numbers` is (R, max_new_tokens, TRIES), None for greedy; `stopped(ids)` tells whether a stop
    sequence ends in the last `PERIOD` of `ids`.
    """
    device, size, limit = batch.device, len(batch), decoding.max_new_tokens
    numbers = numbers.to(device) if numbers is not None else None
    written = torch.zeros(size, limit, dtype=torch.long, device=device)
    rows = torch.arange(size, device=device)  # those still in the batch
    done = torch.zeros(size, dtype=torch.bool)
    for step in range(limit):
        now = numbers[rows, step] if numbers is not None else None
        tokens = _next(batch, now, decoding)
        written[rows, step] = tokens
        if step + 1 == limit:
            break
        if (step + 1) % PERIOD == 0:
            done |= _finished(written[rows, : step + 1].tolist(), done, ends, stopped)
            if done.all():
                break
            staying = rounded(~done)
            if len(staying) < len(done):
                done, staying = done[staying], staying.to(device)
                rows, tokens = rows[staying], tokens[staying]
                batch.keep(staying)
        batch.advance(tokens)
    return [_until_end(row, ends) for row in written[:, : step + 1].tolist()]


def _next(batch: Batch, numbers: torch.Tensor | None, decoding: Decoding) -> torch.Tensor:
    """The next token (R,) of every row, a block of rows at a time."""
    found, how = [], {"temperature": decoding.temperature, "top_p": decoding.top_p}
    for at in range(0, len(batch), DRAWN):
        block = slice(at, at + DRAWN)
        chosen = numbers[block] if numbers is not None else None
        found.append(draw(batch.predict(block), chosen, **how))
    return torch.cat(found)


def _finished(
    rows: Prompts,
    done: torch.Tensor,
    ends: frozenset[int],
    stopped: Callable[[Sequence[int]], bool],
) -> torch.Tensor:
    """Which rows (R,) met end of text or a stop sequence in their last `PERIOD` tokens."""
    flags = [
        not before and (not ends.isdisjoint(row[-PERIOD:]) or stopped(row))
        for row, before in zip(rows, done.tolist(), strict=True)
    ]
    return torch.tensor(flags)


def rounded(wanted: torch.Tensor) -> torch.Tensor:
    """Ascending indices of the `wanted` (R,) entries and of some others: a round number of them.

    Matrix kernels are compiled for every size when it first comes, about a millisecond each on a
    CPU. Few sizes cost less than a few finished rows that stay.
    """
    count = int(wanted.sum())
    grain = 8 if count <= 32 else 32 if count <= 512 else 128
    kept = torch.argsort(~wanted, stable=True)[: -(-count // grain) * grain]
    return kept.sort().values


def _until_end(row: list[int], ends: frozenset[int]) -> tuple[list[int], bool]:
    for at, token in enumerate(row):
        if token in ends:
            return row[:at], True
    return row, False


def uniforms(seeds: Sequence[int], length: int) -> torch.Tensor:
    """(R, length, TRIES) uniform numbers; a row's depend on its seed alone."""
    import numpy

    streams = (numpy.random.Generator(numpy.random.PCG64(seed)) for seed in seeds)
    rows = [stream.random((length, TRIES), dtype=numpy.float32) for stream in streams]
    return torch.from_numpy(numpy.stack(rows))
