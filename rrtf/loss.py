"""The paper's objective on tensors, and those it is compared with.

Equations of arXiv:2307.14936, section 3.2, numbered here in the order in which they stand there:

    (1)  p_i    = sum_t log P(y_i,t | x, y_i,<t) / |y_i|
    (2)  L_rank = - sum_{r_tea > r_stu} (r_tea - r_stu) * min(0, p_tea - p_stu)
    (3)  L_ft   = - sum_t log P(y_tea,t | x, y_tea,<t)
    (4)  L      = L_rank + L_ft

Shapes: B prompts, R responses of all prompts in one flat list, N response tokens, P pairs,
D hidden width. `prompt` (R,) says which prompt a response answers, `teacher` (B,) which response
of each prompt L_ft imitates. No function changes its arguments.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

PAIRS_OF = ("teacher", "all")
OBJECTIVES = (
    "sft", "best-of-n", "rrtf", "rrhf", "rrhf-as-shipped", "dpo", "dpo-sft", "simpo", "cpo-hinge",
    "pro",
)  # fmt: skip
ALONE = ("sft", "best-of-n")  # one response of each prompt, nothing to compare it with
BEST = ("best-of-n", "rrhf", "rrhf-as-shipped", "pro")  # L_ft imitates the best, not the teacher
REFERENCED = ("dpo", "dpo-sft")  # they need the start model's log-probabilities of the responses


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


# Pairs


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


# The two terms


def rank_terms(
    p_tea: Tensor, p_stu: Tensor, r_tea: Tensor, r_stu: Tensor, *, margin: float = 0.0
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


# The objectives


def rrtf(
    sums: Tensor,
    lengths: Tensor,
    scores: Tensor,
    prompt: Tensor,
    teacher: Tensor,
    *,
    ft_weight: float = 1.0,
    rank_weight: float = 1.0,
    ft_reduction: str = "sum",
    normalise: bool = True,
    margin: float = 0.0,
    pairs_of: str = "teacher",
) -> Parts:
    """L = L_rank + L_ft (4), per prompt, averaged over the prompts.

    sums, lengths, scores, prompt (R,); teacher (B,). The defaults are the paper's formula; the
    weights, `ft_reduction="mean"`, p without length normalisation, the margin and
    `pairs_of="all"`, every ordered pair of a prompt in place of the teacher's, are departures.
    """
    if pairs_of not in PAIRS_OF:
        raise ValueError(f"unknown pairs_of {pairs_of!r}: expected one of {', '.join(PAIRS_OF)}")
    if pairs_of == "teacher":
        better, worse = teacher_pairs(scores, prompt, teacher)
    else:
        better, worse = ordered_pairs(scores, prompt)
    p = mean_log_probs(sums, lengths) if normalise else sums
    terms = rank_terms(p[better], p[worse], scores[better], scores[worse], margin=margin)
    ft = ft_terms(sums[teacher], lengths[teacher], reduction=ft_reduction).mean()
    rank = terms.sum() / len(teacher)
    return _both(rank, ft, p, better, worse, rank_weight=rank_weight, ft_weight=ft_weight)


def sft(
    sums: Tensor, lengths: Tensor, teacher: Tensor, *, ft_weight: float = 1.0, ft_reduction: str
) -> Parts:
    """L_ft alone (3): imitation of the teacher's response. sums, lengths (R,); teacher (B,).

    With the best of n responses in the teacher's place it is a round of RAFT (arXiv:2304.06767).
    """
    ft = ft_terms(sums[teacher], lengths[teacher], reduction=ft_reduction).mean()
    nothing = torch.zeros_like(ft.detach())
    return Parts(ft_weight * ft, nothing, ft.detach(), nothing + torch.nan, 0)


def rrhf(
    sums: Tensor,
    lengths: Tensor,
    scores: Tensor,
    prompt: Tensor,
    best: Tensor,
    *,
    ft_weight: float = 1.0,
    rank_weight: float = 1.0,
    ft_reduction: str = "sum",
) -> Parts:
    """RRHF as its paper writes it (arXiv:2304.05302, eq. 2 to 4): L = L_rank + L_ft.

    L_rank = sum_{r_i < r_j} max(0, p_i - p_j) over all pairs of a prompt, unweighted; L_ft is the
    log-likelihood of the best response (`best` (B,)). Shapes as in `rrtf`. p is normalised by the
    response's own length, which the released code does not do.
    """
    better, worse = ordered_pairs(scores, prompt)
    p = mean_log_probs(sums, lengths)
    rank = torch.clamp(p[worse] - p[better], min=0).sum() / len(best)
    ft = ft_terms(sums[best], lengths[best], reduction=ft_reduction).mean()
    return _both(rank, ft, p, better, worse, rank_weight=rank_weight, ft_weight=ft_weight)


def rrhf_as_shipped(
    sums: Tensor, scores: Tensor, prompt: Tensor, best: Tensor, width: Tensor
) -> Parts:
    """RRHF as its released code computes it, for comparison only (GanjinZero/RRHF, issue 37).

    Labels are overwritten in place before the lengths are counted, so that a response is divided
    by the padded width of its prompt's rows, `width` (R,), instead of its own length, and L_ft is
    a mean over padded positions too. The code works one prompt at a time; here B prompts at once.
    """
    better, worse = ordered_pairs(scores, prompt)
    p = sums / width
    rank = torch.clamp(p[worse] - p[better], min=0).sum() / len(best)
    ft = -p[best].mean()
    return _both(rank, ft, p, better, worse)


def dpo(
    sums: Tensor,
    lengths: Tensor,
    scores: Tensor,
    prompt: Tensor,
    reference: Tensor,
    *,
    beta: float,
) -> Parts:
    """DPO (arXiv:2305.18290, eq. 7), summed over a prompt's pairs, averaged over the prompts.

    -log sigmoid(beta * [(log P_w - log P_l) - (log P_ref,w - log P_ref,l)]) with token sums;
    `reference` (R,) are the sums of the frozen start model. `lengths` only serve `violated`, which
    compares p_i as for the other objectives.
    """
    if reference.shape != sums.shape:
        raise ValueError(f"{sums.shape[0]} responses but {reference.shape[0]} reference sums")
    better, worse = ordered_pairs(scores, prompt)
    gain = sums - reference  # (R,)
    logits = beta * (gain[better] - gain[worse])  # (P,)
    loss = -functional.logsigmoid(logits).sum() / len(torch.unique(prompt))
    return _ranked_only(loss, mean_log_probs(sums, lengths), better, worse)


def dpo_sft(
    sums: Tensor,
    lengths: Tensor,
    scores: Tensor,
    prompt: Tensor,
    reference: Tensor,
    teacher: Tensor,
    *,
    beta: float,
    ft_weight: float = 1.0,
    rank_weight: float = 1.0,
    ft_reduction: str = "mean",
) -> Parts:
    """DPO in the place of L_rank, plus L_ft of the teacher's response; shapes as in `dpo`, `rrtf`.

    The second term keeps up the likelihood of the better response, which DPO alone may lower
    together with that of the worse one (arXiv:2404.19733, there per token).
    """
    ranked = dpo(sums, lengths, scores, prompt, reference, beta=beta)
    ft = ft_terms(sums[teacher], lengths[teacher], reduction=ft_reduction).mean()
    return ranked._replace(loss=rank_weight * ranked.loss + ft_weight * ft, ft=ft.detach())


def simpo(
    sums: Tensor, lengths: Tensor, scores: Tensor, prompt: Tensor, *, beta: float, margin: float
) -> Parts:
    """SimPO (arXiv:2405.14734, eq. 6), summed over a prompt's pairs, averaged over the prompts.

    -log sigmoid(beta * (p_w - p_l) - gamma) with p per token and no reference model; gamma, the
    target reward margin, is `margin`. sums, lengths, scores, prompt (R,).
    """
    better, worse = ordered_pairs(scores, prompt)
    p = mean_log_probs(sums, lengths)
    loss = -functional.logsigmoid(beta * (p[better] - p[worse]) - margin).sum()
    return _ranked_only(loss / len(torch.unique(prompt)), p, better, worse)


def cpo_hinge(
    sums: Tensor,
    lengths: Tensor,
    scores: Tensor,
    prompt: Tensor,
    teacher: Tensor,
    *,
    beta: float,
    margin: float,
    ft_weight: float = 1.0,
    rank_weight: float = 1.0,
    ft_reduction: str = "mean",
) -> Parts:
    """SLiC's hinge (arXiv:2305.10425) in CPO's place (arXiv:2401.08417), plus L_ft.

    sum over pairs of max(0, margin - beta * (log P_w - log P_l)) with token sums; TRL's `hinge`
    is margin = 1. With p per token, beta = 1, margin = 0 and weights r_w - r_l it would be RRTF.
    """
    better, worse = ordered_pairs(scores, prompt)
    gaps = torch.clamp(margin - beta * (sums[better] - sums[worse]), min=0)
    rank = gaps.sum() / len(teacher)
    ft = ft_terms(sums[teacher], lengths[teacher], reduction=ft_reduction).mean()
    p = mean_log_probs(sums, lengths)
    return _both(rank, ft, p, better, worse, rank_weight=rank_weight, ft_weight=ft_weight)


def pro(
    sums: Tensor,
    lengths: Tensor,
    scores: Tensor,
    prompt: Tensor,
    best: Tensor,
    *,
    ft_weight: float = 1.0,
    rank_weight: float = 1.0,
    ft_reduction: str = "mean",
) -> Parts:
    """PRO (arXiv:2306.17492): every response against all that rank below it, plus L_ft.

    - sum_k log( exp(p_k / T_kk) / (exp(p_k / T_kk) + sum_{r_i < r_k} exp(p_i / T_ki)) ) with
    1 / T_ki = r_k - r_i and T_kk = min_i T_ki. Its ranks have no ties; here responses of one
    score are not compared. Shapes as in `rrhf`.
    """
    better, worse = ordered_pairs(scores, prompt)
    p = mean_log_probs(sums, lengths)
    gap = torch.where(prompt[:, None] == prompt[None, :], scores[:, None] - scores[None, :], 0.0)
    below = gap > 0  # (R, R): [k, i] = i ranks below k
    others = torch.where(below, p[None, :] * gap, -torch.inf)  # p_i / T_ki
    own = p * gap.clamp(min=0).amax(dim=1)  # (R,): p_k / T_kk
    terms = torch.logsumexp(torch.cat([own[:, None], others], dim=1), dim=1) - own
    rank = terms[below.any(dim=1)].sum() / len(best)
    ft = ft_terms(sums[best], lengths[best], reduction=ft_reduction).mean()
    return _both(rank, ft, p, better, worse, rank_weight=rank_weight, ft_weight=ft_weight)


def _both(
    rank: Tensor,
    ft: Tensor,
    p: Tensor,
    better: Tensor,
    worse: Tensor,
    *,
    rank_weight: float = 1.0,
    ft_weight: float = 1.0,
) -> Parts:
    """The parts of an objective that ranks and imitates: (4), with its weights."""
    loss = rank_weight * rank + ft_weight * ft  # (4)
    return Parts(loss, rank.detach(), ft.detach(), violated(p, better, worse), len(better))


def _ranked_only(loss: Tensor, p: Tensor, better: Tensor, worse: Tensor) -> Parts:
    """The parts of an objective that is one term over pairs."""
    nothing = torch.zeros_like(loss.detach())
    return Parts(loss, loss.detach(), nothing, violated(p, better, worse), len(better))


def objective(
    name: str, sums: Tensor, lengths: Tensor, batch: Mapping[str, Any], options: Mapping[str, Any]
) -> Parts:
    """The loss called `name` (one of `OBJECTIVES`) of a collated batch.

    `options` holds at least those that the objective takes: ft_weight, rank_weight, ft_reduction,
    normalise, margin, pairs_of, beta. `beta` multiplies differences of log-probabilities inside a
    sigmoid or hinge: of token sums (DPO, CPO's hinge) or means (SimPO). `margin` is how far the
    better response must lead before a pair falls silent: in log-probability per token (RRTF; of
    the sums without `normalise`), after `beta` (SimPO, where the term only fades, and CPO's hinge).
    """
    if name not in OBJECTIVES:
        raise ValueError(f"unknown objective {name!r}: expected one of {', '.join(OBJECTIVES)}")

    def some(*names: str) -> dict[str, Any]:
        return {n: options[n] for n in names}

    ranked = (sums, lengths, batch["scores"], batch["prompt"])
    weights = some("ft_weight", "rank_weight", "ft_reduction")
    if name in ALONE:
        return sft(sums, lengths, batch["teacher"], **some("ft_weight", "ft_reduction"))
    if name == "dpo":
        return dpo(*ranked, batch["reference"], **some("beta"))
    if name == "dpo-sft":
        return dpo_sft(*ranked, batch["reference"], batch["teacher"], **weights, **some("beta"))
    if name == "simpo":
        return simpo(*ranked, **some("beta", "margin"))
    if name == "cpo-hinge":
        return cpo_hinge(*ranked, batch["teacher"], **weights, **some("beta", "margin"))
    if name == "rrhf-as-shipped":
        return rrhf_as_shipped(sums, *ranked[2:], batch["teacher"], batch["width"])
    if name == "rrtf":
        return rrtf(*ranked, batch["teacher"], **weights, **some("normalise", "margin", "pairs_of"))
    return {"rrhf": rrhf, "pro": pro}[name](*ranked, batch["teacher"], **weights)


def violated(p: Tensor, better: Tensor, worse: Tensor) -> Tensor:
    """The share () of pairs with p_better < p_worse; nan without a pair."""
    return (p[better] < p[worse]).float().mean().detach()


def require_finite(parts: Parts, *, run: str, step: int, task_ids: Sequence[str]) -> None:
    """FloatingPointError naming the run, the update and the batch if the loss is nan or inf."""
    if not bool(torch.isfinite(parts.loss)):
        raise FloatingPointError(
            f"{run}: update {step}: the loss is {parts.loss.item()} (L_rank {float(parts.rank)}, "
            f"L_ft {float(parts.ft)}) on tasks {', '.join(task_ids)}"
        )
