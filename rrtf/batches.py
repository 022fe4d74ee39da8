"""Ranked groups as token ids and as batches in which a prompt is computed once.

A row of a batch is one group: the prompt, then all its responses one after the other. A block
mask lets every response see the prompt and itself only, and position ids count on from the prompt
for each, so the result equals scoring every prompt + response on its own row, for a third to a
half of the tokens. Covered: models of transformers that take a four-dimensional attention mask.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rrtf import engines
from rrtf.config import derive_seed
from rrtf.records import RankedGroup

if TYPE_CHECKING:
    from torch import Tensor, device
    from transformers import PreTrainedTokenizerBase

PAIRS_ONLY = ("dpo", "simpo")  # objectives without a term for a group of equal scores


@dataclass(frozen=True, slots=True)
class Example:
    """A group as token ids. Every response ends in the end-of-text token.

    `reference` are the start model's log-probability sums of the responses (DPO only).
    """

    task_id: str
    prompt: tuple[int, ...]
    responses: tuple[tuple[int, ...], ...]
    scores: tuple[float, ...]
    sft_index: int
    reference: tuple[float, ...] = ()


def check(group: RankedGroup) -> None:
    """ValueError naming the task if the group's fields do not fit together."""
    count = len(group.responses)
    for name in ("sources", "outcomes", "scores"):
        if len(getattr(group, name)) != count:
            found = len(getattr(group, name))
            raise ValueError(f"{group.task_id}: {count} responses but {found} {name}")
    if not group.prompt:
        raise ValueError(f"{group.task_id}: empty prompt")
    if not 0 <= group.sft_index < count:
        raise ValueError(f"{group.task_id}: sft_index {group.sft_index} of {count} responses")
    for score in group.scores:
        if not math.isfinite(score):
            raise ValueError(f"{group.task_id}: score {score} is not a number to rank by")


def encode(group: RankedGroup, tokenizer: "PreTrainedTokenizerBase", objective: str) -> Example:
    """Prompt and responses tokenised apart, as generation sees them; `sft` keeps one response."""
    texts, scores, chosen = group.responses, group.scores, group.sft_index
    if objective == "sft":
        texts, scores, chosen = texts[chosen : chosen + 1], scores[chosen : chosen + 1], 0
    end = tokenizer.eos_token_id
    ids = tokenizer(list(texts), add_special_tokens=False)["input_ids"]
    responses = tuple((*response, end) for response in ids)
    prompt = tuple(engines.prompt_ids(tokenizer, group.prompt))
    return Example(group.task_id, prompt, responses, tuple(scores), chosen)


def reason_to_drop(example: Example, objective: str, max_length: int) -> str:
    """Why an example cannot serve `objective`, or `''`.

    `too_long`: prompt and longest response together exceed `max_length` tokens. The whole group
    goes, because a truncated program is another program. `one_response`: nothing to compare.
    `equal_scores`: no ordered pair, and the objective has no other term.
    """
    if len(example.prompt) + max(map(len, example.responses)) > max_length:
        return "too_long"
    if objective != "sft" and len(example.responses) < 2:
        return "one_response"
    if objective in PAIRS_ONLY and len(set(example.scores)) == 1:
        return "equal_scores"
    return ""


def prepare(
    groups: Sequence[RankedGroup],
    tokenizer: "PreTrainedTokenizerBase",
    *,
    objective: str,
    max_length: int,
) -> tuple[list[Example], dict[str, int]]:
    """(examples, number dropped by reason): together as many as `groups`.

    ValueError for a group that contradicts itself, an unknown objective, or if nothing is left.
    """
    from rrtf.loss import OBJECTIVES  # late: it loads torch

    if objective not in OBJECTIVES:
        raise ValueError(f"unknown objective {objective!r}: expected {', '.join(OBJECTIVES)}")
    kept, dropped = [], Counter()
    for group in groups:
        check(group)
        example = encode(group, tokenizer, objective)
        reason = reason_to_drop(example, objective, max_length)
        if reason:
            dropped[reason] += 1
        else:
            kept.append(example)
    if not kept:
        raise ValueError(f"{objective}: none of {len(groups)} groups can be trained on {dropped}")
    return kept, dict(sorted(dropped.items()))


def in_order(
    examples: Sequence[Example], *, updates: int, groups_per_batch: int, seed: int
) -> list[Example]:
    """The examples of every update, one after the other: `updates * groups_per_batch` of them.

    Each pass over the data is shuffled by a key of seed, pass and task, so that methods trained on
    the same prompts meet them in the same order; passes join without a short batch.
    """
    wanted, order, passes = updates * groups_per_batch, [], 0
    while len(order) < wanted:
        keys = [
            (derive_seed(seed, passes, example.task_id), at) for at, example in enumerate(examples)
        ]
        order += [examples[at] for _, at in sorted(keys)]
        passes += 1
    return order[:wanted]


def collate(examples: Sequence[Example], *, device: "str | device" = "cpu") -> dict[str, Any]:
    """B examples with R responses of N tokens in all, as tensors, right-padded to T.

    input_ids, position_ids (B, T); attention_mask (B, 1, T, T), True = visible; `read` (N,) flat
    positions in (B, T) whose hidden state predicts `targets` (N,); `response` (N,) owner of each
    target; `prompt`, `scores`, `reference`, `width` (R,), `width` being the length of the prompt's
    longest prompt + response; `teacher` (B,); `task_ids` a list of B.
    """
    import torch

    rows = [_row(example) for example in examples]
    length = max(len(row["ids"]) for row in rows)
    ids, positions, segments = (
        torch.tensor([row[name] + [fill] * (length - len(row[name])) for row in rows])
        for name, fill in (("ids", 0), ("positions", 0), ("segments", -1))
    )
    counts = [len(example.responses) for example in examples]
    first = [sum(counts[:b]) for b in range(len(counts))]
    flat = {"read": [], "targets": [], "response": []}
    for b, row in enumerate(rows):
        flat["read"] += [b * length + at for at in row["read"]]
        flat["targets"] += row["targets"]
        flat["response"] += [first[b] + k for k in row["response"]]
    tensors = {
        "input_ids": ids,
        "position_ids": positions,
        "attention_mask": _visible(segments),
        **{name: torch.tensor(values) for name, values in flat.items()},
        "prompt": torch.arange(len(rows)).repeat_interleave(torch.tensor(counts)),
        "scores": torch.tensor([s for example in examples for s in example.scores]),
        "reference": torch.tensor([r for example in examples for r in example.reference]),
        "teacher": torch.tensor([f + e.sft_index for f, e in zip(first, examples, strict=True)]),
    }
    widths = [len(e.prompt) + max(map(len, e.responses)) for e in examples]
    tensors["width"] = torch.tensor(widths).repeat_interleave(torch.tensor(counts))
    task_ids = [example.task_id for example in examples]
    return {name: t.to(device) for name, t in tensors.items()} | {"task_ids": task_ids}


def _row(example: Example) -> dict[str, list[int]]:
    """One group as a row; the last token of a response is a target, never an input."""
    head = len(example.prompt)
    row = {
        "ids": list(example.prompt),
        "positions": list(range(head)),
        "segments": [0] * head,  # 0 = prompt, k + 1 = response k
        "read": [],
        "targets": [],
        "response": [],
    }
    for k, tokens in enumerate(example.responses):
        start = len(row["ids"])
        row["ids"] += tokens[:-1]
        row["positions"] += range(head, head + len(tokens) - 1)
        row["segments"] += [k + 1] * (len(tokens) - 1)
        row["read"] += [head - 1, *range(start, start + len(tokens) - 1)]
        row["targets"] += tokens
        row["response"] += [k] * len(tokens)
    return row


def _visible(segments: "Tensor") -> "Tensor":
    """(B, T) segment numbers -> (B, 1, T, T): earlier tokens of the prompt or one's own segment."""
    import torch

    own = segments[:, :, None] == segments[:, None, :]
    prompt = (segments == 0)[:, None, :]
    past = torch.ones(segments.shape[1], segments.shape[1], dtype=torch.bool).tril()
    return ((own | prompt) & past)[:, None]
