"""Ranked groups as token ids and as batches in which a prompt is computed once.

A batch is one sequence without padding, see `rrtf.step.packing`: the result equals scoring every
prompt + response on its own row, for a third to a half of the tokens.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from rrtf import loss, prompts
from rrtf.config import derive_seed
from rrtf.records import RankedGroup

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class Example:
    """A group as token ids. Every response ends in the end-of-text token.

    `reference` are the start model's log-probability sums, for the objectives that need them.
    """

    task_id: str
    prompt: tuple[int, ...]
    responses: tuple[tuple[int, ...], ...]
    scores: tuple[float, ...]
    sft_index: int
    reference: tuple[float, ...] = ()

    @property
    def n_tokens(self) -> int:
        """Tokens of the prompt, once, and of all responses."""
        return len(self.prompt) + sum(map(len, self.responses))


def check(group: RankedGroup) -> None:
    """ValueError naming the task if the group's fields do not fit together."""
    count = len(group.responses)
    for name in ("sources", "outcomes", "scores"):
        found = len(getattr(group, name))
        if found != count and (found or name == "scores"):  # rows of others have neither of both
            raise ValueError(f"{group.task_id}: {count} responses but {found} {name}")
    if not group.prompt:
        raise ValueError(f"{group.task_id}: empty prompt")
    if not 0 <= group.sft_index < count:
        raise ValueError(f"{group.task_id}: sft_index {group.sft_index} of {count} responses")
    for score in group.scores:
        if not math.isfinite(score):
            raise ValueError(f"{group.task_id}: score {score} is not a number to rank by")


def encode(group: RankedGroup, tokenizer: "PreTrainedTokenizerBase", objective: str) -> Example:
    """The tokens of prompt and responses, as `prompts.pair_ids` divides them.

    Which response L_ft is to imitate, and whether another is kept, is said by `loss.Objective`.
    """
    needs = loss.objective(objective)
    texts, scores = group.responses, group.scores
    chosen = group.best_index if needs.imitates == "best" else group.sft_index
    if not needs.compares:
        texts, scores, chosen = texts[chosen : chosen + 1], scores[chosen : chosen + 1], 0
    end = tokenizer.eos_token_id
    prompt, ids = prompts.pair_ids(tokenizer, group.prompt, texts)
    responses = tuple((*response, end) for response in ids)
    return Example(group.task_id, tuple(prompt), responses, tuple(scores), chosen)


def within(example: Example, max_length: int) -> Example:
    """The example without the responses that do not fit `max_length` tokens with their prompt.

    Responses go whole, because a truncated program is another program. Unchanged, and so too
    long, where the response to imitate does not fit or fewer than two do.
    """
    room = max_length - len(example.prompt)
    fit = [k for k, tokens in enumerate(example.responses) if len(tokens) <= room]
    if len(fit) < 2 or example.sft_index not in fit:
        return example
    return replace(
        example,
        responses=tuple(example.responses[k] for k in fit),
        scores=tuple(example.scores[k] for k in fit),
        sft_index=fit.index(example.sft_index),
    )


def reason_to_drop(example: Example, objective: str, max_length: int) -> str:
    """Why an example cannot serve `objective`, or `''`.

    `too_long`: a prompt and response together exceed `max_length` tokens. `one_response`: nothing
    to compare. `equal_scores`: no ordered pair, and the objective has no other term.
    """
    needs = loss.objective(objective)
    if len(example.prompt) + max(map(len, example.responses)) > max_length:
        return "too_long"
    if needs.compares and len(example.responses) < 2:
        return "one_response"
    if not needs.imitates and len(set(example.scores)) == 1:
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

    Responses that are too long leave their group if it can do without (`within`); those of the
    examples are counted under `response_too_long`, which alone counts responses and not groups.
    ValueError for a group that contradicts itself, an unknown objective, or if nothing is left.
    """
    kept, dropped = [], Counter()
    for group in groups:
        check(group)
        whole = encode(group, tokenizer, objective)
        example = within(whole, max_length)
        reason = reason_to_drop(example, objective, max_length)
        if reason:
            dropped[reason] += 1
        else:
            kept.append(example)
            dropped["response_too_long"] += len(whole.responses) - len(example.responses)
    if not kept:
        raise ValueError(f"{objective}: none of {len(groups)} groups can be trained on {dropped}")
    return kept, {reason: count for reason, count in sorted(dropped.items()) if count}


def apart(
    examples: Sequence[Example], *, count: int, seed: int
) -> tuple[list[Example], list[Example]]:
    """(the examples to train on, `count` others, drawn by task). ValueError if none is left."""
    if count >= len(examples):
        raise ValueError(f"held_out {count}: there are {len(examples)} groups, and none is left")
    keys = [derive_seed(seed, "held-out", example.task_id) for example in examples]
    held = set(sorted(range(len(examples)), key=keys.__getitem__)[:count])
    kept = [example for at, example in enumerate(examples) if at not in held]
    return kept, [examples[at] for at in sorted(held)]


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


def collate(examples: Sequence[Example], *, device: str | torch.device = "cpu") -> dict[str, Any]:
    """B examples with R responses of N tokens in all, as one sequence of T tokens, no padding.

    input_ids, position_ids (1, T) and `layout` as `packing` describes them; `read` (N,) positions
    whose hidden state predicts `targets` (N,); `response` (N,) owner of each target; `prompt`,
    `scores`, `reference`, `width` (R,), `width` being the length of the prompt's longest prompt +
    response; `teacher` (B,); `task_ids` a list of B.
    """
    ids, positions, read, targets = [], [], [], []
    for example in examples:
        head = len(example.prompt)
        last = len(ids) + head - 1  # the prompt's last token predicts every first one
        ids += example.prompt
        positions += range(head)
        for tokens in example.responses:
            read += [last, *range(len(ids), len(ids) + len(tokens) - 1)]
            ids += tokens[:-1]
            positions += range(head, head + len(tokens) - 1)
            targets += tokens
    responses = [tokens for example in examples for tokens in example.responses]
    counts = torch.tensor([len(example.responses) for example in examples])
    first = counts.cumsum(0) - counts
    sizes = torch.tensor([len(tokens) for tokens in responses])
    widths = torch.tensor([len(e.prompt) + max(map(len, e.responses)) for e in examples])
    tensors = {
        "input_ids": torch.tensor([ids]),
        "position_ids": torch.tensor([positions]),
        "read": torch.tensor(read),
        "targets": torch.tensor(targets),
        "response": torch.arange(len(responses)).repeat_interleave(sizes),
        "prompt": torch.arange(len(examples)).repeat_interleave(counts),
        "scores": torch.tensor([s for example in examples for s in example.scores]),
        "reference": torch.tensor([r for example in examples for r in example.reference]),
        "teacher": first + torch.tensor([example.sft_index for example in examples]),
        "width": widths.repeat_interleave(counts),
    }
    layout = tuple((len(e.prompt), *(len(r) - 1 for r in e.responses)) for e in examples)
    rest = {"layout": layout, "task_ids": [example.task_id for example in examples]}
    return {name: t.to(device) for name, t in tensors.items()} | rest
