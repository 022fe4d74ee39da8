"""What every engine shares: checked options, fair batches, and text cut at the first stop."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

Decode = Callable[[Sequence[int]], str]


class UnsupportedModel(ValueError):
    """The engine cannot run this architecture; the message names one that can."""


@dataclass(frozen=True, slots=True)
class Completion:
    """One generated continuation.

    `text` ends before the first stop sequence; `n_tokens` counts generated tokens, those of the
    stop sequence included, the end-of-text token not. `finish_reason` is `stop` (end of text or a
    stop sequence) or `length` (`max_new_tokens` reached).
    """

    text: str
    n_tokens: int
    finish_reason: str


def check_sampling(*, n: int, temperature: float, top_p: float, max_new_tokens: int) -> None:
    """ValueError that names the first option out of its range."""
    if n < 1:
        raise ValueError(f"n = {n}: at least 1 sample per prompt is needed")
    if not 0 <= temperature < float("inf"):
        raise ValueError(f"temperature = {temperature}: expected 0 (greedy) or more")
    if not 0 < top_p <= 1:
        raise ValueError(f"top_p = {top_p}: expected a value in (0, 1]")
    if max_new_tokens < 1:
        raise ValueError(f"max_new_tokens = {max_new_tokens}: at least 1 is needed")
    if temperature == 0 and n > 1:
        raise ValueError(f"n = {n} at temperature 0: greedy answers are all the same; use n = 1")


def prompt_keys(prompts: Sequence[str]) -> list[tuple[str, int]]:
    """(prompt, how often it came before): what the random numbers of a prompt depend on."""
    seen: Counter[str] = Counter()
    keys = []
    for prompt in prompts:
        keys.append((prompt, seen[prompt]))
        seen[prompt] += 1
    return keys


def check_lengths(lengths: Sequence[int], *, max_new_tokens: int, positions: int) -> None:
    """ValueError for the first prompt that is empty or does not fit with its answer."""
    for number, length in enumerate(lengths):
        if length == 0:
            raise ValueError(f"prompt {number} is empty: the model has nothing to continue")
        if length + max_new_tokens > positions:
            raise ValueError(
                f"prompt {number} has {length} tokens; with max_new_tokens = {max_new_tokens} "
                f"that exceeds the model's {positions} positions"
            )


def first_stop(text: str, stops: Sequence[str]) -> int:
    """Where the earliest stop sequence begins, or -1."""
    found = [at for stop in stops if (at := text.find(stop)) >= 0]
    return min(found, default=-1)


def stop_near_end(ids: Sequence[int], stops: Sequence[str], decode: Decode, *, fresh: int) -> bool:
    """Whether a stop sequence ends within the last `fresh` tokens.

    Every token has at least one byte, so only a short tail has to be decoded.
    """
    if not stops:
        return False
    tail = max(len(stop.encode()) for stop in stops) + fresh + 1
    return first_stop(decode(ids[-tail:]), stops) >= 0


def complete(
    ids: Sequence[int], *, stops: Sequence[str], decode: Decode, ended: bool
) -> Completion:
    """Generated token ids as a `Completion`; `ended` says that end of text followed them.

    The answer is what a reader of the token stream sees who stops at the first token that
    completes a stop sequence: it does not depend on how much an engine generated beyond it.
    """
    text = decode(ids)
    if first_stop(text, stops) < 0:
        return Completion(text, len(ids), "stop" if ended else "length")
    low, high = 1, len(ids)  # the fewest tokens whose text holds a stop sequence
    while low < high:
        middle = (low + high) // 2
        if first_stop(decode(ids[:middle]), stops) >= 0:
            high = middle
        else:
            low = middle + 1
    text = decode(ids[:low])
    return Completion(text[: first_stop(text, stops)], low, "stop")


def batches(lengths: Sequence[int], *, n: int, rows: int) -> list[list[tuple[int, int]]]:
    """(prompt, sample) pairs in batches of at most `rows`, prompts of similar length together."""
    order = sorted(range(len(lengths)), key=lambda prompt: (lengths[prompt], prompt))
    pairs = [(prompt, sample) for prompt in order for sample in range(n)]
    return [pairs[at : at + rows] for at in range(0, len(pairs), rows)]
