"""The loss of a few groups number by number, and how hard each of its parts pulls.

For notebooks 00 and 05: the same tensors as in training, laid out as rows to read.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from rrtf import loss
from rrtf.records import Outcome, RankedGroup, TrainStep
from rrtf.step import batches, likelihood, networks, packing

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def answers(group: RankedGroup) -> list[dict[str, Any]]:
    """One row per response: who wrote it, its situation, its score, the text."""
    columns = zip(group.sources, group.outcomes, group.scores, group.responses, strict=True)
    return [
        {"source": source, "outcome": outcome.name, "r": score, "response": text.strip("\n")}
        for source, outcome, score, text in columns
    ]


def _opened(
    model: str | Path, groups: Sequence[RankedGroup]
) -> tuple[networks.Scorer, dict[str, Any]]:
    """A model without dropout, in float32, that scores exactly, and the groups as one batch."""
    network, tokenizer = packing.load(model, dropout=0.0, threads=1)
    examples = [batches.encode(group, tokenizer, "rrtf") for group in groups]
    return _settled(network, examples), batches.collate(examples, device=network.device)


def _settled(network: "PreTrainedModel", examples: Sequence[batches.Example]) -> networks.Scorer:
    scorer = networks.Scorer(network)
    networks.settle(scorer, examples, bfloat16=False, name=network.name_or_path)
    return scorer


def _scored(groups: Sequence[RankedGroup], model: str | Path) -> tuple[torch.Tensor, torch.Tensor]:
    with torch.no_grad():
        scorer, batch = _opened(model, groups)
        return scorer(batch)


def response_rows(groups: Sequence[RankedGroup], *, model: str | Path) -> list[dict[str, Any]]:
    """One row per response, in order: who, situation, r, |y|, sum of log P, and p (1).

    |y| counts the end-of-text token, which is part of every target. In float32; the model's memory
    is free again afterwards, and without groups it is not opened.
    """
    if not groups:
        return []
    sums, lengths = _scored(groups, model)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()  # training that follows has processes of its own
    cells = [(group, k) for group in groups for k in range(len(group.responses))]
    return [
        {
            "task": group.task_id,
            "source": group.sources[k],
            "outcome": group.outcomes[k].name,
            "r": group.scores[k],
            "|y|": int(length),
            "sum log P": total,
            "p": total / length,
        }
        for (group, k), total, length in zip(cells, sums.tolist(), lengths.tolist(), strict=True)
    ]


def token_rows(
    group: RankedGroup, k: int, *, model: str | Path, limit: int = 0
) -> list[dict[str, Any]]:
    """log P of every token of response `k`, the end-of-text token last.

    The first `limit` of them if `limit` > 0.
    """
    from transformers import AutoTokenizer

    scorer, batch = _opened(model, [group])
    tokenizer = AutoTokenizer.from_pretrained(model)
    with torch.no_grad():
        logs = scorer(batch, scorer.way)
    own = batch["response"] == k
    tokens = [repr(tokenizer.decode([token])) for token in batch["targets"][own].tolist()]
    rows = [
        {"t": t, "token": token, "log P": value, "P": math.exp(value)}
        for t, (token, value) in enumerate(zip(tokens, logs[own].tolist(), strict=True), start=1)
    ]
    return rows[:limit] if limit else rows


def hinge_rows(rows: Sequence[Mapping[str, Any]], *, margin: float) -> list[dict[str, Any]]:
    """L_rank (2) of every teacher-student pair of `response_rows`, computed in plain floats."""
    found = []
    for tea in (row for row in rows if row["source"] == "teacher"):
        for stu in rows:
            if stu["task"] != tea["task"] or stu["source"] == "teacher":
                continue
            weight, gap = tea["r"] - stu["r"], tea["p"] - stu["p"]
            found.append(
                {
                    "student": stu["outcome"],
                    "r_tea - r_stu": weight,
                    "p_tea - p_stu": gap,
                    "min(0, gap)": min(0.0, gap - margin),
                    "L_rank": max(0.0, weight) * max(0.0, margin - gap),
                    "order": "right" if gap >= 0 else "wrong",
                }
            )
    return found


def tie_rows(scores: Mapping[Outcome, float], tie_breaks: Sequence[float]) -> list[dict[str, Any]]:
    """r_tea - r_stu for a teacher that passes, by the student's situation and the tie-break."""
    best = scores[Outcome.PASS]
    return [
        {"student": outcome.name}
        | {f"weight, tie-break {tie:g}": best + tie - scores[outcome] for tie in tie_breaks}
        for outcome in Outcome
    ]


def library_loss(
    groups: Sequence[RankedGroup], *, model: str | Path, weights: loss.Weights
) -> dict[str, float]:
    """L, L_rank and L_ft of the groups as training computes them."""
    scorer, batch = _opened(model, groups)
    with torch.no_grad():
        parts = loss.rrtf(batch, *scorer(batch), weights)
    return {"L": float(parts.loss), "L_rank": float(parts.rank), "L_ft": float(parts.ft)}


def likelihood_rows(
    groups: Sequence[RankedGroup], models: Mapping[str, str | Path], *, weights: loss.Weights
) -> list[dict[str, Any]]:
    """One row per model and group: L_rank, L_ft, and of each response its tokens and their log P.

    In float32, to four decimals. Groups for which a model has no positions are left out; without
    any no model is opened.
    """
    rows, sizes = [], {group.task_id: len(group.responses) for group in groups}
    for name, model in models.items() if groups else ():
        network, tokenizer = packing.load(model, dropout=0.0, threads=1)
        most = network.config.max_position_embeddings
        examples, _ = batches.prepare(groups, tokenizer, objective="rrtf", max_length=most)
        scorer = _settled(network, examples)
        for example in examples:
            if len(example.scores) < sizes[example.task_id]:
                continue
            batch = batches.collate([example], device=network.device)
            with torch.no_grad():
                logs = scorer(batch, scorer.way)
            sums = likelihood.response_sums(logs, batch["response"], len(example.scores))
            parts = loss.rrtf(batch, *sums, weights)
            own = [batch["response"] == k for k in range(len(example.scores))]
            rows.append(
                {
                    "task_id": example.task_id,
                    "model": name,
                    "L_rank": round(float(parts.rank), 4),
                    "L_ft": round(float(parts.ft), 4),
                    "tokens": [[tokenizer.decode([t]) for t in batch["targets"][k].tolist()]
                               for k in own],
                    "log_probs": [[round(v, 4) for v in logs[k].tolist()] for k in own],
                }
            )  # fmt: skip
    return rows


def gradient_rows(
    groups: Sequence[RankedGroup],
    models: Mapping[str, str | Path],
    *,
    batch: int = 8,
) -> list[dict[str, Any]]:
    """The gradient norm of L_rank, of L_ft as token sum and as token mean, for each model.

    Each norm is a mean over batches of `batch` groups, with weights of one; `share` is L_rank's
    part of the norms added up, beside the literal sum and beside the mean. In float32. Groups for
    which a model has no positions are left out; without any no model is opened.
    """
    rows = []
    for name, model in models.items() if groups else ():
        network, tokenizer = packing.load(model, dropout=0.0, threads=1)
        most = network.config.max_position_embeddings
        examples, _ = batches.prepare(groups, tokenizer, objective="rrtf", max_length=most)
        scorer = _settled(network, examples)
        norms = [
            _norms(scorer, examples[start : start + batch])
            for start in range(0, len(examples), batch)
        ]
        rank, total, mean = (sum(column) / len(norms) for column in zip(*norms, strict=True))
        rows.append(
            {
                "model": name,
                "pairs": len(examples),
                "|grad L_rank|": rank,
                "|grad L_ft|, sum": total,
                "|grad L_ft|, mean": mean,
                "share of L_rank beside the sum": rank / (rank + total),
                "beside the mean": rank / (rank + mean),
            }
        )
    return rows


def _norms(
    scorer: networks.Scorer, examples: Sequence[batches.Example]
) -> tuple[float, float, float]:
    """Norms of the gradients of L_rank, L_ft (sum) and L_ft (mean) on one batch."""
    batch = batches.collate(examples, device=scorer.network.device)
    scored = scorer.train()(batch)
    alone = {"rank_weight": 0.0}
    terms = ({"ft_weight": 0.0}, alone, alone | {"ft_reduction": "mean"})
    norms = []
    for term in terms:
        value = loss.rrtf(batch, *scored, replace(loss.PAPER, **term)).loss
        learnt = list(scorer.parameters())
        grads = torch.autograd.grad(value, learnt, retain_graph=True, allow_unused=True)
        norms.append(sum(float(g.pow(2).sum()) for g in grads if g is not None) ** 0.5)
    return norms[0], norms[1], norms[2]


def lines(
    steps: Iterable[Sequence[TrainStep]], field: str, *, among: Sequence[str] = ()
) -> dict[str, list[tuple[int, float]]]:
    """Run -> (update, value of `field`), for the figures; `among` limits it to some methods."""
    return {
        rows[0].run: [(step.step, getattr(step, field)) for step in rows]
        for rows in steps
        if not among or rows[0].run.rsplit("-s", 1)[0] in among
    }


def clipped_rows(steps: Iterable[Sequence[TrainStep]], *, clip: float) -> list[dict[str, Any]]:
    """Per run the share of its updates whose gradient was clipped, and the mean of its norms."""
    return [
        {
            "run": rows[0].run,
            "updates": len(rows),
            "clipped": sum(row.grad_norm > clip > 0 for row in rows) / len(rows),
            "mean |grad|": sum(row.grad_norm for row in rows) / len(rows),
        }
        for rows in steps
    ]


def key_figures(steps: Iterable[Sequence[TrainStep]], *, last: int = 10) -> dict[str, float]:
    """RRTF's share of violated pairs at the start and at the end: means of `last` updates."""
    runs = [rows for rows in steps if rows[0].run.rsplit("-s", 1)[0] == "rrtf"]
    ends = {"first": [r[:last] for r in runs], "last": [r[-last:] for r in runs]}
    figures = {}
    for when, chosen in ends.items():
        values = [step.violated for rows in chosen for step in rows]
        if values:
            figures[f"violated pairs, {when} updates"] = round(sum(values) / len(values), 3)
    return figures
