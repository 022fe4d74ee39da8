"""From a batch to the log-probabilities of its responses, by one of three ways, and which is exact.

`packed`: the decoder once, the logits tile by tile. `headed`: as packed, but through the model's
own `forward`, which may scale or cap the logits. `by_row`: every prompt + response on a row of its
own through `forward`, whatever the model does between its tokens; slower, because a prompt is
computed once for each of its responses. `choose` takes the first that agrees with rows alone.

Shapes: N response tokens, D hidden width, R responses of all prompts, V vocabulary.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from rrtf.step import packing
from rrtf.step.batches import Example
from rrtf.step.likelihood import TILE_ROWS, response_sums, token_log_probs

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Batch = Mapping[str, Any]
Way = Callable[..., Tensor]  # of a network and a batch: (N,) log-probabilities of its targets

COMPARED = 3  # responses of a group
# Nats per token by which two right ways may differ. Sums of another order differ by 1e-6 to 1e-5 in
# float32. bfloat16 rounds to 2**-8 of a number: a logit of 16, as sure models have, by 0.06.
BOUNDS = {torch.float32: 1e-4, torch.bfloat16: 0.06}


def packed(network: "PreTrainedModel", batch: Batch, *, chunk: int = TILE_ROWS) -> Tensor:
    """The decoder and the output layer apart: logits for `chunk` tokens at a time, 0 = all."""
    arguments, read = packing.inputs(batch, network.config)
    out = network.get_decoder()(**arguments, use_cache=False)
    hidden = out.last_hidden_state.flatten(0, 1)[read]  # (N, D)
    return token_log_probs(hidden, network.get_output_embeddings(), batch["targets"], chunk=chunk)


def headed(network: "PreTrainedModel", batch: Batch, *, chunk: int = TILE_ROWS) -> Tensor:
    """The packed sequence through `forward`; its logits stand in memory as a whole."""
    arguments, read = packing.inputs(batch, network.config)
    return _of_logits(network, arguments, read, batch, chunk)


def by_row(network: "PreTrainedModel", batch: Batch, *, chunk: int = TILE_ROWS) -> Tensor:
    """One row per response, padded behind its end, where no earlier token looks."""
    arguments, read = packing.single_rows(batch)
    return _of_logits(network, arguments, read, batch, chunk)


def _of_logits(
    network: "PreTrainedModel", arguments: Mapping[str, Any], read: Tensor, batch: Batch, chunk: int
) -> Tensor:
    taken = inspect.signature(network.forward).parameters
    plain = any(name == "use_cache" or p.kind is p.VAR_KEYWORD for name, p in taken.items())
    out = network(**arguments, **({"use_cache": False} if plain else {}))
    logits = out.logits.flatten(0, 1)[read]  # (N, V)
    return token_log_probs(logits, lambda rows: rows, batch["targets"], chunk=chunk)


WAYS: dict[str, Way] = {"packed": packed, "whole logits": headed, "row by row": by_row}


def score(
    network: "PreTrainedModel", batch: Batch, *, chunk: int = TILE_ROWS, way: Way = packed
) -> tuple[Tensor, Tensor]:
    """(sums, lengths) (R,) of the responses of a collated batch.

    The logits are made for `chunk` tokens at a time (0 = all) and again in the backward pass.
    """
    logs = way(network, batch, chunk=chunk)
    return response_sums(logs, batch["response"], len(batch["scores"]))


class Choice(NamedTuple):
    """A name of `WAYS`, and why the first was not taken; empty where it was."""

    way: str
    reason: str


def choose(
    log_probs: Callable[[str, Sequence[Example]], Tensor],
    examples: Sequence[Example],
    *,
    bound: float,
    agreed: Callable[[float], float],
    name: str,
) -> Choice:
    """The first of `WAYS` by which two groups of `examples` get the log-probabilities they have.

    `log_probs(way, some)` are those (N,) of groups by a way. Compared, as means over the tokens of
    each response, are `COMPARED` responses of the longest group and of another, side by side, with
    each alone on a row through `forward`; then the same with other tokens in the first response,
    which no other response may notice. `agreed` makes one number of what several processes found.
    ValueError with the model's `name` where a later token changes earlier log-probabilities, as in
    encoders, or where no way is within `bound` nats per token.
    """
    some = _two(examples)
    try:
        alone = torch.cat([log_probs("row by row", [one]) for one in _alone(some)])
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # of any kind: a model's own code
        raise ValueError(f"{name} cannot be trained: its forward fails, {_line(error)}") from error
    if not bool(torch.isfinite(alone).all()):
        return Choice("packed", "")  # the first update ends by its loss
    ahead = agreed(_ahead(log_probs, some[0]))
    if ahead > bound:
        raise ValueError(
            f"{name} is no causal language model: the log-probability of a token moves by "
            f"{ahead:.2g} nats with a token behind it"
        )
    reasons: list[str] = []
    for way in WAYS:
        try:
            apart, moved = _errors(partial(log_probs, way), some, alone)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # the same, on what it was not made for
            reasons.append(f"{way}: {_line(error)}")
            continue
        apart, moved = agreed(apart), agreed(moved)
        if apart <= bound and moved <= bound:
            return Choice(way, "".join(reasons[:1]))
        what = "responses see each other" if moved > bound else "other logits than alone"
        reasons.append(f"{way}: {what}, by {max(apart, moved):.2g} nats per token")
    raise ValueError(f"{name} cannot be trained exactly: {'; '.join(reasons)}")


def _line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def _two(examples: Sequence[Example]) -> list[Example]:
    """The group with the longest prompt + response and one of most others, of each the longest."""

    def short(example: Example) -> Example:
        some = tuple(sorted(example.responses, key=len, reverse=True)[:COMPARED])
        return replace(example, responses=some, scores=(0.0,) * len(some), sft_index=0)

    longest = max(examples, key=lambda e: len(e.prompt) + max(map(len, e.responses)))
    others = [example for example in examples if example is not longest]
    return [short(e) for e in (longest, *sorted(others, key=lambda e: -len(e.responses))[:1])]


def _alone(examples: Sequence[Example]) -> Iterator[Example]:
    for e in examples:
        yield from (replace(e, responses=(one,), scores=(0.0,)) for one in e.responses)


def _ahead(log_probs: Callable[[str, Sequence[Example]], Tensor], example: Example) -> float:
    """By how much the last token that is read moves the log-probabilities before it."""
    row = (*example.prompt, *max(example.responses, key=len))
    *before, last, target = row[1:] if len(row) > 2 else (0, *row)
    other = next(token for token in (*row, 0, 1) if token != last)
    rows = ((*before, token, target) for token in (last, other))
    one, two = (
        log_probs("row by row", [Example(example.task_id, row[:1], (own,), (0.0,), 0)])[:-2]
        for own in rows
    )
    return float((one - two).abs().max()) if len(one) else 0.0


def _errors(
    log_probs: Callable[[Sequence[Example]], Tensor], examples: Sequence[Example], alone: Tensor
) -> tuple[float, float]:
    """(nats per token from those `alone`, nats per token that another first response moves)."""
    sizes = [len(response) for example in examples for response in example.responses]
    known = sorted({token for e in examples for r in (e.prompt, *e.responses) for token in r})
    after = dict(zip(known, [*known[1:], known[0]], strict=True))
    first, *rest = examples
    changed = tuple(after[token] for token in first.responses[0])
    exchanged = replace(first, responses=(changed, *first.responses[1:]))
    found, again = log_probs(examples), log_probs([exchanged, *rest])
    apart = [float(gap.mean()) for gap in (found - alone).abs().split(sizes)]
    moved = [float(gap.mean()) for gap in (found - again).abs().split(sizes)[1:]]
    return max(apart), max(moved, default=0.0)
