"""Every objective against slow double loops in plain Python floats."""

import math
import random
from dataclasses import replace
from functools import partial

import pytest
import torch

from rrtf import loss
from rrtf.step import likelihood

WEIGHTS = {"ft_weight": 0.7, "rank_weight": 3.0}


def _batch(seed: int = 0, prompts: int = 3, responses: int = 4) -> dict[str, torch.Tensor]:
    """Random sums, lengths and scores (with ties) of `prompts` x `responses` responses."""
    draw = random.Random(seed)
    count = prompts * responses
    lengths = [draw.randint(1, 9) for _ in range(count)]
    return {
        "sums": torch.tensor([-n * draw.uniform(0.1, 3.0) for n in lengths], dtype=torch.float64),
        "lengths": torch.tensor(lengths, dtype=torch.float64),
        "scores": torch.tensor([float(draw.randint(0, 3)) for _ in range(count)]).double(),
        "prompt": torch.arange(prompts).repeat_interleave(responses),
        "teacher": torch.arange(prompts) * responses + 1,
    }


def _parts(function, b, **changes) -> loss.Parts:
    """An objective with the paper's weights but for `changes`."""
    return function(b, b["sums"], b["lengths"], replace(loss.PAPER, **changes))


def _slow_rrtf(b, *, ft_weight, rank_weight, ft_reduction, normalise=True, margin=0.0):
    total_rank = total_ft = 0.0
    s, n, r = b["sums"].tolist(), b["lengths"].tolist(), b["scores"].tolist()
    for g, tea in enumerate(b["teacher"].tolist()):
        total_ft += -s[tea] if ft_reduction == "sum" else -s[tea] / n[tea]
        for stu, owner in enumerate(b["prompt"].tolist()):
            if owner == g and r[tea] > r[stu]:
                p_tea, p_stu = (s[i] / n[i] if normalise else s[i] for i in (tea, stu))
                total_rank += -(r[tea] - r[stu]) * min(0.0, p_tea - p_stu - margin)
    prompts = len(b["teacher"])
    return rank_weight * total_rank / prompts + ft_weight * total_ft / prompts


@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("options", [{}, {"normalise": False}, {"margin": 0.3}])
def test_rrtf_equals_a_double_loop(reduction, options):
    for seed in range(5):
        b = _batch(seed)
        ours = _parts(loss.rrtf, b, **WEIGHTS, ft_reduction=reduction, **options)
        slow = _slow_rrtf(b, **WEIGHTS, ft_reduction=reduction, **options)
        assert float(ours.loss) == pytest.approx(slow, rel=1e-12)


def test_rrhf_equals_a_double_loop():
    b = _batch(1)
    p, s = (b["sums"] / b["lengths"]).tolist(), b["sums"].tolist()
    slow = 3.0 * sum(max(0.0, p[j] - p[w]) for w, j in _ordered(b)) / 3
    slow += 0.7 * sum(-s[k] for k in b["teacher"].tolist()) / 3
    assert float(_parts(loss.rrhf, b, **WEIGHTS).loss) == pytest.approx(slow, rel=1e-12)


def _with_reference(b):
    """The batch with sums of a reference, and the slow DPO losses of its ordered pairs."""
    b["reference"] = b["sums"] + torch.linspace(-1, 1, 12, dtype=torch.float64)
    s, ref = b["sums"].tolist(), b["reference"].tolist()
    return lambda beta: [
        math.log1p(math.exp(-beta * ((s[w] - s[j]) - (ref[w] - ref[j])))) for w, j in _ordered(b)
    ]


def test_dpo_equals_a_double_loop():
    b = _batch(2)
    slow = sum(_with_reference(b)(0.1))
    assert float(_parts(loss.dpo, b, beta=0.1).loss) == pytest.approx(slow / 3, rel=1e-12)


def test_dpo_with_sft_equals_a_double_loop():
    b = _batch(2)
    slow = 3.0 * sum(_with_reference(b)(0.3))
    s, n = b["sums"].tolist(), b["lengths"].tolist()
    slow += 0.7 * sum(-s[k] / n[k] for k in b["teacher"].tolist())
    ours = _parts(loss.dpo_sft, b, beta=0.3, ft_reduction="mean", **WEIGHTS)
    assert float(ours.loss) == pytest.approx(slow / 3, rel=1e-12)
    assert float(ours.loss) == pytest.approx(float(3 * ours.rank + 0.7 * ours.ft), rel=1e-12)


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_sft_on_the_best_of_each_group_equals_a_double_loop(reduction):
    b = _batch(3)
    s, n, r = b["sums"].tolist(), b["lengths"].tolist(), b["scores"].tolist()
    best, slow = [], 0.0
    for g in range(3):
        own = [k for k, owner in enumerate(b["prompt"].tolist()) if owner == g]
        best.append(max(own, key=lambda k: r[k]))
        slow += -s[best[-1]] / (n[best[-1]] if reduction == "mean" else 1) / 3
    ours = _parts(loss.sft, b | {"teacher": torch.tensor(best)}, ft_reduction=reduction)
    assert float(ours.loss) == pytest.approx(slow, rel=1e-12)


def _ordered(b):
    """(better, worse) of all pairs of one prompt, by two plain loops."""
    r, prompt = b["scores"].tolist(), b["prompt"].tolist()
    every = range(len(r))
    return [(w, j) for w in every for j in every if prompt[w] == prompt[j] and r[w] > r[j]]


def test_rrhf_as_shipped_divides_by_the_padded_width_in_both_terms():
    b = _batch(3)
    b["width"] = torch.tensor([20.0, 30.0, 25.0]).double().repeat_interleave(4)
    p = (b["sums"] / b["width"]).tolist()
    slow = sum(max(0.0, p[j] - p[w]) for w, j in _ordered(b)) / 3
    slow -= sum(p[k] for k in b["teacher"].tolist()) / 3
    double = b | {"sums": b["sums"] * 2, "width": b["width"] * 2, "lengths": b["lengths"] * 2}
    for batch in (b, double):  # the length of a response makes no difference
        found = float(_parts(loss.rrhf_as_shipped, batch).loss)
        assert found == pytest.approx(slow, rel=1e-12)


def test_simpo_equals_a_double_loop():
    b, beta, gamma = _batch(4), 2.0, 0.5
    p = (b["sums"] / b["lengths"]).tolist()
    slow = sum(math.log1p(math.exp(-(beta * (p[w] - p[j]) - gamma))) for w, j in _ordered(b))
    ours = _parts(loss.simpo, b, beta=beta, margin=gamma)
    assert float(ours.loss) == pytest.approx(slow / 3, rel=1e-12)


def test_cpos_hinge_equals_a_double_loop():
    b, beta = _batch(5), 0.1
    s, n = b["sums"].tolist(), b["lengths"].tolist()
    slow = 3.0 * sum(max(0.0, 1 - beta * (s[w] - s[j])) for w, j in _ordered(b)) / 3
    slow += 0.7 * sum(-s[k] / n[k] for k in b["teacher"].tolist()) / 3
    how = {"beta": beta, "margin": 1.0, "ft_reduction": "mean"}
    ours = _parts(loss.cpo_hinge, b, **WEIGHTS, **how)
    assert float(ours.loss) == pytest.approx(slow, rel=1e-12)


def test_pro_equals_a_double_loop():
    b = _batch(6)
    p, r = (b["sums"] / b["lengths"]).tolist(), b["scores"].tolist()
    slow = 0.0
    for k in range(12):
        lower = [j for w, j in _ordered(b) if w == k]
        if lower:
            own = math.exp(p[k] * max(r[k] - r[i] for i in lower))
            slow -= math.log(own / (own + sum(math.exp(p[i] * (r[k] - r[i])) for i in lower)))
    slow = 3.0 * slow / 3 - 0.7 * sum(p[k] for k in b["teacher"].tolist()) / 3
    ours = _parts(loss.pro, b, **WEIGHTS, ft_reduction="mean")
    assert float(ours.loss) == pytest.approx(slow, rel=1e-12)


def test_rrtf_over_all_pairs_equals_a_double_loop():
    b = _batch(9)
    p, r = (b["sums"] / b["lengths"]).tolist(), b["scores"].tolist()
    slow = sum((r[w] - r[j]) * max(0.0, p[j] - p[w]) for w, j in _ordered(b)) / 3
    slow += sum(-b["sums"][k].item() for k in b["teacher"].tolist()) / 3
    assert float(_parts(loss.rrtf, b, pairs_of="all").loss) == pytest.approx(slow, rel=1e-12)
    for option in ("pairs_of", "ft_reduction"):
        with pytest.raises(ValueError, match="expected"):
            _parts(loss.rrtf, b, **{option: "some"})


def test_no_objective_breaks_where_no_pair_is_ordered():
    b = _batch(7) | {"scores": torch.ones(12).double()}
    b["sums"].requires_grad_()
    for call in _calls(b):
        parts = call()
        parts.loss.backward()
        assert torch.isfinite(parts.loss) and torch.isfinite(b["sums"].grad).all()
        assert parts.n_pairs == 0 and math.isnan(float(parts.violated))


def test_every_objective_is_reached_by_its_name_and_an_unknown_one_is_not():
    b = _batch(8)
    b |= {"reference": b["sums"] - 1, "width": torch.full((12,), 40.0).double()}
    how = {"ft_reduction": "mean", "margin": 0.5, "beta": 0.1}
    found = {
        name: float(_parts(loss.objective(name).loss, b, **how).loss) for name in loss.OBJECTIVES
    }
    assert found.pop("best-of-n") == found["sft"]  # they differ in what a batch imitates
    assert len(set(found.values())) == len(found) == len(loss.OBJECTIVES) - 1
    with pytest.raises(ValueError, match="unknown objective 'ppo': expected one of sft, best"):
        loss.objective("ppo")


def test_what_an_objective_says_that_it_needs_is_what_it_reads():
    for name, objective in loss.OBJECTIVES.items():
        b = _batch(8) | {"width": torch.full((12,), 40.0).double()}
        if objective.reference:
            with pytest.raises(KeyError, match="reference"):
                _parts(objective.loss, b, beta=0.1)
            _with_reference(b)
        others = WEIGHTS | {"ft_reduction": "mean", "normalise": False, "margin": 0.4,
                            "pairs_of": "all", "beta": 0.3}  # fmt: skip
        whole = float(_parts(objective.loss, b, beta=0.1).loss)
        read = {
            weight
            for weight, value in others.items()
            if float(_parts(objective.loss, b, **{"beta": 0.1, weight: value}).loss) != whole
        }
        assert read == {*objective.reads} and set(others) == {*loss.Weights.__slots__}, name
        assert bool(objective.imitates) == ("ft_weight" in read) or not read, name
        alone = {key: b[key][b["teacher"]] for key in b.keys() - {"teacher"}}
        alone["teacher"] = torch.arange(3)
        assert (float(_parts(objective.loss, alone, beta=0.1).loss) != whole) == objective.compares
    with pytest.raises(ValueError, match="unknown ft_reduction 'average'"):
        _parts(loss.sft, _batch(), ft_reduction="average")


def test_sft_is_rrtf_with_rank_weight_zero():
    b = _batch(3)
    for reduction in ("sum", "mean"):
        alone = _parts(loss.sft, b, ft_reduction=reduction)
        without = _parts(loss.rrtf, b, rank_weight=0.0, ft_reduction=reduction)
        assert torch.equal(alone.loss, without.loss) and float(without.rank) > 0


def test_the_rank_term_by_hand():
    p_tea = torch.tensor([-1.0, -2.0], requires_grad=True)
    terms = loss.rank_terms(
        p_tea, torch.tensor([-2.0, -1.0]), torch.ones(2), torch.zeros(2), margin=0
    )
    terms.sum().backward()
    assert terms.tolist() == [0.0, 1.0], "nothing where the order is right"
    assert p_tea.grad.tolist() == [0.0, -1.0]
    wrong = torch.tensor([-2.0]), torch.tensor([-1.0])
    for lead in (0.0, 0.5):  # a tie without tie-break adds nothing
        found = loss.rank_terms(*wrong, torch.ones(1) + lead, torch.ones(1), margin=0)
        assert float(found) == lead


def test_sums_and_lengths_are_taken_per_response_in_any_token_order():
    logs, owner = torch.tensor([-1.0, -2.0, -4.0]), torch.tensor([1, 0, 1])
    sums, lengths = likelihood.response_sums(logs, owner, 2)
    assert (sums.tolist(), lengths.tolist()) == ([-2.0, -5.0], [1.0, 2.0])
    assert loss.mean_log_probs(sums, lengths).tolist() == [-2.0, -2.5]
    with pytest.raises(ValueError, match="response 1 has no token"):
        likelihood.response_sums(torch.zeros(2), torch.tensor([0, 2]), 3)


def _calls(b):
    """Every objective on the batch, to be called."""
    more = {"width": torch.full_like(b["sums"], 40.0).detach(), "reference": b["sums"] - 1}
    for objective in loss.OBJECTIVES.values():
        yield partial(_parts, objective.loss, b | more, **WEIGHTS, beta=0.1, margin=0.5)


def test_two_calls_with_the_same_tensors_give_the_same_and_change_none():
    b = _batch(4)
    before = {name: tensor.clone() for name, tensor in b.items()}
    for call in _calls(b):
        first, second = call(), call()
        assert torch.equal(first.loss, second.loss)
        assert all(torch.equal(b[name], before[name]) for name in b)


def test_candidate_order_does_not_matter():
    b = _batch(5)
    order = torch.tensor([3, 1, 0, 2, 6, 7, 5, 4, 9, 11, 8, 10])
    shuffled = {k: v[order] for k, v in b.items() if k != "teacher"}
    where = torch.argsort(order)
    shuffled["teacher"] = where[b["teacher"]]
    for ours, theirs in zip(_calls(b), _calls(shuffled), strict=True):
        assert float(ours().loss) == pytest.approx(float(theirs().loss), rel=1e-12)


def test_the_mean_over_equal_halves_is_the_whole_batch():
    b = _batch(6, prompts=4, responses=3)
    halves = []
    for g in (0, 2):
        part = {k: b[k][g * 3 : g * 3 + 6] for k in ("sums", "lengths", "scores")}
        part |= {"prompt": b["prompt"][g * 3 : g * 3 + 6] - g}
        halves.append(part | {"teacher": b["teacher"][g : g + 2] - g * 3})
    for whole, *parts in zip(_calls(b), *map(_calls, halves), strict=True):
        mean = sum(float(part().loss) for part in parts) / 2
        assert mean == pytest.approx(float(whole().loss), rel=1e-12)


def test_violated_counts_scored_pairs_in_the_wrong_order():
    b = {
        "sums": torch.tensor([-2.0, -1.0, -3.0, -4.0, -5.0]),
        "lengths": torch.ones(5),
        "scores": torch.tensor([3.5, 3.0, 0.0, 0.0, 0.0]),
        "prompt": torch.zeros(5, dtype=torch.long),
        "teacher": torch.tensor([0]),
    }
    parts = _parts(loss.rrtf, b)
    assert (float(parts.violated), parts.n_pairs) == (0.25, 4)
    assert float(parts.rank) == 0.5  # (3.5 - 3.0) * (-1 - -2); the other pairs are in order
    assert float(parts.loss) == 2.5


def test_only_pairs_with_the_teacher_count_in_rrtf():
    scores, prompt = torch.tensor([2.0, 1.0, 0.0]), torch.zeros(3, dtype=torch.long)
    better, worse = loss.ordered_pairs(scores, prompt)
    assert list(zip(better.tolist(), worse.tolist(), strict=True)) == [(0, 1), (0, 2), (1, 2)]
    better, worse = loss.teacher_pairs(scores, prompt, torch.tensor([1]))
    assert (better.tolist(), worse.tolist()) == ([1], [2])


def test_a_non_finite_loss_names_run_update_and_tasks():
    one = {"sums": torch.tensor([-math.inf]), "lengths": torch.ones(1)}
    parts = _parts(loss.sft, one | {"teacher": torch.tensor([0])})
    with pytest.raises(FloatingPointError, match=r"rrtf-s1: update 7: .*inf.* nano/a, nano/b"):
        loss.require_finite(parts, run="rrtf-s1", step=7, task_ids=["nano/a", "nano/b"])
