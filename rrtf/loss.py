"""The paper's objective on tensors, and those it is compared with.

Equations of arXiv:2307.14936, section 3.2, numbered here in the order in which they stand there:

    (1)  p_i    = sum_t log P(y_i,t | x, y_i,<t) / |y_i|
    (2)  L_rank = - sum_{r_tea > r_stu} (r_tea - r_stu) * min(0, p_tea - p_stu)
    (3)  L_ft   = - sum_t log P(y_tea,t | x, y_tea,<t)
    (4)  L      = L_rank + L_ft

Every objective is a function of a batch, the log-probability `sums` (R,) and `lengths` (R,) of its
responses, and `Weights`; `OBJECTIVES`, at the end, names them and says what each needs.

Shapes: B prompts, R responses of all prompts in one flat list, P pairs. Of a batch, as
`batches.collate` makes it, are read `scores` (R,), the r of the paper; `prompt` (R,), which prompt
a response answers; `teacher` (B,), the response of each prompt that L_ft imitates. Sums over pairs
are averaged over prompts. No function changes its arguments.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

Batch = Mapping[str, Any]
PAIRS_OF = ("teacher", "all")
REDUCTIONS = ("sum", "mean")


@dataclass(frozen=True, slots=True)
class Weights:
    """What the terms of an objective are weighed with; a `train.Recipe` has the same fields.

    `beta` multiplies differences of log-probabilities inside a sigmoid or hinge: of token sums
    (DPO, CPO's hinge) or means (SimPO). `margin` is how far the better response must lead before a
    pair falls silent: in log-probability per token (RRTF; of the sums without `normalise`), after
    `beta` (SimPO, where the term only fades, and CPO's hinge). `pairs_of`: RRTF's pairs, those of
    the `teacher` or `all` ordered ones. `ft_reduction`: L_ft is a `sum` or a `mean` over tokens.
    """

    ft_weight: float
    rank_weight: float
    ft_reduction: str
    normalise: bool
    margin: float
    pairs_of: str
    beta: float


# the formula as it stands, which has no beta
PAPER = Weights(1.0, 1.0, "sum", normalise=True, margin=0.0, pairs_of="teacher", beta=math.nan)


class Parts(NamedTuple):
    """A loss and what it is made of; every number is a mean over the prompts of the batch.

    `loss` () carries the gradient. `rank` () and `ft` () are the two parts *before* their weights;
    `violated` () is the share of scored pairs with p_better < p_worse, nan where there is no pair.
    """

    loss: Tensor
    rank: Tensor
    ft: Tensor
    violated: Tensor
    n_pairs: int


def mean_log_probs(sums: Tensor, lengths: Tensor) -> Tensor:
    """p_i (R,): the log-probability of a response per token (1)."""
    return sums / lengths  # (1)


def ordered_pairs(scores: Tensor, prompt: Tensor) -> tuple[Tensor, Tensor]:
    """Indices (better (P,), worse (P,)) of all pairs of one prompt with r_better > r_worse."""
    same_prompt = prompt[:, None] == prompt[None, :]  # (R, R)
    better, worse = (same_prompt & (scores[:, None] > scores[None, :])).nonzero(as_tuple=True)
    return better, worse


def teacher_pairs(scores: Tensor, prompt: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Those of `ordered_pairs` in which the better response is the prompt's teacher."""
    better, worse = ordered_pairs(scores, prompt)
    of_teacher = teacher[prompt[better]] == better  # (P,)
    return better[of_teacher], worse[of_teacher]


def rank_terms(
    p_tea: Tensor, p_stu: Tensor, r_tea: Tensor, r_stu: Tensor, *, margin: float
) -> Tensor:
    """What each pair adds to L_rank (2): (P,) of four (P,), zero where p_tea >= p_stu + margin.

    The paper has no margin: the term is silent as soon as the order is right.
    """
    return -(r_tea - r_stu) * torch.clamp(p_tea - p_stu - margin, max=0)  # (2)


def ft_terms(sums: Tensor, lengths: Tensor, *, reduction: str) -> Tensor:
    """What each imitated response adds to L_ft: `sum` over tokens as written (3), or `mean`."""
    if reduction == "sum":
        return -sums  # (3)
    if reduction == "mean":
        return -sums / lengths
    raise ValueError(f"unknown ft_reduction {reduction!r}: expected sum or mean")


def rrtf(batch: Batch, sums: Tensor, lengths: Tensor, weights: Weights) -> Parts:
    """L = L_rank + L_ft (4): the paper's objective, with the weights of `PAPER`.

    Other weights, `ft_reduction="mean"`, p without length normalisation, a margin and
    `pairs_of="all"`, every ordered pair of a prompt in place of the teacher's, are departures.
    """
    if weights.pairs_of not in PAIRS_OF:
        known = ", ".join(PAIRS_OF)
        raise ValueError(f"unknown pairs_of {weights.pairs_of!r}: expected one of {known}")
    r, prompt, teacher = batch["scores"], batch["prompt"], batch["teacher"]
    better, worse = ordered_pairs(r, prompt)
    if weights.pairs_of == "teacher":
        better, worse = teacher_pairs(r, prompt, teacher)
    p = mean_log_probs(sums, lengths) if weights.normalise else sums
    terms = rank_terms(p[better], p[worse], r[better], r[worse], margin=weights.margin)
    ft = _imitation(batch, sums, lengths, weights)
    return _both(terms.sum() / len(teacher), ft, p, better, worse, weights)


def sft(batch: Batch, sums: Tensor, lengths: Tensor, weights: Weights) -> Parts:
    """L_ft alone (3): imitation of the teacher's response.

    With the best of n responses in the teacher's place it is a round of RAFT (arXiv:2304.06767).
    """
    ft = _imitation(batch, sums, lengths, weights)
    nothing = torch.zeros_like(ft.detach())
    return Parts(weights.ft_weight * ft, nothing, ft.detach(), nothing + torch.nan, 0)


def rrhf(batch: Batch, sums: Tensor, lengths: Tensor, weights: Weights) -> Parts:
    """RRHF as its paper writes it (arXiv:2304.05302, eq. 2 to 4): L = L_rank + L_ft.

    L_rank = sum_{r_i < r_j} max(0, p_i - p_j) over all pairs of a prompt, unweighted; L_ft is the
    log-likelihood of the best response. p is normalised by the response's own length, which the
    released code does not do.
    """
    better, worse = ordered_pairs(batch["scores"], batch["prompt"])
    p = mean_log_probs(sums, lengths)
    rank = torch.clamp(p[worse] - p[better], min=0).sum() / len(batch["teacher"])
    return _both(rank, _imitation(batch, sums, lengths, weights), p, better, worse, weights)


def rrhf_as_shipped(batch: Batch, sums: Tensor, lengths: Tensor, weights: Weights) -> Parts:
    """RRHF as its released code computes it, for comparison only (GanjinZero/RRHF, issue 37).

    Labels are overwritten in place before the lengths are counted, so that a response is divided
    by the padded width of its prompt's rows, `width` (R,) of the batch, instead of its own length,
    and L_ft is a mean over padded positions too. The code works one prompt at a time, here B
    prompts at once, and has no weights.
    """
    better, worse = ordered_pairs(batch["scores"], batch["prompt"])
    p = sums / batch["width"]
    rank = torch.clamp(p[worse] - p[better], min=0).sum() / len(batch["teacher"])
    return _both(rank, -p[batch["teacher"]].mean(), p, better, worse, PAPER)


def dpo(batch: Batch, sums: Tensor, lengths: Tensor, weights: Weights) -> Parts:
    """DPO (arXiv:2305.18290, eq. 7) over all pairs of a prompt.

    -log sigmoid(beta * [(log P_w - log P_l) - (log P_ref,w - log P_ref,l)]) with token sums;
    `reference` (R,) of the batch are the sums of the frozen start model. `lengths` only serve
    `violated`, which compares p_i as for the other objectives.
    """
    better, worse = ordered_pairs(batch["scores"], batch["prompt"])
    gain = sums - batch["reference"]  # (R,)
    logits = weights.beta * (gain[better] - gain[worse])  # (P,)
    loss = -logsigmoid(logits).sum() / len(batch["teacher"])
    return _ranked_only(loss, mean_log_probs(sums, lengths), better, worse)


def dpo_sft(batch: Batch, sums: Tensor, lengths: Tensor, weights: Weights) -> Parts:
    """DPO in the place of L_rank, plus L_ft of the teacher's response.

    The second term keeps up the likelihood of the better response, which DPO alone may lower
    together with that of the worse one (arXiv:2404.19733, there per token).
    """
    return _imitating(dpo(batch, sums, lengths, weights), batch, sums, lengths, weights)


def simpo(batch: Batch, sums: Tensor, lengths: Tensor, weights: Weights) -> Parts:
    """SimPO (arXiv:2405.14734, eq. 6) over all pairs of a prompt.

    -log sigmoid(beta * (p_w - p_l) - gamma) with p per token and no reference model; gamma, the
    target reward margin, is `margin`.
    """
    better, worse = ordered_pairs(batch["scores"], batch["prompt"])
    p = mean_log_probs(sums, lengths)
    loss = -logsigmoid(weights.beta * (p[better] - p[worse]) - weights.margin).sum()
    return _ranked_only(loss / len(batch["teacher"]), p, better, worse)


def simpo_sft(batch: Batch, sums: Tensor, lengths: Tensor, weights: Weights) -> Parts:
    """SimPO plus L_ft of the teacher's response: CPO's regulariser (arXiv:2401.08417) beside it."""
    return _imitating(simpo(batch, sums, lengths, weights), batch, sums, lengths, weights)


def cpo_hinge(batch: Batch, sums: Tensor, lengths: Tensor, weights: Weights) -> Parts:
    """SLiC's hinge (arXiv:2305.10425) in CPO's place (arXiv:2401.08417), plus L_ft.

    sum over pairs of max(0, margin - beta * (log P_w - log P_l)) with token sums; TRL's `hinge`
    is margin = 1. With p per token, beta = 1, margin = 0 and weights r_w - r_l it would be RRTF.
    """
    better, worse = ordered_pairs(batch["scores"], batch["prompt"])
    gaps = torch.clamp(weights.margin - weights.beta * (sums[better] - sums[worse]), min=0)
    ft, p = _imitation(batch, sums, lengths, weights), mean_log_probs(sums, lengths)
    return _both(gaps.sum() / len(batch["teacher"]), ft, p, better, worse, weights)


def pro(batch: Batch, sums: Tensor, lengths: Tensor, weights: Weights) -> Parts:
    """PRO (arXiv:2306.17492): every response against all that rank below it, plus L_ft.

    - sum_k log( exp(p_k / T_kk) / (exp(p_k / T_kk) + sum_{r_i < r_k} exp(p_i / T_ki)) ) with
    1 / T_ki = r_k - r_i and T_kk = min_i T_ki. Its ranks have no ties; here responses of one
    score are not compared.
    """
    r, prompt = batch["scores"], batch["prompt"]
    better, worse = ordered_pairs(r, prompt)
    p = mean_log_probs(sums, lengths)
    gap = torch.where(prompt[:, None] == prompt[None, :], r[:, None] - r[None, :], 0.0)
    below = gap > 0  # (R, R): [k, i] = i ranks below k
    others = torch.where(below, p[None, :] * gap, -torch.inf)  # p_i / T_ki
    own = p * gap.clamp(min=0).amax(dim=1)  # (R,): p_k / T_kk
    terms = torch.logsumexp(torch.cat([own[:, None], others], dim=1), dim=1) - own
    rank = terms[below.any(dim=1)].sum() / len(batch["teacher"])
    return _both(rank, _imitation(batch, sums, lengths, weights), p, better, worse, weights)


def _imitation(batch: Batch, sums: Tensor, lengths: Tensor, weights: Weights) -> Tensor:
    """L_ft () of the responses to imitate."""
    at = batch["teacher"]
    return ft_terms(sums[at], lengths[at], reduction=weights.ft_reduction).mean()


def _imitating(
    ranked: Parts, batch: Batch, sums: Tensor, lengths: Tensor, weights: Weights
) -> Parts:
    """The parts of an objective over pairs with L_ft beside it, each with its weight."""
    ft = _imitation(batch, sums, lengths, weights)
    both = weights.rank_weight * ranked.loss + weights.ft_weight * ft
    return ranked._replace(loss=both, ft=ft.detach())


def _both(
    rank: Tensor, ft: Tensor, p: Tensor, better: Tensor, worse: Tensor, weights: Weights
) -> Parts:
    """The parts of an objective that ranks and imitates: (4), with its weights."""
    loss = weights.rank_weight * rank + weights.ft_weight * ft  # (4)
    return Parts(loss, rank.detach(), ft.detach(), violated(p, better, worse), len(better))


def _ranked_only(loss: Tensor, p: Tensor, better: Tensor, worse: Tensor) -> Parts:
    """The parts of an objective that is one term over pairs."""
    nothing = torch.zeros_like(loss.detach())
    return Parts(loss, loss.detach(), nothing, violated(p, better, worse), len(better))


def violated(p: Tensor, better: Tensor, worse: Tensor) -> Tensor:
    """The share () of pairs with p_better < p_worse; nan without a pair."""
    return (p[better] < p[worse]).float().mean().detach()


@dataclass(frozen=True, slots=True)
class Objective:
    """A function of this file, and what it needs to be given.

    `reads`: the weights that change its loss. `imitates`: L_ft is about the `teacher`'s response or
    about the `best` of a whole group; empty where there is no L_ft, so that a group of equal scores
    teaches nothing. `compares`: it needs two responses of a prompt; without, all but the imitated
    one are left away. `reference`: it needs the start model's log-probabilities. `rate`: `lr_...`
    of [train] is a rate to begin with.
    """

    loss: Callable[[Batch, Tensor, Tensor, Weights], Parts]
    reads: tuple[str, ...]
    imitates: str = "teacher"
    compares: bool = True
    reference: bool = False
    rate: str = "sft"


_FT = ("ft_weight", "ft_reduction")
_TERMS = (*_FT, "rank_weight")
OBJECTIVES = {
    "sft": Objective(sft, _FT, compares=False),
    "best-of-n": Objective(sft, _FT, imitates="best", compares=False),
    "rrtf": Objective(rrtf, (*_TERMS, "normalise", "margin", "pairs_of"), rate="rrtf"),
    "rrhf": Objective(rrhf, _TERMS, imitates="best", rate="rrhf"),
    "rrhf-as-shipped": Objective(rrhf_as_shipped, (), imitates="best"),
    "dpo": Objective(dpo, ("beta",), imitates="", reference=True, rate="dpo"),
    "dpo-sft": Objective(dpo_sft, (*_TERMS, "beta"), reference=True, rate="dpo"),
    "simpo": Objective(simpo, ("beta", "margin"), imitates="", rate="dpo"),
    "simpo-sft": Objective(simpo_sft, (*_TERMS, "beta", "margin"), rate="dpo"),
    "cpo-hinge": Objective(cpo_hinge, (*_TERMS, "beta", "margin")),
    "pro": Objective(pro, _TERMS, imitates="best"),
}


def objective(name: str) -> Objective:
    """The one of `OBJECTIVES` called `name`; ValueError if there is none."""
    if name not in OBJECTIVES:
        raise ValueError(f"unknown objective {name!r}: expected one of {', '.join(OBJECTIVES)}")
    return OBJECTIVES[name]


def require_finite(parts: Parts, *, run: str, step: int, task_ids: Sequence[str]) -> None:
    """FloatingPointError naming the run, the update and the batch if the loss is nan or inf."""
    if not bool(torch.isfinite(parts.loss)):
        raise FloatingPointError(
            f"{run}: update {step}: the loss is {parts.loss.item()} (L_rank {float(parts.rank)}, "
            f"L_ft {float(parts.ft)}) on tasks {', '.join(task_ids)}"
        )
